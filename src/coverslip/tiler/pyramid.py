"""The plan of what will be written, and from where each level's pixels come; no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from coverslip.errors import UsageError
from coverslip.tiler.codecs.base import CodecOption, FrameFormat
from coverslip.tiler.grid import TileGrid

__all__ = ["Pyramid", "PyramidLevel", "PyramidOptions", "StoredLevel", "UnusedLevel", "plan_pyramid"]

_FAMILIES = {
    "1.2.840.10008.1.2.1": "none",
    "1.2.840.10008.1.2.4.50": "jpeg",
    "1.2.840.10008.1.2.4.51": "jpeg",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2000",
    "1.2.840.10008.1.2.4.91": "jpeg2000",
}

LARGEST_KEPT_TILE = 1024
"""Stored tiles larger than this, or not square, are cut anew unless they are reused bit for bit."""

LARGEST_NATIVE_BYTES = 2**31 - 1
"""Uncompressed stored frames are copied up to this size of an instance; stores refuse larger ones."""

DEFAULT_TILE = 512
"""Tile size where the source has none worth keeping."""


@dataclass(frozen=True, slots=True)
class StoredLevel:
    """What planning has to know of a level that a source holds.

    Parameters
    ----------
    grid : TileGrid
    frame_format : FrameFormat or None
        None if the stored tiles cannot be DICOM frames.
    lossy : bool
        Whether the stored pixels have gone through lossy compression.
    pixel_spacing_mm : tuple of float or None
        (row, column) if the file states one for this level.
    """

    grid: TileGrid
    frame_format: FrameFormat | None
    lossy: bool
    pixel_spacing_mm: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class PyramidOptions:
    """How the user wants the pyramid.

    Parameters
    ----------
    levels : str or int
        ``"dyadic"``: every power of two down to one frame; ``"native"``: the stored levels only; a number: the
        dyadic levels up to that many, the base included.
    tile_size : int or None
        Side of the square tiles; None keeps the stored tiles.
    codec : CodecOption or None
        None: stored frames are kept, and what must be encoded is JPEG 80 4:2:0 if the source is lossy and lossless
        JPEG 2000 if it is not. Given: stored frames of another compression are re-encoded too.
    reencode : bool
        Reuse no stored frame.
    regenerate : bool
        Derive every level from the base, even where the source holds it.
    fast : bool
        Decode the base at half scale for the first derived level where the codec can.
    """

    levels: str | int = "dyadic"
    tile_size: int | None = None
    codec: CodecOption | None = None
    reencode: bool = False
    regenerate: bool = False
    fast: bool = False


@dataclass(frozen=True, slots=True)
class PyramidLevel:
    """One level to be written.

    Parameters
    ----------
    grid : TileGrid
        Of the frames to be written.
    pixel_spacing_mm : tuple of float
        (row, column).
    stored_level_index : int or None
        The stored level its pixels are read from; None for a level derived from the next larger one.
    frame_format : FrameFormat or None
        Of frames reused bit for bit; None where frames are encoded with the pyramid's codec.
    """

    grid: TileGrid
    pixel_spacing_mm: tuple[float, float]
    stored_level_index: int | None
    frame_format: FrameFormat | None

    @property
    def reuses_frames(self) -> bool:
        """Whether stored frames are copied bit for bit."""
        return self.frame_format is not None

    @property
    def tile(self) -> tuple[int, int]:
        """(rows, columns) of a frame."""
        return self.grid.rows, self.grid.columns

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of the total pixel matrix."""
        return self.grid.total_pixel_matrix_rows, self.grid.total_pixel_matrix_columns


