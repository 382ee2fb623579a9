"""Viewports and windows as PS3.18 writes them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coverslip.errors import UsageError

__all__ = ["Viewport", "fit_within", "parse_viewport", "parse_window"]

_MOST = 1e9


@dataclass(frozen=True, slots=True)
class Viewport:
    """A region of the source, and the picture that it has to fit into (PS3.18 8.3.5.1.3).

    Parameters
    ----------
    width, height : float
        Of the picture.
    x, y, source_width, source_height : float
        Of the region; a negative size mirrors, zero goes to the edge.
    """

    width: float
    height: float
    x: float = 0.0
    y: float = 0.0
    source_width: float = 0.0
    source_height: float = 0.0


def parse_viewport(text: str) -> Viewport:
    """Read ``vw,vh[,sx,sy,sw,sh]``, whose last four may be empty.

    Raises
    ------
    UsageError
        If it is none.
    """
    parts = text.split(",")
    if len(parts) not in (2, 6):
        raise UsageError("viewport: expected width,height or width,height,x,y,width,height")
    numbers = [_number("viewport", part, 0.0 if index > 1 else None) for index, part in enumerate(parts)]
    if not (1 <= numbers[0] <= 100_000 and 1 <= numbers[1] <= 100_000):
        raise UsageError("viewport: expected a width and a height from 1")
    return Viewport(*numbers)


def parse_window(text: str) -> tuple[float, float] | None:
    """Read ``center,width,function`` as (low, high); None if there is none.

    Raises
    ------
    UsageError
        If it is none; of functions only linear ones are known.
    """
    if not text:
        return None
    parts = text.split(",")
    if len(parts) != 3 or parts[2].lower() not in ("linear", "linear-exact"):
        raise UsageError("window: expected center,width,linear or center,width,linear-exact")
    center, width = _number("window", parts[0]), _number("window", parts[1])
    if width < 1 - (parts[2].lower() == "linear-exact"):
        raise UsageError("window: expected a width from 1")
    if parts[2].lower() == "linear":  # PS3.3 C.11.2.1.2.1
        return center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2
    return center - width / 2, center + width / 2


def _number(name: str, text: str, empty: float | None = None) -> float:
    if not text.strip() and empty is not None:
        return empty
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) < _MOST:
        raise UsageError(f"{name}: expected numbers")
    return value


def fit_within(width: float, height: float, most_width: float, most_height: float) -> tuple[int, int]:
    """Return (columns, rows) of the largest picture of the same proportions."""
    scale = min(most_width / width, most_height / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
