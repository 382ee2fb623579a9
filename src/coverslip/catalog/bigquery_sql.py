"""BigQuery's SQL for the tables of a catalog, as SQL of DuckDB that gives the same.

sqlglot does nearly all of it. What it leaves wrong is put right here: `WITH OFFSET` counts from 0, a text with a
decimal point is no integer, `COUNTIF` is never NULL, and tables are found without the project and dataset that BigQuery
wants.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from coverslip.errors import MissingDependencyError, UsageError

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["looks_like_bigquery", "translate_bigquery"]

_OWN_SCHEMAS = frozenset({"history", "main", "temp", "information_schema"})

_LITERAL = re.compile(r"'(?:[^'\\]|\\.|'')*'|\"(?:[^\"\\]|\\.)*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_ONLY_BIGQUERY = re.compile(
    r"`|#|\bSAFE_\w+\s*\(|\[\s*(?:SAFE_)?(?:OFFSET|ORDINAL)\s*\(|\bWITH\s+OFFSET\b|\*\s*EXCEPT\s*\(|\b(?:INT|FLOAT)64\b|"
    r"\b(?:STRUCT|ARRAY)\s*<|\b(?:FROM|JOIN)\b[^()]*?\bUNNEST\s*\([^()]*\)\s*(?:AS\s+)?(?!(?:AS|WITH|ON|WHERE|GROUP|ORDER|"
    r"CROSS|JOIN|LEFT|INNER|LIMIT|USING)\b)[A-Za-z_]\w*\b(?!\s*\()|\bCOUNTIF\s*\(|\bPARSE_DATE\s*\(|"
    r"\bFORMAT_DATE\s*\(|\bEXCEPT\s+DISTINCT\b",
    re.IGNORECASE,
)

_QUERY = re.compile(r"(?:\s|\(|--[^\n]*\n|#[^\n]*\n|/\*.*?\*/)*(?:SELECT|WITH|FROM)\b", re.DOTALL | re.IGNORECASE)
_NO_QUERY = "--sql: expected one query: SELECT ... or WITH ... SELECT ..."
_INTEGER = r"\s*[+-]?[0-9]+\s*"


def looks_like_bigquery(sql: str) -> bool:
    """Return whether SQL holds something that only BigQuery has."""
    return _ONLY_BIGQUERY.search(_LITERAL.sub("''", sql)) is not None


def translate_bigquery(sql: str) -> str:
    """Return what a query means as SQL of DuckDB.

    Raises
    ------
    UsageError
        If it is not one query of BigQuery, or holds what cannot be translated.
    """
    try:
        import sqlglot
        from sqlglot import exp
        from sqlglot.errors import SqlglotError
    except ImportError:
        raise MissingDependencyError("BigQuery's SQL needs sqlglot: pip install 'coverslip[catalog]'") from None
    if not _QUERY.match(sql):
        raise UsageError(_NO_QUERY)
    try:
        statements = [each for each in sqlglot.parse(sql, read="bigquery") if each is not None]
        if len(statements) != 1 or not isinstance(statements[0], exp.Query):
            raise UsageError(_NO_QUERY)
        _find_tables(statements[0])
        tree = sqlglot.parse_one(statements[0].sql(dialect="duckdb"), read="duckdb")
        for node in list(tree.find_all(exp.Unnest)):
            _count_from_zero(node)
        return tree.transform(_cast_strictly).transform(_count_from_none).sql(dialect="duckdb")
    except SqlglotError as error:
        raise UsageError(f"--sql: {_first_line(str(error))}") from None


def _first_line(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()[0]


def _find_tables(tree: exp.Expr) -> None:
    """Let `project.dataset.table` be the table of that name in the catalog."""
    from sqlglot import exp

    for table in tree.find_all(exp.Table):
        if table.catalog or (table.db and table.db.lower() not in _OWN_SCHEMAS):
            alias = table.args.get("alias")
            table.set("catalog", None)
            table.set("db", None)
            if alias is None:
                table.set("alias", exp.TableAlias(this=exp.to_identifier(table.name)))


def _count_from_zero(node: exp.Unnest) -> None:
    """Put a lateral query in place of an UNNEST whose places are asked for: those of DuckDB begin with 1."""
    import sqlglot
    from sqlglot import exp

    place = node.args.get("offset")
    if not place:
        return
    alias = node.args.get("alias")
    columns = [each.name for each in alias.columns] if alias else []
    if isinstance(place, exp.Expression):
        columns.append(place.name)
    if len(node.expressions) != 1 or len(columns) != 2:
        raise UsageError("--sql: WITH OFFSET is translated for UNNEST of one array that has a name")
    array = node.expressions[0].sql(dialect="duckdb")
    value, offset = (exp.to_identifier(name, quoted=True).sql(dialect="duckdb") for name in columns)
    query = sqlglot.parse_one(
        f"SELECT UNNEST({array}) AS {value}, GENERATE_SUBSCRIPTS({array}, 1) - 1 AS {offset}", read="duckdb"
    )
    name = alias.this.copy() if alias and alias.this else exp.to_identifier("_offsets")
    node.replace(exp.Lateral(this=exp.Subquery(this=query), alias=exp.TableAlias(this=name)))


def _cast_strictly(node: exp.Expr) -> exp.Expr:
    """Let a text such as 40.0 be no integer, as in BigQuery; DuckDB rounds it."""
    import sqlglot
    from sqlglot import exp

    if not isinstance(node, exp.Cast | exp.TryCast) or not node.to.is_type(*exp.DataType.INTEGER_TYPES):
        return node
    if isinstance(node.this, exp.Literal) and not node.this.is_string:
        return node
    value = node.this.sql(dialect="duckdb")
    cast = "TRY_CAST" if isinstance(node, exp.TryCast) else "CAST"
    otherwise = "NULL" if cast == "TRY_CAST" else f"error('no integer: ' || CAST({value} AS VARCHAR))"
    return sqlglot.parse_one(
        f"CASE WHEN typeof({value}) = 'VARCHAR' AND NOT regexp_full_match(CAST({value} AS VARCHAR), '{_INTEGER}') "
        f"THEN {otherwise} ELSE {cast}({value} AS {node.to.sql(dialect='duckdb')}) END",
        read="duckdb",
    )


def _count_from_none(node: exp.Expr) -> exp.Expr:
    """Let COUNTIF be 0 where its condition is NULL in every row; DuckDB's is NULL then."""
    from sqlglot import exp

    if not isinstance(node, exp.CountIf):
        return node
    return exp.Count(this=exp.Case(ifs=[exp.If(this=node.this, true=exp.Literal.number(1))]))
