"""Compare a series with the slide that it was made from: frames bit by bit, or their pixels with the slide's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from coverslip.converter.sources import open_slide
from coverslip.errors import CorruptSourceError, SourceError
from coverslip.tiler.codecs import make_decoder
from coverslip.tiler.downsample import halve
from coverslip.tiler.grid import TileAddress
from coverslip.validators.image_difference import ORIENTATIONS, delta_e, psnr, ssim
from coverslip.validators.report import Severity
from coverslip.validators.rules import finding

if TYPE_CHECKING:
    from pathlib import Path

    from coverslip.converter.sources.base import SlideSource, SourceLevel, SourcePyramid
    from coverslip.tiler.codecs.base import Pixels
    from coverslip.validators.report import Finding
    from coverslip.validators.series import InstanceView, SeriesView
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_SAMPLE = 8
"""Frames of a level whose pixels are compared unless every frame is."""
_MOST_TOLD = 10
"""Frames of a level that have a finding of their own."""
_SMALLEST_PATCH = 16
_LARGEST_BLOCK = 2048
"""Longest side, in pixels, of what is read from the slide at once."""
_MOST_HALVINGS = 16
_LOWEST_PSNR_DB = 25.0
_LOWEST_SSIM = 0.6
_LOSSLESS_PSNR_DB = 45.0
"""Decoders of lossy sources may differ by a step of a sample here and there; that is all that may differ."""
_MOST_DELTA_E = 8.0
_THINNED = slice(None, None, 4)
"""Pixels, of rows and of columns, whose mean colour difference is computed: it is slow."""

_LARGEST_SPACING_ERROR = 0.001
_LOSSLESS = frozenset(f"1.2.840.10008.1.2{suffix}" for suffix in ("", ".1", ".4.80", ".4.90", ".4.201", ".4.202"))


class _Cell(NamedTuple):
    """Where a frame lies: 0-based corner in the matrix, and its planes in the slide."""

    row: int
    column: int
    focal_plane: int
    optical_path: int


class _Match(NamedTuple):
    """The level of the slide that a level of the series is, or has been reduced from by 2 so many times."""

    level: SourceLevel
    halvings: int

    @property
    def words(self) -> str:
        """Which level, and how much reduced."""
        stored = f"stored level {self.level.level_index}"
        return f"{stored} reduced by {2**self.halvings}" if self.halvings else stored


@dataclass(slots=True)
class _Scores:
    """How near the compared frames of an instance come to the slide."""

    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    delta_e: list[float] = field(default_factory=list)

    def words(self) -> str:
        """Say it."""
        if min(self.psnr_db) == float("inf"):
            return "equal"
        text = f"PSNR at least {min(self.psnr_db):.1f} dB, SSIM at least {min(self.ssim):.3f}"
        return f"{text}, mean colour difference {np.mean(self.delta_e):.1f}" if self.delta_e else text


def check(series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    """Compare the levels of a series with the slide.

    Frames that the slide stores as they are, are compared byte by byte, all of them; others by their pixels: of a
    sample of frames, or of every frame of a thorough validation. Of a reduced level the smaller part of each frame is
    compared the more it is reduced, so that no level costs more than one reading of the slide, and memory is bounded.
    """
    if options.source is None or not series.levels:
        return
    try:
        with open_slide(options.source) as source:
            yield from _compare_series(series, source, thorough=options.thorough)
    except SourceError as error:
        yield finding("fidelity.source-unreadable", f"{type(error).__name__}: {error}")


def _compare_series(series: SeriesView, source: SlideSource, *, thorough: bool) -> Iterator[Finding]:
    base = series.levels[0][0]
    pyramid = _find_pyramid(source, base)
    if pyramid is None:
        yield _wrong_size(source, base)
        return
    stated = pyramid.levels[0].pixel_spacing
    ours = base.pixel_spacing_mm
    if stated is not None and ours is not None:
        theirs = (stated.row_mm, stated.column_mm)
        if any(abs(a / b - 1) > _LARGEST_SPACING_ERROR for a, b in zip(ours, theirs, strict=True)):
            message = f"spacing is {ours[0]:g} x {ours[1]:g} mm, the slide states {theirs[0]:g} x {theirs[1]:g} mm"
            yield finding("fidelity.spacing", message, base.place())
    sound = True
    for level in series.levels:
        for instance in level:
            match = _match(pyramid, instance.matrix_size)
            if match is None:
                rows, columns = instance.matrix_size
                message = f"no level of the slide, halved, has {rows} x {columns} pixels: not compared"
                yield finding("fidelity.not-compared", message, instance.place())
            elif not instance.decodable:
                message = f"frames of {instance.transfer_syntax_uid} are not decoded: not compared"
                yield finding("fidelity.not-compared", message, instance.place())
            else:
                findings = list(_Comparison(instance, pyramid, match, thorough=thorough).findings())
                yield from findings
                sound &= instance is not base or all(each.severity is not Severity.ERROR for each in findings)
    if sound:  # a base that shows something else has other colours too
        yield from _compare_colour(base, pyramid, source.path)


def _find_pyramid(source: SlideSource, base: InstanceView) -> SourcePyramid | None:
    """Return the region of the slide that has the size of the base, and of several the one most like it."""
    fitting = [pyramid for pyramid in source.pyramids if _size(pyramid.levels[0]) == base.matrix_size]
    if len(fitting) < 2 or not base.decodable:
        return fitting[0] if fitting else None

    def likeness(pyramid: SourcePyramid) -> float:
        comparison = _Comparison(base, pyramid, _Match(pyramid.levels[0], 0), thorough=False)
        return float(np.median([comparison.score(index)[0] for index in comparison.sample()]))

    return max(fitting, key=likeness)


def _wrong_size(source: SlideSource, base: InstanceView) -> Finding:
    rows, columns = base.matrix_size
    sizes = [_size(pyramid.levels[0]) for pyramid in source.pyramids]
    message = f"the base has {rows} x {columns} pixels, the slide {' and '.join(f'{a} x {b}' for a, b in sizes)}"
    if (columns, rows) in sizes:
        message += ": rotated by 90 degrees, or mirrored along its diagonal"
    return finding("fidelity.size", message, base.place())


def _size(level: SourceLevel) -> tuple[int, int]:
    return level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns


def _match(pyramid: SourcePyramid, size: tuple[int, int]) -> _Match | None:
    """Return the nearest level of the slide that has this size, or has it after being halved, however rounded."""
    for halvings in range(_MOST_HALVINGS):
        for level in pyramid.levels:
            exact = [length / 2**halvings for length in _size(level)]
            tolerance = 1 if halvings else 0.5
            if all(abs(one - other) < tolerance for one, other in zip(size, exact, strict=True)):
                return _Match(level, halvings)
    return None


class _Comparison:
    """One instance of a level against the slide."""

    def __init__(self, instance: InstanceView, pyramid: SourcePyramid, match: _Match, *, thorough: bool) -> None:
        self._instance = instance
        self._match = match
        self._thorough = thorough
        self._cells = _cells(instance, pyramid)
        self._scores = _Scores()

    def sample(self) -> Sequence[int]:
        """Return the frames whose pixels are compared: all, or some spread evenly."""
        count = len(self._cells)
        if self._thorough or count <= _SAMPLE:
            return range(count)
        return [(2 * index + 1) * count // (2 * _SAMPLE) for index in range(_SAMPLE)]

    def findings(self) -> Iterator[Finding]:
        """Yield what is wrong with the frames, and what has been compared."""
        if not self._copied():
            yield from self._compare_pixels()
            return
        missing, different = self._differing_frames()
        count = len(self._cells)
        if different and not self._claims_copies() and 2 * len(different) > count:
            yield from self._compare_pixels()
            return
        turned = self._turned() if different else None
        if turned:
            yield finding("fidelity.orientation", turned, self._instance.place())
            return
        yield from self._tell(
            [finding("fidelity.frame-differs", text, self._instance.place(index)) for index, text in different.items()]
        )
        yield from self._check_missing(missing)
        if not different:
            message = f"{count} of {count} frames are bit for bit those of {self._match.words}"
            yield finding("fidelity.compared", message, self._instance.place())

    def score(self, frame_index: int) -> tuple[float, float]:
        """Return PSNR and SSIM of a frame, or of the part of it that is compared."""
        ours, cell = self._patch(frame_index)
        theirs = self._reference(cell, *ours.shape[:2])
        return psnr(ours, theirs), ssim(ours, theirs)

    def colour_difference(self, frame_index: int) -> float:
        """Return the mean colour difference of a frame."""
        ours, cell = self._patch(frame_index)
        theirs = self._reference(cell, *ours.shape[:2])
        return delta_e(ours[_THINNED, _THINNED], theirs[_THINNED, _THINNED])

    def _copied(self) -> bool:
        """Whether frames can be the slide's own: of the same grid, coding and colour."""
        instance, (level, halvings) = self._instance, self._match
        frames = level.frame_format
        return (
            not halvings
            and frames is not None
            and frames.transfer_syntax_uid == instance.transfer_syntax_uid
            and (level.grid.rows, level.grid.columns) == instance.tile_size
            and not any(cell.row % level.grid.rows or cell.column % level.grid.columns for cell in self._cells)
        )

    def _claims_copies(self) -> bool:
        header = self._instance.header
        original = (header.get("ImageType") or [""])[0] == "ORIGINAL" and not self._lossless
        return original or "copied bit for bit" in str(header.get("DerivationDescription", ""))

    @property
    def _lossless(self) -> bool:
        return self._instance.transfer_syntax_uid in _LOSSLESS

    def _differing_frames(self) -> tuple[list[int], dict[int, str]]:
        """Compare all frames byte by byte; return those the slide has no tile for, and what differs in others."""
        level, instance = self._match.level, self._instance
        missing: list[int] = []
        different: dict[int, str] = {}
        indices_of_digests: dict[bytes, int] = {}
        digests_of_different: dict[int, bytes] = {}
        for index, cell in enumerate(self._cells):
            theirs = level.read_frame(self._address(cell))
            if theirs is None:
                missing.append(index)
                continue
            theirs += bytes(len(theirs) % 2)
            indices_of_digests[_digest(theirs)] = index
            try:
                ours = instance.read_frame(index)
            except CorruptSourceError as error:
                different[index] = f"cannot be read: {error.reason}"
                continue
            if ours != theirs:
                digests_of_different[index] = _digest(ours)
        for index, digest in digests_of_different.items():
            other = indices_of_digests.get(digest)
            holds = "is not the slide's tile" if other is None else f"holds the slide's tile of frame {other + 1}"
            different[index] = f"{holds}, expected a copy bit for bit"
        return missing, dict(sorted(different.items()))

    def _check_missing(self, missing: Sequence[int]) -> Iterator[Finding]:
        """Check that there is background where the slide has no tile, and say where that is."""
        if not missing:
            return
        instance, level = self._instance, self._match.level
        blank = level.blank_frame()
        decode = make_decoder(instance.frame_format, rows=instance.tile_size[0], columns=instance.tile_size[1]).decode
        filled = []
        for index in missing:
            ours = instance.read_frame(index)
            if ours.rstrip(b"\0") != blank.rstrip(b"\0") and psnr(decode(ours), decode(blank)) < _LOSSLESS_PSNR_DB:
                message = "is not background, but the slide holds no tile here"
                filled.append(finding("fidelity.missing-tile-filled", message, instance.place(index)))
        yield from self._tell(filled)
        numbers = ", ".join(str(index + 1) for index in missing[:_MOST_TOLD])
        more = f" and {len(missing) - _MOST_TOLD} more" if len(missing) > _MOST_TOLD else ""
        message = f"the slide holds no tile for frames {numbers}{more}: they are background"
        yield finding("fidelity.missing-tiles", message, instance.place())

    def _compare_pixels(self) -> Iterator[Finding]:
        bad: list[Finding] = []
        exact = self._lossless and not self._match.halvings
        lowest = _LOSSLESS_PSNR_DB if self._match.level.lossy_method else float("inf")
        for index in self.sample():
            try:
                ours, cell = self._patch(index)
            except CorruptSourceError:
                continue  # told by the checks of frames
            theirs = self._reference(cell, *ours.shape[:2])
            if ours.shape != theirs.shape:
                message = f"has {ours.shape[2]} samples per pixel, the slide {theirs.shape[2]}"
                bad.append(finding("fidelity.pixels-differ", message, self._instance.place(index)))
                continue
            ratio, similarity = psnr(ours, theirs), ssim(ours, theirs)
            self._scores.psnr_db.append(ratio)
            self._scores.ssim.append(similarity)
            if ours.shape[2] == 3:
                self._scores.delta_e.append(delta_e(ours[_THINNED, _THINNED], theirs[_THINNED, _THINNED]))
            message = f"PSNR {ratio:.1f} dB, SSIM {similarity:.3f} against {self._match.words}"
            place = self._instance.place(index)
            if exact and ratio < lowest:
                bad.append(finding("fidelity.lossless-differs", message, place))
            elif ratio < _LOWEST_PSNR_DB and (similarity < _LOWEST_SSIM or ratio < _LOWEST_PSNR_DB - 5):
                bad.append(finding("fidelity.pixels-differ", message, place))
        turned = self._turned() if 2 * len(bad) > len(self._scores.psnr_db) else None
        if turned:
            yield finding("fidelity.orientation", turned, self._instance.place())
        else:
            yield from self._tell(bad)
        if self._scores.psnr_db and not bad:
            count = f"{len(self._scores.psnr_db)} of {len(self._cells)} frames"
            message = f"pixels of {count} compared with {self._match.words}: {self._scores.words()}"
            yield finding("fidelity.compared", message, self._instance.place())

    def _tell(self, findings: Sequence[Finding]) -> Iterator[Finding]:
        """Yield the first findings, and one that says how many more there are."""
        yield from findings[:_MOST_TOLD]
        if len(findings) > _MOST_TOLD:
            more = f"the same of {len(findings) - _MOST_TOLD} more frames"
            yield replace(findings[0], message=more, place=self._instance.place())

    def _turned(self) -> str | None:
        """Say how the level lies wrongly if its frames are those of the slide turned or mirrored."""
        height, width = self._instance.matrix_size
        patches = []
        for index in self.sample()[: 4 * _SAMPLE]:
            with suppress(CorruptSourceError):
                patches.append(self._patch(index))
        as_is = [psnr(ours, self._reference(cell, *ours.shape[:2])) for ours, cell in patches]
        for orientation in ORIENTATIONS:
            ratios = []
            for ours, cell in patches:
                sides = ours.shape[0], ours.shape[1]
                row, column, rows, columns = orientation.place(cell.row, cell.column, *sides, height, width)
                if row < 0 or column < 0 or row + rows > height or column + columns > width:
                    break
                theirs = self._reference(cell._replace(row=row, column=column), rows, columns)
                ratios.append(psnr(ours, orientation.turn(theirs)))
            else:
                if ratios and np.median(ratios) > max(_LOWEST_PSNR_DB - 3, float(np.median(as_is)) + 3):
                    return f"the content is that of {self._match.words} {orientation.description}"
        return None

    def _address(self, cell: _Cell) -> TileAddress:
        grid = self._match.level.grid
        return TileAddress(cell.row // grid.rows, cell.column // grid.columns, cell.focal_plane, cell.optical_path)

    def _patch(self, frame_index: int) -> tuple[Pixels, _Cell]:
        """Return the part of a frame that is compared, and where it lies."""
        cell = self._cells[frame_index]
        pixels = self._instance.decode(frame_index)
        height, width = self._instance.matrix_size
        reduction = max(0, self._match.halvings - 1)
        spans = []
        for corner, side, length in ((cell.row, pixels.shape[0], height), (cell.column, pixels.shape[1], width)):
            valid = max(1, min(side, length - corner))
            wanted = min(valid, max(_SMALLEST_PATCH, side >> reduction))
            start = frame_index * 7919 % (valid - wanted + 1)  # anywhere, but always the same
            spans.append(slice(start, start + wanted))
        place = cell._replace(row=cell.row + spans[0].start, column=cell.column + spans[1].start)
        return pixels[spans[0], spans[1]], place

    def _reference(self, cell: _Cell, rows: int, columns: int) -> Pixels:
        """Return what the slide shows in a rectangle of the level, a bounded block of it at a time."""
        level, halvings = self._match
        if rows << halvings > _LARGEST_BLOCK and rows > 1:
            half = rows // 2
            lower = self._reference(cell._replace(row=cell.row + half), rows - half, columns)
            return np.concatenate([self._reference(cell, half, columns), lower])
        if columns << halvings > _LARGEST_BLOCK and columns > 1:
            half = columns // 2
            right = self._reference(cell._replace(column=cell.column + half), rows, columns - half)
            return np.concatenate([self._reference(cell, rows, half), right], axis=1)
        pixels, _missing = level.read_region(
            cell.row << halvings,
            cell.column << halvings,
            rows << halvings,
            columns << halvings,
            focal_plane_index=cell.focal_plane,
            optical_path_index=cell.optical_path,
        )
        for _ in range(halvings):
            pixels = halve(pixels)
        return pixels


def _cells(instance: InstanceView, pyramid: SourcePyramid) -> list[_Cell]:
    """Return where each frame lies, with its planes counted as the slide counts them."""
    positions = instance.frame_positions
    known = [path.identifier for path in pyramid.optical_paths]
    stated = list(dict.fromkeys(path for _row, _column, path, _focus in positions))
    paths = known if set(stated) <= set(known) else stated
    focuses = sorted({focus for _row, _column, _path, focus in positions})
    first = _first_plane(instance, pyramid) if len(focuses) < len(pyramid.focal_plane_offsets_um) else 0
    return [
        _Cell(row, column, first + focuses.index(focus), min(paths.index(path), len(known) - 1))
        for row, column, path, focus in positions
    ]


def _first_plane(instance: InstanceView, pyramid: SourcePyramid) -> int:
    """Return which of the slide's focal planes is the first of an instance that has not all of them."""
    origin = (instance.header.get("TotalPixelMatrixOriginSequence") or [{}])[0]
    try:
        height = float(origin.get("ZOffsetInSlideCoordinateSystem") or 0)
    except (TypeError, ValueError):
        return 0
    offsets = pyramid.focal_plane_offsets_um
    return min(range(len(offsets)), key=lambda index: abs(offsets[index] - height))


def _compare_colour(base: InstanceView, pyramid: SourcePyramid, path: Path) -> Iterator[Finding]:
    """Compare the base with OpenSlide's reading of the slide, where it can read it."""
    level = pyramid.levels[0]
    if not base.decodable or level.samples_per_pixel != 3 or level.dtype != np.uint8:
        return
    if len(pyramid.focal_plane_offsets_um) > 1:
        return  # OpenSlide reads one of them, and does not say which
    try:
        from coverslip.converter.sources.openslide_source import open_source

        other = open_source(path, None, (255, 255, 255))
    except (ImportError, SourceError):
        return  # the slide is of a kind that OpenSlide does not read
    with other:
        seen = next((one for one in other.pyramids if _size(one.levels[0]) == base.matrix_size), None)
        if seen is None:
            return
        comparison = _Comparison(base, seen, _Match(seen.levels[0], 0), thorough=False)
        with suppress(CorruptSourceError):
            differences = [comparison.colour_difference(index) for index in comparison.sample()]
            mean = float(np.mean(differences))
            message = f"mean colour difference from OpenSlide's reading is {mean:.1f}"
            if mean > _MOST_DELTA_E:
                yield finding("fidelity.colour", message, base.place())
            else:
                yield finding("fidelity.compared", message, base.place())


def _digest(frame: bytes) -> bytes:
    return hashlib.sha256(frame).digest()
