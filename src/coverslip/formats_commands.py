"""The command `coverslip formats`: which slides are read, and how."""

from __future__ import annotations

import json

import click

__all__ = ["formats"]

EXAMPLES = """
\b
Examples:
  coverslip formats
  coverslip formats --json
"""


@click.command(epilog=EXAMPLES, short_help="List the formats that are read, and how.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def formats(as_json: bool) -> None:
    """List the formats of slides: how each is recognised, what becomes of its tiles, and whether it is installed."""
    from coverslip.converter.sources.format_table import format_rows

    rows = format_rows()
    if as_json:
        click.echo(json.dumps({"formats": rows}, indent=2))
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, show_edge=False, header_style="", pad_edge=False)
    for title in ("format", "detected by", "read by", "stored tiles", "installed"):
        table.add_column(title, overflow="fold")
    for row in rows:
        installed = "yes" if row["installed"] else row["install"] or "no"
        tiles = row["stored_tiles"] or f"refused; {row['way_out']}"
        table.add_row(row["title"], row["detected_by"], row["read_by"], tiles, installed)
    Console(markup=False, highlight=False, emoji=False).print(table)
