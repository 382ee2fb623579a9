"""The frames that were decoded last: several checks look at the same ones."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coverslip.tiler.codecs.base import Pixels
    from coverslip.validators.instance import InstanceView

__all__ = ["DecodedFrames"]

_MOST_BYTES = 24 << 20


class DecodedFrames:
    """Decodes frames and keeps the last of them, as many as fit. Safe in any thread; nobody may write to the pixels."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._frames: OrderedDict[tuple[int, int], Pixels] = OrderedDict()
        self._lock = Lock()

    def get(self, instance: InstanceView, frame_index: int) -> Pixels:
        """Return the pixels of a frame, (rows, columns, samples); CorruptSourceError if it cannot be decoded."""
        key = id(instance), frame_index
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
        pixels = instance.decode(frame_index)
        with self._lock:
            if key not in self._frames and pixels.nbytes <= self._most_bytes:
                self._frames[key] = pixels
                self._bytes += pixels.nbytes
            while self._bytes > self._most_bytes:
                self._bytes -= self._frames.popitem(last=False)[1].nbytes
        return pixels

    def make_room(self, most_bytes: int) -> None:
        """Keep so many bytes from now on, if that is more than before."""
        self._most_bytes = max(self._most_bytes, most_bytes)

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._frames.clear()
            self._bytes = 0
