"""Paint over the part of an overview that shows the slide's label."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from coverslip.converter.sources.base import AssociatedImage

if TYPE_CHECKING:
    from coverslip.tiler.codecs.base import Pixels

__all__ = ["label_columns", "mask_label"]

_SLIDE_WIDTH_MM = 25.4
_MASKED_MM = 27.0
"""Labels are at most as long as the slide is wide, 26 mm; the rest is for pictures that are not cut exactly."""

_SHAPES = (2.6, 3.4)
"""Columns over rows of a picture that shows a whole slide, 75 x 25 or 76 x 26 mm, lying on its side."""

_PAINT = 128


def label_columns(rows: int, columns: int) -> int | None:
    """Return how many columns at the label's end to paint over; None if the picture is not of a whole slide.

    The rows show the slide's width, which gives the scale.
    """
    if not rows or not _SHAPES[0] <= columns / rows <= _SHAPES[1]:
        return None
    return math.ceil(_MASKED_MM / _SLIDE_WIDTH_MM * rows)


def mask_label(image: AssociatedImage) -> AssociatedImage | None:
    """Return an overview with a grey field in place of its label; None if where the label lies is not certain.

    The field is 27 mm long, more than any label: what it hides of the slide is not missed, what it would leave of a
    label could not be taken back.
    """
    count = label_columns(image.rows, image.columns)
    if count is None or image.label_side not in ("left", "right"):
        return None
    part = slice(0, count) if image.label_side == "left" else slice(image.columns - count, None)

    def read() -> Pixels:
        pixels = image.read().copy()
        pixels[:, part] = _PAINT
        return pixels

    return replace(image, read=read, masked=True)