@dataclass(frozen=True, slots=True)
class UnusedLevel:
    """A stored level that is not written, and why."""

    stored_level_index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The complete plan; `levels` are largest first, each derived one follows the level it comes from."""

    levels: tuple[PyramidLevel, ...]
    unused_levels: tuple[UnusedLevel, ...]
    codec: CodecOption
    fast: bool

    def segments(self) -> list[list[int]]:
        """Return the indices of levels in runs: one read from the source, then those derived from it."""
        runs: list[list[int]] = []
        for index, level in enumerate(self.levels):
            if level.stored_level_index is not None:
                runs.append([])
            runs[-1].append(index)
        return runs


def default_codec(stored: StoredLevel) -> CodecOption:
    """Return the codec for what must be encoded when the user names none: never lossy unless the source is."""
    if stored.lossy:
        return CodecOption("jpeg", lossless=False, quality=80, subsampling="420")
    return CodecOption("jpeg2000", lossless=True)


def plan_pyramid(
    stored: Sequence[StoredLevel], base_spacing_mm: tuple[float, float], options: PyramidOptions
) -> Pyramid:
    """Decide which levels are written and where each comes from.

    Parameters
    ----------
    stored : sequence of StoredLevel
        Largest first; ``stored[0]`` is the base.
    base_spacing_mm : tuple of float
        (row, column) of the base.
    options : PyramidOptions

    Raises
    ------
    UsageError
        If the tile size is odd or outside 16 to 4096, the number of levels is not positive, or stored levels alone are
        wanted and none of them.
    """
    size = options.tile_size
    if size is not None and (size % 2 or not 16 <= size <= 4096):
        raise UsageError(f"tile size {size}: wanted an even number from 16 to 4096")
    if isinstance(options.levels, int) and options.levels < 1:
        raise UsageError(f"{options.levels} levels: wanted at least 1")
    if options.regenerate and options.levels == "native":
        raise UsageError("--regenerate derives the levels that --levels native copies: wanted one of them")
    codec = options.codec or default_codec(stored[0])
    planner = _Planner(stored, base_spacing_mm, options, codec)
    levels, unused = planner.native() if options.levels == "native" else planner.dyadic()
    return Pyramid(tuple(levels), tuple(unused), codec, options.fast)


@dataclass(frozen=True, slots=True)
class _Planner:
    stored: Sequence[StoredLevel]
    spacing_mm: tuple[float, float]
    options: PyramidOptions
    codec: CodecOption

    def from_stored(self, index: int, tile: tuple[int, int] | None = None) -> PyramidLevel:
        """Plan the level that is read from stored level `index`, reusing its frames if that is possible and wanted.

        Frames that are encoded are of the size `tile`, that of the base: some readers pass over levels of another.
        """
        stored, base = self.stored[index].grid, self.stored[0].grid
        # The ratio first: it is exactly 1 for the base, and exact for powers of two.
        spacing = (
            self.spacing_mm[0] * (base.total_pixel_matrix_rows / stored.total_pixel_matrix_rows),
            self.spacing_mm[1] * (base.total_pixel_matrix_columns / stored.total_pixel_matrix_columns),
        )
        frame_format = self.stored[index].frame_format if self.may_reuse(index) else None
        rows, columns = (stored.rows, stored.columns) if frame_format else tile or self.cut(stored)
        grid = replace(stored, rows=rows, columns=columns)
        return PyramidLevel(grid, spacing, index, frame_format)

    def may_reuse(self, index: int) -> bool:
        """Say whether the stored frames of a level fit what the user asked for."""
        level, wanted = self.stored[index], self.options
        if level.frame_format is None or wanted.reencode:
            return False
        if (level.grid.rows % 2 or level.grid.columns % 2) and wanted.levels not in ("native", 1):
            # Tiles of odd size cannot be halved on their own.
            return False
        if wanted.tile_size is not None and (level.grid.rows, level.grid.columns) != (wanted.tile_size,) * 2:
            return False
        if wanted.codec is None:
            return level.frame_format.encapsulated or self.decoded_bytes(level) <= LARGEST_NATIVE_BYTES
        same_family = _FAMILIES.get(level.frame_format.transfer_syntax_uid) == wanted.codec.name
        return same_family and not (wanted.codec.lossless and level.frame_format.lossy_method)

    @staticmethod
    def decoded_bytes(level: StoredLevel) -> int:
        """Return what the frames of a reusable level take uncompressed."""
        grid, pixels = level.grid, level.frame_format
        if pixels is None:
            raise ValueError("the level has no frames that can be reused")
        return grid.number_of_frames * grid.rows * grid.columns * pixels.samples_per_pixel * pixels.bits_allocated // 8

    def cut(self, grid: TileGrid) -> tuple[int, int]:
        """Return (rows, columns) of the tiles for frames that are encoded."""
        if self.options.tile_size is not None:
            return self.options.tile_size, self.options.tile_size
        square = grid.rows == grid.columns and grid.rows % 2 == 0
        return (grid.rows, grid.columns) if square and grid.rows <= LARGEST_KEPT_TILE else (DEFAULT_TILE, DEFAULT_TILE)

    def native(self) -> tuple[list[PyramidLevel], list[UnusedLevel]]:
        """Plan the stored levels as they are."""
        levels: list[PyramidLevel] = []
        unused: list[UnusedLevel] = []
        for index in range(len(self.stored)):
            level = self.from_stored(index, levels[0].tile if levels else None)
            if any(level.size == other.size for other in levels):
                unused.append(UnusedLevel(index, "a level with the same total pixel matrix is already there"))
            else:
                levels.append(level)
        return levels, unused

    def dyadic(self) -> tuple[list[PyramidLevel], list[UnusedLevel]]:
        """Plan every power of two from the base down to one frame."""
        levels = [self.from_stored(0)]
        free = {} if self.options.regenerate else dict(enumerate(self.stored[1:], start=1))
        limit = self.options.levels if isinstance(self.options.levels, int) else None
        while levels[-1].grid.number_of_frames > levels[-1].grid.focal_planes * levels[-1].grid.optical_paths:
            if limit is not None and len(levels) >= limit:
                break
            exponent = len(levels)
            match = next((index for index in free if self.coincides(index, exponent)), None)
            levels.append(
                self.derived(levels[-1], exponent) if match is None else self.from_stored(match, levels[0].tile)
            )
            if match is not None:
                del free[match]
        return levels, [UnusedLevel(index, self.why_unused(index, len(levels))) for index in self.unused(levels)]

    def derived(self, larger: PyramidLevel, exponent: int) -> PyramidLevel:
        """Plan the level of half the size of `larger`, 2**`exponent` times smaller than the base."""
        grid = replace(
            larger.grid,
            total_pixel_matrix_rows=-(-larger.grid.total_pixel_matrix_rows // 2),
            total_pixel_matrix_columns=-(-larger.grid.total_pixel_matrix_columns // 2),
        )
        spacing = self.spacing_mm[0] * 2**exponent, self.spacing_mm[1] * 2**exponent
        return PyramidLevel(grid, spacing, None, None)

    def coincides(self, index: int, exponent: int) -> bool:
        """Say whether a stored level is the base reduced by 2**`exponent`, in size and in stated spacing."""
        base, grid = self.stored[0].grid, self.stored[index].grid
        for whole, part in (
            (base.total_pixel_matrix_rows, grid.total_pixel_matrix_rows),
            (base.total_pixel_matrix_columns, grid.total_pixel_matrix_columns),
        ):
            if not (whole >> exponent) - 1 <= part <= -(-whole // 2**exponent) + 1:
                return False
        return self.spacing_agrees(index)

    def spacing_agrees(self, index: int) -> bool:
        """Say whether a level's stated spacing fits its size within 2 %.

        Some writers repeat the base's spacing on every level: that says nothing of the level and is passed over.
        """
        stated, base = self.stored[index].pixel_spacing_mm, self.stored[0].pixel_spacing_mm
        if stated is None or stated == base:
            return True
        sizes = self.stored[0].grid, self.stored[index].grid
        ratios = (
            sizes[0].total_pixel_matrix_rows / sizes[1].total_pixel_matrix_rows,
            sizes[0].total_pixel_matrix_columns / sizes[1].total_pixel_matrix_columns,
        )
        reference = base or self.spacing_mm
        return all(
            abs(value / (whole * ratio) - 1) <= 0.02
            for value, whole, ratio in zip(stated, reference, ratios, strict=True)
        )

    def unused(self, levels: Sequence[PyramidLevel]) -> list[int]:
        """Return the stored levels that no planned level is read from."""
        used = {level.stored_level_index for level in levels}
        return [index for index in range(len(self.stored)) if index not in used]

    def why_unused(self, index: int, count: int) -> str:
        """Say why a stored level is not among the `count` levels written."""
        if self.options.regenerate:
            return "all levels are derived from the base"
        if not self.spacing_agrees(index):
            return "its stated spacing does not fit its size"
        base, grid = self.stored[0].grid, self.stored[index].grid
        down = base.total_pixel_matrix_rows / grid.total_pixel_matrix_rows
        across = base.total_pixel_matrix_columns / grid.total_pixel_matrix_columns
        exponent = max(0, round(across).bit_length() - 1)
        for near in (exponent, exponent + 1):
            if self.coincides(index, near):
                return "another stored level has its place" if near < count else "it is beyond the levels wanted"
        ratio = f"{across:.4g}" if f"{down:.2g}" == f"{across:.2g}" else f"{down:.4g} down and {across:.4g} across"
        return f"its downsampling of {ratio} is not a power of two"
