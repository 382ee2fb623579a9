"""``run.json``: which slides a run is about and what is done with them, for whoever asks how far it has come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coverslip import __version__
from coverslip.errors import StoreError
from coverslip.pipeline.ledger import Stage
from coverslip.pipeline.manifest import Slide

__all__ = ["RUN_FILE", "RunFile"]

RUN_FILE = "run.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class RunFile:
    """What is told of a run; it names slides by key and row only.

    Parameters
    ----------
    run : str
        Its name.
    steps : tuple of (Stage, str)
        What is done with each slide, and where.
    slides : tuple of (key, row, bytes)
        Bytes are None if they are not known.
    """

    run: str
    steps: tuple[tuple[Stage, str], ...]
    slides: tuple[tuple[str, int, int | None], ...]

    @classmethod
    def of(cls, run: str, steps: Sequence[tuple[Stage, str]], slides: Sequence[Slide]) -> RunFile:
        """Return what is told of slides."""
        return cls(run, tuple(steps), tuple((each.key, each.number, each.size_bytes) for each in slides))

    def as_bytes(self) -> bytes:
        """Return the file."""
        told: dict[str, Any] = {
            "format": _FORMAT,
            "coverslip_version": __version__,
            "run": self.run,
            "steps": [[str(stage), place] for stage, place in self.steps],
            "slides": [list(slide) for slide in self.slides],
        }
        return (json.dumps(told, separators=(",", ":")) + "\n").encode()

    @classmethod
    def read(cls, data: bytes) -> RunFile:
        """Return what a file tells.

        Raises
        ------
        StoreError
            If it is none.
        """
        try:
            told = json.loads(data)
            if told["format"] != _FORMAT:
                raise StoreError(f"{RUN_FILE} has format {told['format']}, this coverslip knows {_FORMAT}")
            steps = tuple((Stage(stage), str(place)) for stage, place in told["steps"])
            slides = tuple((str(key), int(row), size) for key, row, size in told["slides"])
            return cls(str(told["run"]), steps, slides)
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{RUN_FILE} is none of coverslip: {type(error).__name__}") from None
