"""The frames that were decoded last: several checks look at the same ones."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import Future
from threading import Lock
from typing import TYPE_CHECKING

from coverslip.errors import CorruptSourceError

if TYPE_CHECKING:
    from coverslip.tiler.codecs.base import Pixels
    from coverslip.validators.instance import InstanceView

__all__ = ["DecodedFrames"]

_MOST_BYTES = 24 << 20

type _Key = tuple[int, int]


class DecodedFrames:
    """Decodes frames and keeps the last of them, as many as fit. Safe in any thread; nobody may write to the pixels.

    What several threads ask for at once is decoded by the first; of a frame that cannot be decoded the error is kept.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._last = _Last(most_bytes)
        self._apart = _Last(0)
        self._of_apart: set[int] = set()
        self._under_way: dict[_Key, Future[Pixels]] = {}
        self._errors: dict[_Key, CorruptSourceError] = {}
        self._lock = Lock()

    def get(self, instance: InstanceView, frame_index: int) -> Pixels:
        """Return the pixels of a frame, (rows, columns, samples); CorruptSourceError if it cannot be decoded."""
        key = id(instance), frame_index
        kept = self._apart if id(instance) in self._of_apart else self._last
        with self._lock:
            if key in self._errors:
                raise self._errors[key]
            pixels = kept.find(key)
            if pixels is not None:
                return pixels
            promised = self._under_way.get(key)
            if promised is None:
                own = self._under_way[key] = Future()
        if promised is not None:
            return promised.result()
        try:
            pixels = instance.decode(frame_index)
        except BaseException as error:
            with self._lock:
                if isinstance(error, CorruptSourceError):
                    self._errors[key] = error
                del self._under_way[key]
            own.set_exception(error)
            raise
        with self._lock:
            kept.keep(key, pixels)
            del self._under_way[key]
        own.set_result(pixels)
        return pixels

    def get_reduced(self, instance: InstanceView, frame_index: int) -> Pixels:
        """Return the pixels of a frame that nobody else will ask for, at half scale where that is cheaper.

        What is kept already is returned as it is; CorruptSourceError if it cannot be decoded.
        """
        key = id(instance), frame_index
        with self._lock:
            pixels = self._last.find(key)
        if pixels is None and key not in self._errors:
            pixels = instance.decode_half(frame_index)
        return pixels if pixels is not None else self.get(instance, frame_index)

    def make_room(self, most_bytes: int) -> None:
        """Keep so many bytes from now on, if that is more than before."""
        self._last.most_bytes = max(self._last.most_bytes, most_bytes)

    def keep_apart(self, instances: Iterable[InstanceView], most_bytes: int) -> None:
        """Keep so many bytes of the frames of these instances, however many others are decoded meanwhile."""
        self._of_apart = {id(each) for each in instances}
        self._apart.most_bytes = most_bytes

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._last.clear()
            self._apart.clear()
            self._errors.clear()


class _Last:
    """The pixels that were asked for last."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._bytes = 0
        self._frames: OrderedDict[_Key, Pixels] = OrderedDict()

    def find(self, key: _Key) -> Pixels | None:
        """Return what is kept."""
        if key not in self._frames:
            return None
        self._frames.move_to_end(key)
        return self._frames[key]

    def keep(self, key: _Key, pixels: Pixels) -> None:
        """Keep pixels, in place of those that nobody has asked for for the longest time."""
        if pixels.nbytes <= self.most_bytes:
            self._frames[key] = pixels
            self._bytes += pixels.nbytes
        while self._bytes > self.most_bytes:
            self._bytes -= self._frames.popitem(last=False)[1].nbytes

    def clear(self) -> None:
        """Forget all."""
        self._frames.clear()
        self._bytes = 0
