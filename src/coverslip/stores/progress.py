"""How far an upload is, told as `coverslip.stores.base.OnBytes` wants it."""

from __future__ import annotations

from coverslip.stores.base import OnBytes

__all__ = ["Progress"]


class Progress:
    """Tells how many more bytes are through, and takes back those that must be sent again.

    Parameters
    ----------
    on_bytes : callable or None
    """

    def __init__(self, on_bytes: OnBytes | None) -> None:
        self._on_bytes = on_bytes
        self._told = 0

    def move(self, length: int) -> None:
        """Tell of more bytes."""
        self._told += length
        if self._on_bytes:
            self._on_bytes(length)

    def move_to(self, place: int) -> None:
        """Tell what is missing to, or too much for, a place."""
        if place != self._told:
            self.move(place - self._told)
