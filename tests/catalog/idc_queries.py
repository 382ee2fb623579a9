"""IDC's own queries, from its package, in the words of DuckDB: the judge of our views."""

from __future__ import annotations

from importlib import resources

import sqlglot
from sqlglot import exp

QUERIES = ("idc_index", "sm_index", "sm_instance_index")


def query(name: str) -> str:
    """Return a query of IDC's over `dicom_all` and the other tables, whatever the data set they lie in there."""
    text = (resources.files("idc_index_data") / f"{name}.sql").read_text(encoding="utf-8")
    tree = sqlglot.parse_one(text, read="bigquery")
    for table in tree.find_all(exp.Table):
        table.set("db", None)
        table.set("catalog", None)
    tree.set("order", None)  # rows are compared as sets; DuckDB cannot order by such a column
    for rounded in tree.find_all(exp.Round):
        rounded.set("decimals", exp.cast(rounded.args["decimals"], "INT"))
    for joined in list(tree.find_all(exp.GroupConcat)):
        joined.replace(_sorted_texts(joined))
    return tree.sql(dialect="duckdb", comments=False)


def _sorted_texts(joined: exp.GroupConcat) -> exp.Expression:
    """Return STRING_AGG(DISTINCT x ORDER BY x), which DuckDB refuses, as a sorted list that is joined."""
    distinct = joined.find(exp.Distinct)
    assert distinct is not None
    value = distinct.expressions[0].sql(dialect="duckdb")
    text = f"array_to_string(list_sort(list(DISTINCT {value}) FILTER (({value}) IS NOT NULL)), ',')"
    return sqlglot.parse_one(text, read="duckdb")
