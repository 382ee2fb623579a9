"""Many slides through all stages."""
