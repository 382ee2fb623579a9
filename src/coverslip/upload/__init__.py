"""Delivers series to stores, proves what arrived, and takes them back."""
