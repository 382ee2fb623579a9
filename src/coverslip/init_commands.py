"""The command `coverslip init`: a manifest, a map and a run file for a folder of slides."""

from __future__ import annotations

from pathlib import Path

import click

from coverslip.errors import StoreError, UsageError

__all__ = ["init"]

EXAMPLES = """
\b
Examples:
  coverslip init slides
  coverslip init slides -o collection
"""

_MAP = """\
# How a line of manifest.csv becomes DICOM attributes. `coverslip map check manifest.csv --map map.toml` says what
# is missing or does not fit, `coverslip map show` what one slide would get; docs/map-language.md explains the language.

[map]
name = "collection"
title = "My collection"
# Says that these are sections of tissue embedded in paraffin, stained with hematoxylin and eosin, seen in transmitted
# light. Take out what is not so of your slides.
include = ["section", "ffpe", "he", "brightfield"]

[variables]
# From the columns of manifest.csv; `required` keeps a slide without them from being converted.
patient = { column = "patient_id", required = true }
slide = { column = "slide_id", required = true }

[attributes]
# Who and what the slide belongs to.
PatientID = "{patient}"
ContainerIdentifier = "{slide}"
# The same on all slides: what the study is called.
StudyDescription = "My collection"

[specimen]
# What lies on the slide, and how it was prepared.
SpecimenIdentifier = "{slide}"
SpecimenTypeCodeSequence = "slide"
steps = ["section", "formalin", "paraffin", "he"]
"""

_RUN = """\
# What is done with the slides of manifest.csv: `coverslip run run.toml`. Every line is an option of `coverslip run`
# without its dashes; one that is given on the command line goes before the line here. Paths are relative to this file.

# The slides, a line for each.
manifest = "manifest.csv"

# What names in the manifest are relative to; may be a bucket, such as "gs://bucket/slides".
slides = {slides}

# How a line of the manifest becomes DICOM attributes. Without the # this map is used once its columns are filled in.
# map = "map.toml"

# Folder of the run: scratch, the ledger of what was done, and series that are not delivered.
work = "work"

# Where series are delivered to: a folder, "gs://bucket/prefix", "dicomweb+https://host/path", "s3://bucket/prefix" or
# "healthcare://project/location/dataset/store". Without it they stay in the folder of the run.
# to = "archive"

# The catalog that the headers go into, to be searched: a file of DuckDB.
# catalog = "catalog.duckdb"

# What is done; by default all that the lines above ask for.
# stages = "convert,validate,upload,index"

# Begin no more slides after so many have failed: something is wrong with all of them.
max-failures = 100
"""


@click.command(epilog=EXAMPLES, short_help="Lay out a manifest, a map and a run file for a folder of slides.")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder for the files; default: "
              "the folder itself.")  # fmt: skip
def init(folder: Path, output: Path | None) -> None:
    """Lay out manifest.csv, map.toml and run.toml for the slides in FOLDER, each line explained.

    `coverslip run run.toml` works at once: it converts and validates. What is there is never written over.
    """
    import csv
    import io

    from coverslip.pipeline.manifest import list_folder

    if not folder.is_dir():
        raise UsageError(f"{folder}: is no folder")
    slides = list_folder(folder)
    if not slides:
        raise UsageError(f"{folder}: no slides there, by the endings of their names")
    target = output or folder
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "patient_id", "slide_id"])
    writer.writerows([slide.name, "", Path(slide.name).stem] for slide in slides)
    place = "." if target.absolute() == folder.absolute() else str(folder.absolute())
    _write_new(target / "manifest.csv", text.getvalue())
    _write_new(target / "map.toml", _MAP)
    _write_new(target / "run.toml", _RUN.replace("{slides}", _quoted(place)))
    click.echo(f"{len(slides)} slides; {target / 'run.toml'} says what is done with them")


def _quoted(text: str) -> str:
    import json

    return json.dumps(text)  # a basic string of TOML has the escapes of JSON


def _write_new(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{path}: is already there") from None
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from None
