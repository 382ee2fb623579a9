"""What all routes share: the archive, open instances, settings, and the threads that render."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from coverslip.server.archive import Archive, IndexedInstance, IndexedSeries
from coverslip.server.open_instances import OpenInstance, OpenInstances
from coverslip.server.rendering import Renderer
from coverslip.server.slide_image import SlideImages

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from starlette.requests import Request

    from coverslip.server.catalog_search import CatalogSearch
    from coverslip.server.places import Places
    from coverslip.server.settings import ServerSettings
    from coverslip.server.stow import Receiver

__all__ = ["Service", "base_url"]

_WAITING_PER_RENDERING = 8


class Service:
    """One server's state.

    Attributes
    ----------
    archive : Archive
    opened : OpenInstances
    slides : SlideImages
    renderer : Renderer
    settings : ServerSettings
    search : CatalogSearch or None
        What the pages search; None without a catalog.
    receiver : Receiver or None
        Takes what STOW-RS brings; None if nothing may be written.
    """

    def __init__(
        self,
        archive: Archive,
        places: Places,
        settings: ServerSettings,
        search: CatalogSearch | None = None,
        receiver: Receiver | None = None,
    ) -> None:
        self.archive = archive
        self.places = places
        self.opened = OpenInstances(places)
        self.slides = SlideImages(self.opened)
        self.renderer = Renderer(self.opened, settings.limits)
        self.settings = settings
        self.search = search
        self.receiver = receiver
        self._rendering = threading.BoundedSemaphore(settings.limits.renderings)
        self._waiting = 0
        self._lock = threading.Lock()

    def instances(self, study: str, series: str = "", instance: str = "") -> list[IndexedInstance]:
        """Return instances that a path names; HTTPException 404 if there are none."""
        found = self.archive.find(study, series, instance)
        if not found:
            raise HTTPException(404, "there is no such study, series or instance")
        return found

    def instance(self, study: str, series: str, instance: str) -> OpenInstance:
        """Return the instance that a path names, open."""
        return self.opened.open(self.instances(study, series, instance)[0])

    def series(self, series: str) -> IndexedSeries:
        """Return a series by its UID alone."""
        found = self.archive.series.get(series)
        if found is None:
            raise HTTPException(404, "there is no such series")
        return found

    def read_header(self, instance: IndexedInstance) -> Dataset:
        """Return the header of an instance."""
        return self.opened.open(instance).header

    @contextmanager
    def rendering(self) -> Iterator[None]:
        """Take one of the places of those that render; HTTPException 503 if too many wait."""
        most = self.settings.limits.renderings * _WAITING_PER_RENDERING
        with self._lock:
            if self._waiting >= most:
                raise HTTPException(503, "too many pictures are being rendered", {"Retry-After": "1"})
            self._waiting += 1
        try:
            with self._rendering:
                yield
        finally:
            with self._lock:
                self._waiting -= 1


def base_url(request: Request, below: str = "") -> str:
    """Return the URL of this server as the client knows it."""
    scheme = request.headers.get("x-forwarded-proto", "").split(",")[0].strip().lower()
    if scheme not in ("http", "https"):
        scheme = request.url.scheme
    return f"{scheme}://{request.headers.get('host', 'localhost')}{below}"
