"""`coverslip map`: check a table, show what becomes of a slide, draft a map."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.errors import StoreError, UsageError, ValidationFailedError

if TYPE_CHECKING:
    from coverslip.metadata_maps.check import CheckReport
    from coverslip.metadata_maps.evaluate import AttributeTree, AttributeValue, MappedSlide, Problem
    from coverslip.metadata_maps.tables import Table

__all__ = ["map_group", "read_second_tables"]

CHECK_EXAMPLES = """
\b
Examples:
  coverslip map check slides.csv --map tcga
  coverslip map check slides.xlsx --map mine.toml --slides /data/slides
  coverslip map check files.csv --map ccdi --table sample=samples.csv --csv
"""

_map_option = click.option("--map", "map_name", required=True, metavar="NAME|FILE", help="Shipped map, or a TOML file.")
_table_option = click.option(
    "--table", "pairs", metavar="NAME=FILE", multiple=True, help="Second table that the map asks for; may be repeated."
)
_file = click.Path(path_type=Path, dir_okay=False)


@click.group("map", short_help="Check, show and draft metadata maps.")
def map_group() -> None:
    """Check a curator's table, show what becomes of a slide, draft a map.

    No slide is opened by these commands.
    """


@map_group.command(epilog=CHECK_EXAMPLES, short_help="Tell what is wrong with a table before anything is converted.")
@click.argument("table", type=_file)
@_map_option
@_table_option
@click.option(
    "--slides",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the slides: also tell which have no row, and which rows no slide.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--csv", "as_csv", is_flag=True, help="One line per problem and row.")
def check(table: Path, map_name: str, pairs: tuple[str, ...], slides: Path | None, as_json: bool, as_csv: bool) -> None:
    """Check each row of TABLE against a map.

    Exits with 5 if a slide could not be converted with what the table says.
    """
    from coverslip.metadata_maps.check import check_table, find_slides
    from coverslip.metadata_maps.language import load_map
    from coverslip.metadata_maps.tables import read_table

    if as_json and as_csv:
        raise UsageError("--json and --csv: wanted one of them")
    metadata_map = load_map(map_name)
    found = find_slides(slides) if slides else None
    report = check_table(metadata_map, read_table(table), read_second_tables(pairs), found)
    if as_json:
        click.echo(json.dumps(_report_as_json(report), indent=2, ensure_ascii=False))
    elif as_csv:
        click.echo(_problems_as_csv(report.problems), nl=False)
    else:
        _print_report(report)
    if report.errors:
        raise click.exceptions.Exit(ValidationFailedError.exit_code)


@map_group.command(short_help="Show the attributes that a slide would have.")
@click.argument("slide", type=click.Path(path_type=Path))
@click.option("--metadata", "table", required=True, type=_file, help="The curator's table.")
@_map_option
@_table_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def show(slide: Path, table: Path, map_name: str, pairs: tuple[str, ...], as_json: bool) -> None:
    """Show the attributes that SLIDE would have, and where each comes from. The slide need not exist."""
    from coverslip.metadata_maps.evaluate import apply_map, slide_facts
    from coverslip.metadata_maps.language import load_map
    from coverslip.metadata_maps.matching import RowFinder
    from coverslip.metadata_maps.tables import read_table

    metadata_map, facts = load_map(map_name), slide_facts(slide)
    match = RowFinder(metadata_map, read_table(table)).find(facts)
    if match.ambiguous:
        raise UsageError(
            f"{slide.name!r} may be that of the rows {_row_numbers(row.number for row in match.ambiguous)}"
        )
    if not match.rows:
        raise UsageError(f"{slide.name!r} has no row in {table.name!r} by the column {match.column!r}")
    mapped = apply_map(metadata_map, facts, match.rows, read_second_tables(pairs))
    if as_json:
        click.echo(json.dumps(_slide_as_json(mapped), indent=2, ensure_ascii=False))
    else:
        _print_slide(mapped, [row.number for row in match.rows])
    if mapped.has_errors:
        raise click.exceptions.Exit(ValidationFailedError.exit_code)


@map_group.command(short_help="Draft a map from the columns of a table.")
@click.argument("table", type=_file)
@click.option("-o", "--output", type=_file, help="File for the map; default: standard output.")
def new(table: Path, output: Path | None) -> None:
    """Draft a map from the columns of TABLE: guesses to be read, and values to be mapped."""
    from coverslip.metadata_maps.draft import draft_map
    from coverslip.metadata_maps.tables import read_table

    text = draft_map(read_table(table))
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"-o {output.name!r}: is already there") from None
    except OSError as error:
        raise StoreError(f"{output.name!r}: cannot be written: {error.strerror}") from None


def read_second_tables(pairs: Iterable[str]) -> dict[str, Table]:
    """Read the tables of ``--table NAME=FILE`` options, by name.

    Raises
    ------
    UsageError
        If one is not of that form, or given twice.
    """
    from coverslip.metadata_maps.tables import read_table

    tables: dict[str, Table] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not name or not equals or not file:
            raise UsageError(f"--table {pair}: wanted NAME=FILE")
        if name in tables:
            raise UsageError(f"--table {name}: is given twice")
        tables[name] = read_table(Path(file))
    return tables


def _problem_as_json(problem: Problem) -> dict[str, Any]:
    return {
        "severity": str(problem.severity).lower(),
        "kind": problem.kind,
        "row": problem.row,
        "column": problem.column,
        "keyword": problem.keyword,
        "message": problem.message,
    }


def _report_as_json(report: CheckReport) -> dict[str, Any]:
    return {
        "rows": report.rows,
        "slides": report.slides,
        "errors": report.errors,
        "problems": [_problem_as_json(problem) for problem in report.problems],
        "absent_columns": report.absent_columns,
        "unused_columns": report.unused_columns,
    }


def _problems_as_csv(problems: Iterable[Problem]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, ["severity", "kind", "row", "column", "keyword", "message"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_problem_as_json(problem) for problem in problems)
    return text.getvalue()


def _print_report(report: CheckReport) -> None:
    """Print what is wrong, the same problem of several rows once."""
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    grouped: dict[tuple[str, str, str, str, str], list[int | None]] = {}
    for problem in report.problems:
        key = (str(problem.severity).lower(), problem.kind, problem.column, problem.keyword, problem.message)
        grouped.setdefault(key, []).append(problem.row)
    if grouped:
        grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in ("problem", "attribute", "column", "what", "rows"):
            grid.add_column(heading, overflow="fold")
        for (severity, kind, column, keyword, message), rows in grouped.items():
            kind = f"{kind} ({severity})" if severity != "error" else kind
            numbers = _row_numbers(row for row in rows if row is not None)
            grid.add_row(*(Text(cell) for cell in (kind, keyword, column, message, numbers)))
        Console(file=sys.stdout, highlight=False).print(grid)
    warnings = len(report.problems) - report.errors
    counts = f"{_count(report.errors, 'error')}, {_count(warnings, 'warning')}"
    click.echo(f"{_count(report.rows, 'row')}, {_count(report.slides, 'slide')}: {counts}")
    for what, columns in (("could use", report.absent_columns), ("does not use", report.unused_columns)):
        if columns:
            click.echo(f"columns the map {what}: {', '.join(columns)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _row_numbers(numbers: Iterable[int]) -> str:
    """Return the first rows and how many more there are."""
    rows = list(numbers)
    more = f" and {len(rows) - 5} more" if len(rows) > 5 else ""
    return ", ".join(map(str, rows[:5])) + more


def _slide_as_json(slide: MappedSlide) -> dict[str, Any]:
    return {
        "container_identifier": slide.container_identifier,
        "attributes": _value_as_json(slide.attributes),
        "specimens": _value_as_json(slide.specimens),
        "optical_paths": _value_as_json(slide.optical_paths),
        "collection": slide.collection,
        "origins": slide.origins,
        "problems": [_problem_as_json(problem) for problem in slide.problems],
    }


def _value_as_json(value: AttributeTree | AttributeValue) -> Any:
    from coverslip.metadata_maps.codes import Code
    from coverslip.metadata_maps.evaluate import code_item

    if isinstance(value, Code):
        return [code_item(value)]
    if isinstance(value, dict):
        return {key: _value_as_json(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_value_as_json(each) for each in value]
    return value


def _print_slide(slide: MappedSlide, rows: list[int]) -> None:
    """Print attributes as a tree, each with its origin."""
    click.echo(f"{'row' if len(rows) == 1 else 'rows'} {_row_numbers(rows)}")
    tree = dict(slide.attributes)
    if slide.specimens:
        tree["SpecimenDescriptionSequence"] = slide.specimens
    if slide.optical_paths:
        tree["OpticalPathSequence"] = slide.optical_paths
    for line in _tree_lines(tree, "", "", slide.origins):
        click.echo(line)
    if slide.collection:
        click.echo("collection")
        for key, value in slide.collection.items():
            click.echo(f"  {key}: {value if isinstance(value, str) else ', '.join(value)}")
    for problem in slide.problems:
        place = ", ".join(filter(None, (f"row {problem.row}" if problem.row else "", problem.column, problem.keyword)))
        click.echo(f"{str(problem.severity).lower()}: {problem.kind}: {place}: {problem.message}", err=True)


def _tree_lines(tree: AttributeTree, path: str, indent: str, origins: Mapping[str, str]) -> Iterator[str]:
    for key, value in tree.items():
        where = f"{path}{key}"
        origin = click.style(f"  <- {origins[where]}", dim=True) if where in origins else ""
        if isinstance(value, tuple) and value and isinstance(value[0], dict):
            yield f"{indent}{key}{origin}"
            for index, item in enumerate(value):
                yield from _item_lines(item, f"{where}[{index}]", f"{indent}  ", origins)
        else:
            yield f"{indent}{key}: {_value_text(value)}{origin}"


def _item_lines(item: Any, path: str, indent: str, origins: Mapping[str, str]) -> Iterator[str]:
    """Yield a sequence item; a content item or the only attribute of an item is one line."""
    origin = click.style(f"  <- {origins[path]}", dim=True) if path in origins else ""
    if "ValueType" in item:
        concept, value = (_value_text(item[key]) for key in list(item)[1:3])
        yield f"{indent}{concept} = {value}{origin}"
        return
    yield f"{indent}item {int(path.rpartition('[')[2][:-1]) + 1}{origin}"
    yield from _tree_lines(item, f"{path}.", f"{indent}  ", origins)


def _value_text(value: Any) -> str:
    from coverslip.metadata_maps.codes import Code

    if isinstance(value, Code):
        return f"{value.meaning} ({value.value}, {value.scheme_designator})"
    if isinstance(value, tuple):
        if value and isinstance(value[0], dict):
            return "; ".join(" ".join(_value_text(each) for each in item.values()) for item in value)
        return "; ".join(map(_value_text, value))
    return str(value)
