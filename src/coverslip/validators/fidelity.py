"""Compare a series with the slide that it was made from, level by level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from coverslip.errors import CorruptSourceError, SourceError
from coverslip.validators.image_difference import delta_e
from coverslip.validators.level_comparison import LevelComparison, Match, find_match, size_of
from coverslip.validators.mosaic import Mosaic
from coverslip.validators.report import Severity
from coverslip.validators.rules import finding

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future

    from coverslip.converter.sources.base import SlideSource, SourcePyramid
    from coverslip.tiler.codecs.base import Pixels
    from coverslip.validators.instance import InstanceView
    from coverslip.validators.report import Finding
    from coverslip.validators.series import SeriesView

__all__ = ["Fidelity"]

_MOST_DELTA_E = 8.0
_LARGEST_SPACING_ERROR = 0.001


class Fidelity:
    """The comparison of a series with its slide.

    Frames that the slide stores as they are, are compared byte by byte, all of them, when this is begun; others by
    their pixels, when `compare_frame` is called while they are decoded anyway.

    Parameters
    ----------
    series : SeriesView
    slide : SlideSource
    thorough : bool
        Whether the pixels of all frames are compared, not of a sample.
    """

    def __init__(self, series: SeriesView, slide: SlideSource, *, thorough: bool) -> None:
        self._series = series
        self._slide = slide
        self._thorough = thorough
        self._comparisons: dict[int, LevelComparison] = {}
        self._sound = True
        self._colour: Future[dict[int, Pixels]] | None = None
        self._base: LevelComparison | None = None
        self._copied_bases: set[int] = set()
        self._shown: dict[int, Pixels] = {}

    def begin(self, executor: Executor) -> Iterator[Finding]:
        """Compare sizes, spacing, and the bytes of frames that are copies; yield what is found.

        Colours are compared by `executor` meanwhile: to load OpenSlide takes as long as a small slide.

        Raises
        ------
        SourceError
            If the slide cannot be read.
        """
        if not self._series.levels:
            return
        base = self._series.levels[0][0]
        pyramid = self._find_pyramid(base)
        if pyramid is None:
            yield _wrong_size(self._slide, base)
            return
        self._base = self._comparison(base, pyramid, Match(pyramid.levels[0], 0))
        self._colour = executor.submit(self._read_colours, base, pyramid)
        yield from _check_spacing(base, pyramid)
        copies: dict[int, Mosaic] = {}
        for instance in (each for level in self._series.levels for each in level):
            match = find_match(pyramid, instance.matrix_size)
            if match is None:
                rows, columns = instance.matrix_size
                message = f"no level of the slide, halved, has {rows} x {columns} pixels: not compared"
                yield finding("fidelity.not-compared", message, instance.place())
                continue
            if not instance.decodable:
                message = f"frames of {instance.transfer_syntax_uid} are not decoded: not compared"
                yield finding("fidelity.not-compared", message, instance.place())
                continue
            comparison = self._comparison(instance, pyramid, match, thorough=self._thorough)
            findings = list(comparison.compare_bytes())
            yield from self._noted(findings, instance)
            if comparison.missing_tiles:
                self._series.missing_tiles[instance.name] = comparison.missing_tiles
            if comparison.proven_copy:
                if instance.matrix_size == base.matrix_size:
                    self._copied_bases.add(id(instance))
                # What is equal to the slide's level is read in its place: those frames are decoded anyway.
                planes = Mosaic.of_planes(instance, self._series.decoded)
                if len(planes) == 1:
                    copies[match.level.level_index] = next(iter(planes.values()))
            elif comparison.compares_pixels:
                comparison.copies = copies
                self._comparisons[id(instance)] = comparison

    def compare_frame(self, instance: InstanceView, frame_index: int) -> None:
        """Compare the pixels of a frame with the slide's, if they are to be; safe in any thread."""
        comparison = self._comparisons.get(id(instance))
        if comparison is not None:
            comparison.compare_frame(frame_index)
        if self._base is not None and self._base.is_of(instance) and frame_index in self._base.colour_sample:
            with suppress(CorruptSourceError):  # told by the checks of frames
                self._shown[frame_index] = self._base.shown(frame_index)

    def is_copied_base(self, instance: InstanceView) -> bool:
        """Whether all frames of an instance are those of the slide's base, bit by bit."""
        return id(instance) in self._copied_bases

    def finish(self) -> Iterator[Finding]:
        """Yield what came of the frames, and how their colours differ from those that OpenSlide reads."""
        for instance in (each for level in self._series.levels for each in level):
            if id(instance) in self._comparisons:
                yield from self._noted(list(self._comparisons[id(instance)].findings()), instance)
        if self._colour is not None and self._sound:  # a base that shows something else has other colours too
            yield from self._compare_colours(self._colour.result())

    def _noted(self, findings: list[Finding], instance: InstanceView) -> list[Finding]:
        is_base = instance is self._series.levels[0][0]
        self._sound &= not is_base or all(each.severity is not Severity.ERROR for each in findings)
        return findings

    def _comparison(
        self, instance: InstanceView, pyramid: SourcePyramid, match: Match, *, thorough: bool = False
    ) -> LevelComparison:
        return LevelComparison(instance, pyramid, match, self._series.decoded, thorough=thorough)

    def _find_pyramid(self, base: InstanceView) -> SourcePyramid | None:
        """Return the region of the slide that has the size of the base, and of several the one most like it."""
        fitting = [each for each in self._slide.pyramids if size_of(each.levels[0]) == base.matrix_size]
        if len(fitting) < 2 or not base.decodable:
            return fitting[0] if fitting else None

        def likeness(pyramid: SourcePyramid) -> float:
            comparison = self._comparison(base, pyramid, Match(pyramid.levels[0], 0))
            return float(np.median([comparison.ratio(index) for index in comparison.sample]))

        return max(fitting, key=likeness)

    def _read_colours(self, base: InstanceView, pyramid: SourcePyramid) -> dict[int, Pixels]:
        """Return what OpenSlide reads of the slide for some frames of the base; nothing where it cannot read it."""
        level = pyramid.levels[0]
        if not base.decodable or level.samples_per_pixel != 3 or level.dtype != np.uint8:
            return {}
        if len(pyramid.focal_plane_offsets_um) > 1:
            return {}  # OpenSlide reads one of them, and does not say which
        try:
            from coverslip.converter.sources.openslide_source import open_source

            other = open_source(self._slide.path, None, (255, 255, 255))
        except (ImportError, SourceError):
            return {}  # the slide is of a kind that OpenSlide does not read
        with other:
            seen = next((one for one in other.pyramids if size_of(one.levels[0]) == base.matrix_size), None)
            if seen is None:
                return {}
            comparison = self._comparison(base, seen, Match(seen.levels[0], 0))
            try:
                return {index: comparison.expected(index) for index in comparison.colour_sample}
            except CorruptSourceError:
                return {}

    def _compare_colours(self, expected: Mapping[int, Pixels]) -> Iterator[Finding]:
        """Compare the base with OpenSlide's reading of the slide."""
        if not expected or not expected.keys() <= self._shown.keys():
            return
        mean = float(np.mean([delta_e(self._shown[index], theirs) for index, theirs in expected.items()]))
        message = f"mean colour difference from OpenSlide's reading is {mean:.1f}"
        rule = "fidelity.colour" if mean > _MOST_DELTA_E else "fidelity.compared"
        yield finding(rule, message, self._series.levels[0][0].place())


def _check_spacing(base: InstanceView, pyramid: SourcePyramid) -> Iterator[Finding]:
    stated, ours = pyramid.levels[0].pixel_spacing, base.pixel_spacing_mm
    if stated is None or ours is None:
        return
    theirs = (stated.row_mm, stated.column_mm)
    if any(abs(a / b - 1) > _LARGEST_SPACING_ERROR for a, b in zip(ours, theirs, strict=True)):
        message = f"spacing is {ours[0]:g} x {ours[1]:g} mm, the slide states {theirs[0]:g} x {theirs[1]:g} mm"
        yield finding("fidelity.spacing", message, base.place())


def _wrong_size(source: SlideSource, base: InstanceView) -> Finding:
    rows, columns = base.matrix_size
    sizes = [size_of(pyramid.levels[0]) for pyramid in source.pyramids]
    message = f"the base has {rows} x {columns} pixels, the slide {' and '.join(f'{a} x {b}' for a, b in sizes)}"
    if (columns, rows) in sizes:
        message += ": rotated by 90 degrees, or mirrored along its diagonal"
    return finding("fidelity.size", message, base.place())
