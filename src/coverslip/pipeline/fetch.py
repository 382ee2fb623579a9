"""Bring a slide's files to this machine: from folders, buckets and web servers, and check what came."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from coverslip.errors import SourceError, StoreError, UsageError
from coverslip.pipeline.in_place import CachedRanges
from coverslip.pipeline.manifest import Checksums, Slide, is_url
from coverslip.stores.base import ObjectStore, StoredInstance
from coverslip.stores.options import StoreOptions
from coverslip.stores.registry import open_store
from coverslip.stores.retrying import Retrier, parse_retry_after
from coverslip.stores.transport import require_safe_url, status_failure, tls_context

if TYPE_CHECKING:
    import httpx

__all__ = ["Fetcher", "check_file", "is_remote"]

_CHUNK_BYTES = 1 << 20
_STREAM_BYTES = 8 << 20
_REDIRECTS = 5
_ADVICE = "a slide's URL is https://, gs:// or s3://"


def is_remote(slide: Slide) -> bool:
    """Whether a slide must be brought here before it can be read."""
    return is_url(slide.location)


@dataclass(slots=True)
class Fetcher:
    """Brings slides here, one after another; keeps its connections.

    Parameters
    ----------
    options : StoreOptions
        How buckets and servers are reached. Credentials go to buckets only.
    """

    options: StoreOptions = field(default_factory=StoreOptions)
    _stores: dict[str, ObjectStore] = field(default_factory=dict)
    _client: httpx.Client | None = None

    def fetch(self, slide: Slide, folder: Path, on_bytes: Callable[[int], None] | None = None) -> Path:
        """Return the path of the slide's file, once all its files are here and as the manifest states.

        Parameters
        ----------
        slide : Slide
            One that lies on this machine is not copied.
        folder : Path
            Receives the files under their own names; what is in it is removed.

        Raises
        ------
        SourceError
            If a file is not there or has other bytes than stated.
        StoreError
            If a store or server does not give it.
        UsageError
            If its URL is none that slides are fetched from.
        """
        if not is_remote(slide):
            path = Path(slide.location)
            check_file(path, slide.checksums)
            return path
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tell = on_bytes or (lambda _count: None)
        path = folder / _file_name(slide.location)
        self._download(slide.location, path, tell)
        check_file(path, slide.checksums)
        beside = slide.location.rpartition("/")[0]
        for companion in slide.companions:
            self._fetch_companion(companion, beside, folder, path, tell)
        return path

    def open_ranges(self, slide: Slide) -> CachedRanges:
        """Return a slide's bytes where they lie, once they are as the manifest states; nothing is written here.

        Raises
        ------
        SourceError
            If it is not there or has other bytes than stated.
        StoreError
            If its store or server does not give parts of it.
        """
        scheme = slide.location.partition("://")[0].lower()
        ranges = (
            self._ranges_of_object(slide.location) if scheme in ("gs", "s3") else self._ranges_of_url(slide.location)
        )
        stated = slide.checksums.stated()
        digests = {name: _digest(name) for name in stated}
        if digests:
            for offset in range(0, ranges.size, _STREAM_BYTES):
                data = ranges.stream(offset, min(_STREAM_BYTES, ranges.size - offset))
                for digest in digests.values():
                    digest.update(data)
        _require_stated(stated, digests)
        return ranges

    def _ranges_of_object(self, location: str) -> CachedRanges:
        store, stored = self._find(location)
        return CachedRanges(
            stored.size_bytes or 0,
            lambda offset, size: Retrier(self.options.retry).run(lambda: store.read_range(stored, offset, size)),
            lambda: _mark_of_object(self._find(location)[1]),
        )

    def _ranges_of_url(self, url: str) -> CachedRanges:
        mark, size, stamps = self._ask(url)
        if not stamps:
            raise StoreError("the slide's server tells neither ETag nor Last-Modified: wanted one, to read it in place")

        def fetch(offset: int, length: int) -> bytes:
            headers = {"Range": f"bytes={offset}-{offset + length - 1}"} | ({"If-Match": mark} if mark else {})

            def attempt() -> bytes:
                with self._answer(url, headers) as response:
                    if response.status_code != 206:
                        raise StoreError("the slide's server gives no parts of it: wanted one that answers to Range")
                    return b"".join(_iter_body(response))

            return Retrier(self.options.retry).run(attempt)

        return CachedRanges(size, fetch, lambda: self._ask(url)[2])

    def _ask(self, url: str) -> tuple[str, int, str]:
        """Return a file's strong mark, its size, and all that changes when it is replaced."""

        def attempt() -> tuple[str, int, str]:
            with self._answer(url, {"Range": "bytes=0-0"}) as response:
                size = str(response.headers.get("Content-Range") or "").rpartition("/")[2]
                if response.status_code != 206 or not size.isdigit():
                    raise StoreError("the slide's server gives no parts of it: wanted one that answers to Range")
                stamps = " ".join(response.headers.get(name) or "" for name in ("ETag", "Last-Modified")).strip()
                return _mark_of(response), int(size), stamps

        return Retrier(self.options.retry).run(attempt)

    def close(self) -> None:
        """Let go of connections."""
        for store in self._stores.values():
            store.close()
        if self._client is not None:
            self._client.close()

    def _fetch_companion(
        self, location: str, beside: str, folder: Path, main: Path, tell: Callable[[int], None]
    ) -> None:
        if location.endswith("/"):
            base, _, name = location.rstrip("/").rpartition("/")
            store = self._store(base)
            places = [stored.location for stored in store.iter_objects(f"{name}/")]
            if not places:
                raise SourceError("the folder of the slide's other files is empty or not there")
        else:
            places = [location]
        for place in places:
            relative = place.removeprefix(f"{beside}/") if place.startswith(f"{beside}/") else _file_name(place)
            path = folder / relative
            if not path.resolve().is_relative_to(folder.resolve()):
                raise SourceError("a companion's name leads out of the slide's folder")
            if path != main:
                self._download(place, path, tell)

    def _download(self, location: str, path: Path, tell: Callable[[int], None]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        scheme = location.partition("://")[0].lower()
        if scheme in ("gs", "s3"):
            store, stored = self._find(location)
            Retrier(self.options.retry).run(lambda: store.download(stored, path))
            tell(path.stat().st_size)
        elif scheme in ("http", "https"):
            self._download_http(location, path, tell)
        else:
            raise UsageError(f"{scheme}:// is not fetched from: {_ADVICE}")

    def _find(self, location: str) -> tuple[ObjectStore, StoredInstance]:
        base = location.rpartition("/")[0]
        store, name = self._store(base), location.removeprefix(f"{base}/")
        stored = next((each for each in store.iter_objects(name) if each.location == location), None)
        if stored is None:
            raise SourceError("is not in its bucket")
        return store, stored

    def _store(self, base: str) -> ObjectStore:
        if base not in self._stores:
            store = open_store(base, self.options)
            if not isinstance(store, ObjectStore):
                raise UsageError(f"{base}: {_ADVICE}")
            self._stores[base] = store
        return self._stores[base]

    def _download_http(self, url: str, path: Path, tell: Callable[[int], None]) -> None:
        """Write the body to a file; after a fault it goes on where it stopped, if the server says it is the same."""
        mark = ""

        def attempt() -> None:
            nonlocal mark
            have = path.stat().st_size if path.exists() and mark else 0
            headers = {"Range": f"bytes={have}-", "If-Range": mark} if have else {}
            with self._answer(url, headers) as response:
                resumed = response.status_code == 206
                if not resumed:
                    have = 0
                mark = _mark_of(response)
                expected = _length_of(response)
                came = 0
                with path.open("ab" if resumed else "wb") as file:
                    for chunk in _iter_body(response):
                        file.write(chunk)
                        came += len(chunk)
                        tell(len(chunk))
                if expected is not None and came != expected:
                    raise StoreError(f"{came} bytes came, expected {expected}", retryable=True)

        Retrier(self.options.retry).run(attempt)

    @contextlib.contextmanager
    def _answer(self, url: str, headers: dict[str, str]) -> Iterator[httpx.Response]:
        import httpx

        if self._client is None:
            self._client = httpx.Client(
                verify=tls_context(self.options),
                timeout=httpx.Timeout(self.options.read_timeout_s, connect=self.options.connect_timeout_s),
                headers={"User-Agent": "coverslip", "Accept-Encoding": "identity"},
            )
        for _ in range(_REDIRECTS):
            host = self._require_safe(url)
            try:
                response = self._client.send(self._client.build_request("GET", url, headers=headers), stream=True)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise StoreError(
                    f"the slide's server {host}: {type(error).__name__}",
                    retryable=isinstance(error, httpx.TransportError),
                ) from None
            try:
                if response.is_redirect and response.next_request is not None:
                    url = str(response.next_request.url)
                    continue
                if response.status_code not in (200, 206):
                    wait_s = parse_retry_after(response.headers.get("Retry-After"))
                    raise status_failure(f"the slide's server {host}", response.status_code, wait_s)
                yield response
                return
            finally:
                response.close()
        raise StoreError("the slide's server sends from place to place, more than five times")

    def _require_safe(self, url: str) -> str:
        """Return the host of a URL that may be asked; unlike that of a store it may have a query, which is not told."""
        parts = urlsplit(url)
        require_safe_url(f"{parts.scheme}://{parts.netloc}", self.options)
        return parts.hostname or ""


def check_file(path: Path, checksums: Checksums) -> None:
    """Compare a file with its stated checksums, in one pass.

    Raises
    ------
    SourceError
        If it is not there, or has other bytes.
    """
    stated = checksums.stated()
    if not stated:
        return
    digests = {name: _digest(name) for name in stated}
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                for digest in digests.values():
                    digest.update(chunk)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from None
    _require_stated(stated, digests)


def _require_stated(stated: Mapping[str, str], digests: Mapping[str, hashlib._Hash | _Crc32c]) -> None:
    for name, wanted in stated.items():
        if (found := digests[name].hexdigest()) != wanted:
            raise SourceError(f"{name} {found}, the manifest says {wanted}")


class _Crc32c:
    """CRC32C with the methods of a digest."""

    def __init__(self) -> None:
        import google_crc32c

        self._checksum = google_crc32c.Checksum()  # type: ignore[no-untyped-call]

    def update(self, data: bytes) -> None:
        self._checksum.update(data)  # type: ignore[no-untyped-call]

    def hexdigest(self) -> str:
        return bytes(self._checksum.digest()).hex()  # type: ignore[no-untyped-call]


def _digest(name: str) -> hashlib._Hash | _Crc32c:
    return _Crc32c() if name == "crc32c" else hashlib.new(name, usedforsecurity=False)


def _file_name(location: str) -> str:
    name = unquote(urlsplit(location).path).rstrip("/").rpartition("/")[2]
    if name in ("", ".", "..") or "\0" in name:
        raise UsageError("a slide's URL ends in no file name")
    return name


def _iter_body(response: httpx.Response) -> Iterator[bytes]:
    import httpx

    try:
        yield from response.iter_raw()  # as it comes: what came before a fault need not come again
    except (httpx.HTTPError, httpx.StreamError):
        raise StoreError("the connection to the slide's server failed", retryable=True) from None


def _mark_of_object(stored: StoredInstance) -> str:
    return f"{stored.generation} {stored.md5} {stored.crc32c} {stored.size_bytes}"


def _mark_of(response: httpx.Response) -> str:
    """Return what tells this version of a file from others, if the server gives a strong one."""
    etag = str(response.headers.get("ETag") or "")
    return "" if etag.startswith("W/") else etag


def _length_of(response: httpx.Response) -> int | None:
    text = str(response.headers.get("Content-Length") or "")
    return int(text) if text.isdigit() else None
