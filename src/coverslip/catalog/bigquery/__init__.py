"""The catalog in a data set of BigQuery: the same tables and views, written and searched through its REST API.

What a merge changes is computed in a small catalog of DuckDB that holds the rows it concerns (`working_copy`), by the
code that merges into a file; then the changes are staged and applied in one transaction (`commit`).
"""
