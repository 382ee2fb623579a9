"""The picture: frames decode, and each level shows what the level below shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import batched, chain
from typing import TYPE_CHECKING

import cv2
import numpy as np

from coverslip.errors import CorruptSourceError
from coverslip.validators.frames import misfits, sample_indices
from coverslip.validators.report import Finding, first_of_each_rule
from coverslip.validators.rules import finding

if TYPE_CHECKING:
    from coverslip.tiler.codecs.base import Pixels
    from coverslip.validators.decoded_frames import DecodedFrames
    from coverslip.validators.instance import InstanceView
    from coverslip.validators.series import SeriesView
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

LEAST_PSNR_DB = 25.0
"""What levels made by other filters, with losses of their own, still reach once both are blurred."""

_BLUR = 4
"""Pixels of the smaller level that are averaged on each side: filters and half-pixel shifts no longer tell then."""

_LEAST_PIXELS = 16
_AT_ONCE = 16
"""Frames that a thread takes at a time."""
_BLANK = 250
"""Least sample of a reduced pixel that is background, where the slide is known to hold no tile for some frames."""


def check(series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    """Decode a sample of the frames of each image, or all, and compare each with the next level.

    Each frame is decoded once, and those of the next level once more, or once for each time that they have left the
    cache: frames are taken in the order of what they are compared with.
    """
    next_level = {
        id(image): smaller
        for level, smaller in zip(series.levels, [*series.levels[1:], []], strict=True)
        for image in level
    }
    with ThreadPoolExecutor(options.workers) as executor:
        for image in series.slide_images:
            if image.pixel_element is None:
                continue  # told by the rules of frames
            if not image.decodable:
                if image.transfer_syntax_uid:
                    yield finding("frames.not-decoded", "no decoder for the transfer syntax", image.place())
                continue
            looked_at = _Image(series, image, next_level.get(id(image), []))
            parts = batched(looked_at.frames(thorough=options.thorough), _AT_ONCE)
            yield from first_of_each_rule(chain.from_iterable(executor.map(looked_at.check, parts)))


@dataclass(frozen=True, slots=True)
class _Mosaic:
    """The frames of one plane of an instance by their places."""

    instance: InstanceView
    frames: dict[tuple[int, int], int]
    decoded: DecodedFrames

    def region(self, top: int, left: int, bottom: int, right: int) -> Pixels | None:
        """Return pixels of the matrix, None if a frame is missing."""
        tile_rows, tile_columns = self.instance.tile_size
        pixels: Pixels | None = None
        for row in range(top // tile_rows * tile_rows, bottom, tile_rows):
            for column in range(left // tile_columns * tile_columns, right, tile_columns):
                index = self.frames.get((row, column))
                if index is None:
                    return None
                tile = self.decoded.get(self.instance, index)
                first, last = max(top, row), min(bottom, row + tile_rows)
                start, stop = max(left, column), min(right, column + tile_columns)
                part = tile[first - row : last - row, start - column : stop - column]
                if part.shape[:2] == (bottom - top, right - left):
                    return part
                if pixels is None:
                    pixels = np.zeros((bottom - top, right - left, tile.shape[2]), tile.dtype)
                pixels[first - top : last - top, start - left : stop - left] = part
        return pixels


class _Image:
    """An image, and what its frames are compared with."""

    def __init__(self, series: SeriesView, image: InstanceView, smaller: Sequence[InstanceView]) -> None:
        self._image = image
        self._decoded = series.decoded
        self._tiles_are_missing = any(series.missing_tiles.values())
        self._mosaics: dict[tuple[str, float], list[_Mosaic]] = {}
        self._positions: list[tuple[int, int, str, float]] = []
        if not all((*image.tile_size, *image.matrix_size)):
            return
        try:
            self._positions = image.frame_positions
            for other in smaller:
                if other.decodable and all((*other.tile_size, *other.matrix_size)):
                    self._add(other)
        except (CorruptSourceError, ValueError):
            self._mosaics = {}  # told by the rules of frames

    def _add(self, other: InstanceView) -> None:
        planes: dict[tuple[str, float], dict[tuple[int, int], int]] = {}
        for index, (row, column, path, depth) in enumerate(other.frame_positions):
            planes.setdefault((path, depth), {})[row, column] = index
        for plane, frames in planes.items():
            self._mosaics.setdefault(plane, []).append(_Mosaic(other, frames, self._decoded))

    def frames(self, *, thorough: bool) -> list[int]:
        """Return the frames that are decoded, but for those that are known not to fit the header."""
        known = misfits(self._image)
        whole = self._image.whole_frames
        indices = [index for index in sample_indices(self._image, thorough) if index in whole and index not in known]
        mosaic = next(chain.from_iterable(self._mosaics.values()), None)
        if mosaic is None or max(indices, default=0) >= len(self._positions):
            return indices
        rows, columns = (
            tile * size / small
            for tile, size, small in zip(
                mosaic.instance.tile_size, self._image.matrix_size, mosaic.instance.matrix_size, strict=True
            )
        )

        def compared_with(index: int) -> tuple[float, str, int, int]:
            row, column, path, depth = self._positions[index]
            return depth, path, int(row / rows), int(column / columns)

        return sorted(indices, key=compared_with)

    def check(self, indices: Sequence[int]) -> list[Finding]:
        """Decode frames, and compare each with what the next level shows there."""
        found: list[Finding] = []
        for index in indices:
            try:
                pixels = self._decoded.get(self._image, index)
            except CorruptSourceError as error:
                found.append(finding("frames.corrupt", str(error), self._image.place(index)))
                continue
            if index < len(self._positions):
                row, column, path, depth = self._positions[index]
                for mosaic in self._mosaics.get((path, depth), ()):
                    try:
                        found += self._compare(pixels, (row, column), mosaic, index)
                    except CorruptSourceError:
                        continue  # told when that frame has its turn
        return found

    def _compare(self, pixels: Pixels, place: tuple[int, int], mosaic: _Mosaic, index: int) -> Iterator[Finding]:
        """Compare a frame, reduced, with the region of the smaller level that lies within it."""
        image, small = self._image, mosaic.instance
        spans = []
        for at, tile, size, reduced in zip(place, image.tile_size, image.matrix_size, small.matrix_size, strict=True):
            ratio = size / reduced
            first, last = math.ceil(at / ratio), math.floor(min(at + tile, size) / ratio)
            last -= (last - first) % _BLUR
            spans.append((first, last, round(first * ratio) - at, min(round(last * ratio), size) - at))
        (top, bottom, upper, lower), (left, right, start, stop) = spans
        if bottom - top < _LEAST_PIXELS or right - left < _LEAST_PIXELS:
            return
        region = mosaic.region(top, left, bottom, right)
        if region is None:
            return
        reduced_size = ((right - left) // _BLUR, (bottom - top) // _BLUR)
        ours, theirs = (_reduce(each, reduced_size) for each in (pixels[upper:lower, start:stop], region))
        psnr = _psnr(ours, theirs)
        if psnr >= LEAST_PSNR_DB:
            return
        message = f"PSNR {psnr:.1f} dB against what {small.name} shows there, at least {LEAST_PSNR_DB:.0f} expected"
        found = finding("pyramid.content", message, image.place(index))
        if self._tiles_are_missing and ours.dtype == np.uint8:
            shown = ~(np.atleast_3d(ours) >= _BLANK).all(axis=2)
            if not shown.any() or _psnr(ours[shown], theirs[shown]) >= LEAST_PSNR_DB:
                message = f"blank in part or whole where {small.name} shows something; the slide lacks tiles"
                found = finding("pyramid.missing-tile", message, image.place(index))
        yield found


def _reduce(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _psnr(first: Pixels, second: Pixels) -> float:
    """Return the PSNR against the full range of 8 bits, or the brightest value found of deeper pixels."""
    if first.shape != second.shape:
        return 0.0
    error = float(np.mean((first.astype(np.float32) - second) ** 2))
    peak = max(255.0, float(first.max()), float(second.max()))
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)
