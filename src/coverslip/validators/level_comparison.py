"""Compare one level of a series with the slide that it was made from: frames bit by bit, or their pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from math import fsum
from operator import itemgetter
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, overload

import numpy as np

from coverslip.errors import CorruptSourceError, SourceError
from coverslip.tiler.codecs import make_decoder
from coverslip.tiler.downsample import halve
from coverslip.tiler.grid import TileAddress
from coverslip.tiler.reading import read_frame_row
from coverslip.validators.frames import sample_indices
from coverslip.validators.image_difference import ORIENTATIONS, delta_e, psnr, ssim
from coverslip.validators.report import first_of_each_rule
from coverslip.validators.rules import finding

if TYPE_CHECKING:
    from coverslip.converter.sources.base import SourceLevel, SourcePyramid
    from coverslip.tiler.codecs.base import Pixels
    from coverslip.validators.decoded_frames import DecodedFrames
    from coverslip.validators.instance import InstanceView
    from coverslip.validators.mosaic import Mosaic
    from coverslip.validators.report import Finding

__all__ = ["LevelComparison", "Match", "find_match", "size_of"]

_RUN = 32
"""Tiles of the slide that are read at once."""
_SAMPLE = 8
"""Frames of a level whose pixels are compared, unless all are; of so many similarity and colour difference are told."""
_MOST_NAMED = 10
_SMALLEST_PATCH = 16
_LARGEST_BLOCK = 2048
"""Longest side, in pixels, of what is read from the slide at once."""
_MOST_HALVINGS = 16
_LOWEST_PSNR_DB = 25.0
_LOWEST_SSIM = 0.6
_LOSSLESS_PSNR_DB = 45.0
"""Decoders of lossy sources may differ by a step of a sample here and there; that is all that may differ."""
_COLOUR_SAMPLE = 4
"""Frames of the base, of those that are decoded the ones of most bytes, whose colours are compared with OpenSlide's."""
_THINNED = slice(None, None, 8)
"""Pixels, of rows and of columns, whose mean colour difference is computed: it is slow."""
_LOSSLESS = frozenset(f"1.2.840.10008.1.2{suffix}" for suffix in ("", ".1", ".4.80", ".4.90", ".4.201", ".4.202"))


class _Cell(NamedTuple):
    """Where a frame lies: 0-based corner in the matrix, and its planes in the slide."""

    row: int
    column: int
    focal_plane: int
    optical_path: int


class Match(NamedTuple):
    """The level of the slide that a level of the series is, or has been reduced from by 2 so many times."""

    level: SourceLevel
    halvings: int

    @property
    def words(self) -> str:
        """Which level, and how much reduced."""
        stored = f"stored level {self.level.level_index}"
        return f"{stored} reduced by {2**self.halvings}" if self.halvings else stored


class _Scores:
    """How near the compared frames of an instance come to the slide: the least, and the mean colour difference."""

    def __init__(self) -> None:
        self.frames = 0
        self._psnr_db = self._ssim = float("inf")
        self._delta_e: list[float] = []
        self._lock = Lock()

    def add(self, psnr_db: float, similarity: float | None, difference: float | None) -> None:
        """Count a frame."""
        with self._lock:
            self.frames += 1
            self._psnr_db = min(self._psnr_db, psnr_db)
            self._ssim = min(self._ssim, similarity if similarity is not None else 1.0)
            if difference is not None:
                self._delta_e.append(difference)

    def words(self) -> str:
        """Say it."""
        if self._psnr_db == float("inf"):
            return "equal"
        text = f"PSNR at least {self._psnr_db:.1f} dB, SSIM at least {self._ssim:.3f}"
        # Summed exactly: threads come in any order, and what is told is always the same.
        mean = fsum(self._delta_e) / max(1, len(self._delta_e))
        return f"{text}, mean colour difference {mean:.1f}" if self._delta_e else text


def size_of(level: SourceLevel) -> tuple[int, int]:
    """Return (rows, columns) of a level of the slide."""
    return level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns


def find_match(pyramid: SourcePyramid, size: tuple[int, int]) -> Match | None:
    """Return the nearest level of the slide that has this size, or has it after being halved, however rounded."""
    for halvings in range(_MOST_HALVINGS):
        for level in pyramid.levels:
            exact = [length / 2**halvings for length in size_of(level)]
            tolerance = 1 if halvings else 0.5
            if all(abs(one - other) < tolerance for one, other in zip(size, exact, strict=True)):
                return Match(level, halvings)
    return None


