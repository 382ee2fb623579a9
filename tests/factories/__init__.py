"""Synthetic slides for tests, demo and benchmarks: the same arguments give the same bytes."""
