"""A slide as one picture: levels, tiles and optical paths of a series, found from its headers."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.server.frame_coding import number
from coverslip.tiler.grid import TileAddress, TileGrid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from coverslip.server.archive import IndexedInstance
    from coverslip.server.open_instances import OpenInstance, OpenInstances

__all__ = ["Level", "OpticalPath", "SlideImage", "SlideImages"]

_MOST_KEPT = 64
# Of channels without a colour of their own: apart for most people with a colour vision deficiency (Okabe and Ito).
_COLORS = ("56b4e9", "e69f00", "009e73", "cc79a7", "f0e442", "d55e00", "0072b2", "ffffff")


@dataclass(frozen=True, slots=True)
class OpticalPath:
    """A channel, or the colour image.

    Parameters
    ----------
    identifier, description : str
    color : str
        That a monochrome channel is shown in, six hexadecimal digits.
    """

    identifier: str
    description: str
    color: str


@dataclass(frozen=True, slots=True)
class _Tiles:
    """Where the tiles of one optical path of a level are."""

    instance: IndexedInstance
    first: int = 0
    count: int = 0
    sparse: Mapping[tuple[int, int], int] | None = None


@dataclass(slots=True)
class Level:
    """One resolution.

    Parameters
    ----------
    rows, columns : int
        Of the total pixel matrix.
    tile_rows, tile_columns : int
        Of a frame.
    scale : tuple of float
        (row, column): pixels of the base for one of this level.
    tiles : dict
        By optical path identifier: one of several parts holds each frame.
    """

    rows: int
    columns: int
    tile_rows: int
    tile_columns: int
    scale: tuple[float, float] = (1.0, 1.0)
    tiles: dict[str, list[_Tiles]] = field(default_factory=dict)

    def find(self, path: str, row: int, column: int) -> tuple[IndexedInstance, int] | None:
        """Return the instance and 0-based frame of a tile by its row and column of tiles; None if there is none."""
        across = -(-self.columns // self.tile_columns)
        for part in self.tiles.get(path, ()):
            if part.sparse is not None:
                frame = part.sparse.get((row, column))
                if frame is not None:
                    return part.instance, frame
            else:
                index = row * across + column + part.first
                if 0 <= index < part.count:
                    return part.instance, index
        return None


@dataclass(frozen=True, slots=True)
class SlideImage:
    """The levels of a slide, the largest first.

    Parameters
    ----------
    levels : tuple of Level
    paths : tuple of OpticalPath
    is_color : bool
    icc_profile : bytes or None
    spacing_mm : tuple of float or None
        (row, column) of the base.
    etag : str
        Changes when a file does.
    """

    levels: tuple[Level, ...]
    paths: tuple[OpticalPath, ...]
    is_color: bool
    bits: int
    icc_profile: bytes | None
    spacing_mm: tuple[float, float] | None
    etag: str

    @property
    def rows(self) -> int:
        """Of the base."""
        return self.levels[0].rows

    @property
    def columns(self) -> int:
        """Of the base."""
        return self.levels[0].columns

    @property
    def tile_side(self) -> int:
        """Of tiles that are served: that of the stored ones where they are square and of a usual size."""
        base = self.levels[0]
        return base.tile_rows if base.tile_rows == base.tile_columns and 128 <= base.tile_rows <= 1024 else 256


class SlideImages:
    """Keeps what was found of the slides that were asked for last.

    Parameters
    ----------
    opened : OpenInstances
    """

    def __init__(self, opened: OpenInstances) -> None:
        self._opened = opened
        self._kept: OrderedDict[tuple[str, ...], SlideImage] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, instances: Sequence[IndexedInstance]) -> SlideImage:
        """Return the slide whose levels instances are: the VOLUME ones, or the only one.

        Raises
        ------
        UnsupportedSourceError
            If there is no picture.
        """
        volumes = [each for each in instances if each.flavor == "VOLUME"] or list(instances)[:1]
        key = tuple(each.sop_instance_uid for each in volumes)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = _make([self._opened.open(each) for each in volumes])
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _MOST_KEPT:
                self._kept.popitem(last=False)
        return made


def _make(opened: Sequence[OpenInstance]) -> SlideImage:
    pictures = [each for each in opened if each.number_of_frames]
    if not pictures:
        raise UnsupportedSourceError("there is no picture in it")
    levels: dict[tuple[int, int], Level] = {}
    paths: dict[str, OpticalPath] = {}
    for each in pictures:
        header = each.header
        rows, columns = number(header, "Rows"), number(header, "Columns")
        size = number(header, "TotalPixelMatrixRows", rows), number(header, "TotalPixelMatrixColumns", columns)
        if min(*size, rows, columns) < 1:
            continue
        level = levels.setdefault(size, Level(*size, rows, columns))
        if (rows, columns) != (level.tile_rows, level.tile_columns):
            continue
        own = _paths(header, len(paths))
        for path in own:
            paths.setdefault(path.identifier, path)
        for identifier, tiles in _tiles(each, level, [path.identifier for path in own]).items():
            level.tiles.setdefault(identifier, []).append(tiles)
    ordered = sorted((each for each in levels.values() if each.tiles), key=lambda each: -each.columns * each.rows)
    if not ordered:
        raise UnsupportedSourceError("there is no picture in it")
    base = ordered[0]
    # A level of other proportions is another region.
    kept = [one for one in ordered if abs(one.rows - base.rows * one.columns / base.columns) < 4]
    for one in kept:
        one.scale = _scale(base, one)
    headers = [each.header for each in pictures]
    digest = hashlib.sha256("".join(sorted(each.etag for each in pictures)).encode()).hexdigest()[:20]
    profile = next((icc for header in headers if (icc := _profile(header))), None)
    color = number(headers[0], "SamplesPerPixel", 1) == 3
    bits = number(headers[0], "BitsStored", 8)
    spacing = next((found for header in headers if (found := _spacing(header, base))), None)
    return SlideImage(tuple(kept), tuple(paths.values()), color, bits, profile, spacing, digest)


def _scale(base: Level, level: Level) -> tuple[float, float]:
    """Return pixels of the base for one of a level: a power of two where sizes fit halving."""
    for power in range(32):
        step = 1 << power
        if (level.rows, level.columns) == (-(-base.rows // step), -(-base.columns // step)):
            return float(step), float(step)
    return base.rows / level.rows, base.columns / level.columns


def _paths(header: Dataset, known: int) -> list[OpticalPath]:
    found = []
    for index, item in enumerate(header.get("OpticalPathSequence") or ()):
        identifier = str(item.get("OpticalPathIdentifier", "")) or str(index + 1)
        description = str(item.get("OpticalPathDescription", "") or "")
        found.append(OpticalPath(identifier, description, _COLORS[(known + index) % len(_COLORS)]))
    return found or [OpticalPath("1", "", _COLORS[known % len(_COLORS)])]


def _tiles(opened: OpenInstance, level: Level, paths: Sequence[str]) -> dict[str, _Tiles]:
    header = opened.header
    if "PerFrameFunctionalGroupsSequence" in header and header.get("DimensionOrganizationType") != "TILED_FULL":
        return _sparse(opened, level, paths)
    planes = max(1, number(header, "TotalPixelMatrixFocalPlanes", 1))
    grid = TileGrid(level.rows, level.columns, level.tile_rows, level.tile_columns, planes, len(paths))
    offset = number(header, "ConcatenationFrameOffsetNumber")
    return {
        path: _Tiles(
            opened.indexed,
            grid.frame_index(TileAddress(0, 0, planes // 2, position)) - offset,
            opened.number_of_frames,
        )
        for position, path in enumerate(paths)
    }


def _sparse(opened: OpenInstance, level: Level, paths: Sequence[str]) -> dict[str, _Tiles]:
    """Find the tiles of an instance that tells where each frame lies; only those on the grid of tiles are shown."""
    view = opened.view
    if view is None:
        raise UnsupportedSourceError("frames in no regular order are not rendered from a DICOMweb store")
    found: dict[str, dict[tuple[int, int], int]] = {path: {} for path in paths}
    try:
        positions = view.frame_positions
    except CorruptSourceError:
        return {}
    for index, (row, column, path, _plane) in enumerate(positions[: opened.number_of_frames]):
        if row % level.tile_rows or column % level.tile_columns:
            continue
        place = row // level.tile_rows, column // level.tile_columns
        found.setdefault(path or paths[0], {}).setdefault(place, index)
    return {path: _Tiles(opened.indexed, sparse=tiles) for path, tiles in found.items() if tiles}


def _profile(header: Dataset) -> bytes | None:
    for item in (*(header.get("OpticalPathSequence") or ()), header):
        profile = item.get("ICCProfile")
        if profile:
            return bytes(profile)
    return None


def _spacing(header: Dataset, base: Level) -> tuple[float, float] | None:
    size: Any = number(header, "TotalPixelMatrixRows"), number(header, "TotalPixelMatrixColumns")
    if size != (base.rows, base.columns):
        return None
    try:
        measures = header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        row, column = map(float, measures.PixelSpacing)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    return (row, column) if row > 0 and column > 0 else None