class LevelComparison:
    """One instance of a level against the slide.

    Parameters
    ----------
    instance : InstanceView
    pyramid : SourcePyramid
    match : Match
    decoded : DecodedFrames
    thorough : bool
        Whether the pixels of all frames are compared, not of a sample.

    Attributes
    ----------
    copies : mapping
        Levels of the series that are known to be equal to those of the slide, by the index of the slide's level.
    proven_copy, compares_pixels : bool
        What `compare_bytes` has found.
    missing_tiles : int
        Frames that the slide has no tile for.
    """

    def __init__(
        self, instance: InstanceView, pyramid: SourcePyramid, match: Match, decoded: DecodedFrames, *, thorough: bool
    ) -> None:
        self.copies: Mapping[int, Mosaic] = {}
        self.proven_copy = False
        self.compares_pixels = False
        self.missing_tiles = 0
        self._instance = instance
        self._match = match
        self._decoded = decoded
        self._cells = _Cells(instance, pyramid)
        self._scores = _Scores()
        self._bad: list[tuple[int, Finding]] = []
        self._unreadable: list[SourceError] = []
        chosen = sample_indices(instance, thorough=False)
        few = [chosen[(2 * index + 1) * len(chosen) // (2 * _SAMPLE)] for index in range(_SAMPLE)]
        self.sample: Sequence[int] = chosen if len(chosen) <= _SAMPLE else few
        self.colour_sample = frozenset(sorted(chosen, key=instance.stored_bytes, reverse=True)[:_COLOUR_SAMPLE])
        self._wanted = range(instance.number_of_frames) if thorough else frozenset(self.sample)

    def compare_bytes(self) -> Iterator[Finding]:
        """Compare frames that are or should be the slide's, and decide whether pixels have to be compared instead."""
        if not self._copied():
            self.compares_pixels = True
            return
        missing, different = self._differing_frames()
        count = len(self._cells)
        if different and not self._claims_copies() and 2 * len(different) > count:
            self.compares_pixels = True
            return
        turned = self._turned() if different else None
        if turned:
            yield finding("fidelity.orientation", turned, self._instance.place())
            return
        yield from first_of_each_rule(
            finding("fidelity.frame-differs", text, self._instance.place(index)) for index, text in different.items()
        )
        yield from self._check_missing(missing)
        self.proven_copy = not different and not missing
        if not different:
            message = f"{count} of {count} frames are bit for bit those of {self._match.words}"
            yield finding("fidelity.compared", message, self._instance.place())

    def compare_frame(self, frame_index: int) -> None:
        """Compare the pixels of one frame, if they are to be; what comes of it is told by `findings`."""
        if frame_index not in self._wanted:
            return
        try:
            ours, cell = self._patch(frame_index)
        except CorruptSourceError:
            return  # told by the checks of frames
        try:
            theirs = self._reference(cell, *ours.shape[:2])
        except SourceError as error:
            self._unreadable.append(error)
            return
        if (told := self._difference(frame_index, ours, theirs)) is not None:
            self._bad.append((frame_index, told))

    def findings(self) -> Iterator[Finding]:
        """Yield what came of the frames whose pixels were compared.

        Raises
        ------
        SourceError
            If the slide could not be read everywhere.
        """
        if self._unreadable:
            raise self._unreadable[0]
        turned = self._turned() if 2 * len(self._bad) > self._scores.frames else None
        if turned:
            yield finding("fidelity.orientation", turned, self._instance.place())
        else:
            yield from first_of_each_rule(told for _index, told in sorted(self._bad, key=itemgetter(0)))
        if self._scores.frames and not self._bad:
            count = f"{self._scores.frames} of {len(self._cells)} frames"
            message = f"pixels of {count} compared with {self._match.words}: {self._scores.words()}"
            yield finding("fidelity.compared", message, self._instance.place())

    def ratio(self, frame_index: int) -> float:
        """Return the PSNR of a frame, or of the part of it that is compared."""
        ours, cell = self._patch(frame_index)
        return psnr(ours, self._reference(cell, *ours.shape[:2]))

    def is_of(self, instance: InstanceView) -> bool:
        """Whether this is the comparison of an instance."""
        return instance is self._instance

    def shown(self, frame_index: int) -> Pixels:
        """Return some pixels of a frame."""
        return self._patch(frame_index)[0][_THINNED, _THINNED].copy()

    def expected(self, frame_index: int) -> Pixels:
        """Return the same pixels of the slide; nothing is decoded of the instance."""
        rows, columns, cell = self._place(frame_index)
        theirs = self._reference(cell, rows.stop - rows.start, columns.stop - columns.start)
        return theirs[_THINNED, _THINNED].copy()

    def _copied(self) -> bool:
        """Whether frames can be the slide's own: of the same grid, coding and colour."""
        instance, (level, halvings) = self._instance, self._match
        frames = level.frame_format
        return (
            not halvings
            and frames is not None
            and frames.transfer_syntax_uid == instance.transfer_syntax_uid
            and (level.grid.rows, level.grid.columns) == instance.tile_size
            and (
                instance.grid() is not None
                or not any(cell.row % level.grid.rows or cell.column % level.grid.columns for cell in self._cells)
            )
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
        missing: list[int] = []
        different: dict[int, str] = {}
        digests: dict[int, bytes] = {}
        for index, (theirs, ours) in enumerate(zip(self._tiles(), self._instance.iter_frames(), strict=False)):
            if theirs is None:
                missing.append(index)
            elif isinstance(ours, CorruptSourceError):
                different[index] = f"cannot be read: {ours.reason}"
            elif not ours.startswith(theirs) or ours[len(theirs) :] not in (b"", b"\0"):
                digests[index] = _digest(ours)
        for index, other in self._find_tiles(digests).items():
            holds = "is not the slide's tile" if other is None else f"holds the slide's tile of frame {other + 1}"
            different[index] = f"{holds}, expected a copy bit for bit"
        return missing, dict(sorted(different.items()))

    def _tiles(self) -> Iterator[bytes | None]:
        """Yield the slide's tile for each frame; neighbours are read together."""
        run: list[TileAddress] = []
        for address in map(self._address, self._cells):
            if run and (len(run) == _RUN or address != run[-1]._replace(column_index=run[-1].column_index + 1)):
                yield from read_frame_row(self._match.level, run[0], len(run))
                run.clear()
            run.append(address)
        if run:
            yield from read_frame_row(self._match.level, run[0], len(run))

    def _find_tiles(self, digests: Mapping[int, bytes]) -> dict[int, int | None]:
        """Return for frames, by the digests of what they hold, the frame that should hold it; None if none should."""
        wanted = set(digests.values())
        found: dict[bytes, int] = {}
        for index, cell in enumerate(self._cells if digests else ()):
            theirs = self._match.level.read_frame(self._address(cell))
            if theirs is not None and (digest := _digest(theirs + bytes(len(theirs) % 2))) in wanted:
                found[digest] = index
        return {index: found.get(digest) for index, digest in digests.items()}

    def _check_missing(self, missing: Sequence[int]) -> Iterator[Finding]:
        """Check that there is background where the slide has no tile, and say where that is."""
        if not missing:
            return
        self.missing_tiles = len(missing)
        instance, level = self._instance, self._match.level
        blank = level.blank_frame()
        decode = make_decoder(instance.frame_format, rows=instance.tile_size[0], columns=instance.tile_size[1]).decode
        filled = []
        for index in missing:
            ours = instance.read_frame(index)
            if ours.rstrip(b"\0") != blank.rstrip(b"\0") and psnr(decode(ours), decode(blank)) < _LOSSLESS_PSNR_DB:
                message = "is not background, but the slide holds no tile here"
                filled.append(finding("fidelity.missing-tile-filled", message, instance.place(index)))
        yield from first_of_each_rule(filled)
        numbers = ", ".join(str(index + 1) for index in missing[:_MOST_NAMED])
        more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
        message = f"the slide holds no tile for frames {numbers}{more}: they are background"
        yield finding("fidelity.missing-tiles", message, instance.place())

    def _difference(self, index: int, ours: Pixels, theirs: Pixels) -> Finding | None:
        """Say what is wrong with a frame, if anything, and add to the scores."""
        place = self._instance.place(index)
        if ours.shape != theirs.shape:
            message = f"has {ours.shape[2]} samples per pixel, the slide {theirs.shape[2]}"
            return finding("fidelity.pixels-differ", message, place)
        ratio = psnr(ours, theirs)
        far = ratio < _LOWEST_PSNR_DB
        similarity = ssim(ours, theirs) if far or index in self.sample else None
        difference = None
        if index in self.sample and ours.shape[2] == 3:
            difference = delta_e(ours[_THINNED, _THINNED], theirs[_THINNED, _THINNED])
        self._scores.add(ratio, similarity, difference)
        words = f"PSNR {ratio:.1f} dB against {self._match.words}"
        if self._lossless and not self._match.halvings:
            lowest = _LOSSLESS_PSNR_DB if self._match.level.lossy_method else float("inf")
            return finding("fidelity.lossless-differs", words, place) if ratio < lowest else None
        if far and similarity is not None and (similarity < _LOWEST_SSIM or ratio < _LOWEST_PSNR_DB - 5):
            return finding("fidelity.pixels-differ", f"{words}, SSIM {similarity:.3f}", place)
        return None

    def _turned(self) -> str | None:
        """Say how the level lies wrongly if its frames are those of the slide turned or mirrored."""
        height, width = self._instance.matrix_size
        patches = []
        for index in self.sample:
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
        rows, columns, place = self._place(frame_index)
        return self._decoded.get(self._instance, frame_index)[rows, columns], place

    def _place(self, frame_index: int) -> tuple[slice, slice, _Cell]:
        """Return which rows and columns of a frame are compared, and where they lie."""
        cell = self._cells[frame_index]
        height, width = self._instance.matrix_size
        tall, wide = self._instance.tile_size
        halvings, grid = self._match.halvings, self._match.level.grid
        spans = []
        for corner, side, length, tile in (
            (cell.row, tall, height, grid.rows),
            (cell.column, wide, width, grid.columns),
        ):
            valid = max(1, min(side, length - corner))
            wanted = min(valid, max(_SMALLEST_PATCH, side >> halvings))
            start = frame_index * 7919 % (valid - wanted + 1)  # anywhere, but always the same
            # From the border of a tile of the slide, if there is one before: then one tile is enough.
            start = max(0, ((corner + start) << halvings) // tile * tile - (corner << halvings)) >> halvings
            spans.append(slice(start, start + wanted))
        place = cell._replace(row=cell.row + spans[0].start, column=cell.column + spans[1].start)
        return spans[0], spans[1], place

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
        rectangle = cell.row << halvings, cell.column << halvings, rows << halvings, columns << halvings
        copy = self.copies.get(level.level_index)
        if copy is not None:
            pixels = copy.region_beyond(*rectangle)
        else:
            pixels, _missing = level.read_region(
                *rectangle, focal_plane_index=cell.focal_plane, optical_path_index=cell.optical_path
            )
        for _ in range(halvings):
            pixels = halve(pixels)
        return pixels


class _Cells(Sequence[_Cell]):
    """Where each frame lies, with its planes counted as the slide counts them."""

    def __init__(self, instance: InstanceView, pyramid: SourcePyramid) -> None:
        self._positions = instance.frame_positions
        known = [path.identifier for path in pyramid.optical_paths]
        stated = list(dict.fromkeys(path for _row, _column, path, _focus in self._positions))
        paths = known if set(stated) <= set(known) else stated
        self._paths = {path: min(number, len(known) - 1) for number, path in reversed(list(enumerate(paths)))}
        focuses = sorted({focus for _row, _column, _path, focus in self._positions})
        first = _first_plane(instance, pyramid) if len(focuses) < len(pyramid.focal_plane_offsets_um) else 0
        self._focuses = {focus: first + number for number, focus in enumerate(focuses)}

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> _Cell: ...

    @overload
    def __getitem__(self, index: slice) -> list[_Cell]: ...

    def __getitem__(self, index: int | slice) -> _Cell | list[_Cell]:
        if isinstance(index, slice):
            return [self._cell(*position) for position in self._positions[index]]
        return self._cell(*self._positions[index])

    def _cell(self, row: int, column: int, path: str, focus: float) -> _Cell:
        return _Cell(row, column, self._focuses[focus], self._paths[path])


def _first_plane(instance: InstanceView, pyramid: SourcePyramid) -> int:
    """Return which of the slide's focal planes is the first of an instance that has not all of them."""
    origin = (instance.header.get("TotalPixelMatrixOriginSequence") or [{}])[0]
    try:
        height = float(origin.get("ZOffsetInSlideCoordinateSystem") or 0)
    except (TypeError, ValueError):
        return 0
    offsets = pyramid.focal_plane_offsets_um
    return min(range(len(offsets)), key=lambda index: abs(offsets[index] - height))


def _digest(frame: bytes) -> bytes:
    return hashlib.sha256(frame).digest()
