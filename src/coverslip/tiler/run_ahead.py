"""Let work go on in a thread of its own while its results wait to be taken."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from threading import Condition, Thread
from types import TracebackType
from typing import Self

__all__ = ["RunAhead"]


class RunAhead[T]:
    """An iterator over what a generator yields; the generator begins at once and runs ahead as far as it may.

    Used as a context manager: what has not been taken at the end is thrown away, and the generator is closed.

    Parameters
    ----------
    work : generator
        Runs in a thread of its own; what it raises is raised by `__next__`.
    size : callable
        Bytes of one result.
    most_bytes : int
        Of the results that wait. One result may always wait, whatever its size.
    """

    def __init__(self, work: Generator[T], size: Callable[[T], int], most_bytes: int) -> None:
        self._work = work
        self._size = size
        self._most_bytes = most_bytes
        self._ready: deque[T] = deque()
        self._bytes = 0
        self._error: BaseException | None = None
        self._ended = self._closed = False
        self._changed = Condition()
        self._thread = Thread(target=self._run, name="coverslip-ahead")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._ended)
            if self._ready:
                result = self._ready.popleft()
                self._bytes -= self._size(result)
                self._changed.notify_all()
                return result
        if self._error is not None:
            raise self._error
        raise StopIteration

    def _run(self) -> None:
        try:
            with closing(self._work):
                for result in self._work:
                    if not self._offer(result):
                        break
        except BaseException as error:  # noqa: BLE001 - raised by whoever takes the results
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _offer(self, result: T) -> bool:
        """Put a result where it can be taken, when there is room; return whether more are wanted."""
        size = self._size(result)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._ready or self._bytes + size <= self._most_bytes)
            self._ready.append(result)
            self._bytes += size
            self._changed.notify_all()
            return not self._closed
