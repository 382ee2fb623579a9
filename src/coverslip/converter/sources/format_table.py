"""The table of formats for people and programs: `coverslip formats`, the README and docs/formats.md."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from coverslip.converter.sources.formats import FORMATS
from coverslip.converter.sources.slide_format import SlideFormat

__all__ = ["format_rows", "full_table", "short_table"]

NOT_READ = "not read"


def format_rows() -> list[dict[str, Any]]:
    """Return what is told of every format, in values that JSON can hold."""
    rows = []
    for one in FORMATS:
        if isinstance(one, SlideFormat):
            rows.append(
                {
                    "name": one.name,
                    "title": one.title,
                    "detected_by": one.detected_by,
                    "read_by": one.readers or one.dependency or "coverslip",
                    "stored_tiles": one.frames,
                    "levels": one.levels,
                    "associated_images": one.associated,
                    "pixel_spacing": one.spacing,
                    "tested_on": one.tested,
                    "installed": one.installed,
                    "install": one.install or None,
                    "way_out": None,
                }
            )
        else:
            rows.append(
                dict.fromkeys(("stored_tiles", "levels", "associated_images", "pixel_spacing", "tested_on", "install"))
                | {"name": one.name, "title": one.title, "detected_by": one.detected_by, "read_by": NOT_READ}
                | {"installed": False, "way_out": one.way_out}
            )
    return rows


def short_table() -> str:
    """Return the Markdown table of the README."""
    return "\n".join(_markdown(("format", "read by", "stored tiles"), ("title", "read_by", "stored_tiles"))) + "\n"


def full_table() -> str:
    """Return the Markdown table of docs/formats.md."""
    columns = {
        "format": "title",
        "`format` in results": "name",
        "detected by": "detected_by",
        "read by": "read_by",
        "stored tiles": "stored_tiles",
        "stored levels": "levels",
        "associated images": "associated_images",
        "pixel spacing": "pixel_spacing",
        "tested on slides that are": "tested_on",
    }
    return "\n".join(_markdown(tuple(columns), tuple(columns.values()))) + "\n"


def _markdown(titles: tuple[str, ...], keys: tuple[str, ...]) -> Iterator[str]:
    yield f"| {' | '.join(titles)} |"
    yield f"|{'---|' * len(titles)}"
    for row in format_rows():
        yield f"| {' | '.join(_cell(row, key) for key in keys)} |"


def _cell(row: dict[str, Any], key: str) -> str:
    if key == "stored_tiles" and row["way_out"]:
        return f"refused; {row['way_out']}"
    return f"`{row[key]}`" if key == "name" else row[key] or ""
