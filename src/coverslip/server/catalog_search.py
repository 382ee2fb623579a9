"""The catalog that pages search, used by one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coverslip.catalog.search import SearchRequest, SearchResult, open_search
from coverslip.server.archive import Archive

if TYPE_CHECKING:
    from coverslip.catalog.search import SearchableCatalog

__all__ = ["CatalogSearch"]


class CatalogSearch:
    """Answers searches of a catalog; safe in any thread.

    Parameters
    ----------
    path : Path
    refresh : callable, optional
        Writes what is new into the catalog, while it is closed here.
    """

    def __init__(self, path: Path, refresh: Callable[[], None] | None = None) -> None:
        self._path = path
        self._refresh = refresh
        self._is_old = False
        self._lock = threading.Lock()
        self._stack = ExitStack()
        self._catalog: SearchableCatalog | None = None
        self._open()

    def _open(self) -> SearchableCatalog:
        if self._is_old and self._refresh is not None:
            self._is_old = False
            self._stack.close()
            self._stack, self._catalog = ExitStack(), None
            self._refresh()
        if self._catalog is None:
            self._catalog = self._stack.enter_context(open_search(self._path))
        return self._catalog

    def read_archive(self) -> Archive:
        """Return all that the catalog tells of."""
        with self._lock:
            return Archive.from_catalog(self._open().connection)

    def search(self, request: SearchRequest) -> SearchResult:
        """Search slides.

        Raises
        ------
        UsageError
            If a filter is none.
        """
        with self._lock:
            return self._open().search(request)

    def rows(self, sql: str, parameters: list[Any]) -> list[dict[str, Any]]:
        """Return what a query gives, as mappings by column."""
        with self._lock:
            cursor = self._open().connection.execute(sql, parameters)
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def note_change(self) -> None:
        """Let the catalog be written before it is searched next."""
        self._is_old = True

    def close(self) -> None:
        """Close the catalog."""
        with self._lock:
            self._stack.close()
            self._catalog = None
