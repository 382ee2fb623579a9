"""The commands about de-identification: search what was made for what should not be in it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coverslip.errors import UsageError, ValidationFailedError

if TYPE_CHECKING:
    from coverslip.validators.privacy import Secret

__all__ = ["deid_group"]


@click.group(name="deid", short_help="Check that series identify nobody.")
def deid_group() -> None:
    """Check that series identify nobody."""


@deid_group.command()
@click.argument("series", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--source", type=click.Path(path_type=Path), help="The slide it was made from, to search for its texts.")
@click.option("--metadata", type=click.Path(path_type=Path), help="The curator's table, to search for its names.")
@click.option("--column", "columns", multiple=True, help="A column of the table that identifies; may be repeated.")
@click.option("--every-byte", is_flag=True, help="Search all bytes, pixel data too, not only headers.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def check(
    series: tuple[Path, ...],
    source: Path | None,
    metadata: Path | None,
    columns: tuple[str, ...],
    every_byte: bool,
    as_json: bool,
) -> None:
    """Search the headers and frame headers of SERIES (folders or files) for what identifies.

    Ends with 5 if a text of the slide's file or of an identifying column is found. No text is repeated.
    """
    from coverslip.validators.privacy import check_privacy

    findings = check_privacy(series, _secrets(source, metadata, columns), every_byte=every_byte)
    if as_json:
        click.echo(json.dumps({"findings": [asdict(finding) for finding in findings]}, indent=2))
    else:
        for finding in findings:
            click.echo(f"{finding.severity.lower()}: {finding.place}: {finding.message} [{finding.rule}]")
        click.echo(f"{len(findings)} findings" if findings else "nothing found that identifies")
    if any(finding.severity == "ERROR" for finding in findings):
        raise click.exceptions.Exit(ValidationFailedError.exit_code)


def _secrets(source: Path | None, metadata: Path | None, columns: tuple[str, ...]) -> list[Secret]:
    """Return what to search for: identifying fields of the slide, identifying columns of the table."""
    from coverslip.metadata_maps.tables import normalize_name, read_table
    from coverslip.validators.privacy import is_identifying_column, secrets_of_fields, secrets_of_slide

    secrets: list[Secret] = []
    curated: set[str] = set()
    if metadata is not None:
        table = read_table(metadata)
        missing = [column for column in columns if not table.has_column(column)]
        if missing:
            raise UsageError(f"--column {missing[0]}: the table has no such column")
        chosen = {normalize_name(column) for column in columns}
        for row in table.rows:
            for name, text in row.cells.items():
                if name in chosen or is_identifying_column(name):
                    secrets += secrets_of_fields({name: text}, "table column")
                else:
                    curated.add(text)
    if source is not None:
        secrets += secrets_of_slide(source, curated)
    return secrets
