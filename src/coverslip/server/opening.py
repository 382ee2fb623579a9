"""Open what a server shows: a catalog, or a folder or store that is indexed first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from coverslip.catalog.index import IndexReport, IndexRequest, index_paths
from coverslip.catalog.merge import NewVersion
from coverslip.catalog.reading import Digest
from coverslip.errors import UsageError
from coverslip.server.catalog_search import CatalogSearch
from coverslip.server.places import Places
from coverslip.server.service import Service
from coverslip.server.settings import ServerSettings
from coverslip.server.stow import Receiver

if TYPE_CHECKING:
    from coverslip.stores.base import Store

__all__ = ["open_service"]

type OnProgress = Callable[[int, int], None]


@contextmanager
def open_service(
    what: str,
    settings: ServerSettings,
    open_store: Callable[[str], Store],
    on_progress: OnProgress | None = None,
) -> Iterator[tuple[Service, Sequence[str]]]:
    """Open a catalog, a folder or a store; yields the service and what could not be read.

    Parameters
    ----------
    what : str
        Path of a catalog or folder, or URL of a store.
    settings : ServerSettings
    open_store : callable
        Opens the store at a URL, which stays open at least as long as the service.

    Raises
    ------
    CoverslipError
        If it cannot be opened.
    """
    with ExitStack() as stack:
        path = Path(what)
        store: Store | None = None
        if "://" in what or path.is_dir():
            store = open_store(what)
        elif not path.is_file():
            raise UsageError(f"{what}: no such catalog, folder or store")
        if store is None:
            if settings.writable:
                raise UsageError("--writable: expected a folder or store, not a catalog of files in many places")
            search, problems = CatalogSearch(path), []
        else:
            folder = Path(stack.enter_context(TemporaryDirectory(prefix="coverslip-serve-")))
            catalog = folder / "catalog.duckdb"
            report = _index(what, store, catalog, on_progress)
            problems = [f"{each.location}: {each.reason}" for each in report.failures]
            search = CatalogSearch(catalog, lambda: _refresh(what, store, catalog))
        stack.callback(search.close)
        places = Places([store] if store is not None else [], open_store)
        service = Service(search.read_archive(), places, settings, search)
        if settings.writable and store is not None:
            service.receiver = Receiver(store, service.archive, places, lambda _uids: search.note_change())
        yield service, problems


def _refresh(what: str, store: Store, catalog: Path) -> None:
    """Index what has been stored since; what is there already is read again and left as it is."""
    _index(what, store, catalog, None)


def _index(what: str, store: Store, catalog: Path, on_progress: OnProgress | None) -> IndexReport:
    """Read the headers of all that lies in a folder or store into a catalog of this server's own."""
    local = "://" not in what
    request = IndexRequest(
        paths=(what,) if local else (),
        to=str(catalog),
        version=NewVersion(),
        digest=Digest.KNOWN,
        stores=() if local else (store,),
        workers=len(os.sched_getaffinity(0)),
    )
    return index_paths(request, on_progress)
