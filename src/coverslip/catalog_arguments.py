"""What commands take for a catalog: a file of DuckDB, or a data set of BigQuery."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["CatalogType"]


class CatalogType(click.ParamType[Path | str]):
    """A path, or ``bigquery://project.dataset`` as text.

    Parameters
    ----------
    exists : bool
        Whether a file has to be there.
    """

    name = "catalog"

    def __init__(self, *, exists: bool = False) -> None:
        self._path = click.Path(path_type=Path, dir_okay=not exists, exists=exists)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:
        """Return what an option holds."""
        if not isinstance(value, Path) and str(value).lower().startswith("bigquery:"):
            return str(value)
        return Path(self._path.convert(value, param, ctx))
