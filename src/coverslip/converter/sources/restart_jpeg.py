"""Cut one huge JPEG into smaller ones at its restart markers, without decoding (ITU-T T.81 B.2.1, E.1.4).

Every restart interval starts afresh, so intervals may be joined to other pictures. A tile is some intervals of some
rows of them, with the markers between them counted anew, behind the header of the whole with the tile's size in it. Its
entropy-coded bytes are those of the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from coverslip.converter.sources.tiff_structure import TiffStructure
from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.jpeg_stream import JpegColor, JpegHeader, JpegSplicer, parse_jpeg

__all__ = ["IntervalGrid", "RestartJpeg", "intervals_of_tile", "tile_intervals"]

_EOI = b"\xff\xd9"
_SOS = 0xDA
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HEADER_SIZES = (1 << 14, 1 << 20)
_SCAN_BYTES = 1 << 24
_WIDE_COLUMNS = 1024
_MOST_COLUMNS = 512
_MOST_ROWS, _MOST_ROWS_IF_WIDE = 512, 256


class IntervalGrid:
    """How the restart intervals of a JPEG lie in its picture.

    Parameters
    ----------
    header : JpegHeader
    rows, columns : int
        Size of the picture, which the header does not know where it exceeds 16 bits.

    Attributes
    ----------
    reason : str or None
        Why the picture cannot be cut; None if it can.
    rows, columns : int
        Size of one interval in pixels; of the whole picture, in whole units, if it cannot be cut.
    down, across : int
        How many intervals there are.
    """

    def __init__(self, header: JpegHeader, rows: int, columns: int) -> None:
        unit_rows = 8 * max(part.vertical_sampling for part in header.components)
        unit_columns = 8 * max(part.horizontal_sampling for part in header.components)
        units_down, units_across = -(-rows // unit_rows), -(-columns // unit_columns)
        interval = header.restart_interval
        self.reason: str | None = None
        self.down = self.across = 1
        self.rows, self.columns = units_down * unit_rows, units_across * unit_columns
        if not interval:
            self.reason = "the JPEG has no restart markers to be cut at"
        elif units_across % interval == 0:
            self.rows, self.columns = unit_rows, interval * unit_columns
            self.down, self.across = units_down, units_across // interval
        elif interval % units_across == 0 and units_down % (interval // units_across) == 0:
            self.rows = interval // units_across * unit_rows
            self.down = units_down // (interval // units_across)
        else:
            self.reason = "the restart markers of the JPEG do not lie under each other"


def tile_intervals(grid: IntervalGrid) -> tuple[int, int]:
    """Return (down, across): of how many intervals a tile is made.

    As wide as one interval, or, of narrower ones, as many as 512 pixels hold; up to 512 pixels high, up to 256 if it is
    wider than 1024. Within that, tiles are chosen so that little of the last ones lies beyond the picture.
    """
    across = _even_share(grid.across, max(1, _MOST_COLUMNS // grid.columns))
    most_rows = _MOST_ROWS if across * grid.columns <= _WIDE_COLUMNS else _MOST_ROWS_IF_WIDE
    most_down = max(1, most_rows // grid.rows)
    return -(-grid.down // -(-grid.down // most_down)), across


def intervals_of_tile(grid: IntervalGrid, tile: tuple[int, int], most_padding: float) -> tuple[int, int] | None:
    """Return (down, across): of how many intervals a tile of a given size is made; None if it should not be.

    Parameters
    ----------
    grid : IntervalGrid
    tile : tuple of int
        (rows, columns) in pixels.
    most_padding : float
        How much larger than the picture all its tiles may be, as a share of it.
    """
    if grid.reason is not None or tile[0] % grid.rows or tile[1] % grid.columns:
        return None
    down, across = tile[0] // grid.rows, tile[1] // grid.columns
    padded = -(-grid.down // down) * down * -(-grid.across // across) * across
    return (down, across) if padded / (grid.down * grid.across) - 1 <= most_padding else None


def _even_share(count: int, most: int) -> int:
    """Return the greatest divisor of `count` up to `most` that is no less than its half, else the most even share."""
    for divisor in range(most, most // 2, -1):
        if count % divisor == 0:
            return divisor
    return -(-count // -(-count // most))


class RestartJpeg:
    """One JPEG in a file, of which tiles are cut; thread safe.

    Parameters
    ----------
    structure : TiffStructure
        The open file.
    offset, size : int
        Where the JPEG lies in it.
    picture : tuple of int
        (rows, columns); 0 to take those of the JPEG.
    color : {"rgb", "ycbcr"}
    starts : ndarray or None
        Where the intervals start, relative to `offset`, as the file tells: checked whenever they are used. The file is
        searched for markers if there are none, or wrong ones.

    Raises
    ------
    CorruptSourceError
        If there is no JPEG, or its header is damaged.
    """

    def __init__(
        self,
        structure: TiffStructure,
        offset: int,
        size: int,
        picture: tuple[int, int],
        color: JpegColor,
        starts: NDArray[np.int64] | None,
    ) -> None:
        self._structure = structure
        self._offset = offset
        self._size = size
        self._color = color
        self._header, self._frame_header_at = _read_header(structure, offset, size)
        stated = self._header[self._frame_header_at + 5 : self._frame_header_at + 9]
        own = int.from_bytes(stated[:2]), int.from_bytes(stated[2:])
        self.rows, self.columns = picture if all(picture) else own
        if not (self.rows and self.columns):
            raise CorruptSourceError("JPEG of unknown size", byte_offset=offset)
        self.jpeg_header = parse_jpeg(self._sized_header(8, 8))
        self.intervals = IntervalGrid(self.jpeg_header, self.rows, self.columns)
        if self.intervals.across * self.intervals.down == 1 and all(own) and own != picture:
            # A picture that is not cut is as large as it says itself.
            self.rows, self.columns = own
            self.intervals = IntervalGrid(self.jpeg_header, self.rows, self.columns)
        self._lock = Lock()
        self._told = starts
        self._bounds: NDArray[np.int64] | None = None
        self._doubted = False

    def _sized_header(self, rows: int, columns: int) -> bytes:
        at = self._frame_header_at + 5
        return self._header[:at] + rows.to_bytes(2) + columns.to_bytes(2) + self._header[at + 4 :]

    def tile_header(self, rows: int, columns: int) -> bytes:
        """Return the header of a tile of that size, up to its entropy-coded bytes, without comments."""
        splicer = JpegSplicer(None, color=self._color)
        return splicer.splice(self._sized_header(rows, columns) + _EOI)[: -len(_EOI)]

    @cached_property
    def _count(self) -> int:
        return self.intervals.down * self.intervals.across

    def bounds(self) -> NDArray[np.int64]:
        """Return where every interval starts, and where the last one ends, relative to the start of the JPEG."""
        with self._lock:
            if self._bounds is None:
                self._bounds = self._bounds_as_told()
            if self._bounds is None:
                self._bounds = self._search_bounds()
                self._doubted = True
            return self._bounds

    def _bounds_as_told(self) -> NDArray[np.int64] | None:
        """Return the bounds that the file tells, None if they cannot be right."""
        told = self._told
        if told is None or told.size != self._count:
            return None
        if told[0] != len(self._header) or (np.diff(told) < 2).any() or told[-1] > self._size - 2:
            return None
        last = self._structure.read(self._offset + int(told[-1]), self._size - int(told[-1]))
        end = last.rfind(_EOI)
        return None if end < 0 else np.append(told, int(told[-1]) + end + 2)

    def _search_bounds(self) -> NDArray[np.int64]:
        """Search the entropy-coded bytes, in which FF is followed by 00 unless it starts a marker."""
        start = len(self._header)
        found: list[NDArray[np.int64]] = [np.array([start])]
        end = 0
        for at in range(start, self._size, _SCAN_BYTES):
            # One byte more than a step, for a marker that lies across.
            data = self._structure.read(self._offset + at, min(_SCAN_BYTES + 1, self._size - at))
            values = np.frombuffer(data, np.uint8)
            markers = np.flatnonzero((values[:-1] == 0xFF) & (values[1:] >= 0xD0) & (values[1:] <= 0xD9))
            kinds = values[markers + 1]
            restarts = kinds < 0xD8
            if (kinds == 0xD9).any():
                last = int(markers[kinds == 0xD9][0])
                end = at + last + 2
                restarts &= markers < last
            if self._count > 1:  # else the markers are part of the one tile
                found.append(markers[restarts] + (at + 2))
            if end:
                break
        starts = np.concatenate(found)
        if not end or starts.size != self._count:
            raise CorruptSourceError(
                f"JPEG of {starts.size} restart intervals{'' if end else ', that breaks off'}, expected {self._count}",
                byte_offset=self._offset,
            )
        return np.append(starts, end)

    def offset_of(self, interval: int) -> int:
        """Return where in the file an interval starts, for messages; that of the JPEG if it is not known."""
        known = self._bounds if self._bounds is not None else self._told
        return self._offset + (int(known[interval]) if known is not None and interval < known.size else 0)

    def cut(self, row: int, column: int, tile: tuple[int, int], header: bytes) -> bytes:
        """Return a tile as a JPEG of its own.

        Parameters
        ----------
        row, column : int
            First interval, counted down and across.
        tile : tuple of int
            (down, across): intervals of the tile. Where the picture has no more of them the last ones are repeated.
        header : bytes
            What `tile_header` returned for its size.

        Raises
        ------
        CorruptSourceError
            If the intervals do not end where they should.
        """
        bounds = self.bounds()
        try:
            return self._cut(bounds, row, column, tile, header)
        except CorruptSourceError:
            with self._lock:
                if not self._doubted:
                    self._doubted = True
                    # Either the place told or the picture is wrong. A search that finds every marker settles it.
                    with suppress(CorruptSourceError):
                        self._bounds = self._search_bounds()
                searched = self._bounds
            if searched is None or np.array_equal(searched, bounds):
                raise
        return self._cut(searched, row, column, tile, header)

    def _cut(self, bounds: NDArray[np.int64], row: int, column: int, tile: tuple[int, int], header: bytes) -> bytes:
        down, across = tile
        grid = self.intervals
        width = min(across, grid.across - column)
        parts: list[bytes] = []
        whole_rows = width == grid.across
        rows = range(row, min(row + down, grid.down))
        runs = (
            [(row * grid.across, (rows.stop - row) * grid.across)]
            if whole_rows
            else [(one * grid.across + column, width) for one in rows]
        )
        for first, count in runs:
            parts += self._read(bounds, first, count)
        if width < across:
            parts = [
                part
                for at in range(0, len(parts), width)
                for part in (*parts[at : at + width], *[parts[at + width - 1]] * (across - width))
            ]
        parts += parts[-across:] * (down - len(rows))
        pieces = [header]
        for index, part in enumerate(parts[:-1]):
            pieces += (part, bytes((0xFF, 0xD0 | index & 7)))
        return b"".join([*pieces, parts[-1], _EOI])

    def _read(self, bounds: NDArray[np.int64], first: int, count: int) -> list[bytes]:
        """Return the bytes of neighbouring intervals without the markers at their ends, which must be right."""
        start, stop = int(bounds[first]), int(bounds[first + count])
        data = self._structure.read(self._offset + start, stop - start)
        ends = bounds[first + 1 : first + count + 1] - start
        numbers = np.arange(first, first + count)
        wanted = np.where(numbers == self._count - 1, 0xD9, 0xD0 | numbers & 7)
        values = np.frombuffer(data, np.uint8)
        wrong = np.flatnonzero((values[ends - 2] != 0xFF) | (values[ends - 1] != wanted))
        if wrong.size:
            index = first + int(wrong[0])
            raise CorruptSourceError(
                f"restart interval {index} ends without its marker", byte_offset=self.offset_of(index)
            )
        edges: Sequence[int] = [0, *ends.tolist()]
        return [data[edges[index] : edges[index + 1] - 2] for index in range(count)]


def _read_header(structure: TiffStructure, offset: int, size: int) -> tuple[bytes, int]:
    """Return all before the entropy-coded bytes, and where the frame header starts in it."""
    for length in _HEADER_SIZES:
        data = structure.read(offset, min(length, size))
        found = _split_header(data)
        if found is not None:
            return data[: found[1]], found[0]
    raise CorruptSourceError("no JPEG header, expected one", byte_offset=offset)


def _split_header(data: bytes) -> tuple[int, int] | None:
    """Return where the frame header and the entropy-coded bytes start, None if the header is not whole."""
    if not data.startswith(b"\xff\xd8"):
        return None
    at, frame_header_at = 2, -1
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker in _START_OF_FRAME:
            frame_header_at = at
        if end > len(data):
            return None
        if marker == _SOS:
            return (frame_header_at, end) if frame_header_at >= 0 else None
        at = end
    return None
