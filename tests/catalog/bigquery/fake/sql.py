"""BigQuery's SQL, checked by its rules of types and run by DuckDB.

sqlglot translates, and says what type an expression has. DuckDB forgives what BigQuery refuses: text beside numbers,
functions of its own, names of no table. These are refused before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import sqlglot
from sqlglot import ErrorLevel, exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.annotate_types import annotate_types
from sqlglot.optimizer.qualify import qualify
from sqlglot.schema import MappingSchema
from sqlglot.tokens import TokenType

from tests.catalog.bigquery.fake.failures import Refused, invalid_query
from tests.catalog.bigquery.fake.schemas import sql_type

__all__ = ["Statement", "Tables", "parse_script"]

MAX_QUERY = 1024 * 1024
# Functions of BigQuery that sqlglot has no class for; any other one is refused.
_FUNCTIONS = {"STRPOS", "ARRAY_TO_STRING", "ARRAY_LENGTH", "LOG10", "TO_JSON_STRING", "ERROR", "FARM_FINGERPRINT"}
_NOT_BIGQUERY = (
    exp.List, exp.ToMap, exp.Map, exp.VarMap, exp.ArrayFilter, exp.Transform, exp.GenerateSeries, exp.Contains,
    exp.ArrayContains, exp.Escape, exp.RegexpFullMatch,
)  # fmt: skip

_FAMILIES = {
    "text": exp.DataType.TEXT_TYPES,
    "number": exp.DataType.NUMERIC_TYPES,
    "bool": {exp.DataType.Type.BOOLEAN},
    "date": {exp.DataType.Type.DATE},
    "time": {exp.DataType.Type.TIME},
    "timestamp": {exp.DataType.Type.TIMESTAMPTZ, exp.DataType.Type.TIMESTAMPLTZ, exp.DataType.Type.TIMESTAMP},
    "array": {exp.DataType.Type.ARRAY, exp.DataType.Type.LIST},
    "struct": {exp.DataType.Type.STRUCT},
}


@dataclass
class Tables:
    """What the SQL may name.

    Parameters
    ----------
    fields : callable
        Schema of a table or view by (project, dataset, table); None if it is not there.
    default : (project, dataset)
    """

    fields: Callable[[tuple[str, str, str]], list[dict] | None]
    default: tuple[str, str] | None
    project: str


@dataclass
class Statement:
    """A statement that was checked.

    Parameters
    ----------
    kind : str
        As BigQuery names it.
    sql : str
        For DuckDB.
    tables : list
        (project, dataset, table) of all that it names.
    columns : set of str
        Names of columns that stand in it, in lower case; ``*`` for all.
    buckets : list of int or None
        Partitions that it is confined to by literals.
    """

    kind: str
    sql: str
    tables: list[tuple[str, str, str]]
    columns: set[str]
    buckets: list[int] | None
    assertion: str | None = None
    target: tuple[str, str, str] | None = None


def parse_script(text: str, tables: Tables, parameters: Sequence[Mapping[str, Any]]) -> Iterator[Statement]:
    """Yield the statements of a query or script; each is parsed and checked when it is asked for."""
    if len(text) > MAX_QUERY:
        raise invalid_query("The query is too large: more than 1024.00K characters")
    given = _Parameters(parameters)
    text = given.name_placeholders(text)
    for each in _split(text):
        try:
            yield _statement(each, tables, given)
        except SqlglotError as error:
            raise invalid_query(f"Syntax error: {str(error).splitlines()[0]}") from None


def _split(text: str) -> Iterator[str]:
    start = 0
    for token in sqlglot.tokenize(text, read="bigquery"):
        if token.token_type == TokenType.SEMICOLON:
            if text[start : token.start].strip():
                yield text[start : token.start].strip()
            start = token.end + 1
    if text[start:].strip():
        yield text[start:].strip()


def _statement(text: str, tables: Tables, given: _Parameters) -> Statement:
    if re.fullmatch(r"BEGIN\s+TRANSACTION", text):
        return Statement("BEGIN_TRANSACTION", "BEGIN TRANSACTION", [], set(), None)
    if re.fullmatch(r"COMMIT\s+TRANSACTION", text):
        return Statement("COMMIT_TRANSACTION", "COMMIT", [], set(), None)
    asserted = re.fullmatch(r"ASSERT\s+(.*)\s+AS\s+'([^']*)'", text, re.DOTALL)
    if asserted:
        found = _statement(f"SELECT {asserted[1]}", tables, given)
        return Statement("ASSERT", found.sql, found.tables, found.columns, None, asserted[2])
    tree = sqlglot.parse_one(text, read="bigquery")
    kinds = {exp.Merge: "MERGE", exp.Update: "UPDATE", exp.Delete: "DELETE", exp.Insert: "INSERT"}
    kind = "SELECT" if isinstance(tree, exp.Query) else kinds.get(type(tree))
    if kind is None:
        raise invalid_query(f"Unsupported statement in this fake: {type(tree).__name__}")
    if kind in ("UPDATE", "DELETE") and tree.args.get("where") is None:
        raise invalid_query(f"{kind} must have a WHERE clause")
    given.fill(tree)
    named = _resolve(tree, tables)
    _check_functions(tree)
    fields = json.dumps([tables.fields(whole) for whole in named])
    kinds_given = json.dumps([each["parameterType"] for each in given.all])
    checked = (re.sub(r"[0-9a-f]{32}", "", text), kinds_given, fields)
    if checked not in _CHECKED:
        _check_types(tree, tables, named)
        _CHECKED.add(checked)
    columns = {each.name.lower() for each in tree.find_all(exp.Column)}
    if any(True for _ in tree.find_all(exp.Star)):
        columns.add("*")
    target = None
    if kind != "SELECT":
        table = tree.find(exp.Table)
        assert table is not None
        target = (table.catalog, table.db, table.name)
    buckets = _buckets(tree)
    return Statement(kind, _to_duckdb(tree), named, columns, buckets, None, target)


_CHECKED: set[tuple[str, str, str]] = set()
"""Texts whose types were found to fit; those of parameters and tables stand beside them."""


class _Parameters:
    def __init__(self, given: Sequence[Mapping[str, Any]]) -> None:
        self.all = list(given)
        self.named = {each["name"]: each for each in given if each.get("name")}
        self.positional = [each for each in given if not each.get("name")]

    def name_placeholders(self, text: str) -> str:
        """Return the text with a name for each question mark that is a parameter, in their order."""
        tokens = [each for each in sqlglot.tokenize(text, read="bigquery") if each.token_type == TokenType.PLACEHOLDER]
        if len(tokens) > len(self.positional):
            raise invalid_query("Query has more positional parameters than were given")
        for number, token in reversed(list(enumerate(tokens))):
            self.named[f"_p{number}"] = self.positional[number]
            text = f"{text[: token.start]}@_p{number}{text[token.end + 1 :]}"
        return text

    def fill(self, tree: exp.Expr) -> None:
        """Put values in place of parameters, each of its own type."""
        for node in list(tree.find_all(exp.Parameter)):
            name = node.this.name
            if name not in self.named:
                raise invalid_query(f"Query parameter '{name}' not found")
            node.replace(_literal(self.named[name]))


def _literal(parameter: Mapping[str, Any]) -> exp.Expr:
    kind, value = parameter["parameterType"], parameter["parameterValue"]
    if kind["type"] == "ARRAY":
        inner = kind["arrayType"]["type"]
        values = [_scalar(inner, each["value"]) for each in value.get("arrayValues", ())]
        return exp.cast(exp.Array(expressions=values), f"ARRAY<{inner}>", dialect="bigquery")
    return _scalar(kind["type"], value.get("value"))


def _scalar(kind: str, value: Any) -> exp.Expr:
    if kind not in ("STRING", "INT64", "FLOAT64", "BOOL", "DATE"):
        raise invalid_query(f"Invalid type of a parameter: {kind}")
    if isinstance(value, float) and kind == "FLOAT64":
        value = repr(value)
    if value is not None and not isinstance(value, str):
        raise invalid_query("Values of parameters are texts")
    literal = exp.null() if value is None else exp.Literal.string(value)
    if kind == "STRING" and value is not None:
        return literal
    return exp.cast(literal, kind, dialect="bigquery")


def _resolve(tree: exp.Expr, tables: Tables) -> list[tuple[str, str, str]]:
    """Give every table its whole name, and refuse those that are not there."""
    named = []
    own = {each.alias for each in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        if not isinstance(table.this, exp.Identifier):
            raise invalid_query(f"Table-valued function not found: {table.this.sql()}")
        parts = [part for each in (table.catalog, table.db, table.name) if each for part in each.split(".")]
        if len(parts) == 1 and parts[0] in own:
            continue
        if len(parts) == 1:
            if tables.default is None:
                raise invalid_query(f'Table "{parts[0]}" must be qualified with a dataset (e.g. dataset.table).')
            parts = [*tables.default, *parts]
        elif len(parts) == 2:
            parts = [tables.project, *parts]
        whole = (parts[0], parts[1], parts[2])
        if tables.fields(whole) is None:
            raise Refused(404, "notFound", f"Not found: Table {whole[0]}:{whole[1]}.{whole[2]} was not found")
        if not table.args.get("alias"):
            table.set("alias", exp.TableAlias(this=exp.to_identifier(whole[2], quoted=True)))
        for part, name in zip(("catalog", "db", "this"), whole, strict=True):
            table.set(part, exp.to_identifier(name, quoted=True))
        named.append(whole)
    return named


def _check_functions(tree: exp.Expr) -> None:
    for node in tree.walk():
        if isinstance(node, exp.Anonymous) and node.name.upper() not in _FUNCTIONS:
            raise invalid_query(f"Function not found: {node.name}")
        if isinstance(node, _NOT_BIGQUERY):
            raise invalid_query(f"Function not found: {node.key}")


def _check_types(tree: exp.Expr, tables: Tables, named: list[tuple[str, str, str]]) -> None:
    schema = MappingSchema(dialect="bigquery")
    for whole in dict.fromkeys(named):
        fields = tables.fields(whole) or []
        columns = {field["name"]: sql_type(field) for field in fields}
        schema.add_table(exp.table_(whole[2], whole[1], whole[0], quoted=True), columns, dialect="bigquery")
    if isinstance(tree, exp.Query):
        _check_query(tree.copy(), schema)
        return
    if isinstance(tree, exp.Merge):
        _check_merge(tree, schema, tables)
        return
    target = tree.find(exp.Table)
    assert target is not None
    where = tree.args.get("where")
    values = []
    if isinstance(tree, exp.Update):
        values = [(each.this.name, each.expression) for each in tree.expressions]
    if isinstance(tree, exp.Insert):
        raise invalid_query("Unsupported statement in this fake: INSERT")
    select = exp.select("1", *(value.copy() for _, value in values)).from_(target.copy())
    if where is not None:
        select = select.where(where.this.copy())
    _check_assigned(_check_query(select, schema)[1:], [name for name, _ in values], _fields(tables, target))


def _fields(tables: Tables, table: exp.Table) -> list[dict]:
    return tables.fields((table.catalog, table.db, table.name)) or []


def _check_merge(tree: exp.Merge, schema: MappingSchema, tables: Tables) -> None:
    """Check all clauses at once: what they assign, and when."""
    target, source = tree.this, tree.args["using"]
    fields = _fields(tables, target)
    assigned: dict[tuple[str, str], exp.Expr] = {}
    select = exp.select("1").from_(source.copy()).join(target.copy(), on=tree.args["on"].copy())
    for when in tree.args["whens"].expressions:
        then = when.args["then"]
        names: list[str] = []
        values: list[exp.Expr] = []
        if isinstance(then, exp.Update):
            names = [each.this.name for each in then.expressions]
            values = [each.expression for each in then.expressions]
        elif isinstance(then, exp.Insert):
            names = [each.name for each in then.this.expressions]
            values = then.expression.expressions
            missing = {each["name"] for each in fields if each["mode"] == "REQUIRED"} - set(names)
            if missing:
                raise invalid_query(f"Required column {sorted(missing)[0]} is not inserted")
        if len(names) != len(values) or len({name.lower() for name in names}) != len(names):
            raise invalid_query("Inserted row has wrong column count")
        assigned |= {(name, value.sql("bigquery")): value for name, value in zip(names, values, strict=True)}
        if when.args.get("condition") is not None:
            select = select.where(when.args["condition"].copy())
    select = select.select(*(value.copy() for value in assigned.values()))
    _check_assigned(_check_query(select, schema)[1:], [name for name, _ in assigned], fields)


def _check_assigned(types: list[exp.DataType | None], names: list[str], fields: list[dict]) -> None:
    by_name = {field["name"].lower(): field for field in fields}
    for kind, name in zip(types, names, strict=True):
        field = by_name.get(name.lower())
        if field is None:
            raise invalid_query(f"Column {name} is not present in the table")
        wanted = exp.DataType.build(sql_type(field), dialect="bigquery")
        if kind is None or kind.this in (exp.DataType.Type.NULL, exp.DataType.Type.UNKNOWN):
            continue
        if _family(kind) != _family(wanted) or (
            _family(kind) == "number" and _is_integer(wanted) and not _is_integer(kind)
        ):
            raise invalid_query(f"Value has type {kind.sql('bigquery')} which cannot be inserted into column {name}, "
                                f"which has type {wanted.sql('bigquery')}")  # fmt: skip
        if _family(kind) in ("array", "struct") and _plain(kind) != _plain(wanted):
            raise invalid_query(f"Value has another type than column {name}")


def _plain(kind: exp.DataType) -> str:
    return kind.sql("bigquery").lower().replace("`", "").replace(" ", "")


def _is_integer(kind: exp.DataType) -> bool:
    return kind.this in exp.DataType.INTEGER_TYPES


def _check_query(tree: exp.Expr, schema: MappingSchema) -> list[exp.DataType | None]:
    """Refuse what compares or joins values of different types, and return the types of the columns."""
    try:
        tree = qualify(tree, schema=schema, dialect="bigquery")
    except SqlglotError as error:
        raise invalid_query(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).splitlines()[0]) from None
    tree = annotate_types(tree, schema=schema, dialect="bigquery")
    for node in tree.walk():
        for group, wanted in _operands(node):
            families = {f for each in group if not isinstance(each, exp.Null) and (f := _family(each.type))}
            if len(families) > 1 or (families and wanted and families != {wanted}):
                told = ", ".join(sorted(families))
                raise invalid_query(f"No matching signature for {node.key} for argument types: {told}")
    return [each.type for each in tree.selects]


def _operands(node: exp.Expr) -> Iterator[tuple[list[exp.Expr], str | None]]:
    """Yield what has to be of one type, and which one if that is fixed."""
    if isinstance(node, exp.EQ | exp.NEQ | exp.GT | exp.GTE | exp.LT | exp.LTE | exp.NullSafeEQ):
        yield [node.this, node.expression], None
    elif isinstance(node, exp.Like):
        yield [node.this, node.expression], "text"
    elif isinstance(node, exp.DPipe | exp.Concat):
        yield ([node.this, node.expression] if isinstance(node, exp.DPipe) else list(node.expressions)), None
    elif isinstance(node, exp.Lower | exp.Upper):
        yield [node.this], "text"
    elif isinstance(node, exp.StrPosition):
        yield [node.this, node.args["substr"]], "text"
    elif isinstance(node, exp.Coalesce):
        yield [node.this, *node.expressions], None
    elif isinstance(node, exp.Case):
        yield [*(each.args["true"] for each in node.args["ifs"]), *filter(None, [node.args.get("default")])], None
    elif isinstance(node, exp.In) and not node.args.get("query") and not node.args.get("unnest"):
        yield [node.this, *node.expressions], None
    elif isinstance(node, exp.Add | exp.Sub | exp.Mul | exp.Div):
        yield [node.this, node.expression], None
    elif isinstance(node, exp.And | exp.Or):
        yield [node.this, node.expression], "bool"
    elif isinstance(node, exp.Not):
        yield [node.this], "bool"


def _family(kind: exp.DataType | None) -> str | None:
    if kind is None:
        return None
    return next((name for name, types in _FAMILIES.items() if kind.this in types), None)


def _buckets(tree: exp.Expr) -> list[int] | None:
    for node in tree.find_all(exp.In):
        if node.this.name == "series_bucket" and all(isinstance(each, exp.Literal) for each in node.expressions):
            return [int(each.name) for each in node.expressions]
    return None


def _to_duckdb(tree: exp.Expr) -> str:
    tree = tree.copy()
    for node in list(tree.find_all(exp.In)):
        unnest = node.args.get("unnest")
        if unnest is not None:
            array = unnest.expressions[0] if isinstance(unnest, exp.Unnest) else unnest
            node.replace(exp.ArrayContains(this=array.copy(), expression=node.this.copy()))
    for table in tree.find_all(exp.Table):
        if table.catalog:
            table.set("db", exp.to_identifier(f"{table.catalog}.{table.db}", quoted=True))
            table.set("catalog", None)
    for node in list(tree.find_all(exp.Unnest)):
        if node.args.get("offset"):
            _count_from_zero(node)
    tree = _mean_the_same(tree)
    return tree.sql(dialect="duckdb", unsupported_level=ErrorLevel.RAISE, comments=False)


def _mean_the_same(tree: exp.Expr) -> exp.Expr:
    """Put right what DuckDB would take for something else, or not at all."""
    for node in list(tree.find_all(exp.Bracket)):
        if node.args.get("offset") == 0:  # places of BigQuery's, whatever gives them
            place = exp.Add(this=exp.paren(node.expressions[0].copy()), expression=exp.Literal.number(1))
            node.replace(exp.Anonymous(this="list_extract", expressions=[node.this.copy(), place]))
    for node in list(tree.find_all(exp.Like)):
        node.replace(exp.Escape(this=node.copy(), expression=exp.Literal.string("\\")))
    tree = tree.transform(_cast_strictly)
    for node in tree.find_all(exp.Round):
        if node.args.get("decimals"):
            node.set("decimals", exp.cast(node.args["decimals"], "INT"))
    return tree


def _cast_strictly(node: exp.Expr) -> exp.Expr:
    """Let a text such as 40.0 be no integer; DuckDB rounds it."""
    if not isinstance(node, exp.Cast | exp.TryCast) or not _is_integer(node.to):
        return node
    value = node.this.sql(dialect="duckdb")
    strict = "TRY_CAST" if isinstance(node, exp.TryCast) else "CAST"
    otherwise = "NULL" if isinstance(node, exp.TryCast) else "error('Bad int64 value')"
    return sqlglot.parse_one(
        f"CASE WHEN typeof({value}) = 'VARCHAR' AND NOT regexp_full_match(CAST({value} AS VARCHAR), '[+-]?[0-9]+') "
        f"THEN {otherwise} ELSE {strict}({value} AS BIGINT) END",
        read="duckdb",
    )


def _count_from_zero(node: exp.Unnest) -> None:
    """Let places begin with 0: those of DuckDB begin with 1."""
    select = node.find_ancestor(exp.Select)
    name = node.args["offset"].name
    assert select is not None
    for column in list(select.find_all(exp.Column)):
        if column.name == name:
            column.replace(exp.paren(exp.Sub(this=column.copy(), expression=exp.Literal.number(1))))


def run(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection:
    """Run a statement of DuckDB, with its failures told as BigQuery's."""
    try:
        return connection.execute(sql)
    except duckdb.Error as error:
        raise invalid_query(f"{json.dumps(str(error).splitlines()[0])[1:300]}") from None
