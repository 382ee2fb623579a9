"""SQL of DuckDB as SQL of BigQuery: what our views and conditions hold, and no more.

sqlglot knows most of it. What it would translate into something else is put right on the tree before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from sqlglot import exp

__all__ = ["condition_to_bigquery", "to_bigquery"]


def to_bigquery(sql: str, find_table: Callable[[exp.Table], None] | None = None) -> str:
    """Return a query, with names of tables as `find_table` gives them."""
    import sqlglot
    from sqlglot import exp

    tree = sqlglot.parse_one(sql, read="duckdb")
    if find_table is not None:
        for table in list(tree.find_all(exp.Table)):
            if isinstance(table.this, exp.Identifier):
                find_table(table)
    return _write(tree)


def condition_to_bigquery(sql: str) -> str:
    """Return a condition or value of a search."""
    import sqlglot

    return _write(sqlglot.parse_one(sql, read="duckdb"))


def _write(tree: exp.Expr) -> str:
    from sqlglot import ErrorLevel

    # From the leaves up, so that what is put in place of a node holds what was put right below it.
    for node in reversed(list(tree.walk())):
        right = _put_right(node)
        if right is not node:
            tree = right if node is tree else tree
            node.replace(right)
    # The order of NULL that DuckDB wants is told where it matters; BigQuery's aggregates leave NULL out.
    return tree.sql(dialect="bigquery", unsupported_level=ErrorLevel.IGNORE, comments=False)


def _put_right(node: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    if isinstance(node, exp.Identifier):
        # Rows and the like are words of BigQuery's.
        return exp.Identifier(this=node.this, quoted=True)
    if isinstance(node, exp.Contains):
        return exp.paren(exp.GT(this=_function("STRPOS", node.this, node.expression), expression=_number(0)))
    if isinstance(node, exp.ConcatWs):
        separator, *texts = node.expressions
        return _function("ARRAY_TO_STRING", exp.Array(expressions=texts), separator)
    if isinstance(node, exp.Escape):
        return cast("exp.Expr", node.this)  # a backslash is BigQuery's own
    if isinstance(node, exp.GT) and isinstance(node.this, exp.Length) and isinstance(node.this.this, exp.ArrayFilter):
        return _exists(node.this.this.this, node.this.this.expression)
    if isinstance(node, exp.ArrayContains) and isinstance(node.this, exp.Transform):
        inner = node.this.expression
        same = exp.EQ(this=inner.this, expression=node.expression)
        return _exists(node.this.this, exp.Lambda(this=same, expressions=inner.expressions))
    if isinstance(node, exp.Log) and isinstance(node.this, exp.Literal) and node.this.this == "10":
        return _function("LOG10", node.expression)
    return node


def _exists(values: exp.Expr, test: exp.Expr) -> exp.Expr:
    """Return ``EXISTS(SELECT 1 FROM UNNEST(values) AS name WHERE test)``."""
    from sqlglot import exp

    name = test.expressions[0]
    unnest = exp.Unnest(expressions=[values], alias=exp.TableAlias(columns=[name]))
    return exp.Exists(this=exp.select("1").from_(unnest).where(test.this))


def _function(name: str, *arguments: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    return exp.Anonymous(this=name, expressions=list(arguments))


def _number(value: int) -> exp.Expr:
    from sqlglot import exp

    return exp.Literal.number(value)
