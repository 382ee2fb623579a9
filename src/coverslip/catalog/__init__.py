"""DICOM headers as the tables that users of the Imaging Data Commons search, in DuckDB, Parquet and NDJSON."""
