"""Turns of tests that run in several processes."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

__all__ = ["Turns"]


class Turns:
    """Lets the tests of several processes run side by side, and those marked `serial` while no other runs.

    Parameters
    ----------
    folder : Path
        That the processes have in common.
    """

    def __init__(self, folder: Path) -> None:
        # Locks of the kernel: that of a process which dies is given back.
        self._gate = os.open(folder / "serial-gate", os.O_CREAT | os.O_RDWR)
        self._running = os.open(folder / "serial-running", os.O_CREAT | os.O_RDWR)

    def take(self, *, alone: bool) -> None:
        """Wait for a turn; while one waits to be alone, no other begins."""
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        fcntl.flock(self._running, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._gate, fcntl.LOCK_UN)

    def give_back(self) -> None:
        fcntl.flock(self._running, fcntl.LOCK_UN)
