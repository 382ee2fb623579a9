"""`coverslip remap`: other metadata for a series that is converted already."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from coverslip.errors import MissingMetadataError, SourceError
from coverslip.map_commands import read_second_tables

__all__ = ["remap"]

EXAMPLES = """
\b
Examples:
  coverslip remap out/STUDY/SERIES -o new --metadata slides.csv --map tcga
  coverslip remap out/STUDY/SERIES -o new --metadata slides.csv \\
    --map mine.toml --slide 4711.svs --reason "wrong patient"
"""

_file = click.Path(path_type=Path, dir_okay=False)


@click.command(epilog=EXAMPLES, short_help="Give a converted series other metadata.")
@click.argument("series", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the series."
)
@click.option("--metadata", "table", required=True, type=_file, help="The curator's table.")
@click.option("--map", "map_name", required=True, metavar="NAME|FILE", help="Shipped map, or a TOML file.")
@click.option(
    "--table", "pairs", metavar="NAME=FILE", multiple=True, help="Second table that the map asks for; may be repeated."
)
@click.option(
    "--slide",
    metavar="NAME",
    help="File that the series was made of, where a row is found by it. Default: the container identifier.",
)
@click.option(
    "--set", "settings", metavar="KEYWORD=VALUE", multiple=True, help="Set a DICOM attribute; may be repeated."
)
@click.option("--uid-root", metavar="ROOT", help="Root of derived UIDs; default: 2.25.")
@click.option(
    "--validate",
    type=click.Choice(["headers", "off"]),
    default="headers",
    show_default=True,
    help="Whether what is written is validated before it is delivered; what fails goes to OUT/.coverslip-quarantine.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why; noted in conversion.json.")
@click.option("--overwrite", is_flag=True, help="Replace a series that is already there.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def remap(series: Path, output: Path, as_json: bool, **options: Any) -> None:
    """Write the series in the folder SERIES anew, with the metadata of a table and map and the same frames.

    The frames are copied bit for bit, read back and compared. The new series has UIDs of its own; the old one is left
    as it is.
    """
    from coverslip.converter.remap import RemapRequest, read_series, remap_series
    from coverslip.converter.request import parse_settings
    from coverslip.converter.result_file import series_as_json
    from coverslip.converter.uids import UUID_ROOT, require_uid_root
    from coverslip.metadata_maps.join import MetadataJoin, warning_texts

    root = require_uid_root(options["uid_root"]) if options["uid_root"] else UUID_ROOT
    attributes = parse_settings(options["settings"])
    try:
        old = read_series(series)
    except SourceError as error:
        raise type(error)(f"{series}: {error}") from None
    slide = options["slide"]
    join = MetadataJoin(options["table"], options["map_name"], read_second_tables(options["pairs"]))
    try:
        mapped = join.mapped_slide(Path(slide)) if slide else join.mapped_container(old.container_identifier)
    except MissingMetadataError as error:
        name = Path(slide).name if slide else old.container_identifier
        raise MissingMetadataError(f"slide {name!r}, which --slide can name: {error}") from None
    result = remap_series(
        RemapRequest(
            old, output, mapped, attributes, root, options["reason"], options["overwrite"], options["validate"]
        )
    )
    warnings = warning_texts(mapped)
    for warning in warnings:
        click.echo(f"warning: {series}: {warning}", err=True)
    status = "already there" if result.already_there else "remapped"
    if as_json:
        shown = {"old": os.fspath(series), "status": status, "folder": os.fspath(result.folder)}
        click.echo(json.dumps({**shown, **series_as_json(result), "metadata_warnings": len(warnings)}))
    else:
        click.echo(f"{series}: {status}\n  {result.folder}")
        click.echo(f"  {len(result.instances)} instances, frames as they were")
