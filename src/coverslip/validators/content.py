"""The picture: each level shows what the level below shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from coverslip.errors import CorruptSourceError
from coverslip.validators.frames import sample_indices
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import InstanceView, SeriesView

if TYPE_CHECKING:
    from coverslip.tiler.codecs.base import Pixels
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

LEAST_PSNR_DB = 25.0
"""What levels made by other filters, with losses of their own, still reach once both are blurred."""

_BLUR = 4
"""Pixels of the smaller level that are averaged on each side: filters and half-pixel shifts no longer tell then."""

_LEAST_PIXELS = 16
_KEPT_FRAMES = 6
_MOST_TOLD = 10


def check(series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    """Compare a sample of the frames of each level, or all, with the level above."""
    for larger, smaller in pairwise(series.levels):
        for fine in larger:
            for coarse in smaller:
                yield from islice(_compare(fine, coarse, options.thorough), _MOST_TOLD)
    _decode.cache_clear()


@dataclass(frozen=True, slots=True)
class _Mosaic:
    """The frames of one plane of an instance by their places, a few of them kept decoded."""

    instance: InstanceView
    frames: dict[tuple[int, int], int]

    def region(self, top: int, left: int, bottom: int, right: int) -> Pixels | None:
        """Return pixels of the matrix, None if a frame is missing."""
        tile_rows, tile_columns = self.instance.tile_size
        pixels: Pixels | None = None
        for row in range(top // tile_rows * tile_rows, bottom, tile_rows):
            for column in range(left // tile_columns * tile_columns, right, tile_columns):
                index = self.frames.get((row, column))
                if index is None:
                    return None
                tile = _decode(self.instance, index)
                if pixels is None:
                    pixels = np.zeros((bottom - top, right - left, tile.shape[2]), tile.dtype)
                first, last = max(top, row), min(bottom, row + tile_rows)
                start, stop = max(left, column), min(right, column + tile_columns)
                pixels[first - top : last - top, start - left : stop - left] = tile[
                    first - row : last - row, start - column : stop - column
                ]
        return pixels


@lru_cache(maxsize=_KEPT_FRAMES)
def _decode(instance: InstanceView, index: int) -> Pixels:
    return instance.decode(index)


def _compare(fine: InstanceView, coarse: InstanceView, thorough: bool) -> Iterator[Finding]:
    """Compare frames of a level with the region of the next that shows the same."""
    sizes = (*fine.tile_size, *coarse.tile_size, *fine.matrix_size, *coarse.matrix_size)
    if not (fine.decodable and coarse.decodable and all(sizes)):
        return
    try:
        positions = fine.frame_positions
        places = [(index, position) for index, position in enumerate(coarse.frame_positions)]
    except (CorruptSourceError, ValueError):
        return  # told by the rules of frames
    mosaics: dict[tuple[str, float], dict[tuple[int, int], int]] = {}
    for index, (row, column, path, depth) in places:
        mosaics.setdefault((path, depth), {})[row, column] = index
    for index in sample_indices(fine, thorough):
        if index >= len(positions):
            return
        row, column, path, depth = positions[index]
        frames = mosaics.get((path, depth))
        if frames is None:
            continue
        try:
            psnr = _psnr_of_frame(_Mosaic(coarse, frames), fine, index, (row, column))
        except CorruptSourceError:
            continue  # told by the rules of frames
        if psnr is not None and psnr < LEAST_PSNR_DB:
            message = (
                f"PSNR {psnr:.1f} dB against what {coarse.name} shows there, at least {LEAST_PSNR_DB:.0f} expected"
            )
            yield finding("pyramid.content", message, fine.place(index))


def _psnr_of_frame(mosaic: _Mosaic, fine: InstanceView, index: int, place: tuple[int, int]) -> float | None:
    """Return how well a frame, reduced, agrees with the region of the smaller level that lies within it."""
    spans = []
    for at, tile, size, small in zip(place, fine.tile_size, fine.matrix_size, mosaic.instance.matrix_size, strict=True):
        ratio = size / small
        first, last = math.ceil(at / ratio), math.floor(min(at + tile, size) / ratio)
        last -= (last - first) % _BLUR
        spans.append((first, last, round(first * ratio) - at, min(round(last * ratio), size) - at))
    (top, bottom, upper, lower), (left, right, start, stop) = spans
    if bottom - top < _LEAST_PIXELS or right - left < _LEAST_PIXELS:
        return None
    reduced_size = ((right - left) // _BLUR, (bottom - top) // _BLUR)
    region = mosaic.region(top, left, bottom, right)
    if region is None:
        return None
    reduced = _reduce(_decode(fine, index)[upper:lower, start:stop], reduced_size)
    return _psnr(reduced, _reduce(region, reduced_size))


def _reduce(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_AREA)


def _psnr(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> float:
    """Return the PSNR against the full range of 8 bits, or the brightest value found of deeper pixels."""
    if first.shape != second.shape:
        return 0.0
    error = float(np.mean((first - second) ** 2))
    peak = max(255.0, float(first.max()), float(second.max()))
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)
