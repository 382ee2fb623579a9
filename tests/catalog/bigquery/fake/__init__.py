"""A strict stand-in for BigQuery's REST API on loopback, with DuckDB behind it."""
