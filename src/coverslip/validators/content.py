"""The picture: frames decode, and each level shows what the level below shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING

import cv2
import numpy as np

from coverslip.errors import CorruptSourceError, SourceError
from coverslip.tiler.downsample import halve
from coverslip.validators.fidelity import Fidelity
from coverslip.validators.frames import misfits, sample_indices
from coverslip.validators.image_difference import psnr
from coverslip.validators.mosaic import Mosaic
from coverslip.validators.report import Finding, first_of_each_rule
from coverslip.validators.rules import finding

if TYPE_CHECKING:
    from coverslip.tiler.codecs.base import Pixels
    from coverslip.validators.instance import InstanceView
    from coverslip.validators.series import SeriesView
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

LEAST_PSNR_DB = 25.0
"""What levels made by other filters, with losses of their own, still reach once both are blurred."""

_BLUR = 4
"""Pixels of the smaller level that are averaged on each side: filters and half-pixel shifts no longer tell then."""

_LEAST_PIXELS = 16
_PART = 2048
"""Rows and columns of the base that a thread looks at together, with the same part of the other levels."""
_PART_BYTES = 20 << 20
"""What the decoded frames of all levels of such a part take."""
_APART_BYTES = 8 << 20
"""What is kept of levels whose frames show several parts each: they are asked for again and again."""
_BLANK = 250
"""Least sample of a reduced pixel that is background, where the slide is known to hold no tile for some frames."""


def check(series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    """Decode a sample of the frames of each image, or all, and compare each with the next level.

    With the slide, its pixels are compared too. All levels of a part of the slide are looked at together, so that
    every frame is decoded once.
    """
    fidelity = Fidelity(series, options.slide, thorough=options.thorough) if options.slide is not None else None
    if fidelity is None:
        yield from _look(series, options, None)
        return
    try:
        with ThreadPoolExecutor(1) as beside:
            yield from fidelity.begin(beside)
            yield from _look(series, options, fidelity)
            yield from fidelity.finish()
    except SourceError as error:
        yield finding("fidelity.source-unreadable", f"{type(error).__name__}: {error}")
        yield from _look(series, options, None)


def _look(series: SeriesView, options: ValidationOptions, fidelity: Fidelity | None) -> Iterator[Finding]:
    images: list[_Image] = []
    levels = series.levels
    next_level = {id(image): smaller for level, smaller in pairwise(levels) for image in level}
    base_rows = levels[0][0].matrix_size[0] if levels else 0
    for image in series.slide_images:
        if image.pixel_element is None:
            continue  # told by the rules of frames
        if image.decodable:
            images.append(_Image(series, image, next_level.get(id(image), []), base_rows))
        elif image.transfer_syntax_uid:
            yield finding("frames.not-decoded", "no decoder for the transfer syntax", image.place())
    parts: dict[tuple[int, int], list[tuple[_Image, int]]] = {}
    for each in images:
        for index in each.frames(thorough=options.thorough):
            parts.setdefault(each.part(index), []).append((each, index))
    if options.thorough:
        series.decoded.make_room(options.workers * _PART_BYTES)
        large = [each.view for each in images if each.shows_several_parts]
        series.decoded.keep_apart(large, _APART_BYTES)
    found: dict[int, list[tuple[int, Finding]]] = {id(each): [] for each in images}
    in_turn = [parts[key] for key in sorted(parts, key=_along_curve)]
    with ThreadPoolExecutor(options.workers) as executor:
        for looked_at in executor.map(partial(_look_at, fidelity), in_turn):
            for each, index, told in looked_at:
                found[id(each)].append((index, told))
    for each in images:
        in_order = sorted(found[id(each)], key=itemgetter(0))
        yield from first_of_each_rule(told for _index, told in in_order)


def _along_curve(part: tuple[int, int]) -> int:
    """Return where a part lies on the curve that runs through the quarters of quarters one after the other (Morton's).

    So parts that a frame of an upper level shows together come together, and it is decoded once.
    """
    return sum((number >> bit & 1) << (2 * bit + 1 - axis) for axis, number in enumerate(part) for bit in range(16))


def _look_at(fidelity: Fidelity | None, frames: Sequence[tuple[_Image, int]]) -> list[tuple[_Image, int, Finding]]:
    copies: set[int] = set()
    if fidelity is not None:
        # First, because it asks for some frames of the base in full.
        for image, index in frames:
            fidelity.compare_frame(image.view, index)
        copies = {id(image) for image, _index in frames if fidelity.is_copied_base(image.view)}
    return [(image, index, told) for image, index in frames for told in image.check(index, is_copy=id(image) in copies)]


class _Image:
    """An image, and what its frames are compared with."""

    def __init__(
        self, series: SeriesView, image: InstanceView, smaller: Sequence[InstanceView], base_rows: int
    ) -> None:
        self.view = image
        self._reduction = base_rows / max(1, image.matrix_size[0])
        self._decoded = series.decoded
        self._tiles_are_missing = any(series.missing_tiles.values())
        self._mosaics: dict[tuple[str, float], list[Mosaic]] = {}
        self._positions: list[tuple[int, int, str, float]] = []
        if not all((*image.tile_size, *image.matrix_size)):
            return
        try:
            self._positions = image.frame_positions
            for other in smaller:
                if other.decodable and all((*other.tile_size, *other.matrix_size)):
                    for plane, mosaic in Mosaic.of_planes(other, self._decoded).items():
                        self._mosaics.setdefault(plane, []).append(mosaic)
        except (CorruptSourceError, ValueError):
            self._mosaics = {}  # told by the rules of frames

    def frames(self, *, thorough: bool) -> list[int]:
        """Return the frames that are decoded, but for those that are known not to fit the header."""
        known, whole = misfits(self.view), self.view.whole_frames
        return [index for index in sample_indices(self.view, thorough) if index in whole and index not in known]

    def part(self, index: int) -> tuple[int, int]:
        """Return the part of the slide that a frame begins in, counted in rows and columns of them."""
        if index >= len(self._positions):
            return 0, 0
        row, column = self._positions[index][:2]
        return int(row * self._reduction) // _PART, int(column * self._reduction) // _PART

    @property
    def shows_several_parts(self) -> bool:
        """Whether its frames are larger than a part of the slide."""
        return self._reduction * max(self.view.tile_size) > _PART

    def check(self, index: int, *, is_copy: bool) -> Iterator[Finding]:
        """Decode a frame, and compare it with what the next level shows there.

        What is a copy of the slide's, bit by bit, is decoded at half scale: only the means of its pixels are compared.
        """
        try:
            get = self._decoded.get_reduced if is_copy else self._decoded.get
            pixels = get(self.view, index)
        except CorruptSourceError as error:
            yield finding("frames.corrupt", str(error), self.view.place(index))
            return
        if index < len(self._positions):
            row, column, path, depth = self._positions[index]
            for mosaic in self._mosaics.get((path, depth), ()):
                with suppress(CorruptSourceError):  # told when that frame has its turn
                    yield from self._compare(pixels, (row, column), mosaic, index)

    def _compare(self, pixels: Pixels, place: tuple[int, int], mosaic: Mosaic, index: int) -> Iterator[Finding]:
        """Compare a frame, reduced, with the region of the smaller level that lies within it."""
        image, small = self.view, mosaic.instance
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
        scale = image.tile_size[0] // max(1, pixels.shape[0])  # 2 if it was decoded at half scale
        within = pixels[upper // scale : -(-lower // scale), start // scale : -(-stop // scale)]
        ours, theirs = (_reduce(each, reduced_size) for each in (within, region))
        ratio = _psnr(ours, theirs)
        if ratio >= LEAST_PSNR_DB:
            return
        message = f"PSNR {ratio:.1f} dB against what {small.name} shows there, at least {LEAST_PSNR_DB:.0f} expected"
        found = finding("pyramid.content", message, image.place(index))
        if self._tiles_are_missing and ours.dtype == np.uint8:
            shown = ~(np.atleast_3d(ours) >= _BLANK).all(axis=2)
            if not shown.any() or _psnr(ours[shown], theirs[shown]) >= LEAST_PSNR_DB:
                message = f"blank in part or whole where {small.name} shows something; the slide lacks tiles"
                found = finding("pyramid.missing-tile", message, image.place(index))
        yield found


def _reduce(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Return the means of areas; by halves where that comes to the same, which is twice as fast."""
    columns, rows = size
    while pixels.dtype == np.uint8 and pixels.shape[0] % (2 * rows) == 0 == pixels.shape[1] % (2 * columns):
        pixels = halve(pixels)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _psnr(first: Pixels, second: Pixels) -> float:
    """Return the PSNR against the full range of 8 bits, or the brightest value found of deeper pixels."""
    if first.shape != second.shape:
        return 0.0
    if first.dtype == np.uint8 == second.dtype:
        return psnr(first, second)
    error = float(np.mean((first.astype(np.float32) - second) ** 2))
    peak = max(255.0, float(first.max()), float(second.max()))
    return math.inf if error == 0 else 10 * math.log10(peak * peak / error)
