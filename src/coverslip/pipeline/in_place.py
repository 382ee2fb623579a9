"""A slide read where it lies, by ranges of bytes: for one that is larger than the scratch of whoever converts it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from coverslip.errors import StoreError
from coverslip.pipeline.manifest import Slide, is_url

__all__ = ["CACHE_BYTES", "CachedRanges", "may_be_in_place"]

_BLOCK_BYTES = 1 << 20
CACHE_BYTES = 48 << 20
_SCHEMES = ("gs", "s3", "http", "https")
_TIFF_FAMILY = frozenset({".svs", ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".ndpi", ".scn", ".bif"})
"""Endings of formats that are read by coverslip itself, from one file; the slide's bytes have the last word."""


def may_be_in_place(slide: Slide) -> bool:
    """Whether a slide is one that can be read where it lies, by what its name tells."""
    if not is_url(slide.location) or slide.companions or not slide.size_bytes:
        return False
    parts = urlsplit(slide.location)
    return parts.scheme.lower() in _SCHEMES and PurePosixPath(parts.path).suffix.lower() in _TIFF_FAMILY


class CachedRanges:
    """Bytes by offset, in blocks of which the last ones used are kept; thread safe.

    A block that several threads want is asked for once.

    Parameters
    ----------
    size : int
    fetch : callable
        Returns bytes of the file by offset and length.
    ask_mark : callable
        Returns what changes when the file is replaced.
    block_bytes, cache_bytes : int
        Of one request, and of all that is kept.
    """

    def __init__(
        self,
        size: int,
        fetch: Callable[[int, int], bytes],
        ask_mark: Callable[[], str],
        *,
        block_bytes: int = _BLOCK_BYTES,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.size = size
        self.mark = ask_mark
        self.requests = 0
        self.bytes_read = 0
        self._fetch = fetch
        self._block_bytes = block_bytes
        self._most_blocks = max(1, cache_bytes // block_bytes)
        self._lock = threading.Lock()
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._under_way: dict[int, threading.Event] = {}

    def read(self, offset: int, size: int) -> bytes:
        """Return exactly so many bytes.

        Raises
        ------
        StoreError
            If the store does not give them.
        """
        first, last = offset // self._block_bytes, (offset + size - 1) // self._block_bytes
        if last - first >= self._most_blocks:
            return self.stream(offset, size)
        data = b"".join(self._block(index) for index in range(first, last + 1))
        start = offset - first * self._block_bytes
        return data[start : start + size]

    def stream(self, offset: int, size: int) -> bytes:
        """Return exactly so many bytes, which are not kept."""
        data = self._fetch(offset, size)
        if len(data) != size:
            raise StoreError(f"{len(data)} bytes of the slide came, expected {size}", retryable=True)
        with self._lock:
            self.requests += 1
            self.bytes_read += size
        return data

    def _block(self, index: int) -> bytes:
        while True:
            with self._lock:
                if index in self._blocks:
                    self._blocks.move_to_end(index)
                    return self._blocks[index]
                coming = self._under_way.get(index)
                if coming is None:
                    coming = self._under_way[index] = threading.Event()
                    break
            coming.wait()
        try:
            start = index * self._block_bytes
            data = self.stream(start, min(self._block_bytes, self.size - start))
            with self._lock:
                self._blocks[index] = data
                while len(self._blocks) > self._most_blocks:
                    self._blocks.popitem(last=False)
            return data
        finally:
            with self._lock:
                del self._under_way[index]
            coming.set()
