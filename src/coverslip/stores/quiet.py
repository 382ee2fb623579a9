"""pydicom's warnings repeat values of headers; stores tell of what is wrong without them."""

from __future__ import annotations

import contextlib
import threading
import warnings
from collections.abc import Iterator

__all__ = ["no_pydicom_warnings"]

_lock = threading.Lock()
_inside = 0
_suppressed = contextlib.ExitStack()


@contextlib.contextmanager
def no_pydicom_warnings() -> Iterator[None]:
    """Keep pydicom from warning while any thread is inside: filters belong to the whole process."""
    global _inside  # noqa: PLW0603 - as do the filters
    with _lock:
        if not _inside:
            _suppressed.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _suppressed.close()
