"""Grids, pyramids, codecs and the streaming pass that turns a base level into all levels."""
