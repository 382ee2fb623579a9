"""Aperio SVS files as the scanner writes them, and with the defects that real ones have."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.factories.jpeg_tiles import encode_jpeg, split_tables
from tests.factories.tiff_stream import ASCII, LONG, SHORT, UNDEFINED, WIDE, Tag, TiffStream
from tests.factories.tissue import tissue, tissue_mask

__all__ = [
    "AperioCoding",
    "associated_pages",
    "block_mean",
    "description",
    "native_size",
    "page_tags",
    "thumbnail_page",
    "write_aperio_svs",
]

Picture = NDArray[np.uint8]

FIELDS = {
    "StripeWidth": "2040",
    "ScanScope ID": "SS1234",
    "Filename": "synthetic",
    "Date": "03/17/21",
    "Time": "10:21:33",
    "User": "b414003d-95c6-48b0-9369-8010ed517ba7",
    "Left": "25.691574",
    "Top": "23.449873",
}
"""Fields of the ImageDescription besides AppMag and MPP, which arguments give."""

_LABEL_TEXT = ("1110100010101110", "1000101010001000", "1110101110101100", "0010111010101000", "1110010010101110")


@dataclass(frozen=True, slots=True)
class AperioCoding:
    """How the tiles of an SVS are compressed.

    Parameters
    ----------
    compression : {"jpeg-rgb", "jpeg-ycbcr", "j2k-33003", "j2k-33005"}
        33003 holds YCbCr components without a component transform, 33005 RGB with one.
    quality : int
        Of JPEG; JPEG 2000 takes it for the signal to noise ratio in dB, 0 for lossless.
    subsampling : {"444", "422", "420"}
        Of JPEG chroma; ``jpeg-rgb`` has none.
    """

    compression: str = "jpeg-rgb"
    quality: int = 75
    subsampling: str = "420"

    def encode(self, pixels: Picture) -> tuple[bytes, bytes]:
        """Return the JPEGTables (empty for JPEG 2000) and the tile."""
        if self.compression.startswith("jpeg"):
            rgb = self.compression == "jpeg-rgb"
            return split_tables(
                encode_jpeg(pixels, self.quality, subsampling="444" if rgb else self.subsampling, rgb=rgb)
            )
        import imagecodecs

        ycbcr = self.compression == "j2k-33003"
        codestream = imagecodecs.jpeg2k_encode(
            rgb_to_ycbcr(pixels) if ycbcr else pixels,
            self.quality,
            codecformat="j2k",
            reversible=self.quality == 0,
            mct=not ycbcr,
        )
        return b"", bytes(codestream)

    def tags(self) -> list[Tag]:
        """Return the tags that state the compression, with the sampling that Aperio states whatever it is."""
        codes = {"jpeg-rgb": (7, 2), "jpeg-ycbcr": (7, 6), "j2k-33003": (33003, 6), "j2k-33005": (33005, 2)}
        compression, photometric = codes[self.compression]
        sampling: list[Tag] = [(530, SHORT, (2, 2))] if self.compression.startswith("jpeg") else []
        return [(259, SHORT, (compression,)), (262, SHORT, (photometric,)), *sampling]

    def label(self) -> str:
        """Return what the ImageDescription calls it."""
        names = {"jpeg-rgb": "JPEG/RGB", "jpeg-ycbcr": "JPEG/YCC", "j2k-33003": "J2K/YUV16", "j2k-33005": "J2K/KDU"}
        return f"{names[self.compression]} Q={self.quality}"


@dataclass(frozen=True, slots=True)
class _Page:
    """Encoded tiles or strips of one page and what its tags say."""

    chunks: Sequence[bytes]
    tags: list[Tag] = field(default_factory=list)


def write_aperio_svs(
    path: Path,
    *,
    rows: int = 700,
    columns: int = 900,
    tile: int | tuple[int, int] = 256,
    compression: str = "jpeg-rgb",
    native_downsamples: Sequence[int] = (4,),
    quality: int = 75,
    subsampling: str = "420",
    bigtiff: bool = False,
    mpp: str | None = "0.2527",
    app_mag: str | None = "40",
    icc: bytes | None = None,
    label: bool = True,
    macro: bool = True,
    thumbnail: bool = True,
    missing_tiles: Collection[tuple[int, int, int]] = (),
    fields: Mapping[str, str] | None = None,
    seed: int = 0,
    image: Picture | None = None,
) -> Picture:
    """Write an SVS: base, thumbnail, native levels, label, macro, in this order.

    Parameters
    ----------
    path : Path
        Created or overwritten.
    rows, columns : int
        Size of the base; `image` overrides it.
    tile : int or (int, int)
        Rows and columns of a tile; multiples of 16.
    compression, quality, subsampling
        See `AperioCoding`.
    native_downsamples : sequence of int
        Of the levels below the base; a level has floor(base / downsample) pixels, as Aperio's have.
    mpp, app_mag : str or None
        Text of the fields, which may be nonsense; None leaves the field out.
    icc : bytes or None
        Profile of every tiled page.
    missing_tiles : collection of (int, int, int)
        (level, tile row, tile column) of tiles with offset 0 and length 0.
    fields : mapping
        Replaces `FIELDS`.
    seed : int
        Of `tissue`.
    image : ndarray, optional
        (rows, columns, 3) uint8 RGB to store in place of `tissue`.

    Returns
    -------
    ndarray
        The base picture before compression.
    """
    picture = tissue(rows, columns, seed) if image is None else image
    rows, columns = picture.shape[:2]
    tile_size = (tile, tile) if isinstance(tile, int) else tile
    coding = AperioCoding(compression, quality, subsampling)

    def describe(size: tuple[int, int]) -> bytes:
        return description(
            (rows, columns), size, tile_size, coding.label(), mpp=mpp, app_mag=app_mag, fields=fields or FIELDS
        )

    def write_level(stream: TiffStream, level_index: int, pixels: Picture) -> None:
        absent = {(row, column) for level, row, column in missing_tiles if level == level_index}
        tags: list[Tag] = [] if icc is None else [(34675, UNDEFINED, icc)]
        _write_tiled(stream, pixels, tile_size, coding, describe(pixels.shape[:2]), absent, tags)

    with TiffStream(path, bigtiff=bigtiff) as stream:
        write_level(stream, 0, picture)
        if thumbnail:
            small = block_mean(picture, max(1, math.ceil(max(rows, columns) / 768)))
            thumbnail_page(stream, small, describe(small.shape[:2]))
        for level_index, downsample in enumerate(native_downsamples, start=1):
            write_level(stream, level_index, block_mean(picture, downsample))
        associated_pages(stream, label=label, macro=macro)
    return picture


def native_size(rows: int, columns: int, downsample: int) -> tuple[int, int]:
    """Return rows and columns of a native level: Aperio rounds down."""
    return max(1, rows // downsample), max(1, columns // downsample)


def description(
    base: tuple[int, int],
    size: tuple[int, int],
    tile: tuple[int, int],
    coding: str,
    *,
    mpp: str | None = "0.2527",
    app_mag: str | None = "40",
    fields: Mapping[str, str] = FIELDS,
) -> bytes:
    """Return the ImageDescription of a level or of the thumbnail."""
    (rows, columns), (level_rows, level_columns) = base, size
    head = f"Aperio Image Library v11.2.1 \r\n{columns + 920}x{rows + 100} [0,100 {columns}x{rows}] "
    head += f"({tile[1]}x{tile[0]}) "
    head += f"{coding}" if size == base else f"-> {level_columns}x{level_rows} {coding}"
    pairs = [("AppMag", app_mag), *fields.items(), ("MPP", mpp)]
    pairs += [("OriginalWidth", str(columns)), ("OriginalHeight", str(rows))]
    stated = [f"{key} = {value}" for key, value in pairs if value is not None]
    return "|".join([head, *stated]).encode("latin-1") + b"\0"


def page_tags(
    size: tuple[int, int],
    text: bytes,
    offsets: Sequence[int],
    byte_counts: Sequence[int],
    *,
    tile: tuple[int, int] | None = None,
    rows_per_strip: int = 16,
    subfile_type: int = 0,
) -> list[Tag]:
    """Return the tags that every page has; strips where `tile` is None."""
    rows, columns = size
    places: list[Tag] = (
        [(273, WIDE, offsets), (278, SHORT, (rows_per_strip,)), (279, WIDE, byte_counts)]
        if tile is None
        else [(322, SHORT, (tile[1],)), (323, SHORT, (tile[0],)), (324, WIDE, offsets), (325, WIDE, byte_counts)]
    )
    return [
        (254, LONG, (subfile_type,)),
        (256, LONG, (columns,)),
        (257, LONG, (rows,)),
        (258, SHORT, (8, 8, 8)),
        (270, ASCII, text),
        (277, SHORT, (3,)),
        (284, SHORT, (1,)),
        (32997, LONG, (1,)),
        *places,
    ]


def thumbnail_page(stream: TiffStream, picture: Picture, text: bytes) -> None:
    """Append the thumbnail (JPEG strips)."""
    _write_jpeg_strips(stream, picture, text, subfile_type=0)


def associated_pages(stream: TiffStream, *, label: bool = True, macro: bool = True) -> None:
    """Append the label (LZW strips) and the macro image (JPEG strips)."""
    if label:
        _write_label(stream)
    if macro:
        _write_jpeg_strips(stream, _macro_picture(), b"Aperio Image Library v11.2.1 \nmacro 1280x431\0", subfile_type=9)


def block_mean(picture: Picture, factor: int) -> Picture:
    """Return the mean of each whole block of `factor` x `factor` pixels, rounded half up."""
    rows, columns = native_size(picture.shape[0], picture.shape[1], factor)
    total = np.zeros((rows, columns, 3), np.uint32)
    for row in range(factor):
        for column in range(factor):
            total += picture[row : rows * factor : factor, column : columns * factor : factor]
    return ((total + factor * factor // 2) // (factor * factor)).astype(np.uint8)


def rgb_to_ycbcr(pixels: Picture) -> Picture:
    """Convert as JFIF does."""
    red, green, blue = (pixels[..., index].astype(np.float64) for index in range(3))
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = [(blue - luma) * 0.564334 + 128, (red - luma) * 0.713267 + 128]
    return np.clip(np.rint(np.stack([luma, *chroma], axis=-1)), 0, 255).astype(np.uint8)


def cut_tiles[T: np.generic](
    picture: NDArray[T], tile: tuple[int, int], write: Callable[[int, int, NDArray[T]], None]
) -> None:
    """Call `write` with row, column and pixels of every tile in raster order; edge tiles repeat the last line."""
    rows, columns = picture.shape[:2]
    for row in range(math.ceil(rows / tile[0])):
        for column in range(math.ceil(columns / tile[1])):
            part = picture[row * tile[0] : (row + 1) * tile[0], column * tile[1] : (column + 1) * tile[1]]
            margin = ((0, tile[0] - part.shape[0]), (0, tile[1] - part.shape[1]), (0, 0))[: picture.ndim]
            write(row, column, np.pad(part, margin, mode="edge"))


def _write_tiled(
    stream: TiffStream,
    picture: Picture,
    tile: tuple[int, int],
    coding: AperioCoding,
    text: bytes,
    missing: Collection[tuple[int, int]],
    tags: list[Tag],
) -> None:
    offsets: list[int] = []
    byte_counts: list[int] = []
    shared_tables = b""

    def write(row: int, column: int, pixels: Picture) -> None:
        nonlocal shared_tables
        shared_tables, data = coding.encode(pixels)
        data = b"" if (row, column) in missing else data
        offsets.append(stream.write(data) if data else 0)
        byte_counts.append(len(data))

    cut_tiles(picture, tile, write)
    size = picture.shape[0], picture.shape[1]
    tables: list[Tag] = [(347, UNDEFINED, shared_tables)] if shared_tables else []
    stream.write_ifd([*page_tags(size, text, offsets, byte_counts, tile=tile), *coding.tags(), *tables, *tags])


def _write_jpeg_strips(stream: TiffStream, picture: Picture, text: bytes, *, subfile_type: int) -> None:
    coding = AperioCoding("jpeg-rgb", 80)
    encoded = [coding.encode(picture[row : row + 16]) for row in range(0, picture.shape[0], 16)]
    offsets = [stream.write(strip) for _, strip in encoded]
    size = picture.shape[0], picture.shape[1]
    tags = page_tags(size, text, offsets, [len(strip) for _, strip in encoded], subfile_type=subfile_type)
    stream.write_ifd([*tags, *coding.tags(), (347, UNDEFINED, encoded[0][0])])


def _write_label(stream: TiffStream) -> None:
    import imagecodecs

    picture = _label_picture()
    predicted = picture.copy()
    predicted[:, 1:] -= picture[:, :-1]  # TIFF predictor 2: horizontal differences modulo 256
    strips = [
        bytes(imagecodecs.lzw_encode(predicted[row : row + 7].tobytes())) for row in range(0, picture.shape[0], 7)
    ]
    offsets = [stream.write(strip) for strip in strips]
    size = picture.shape[0], picture.shape[1]
    text = f"Aperio Image Library v11.2.1 \nlabel {size[1]}x{size[0]}".encode() + b"\0"
    tags = page_tags(size, text, offsets, [len(strip) for strip in strips], rows_per_strip=7, subfile_type=1)
    stream.write_ifd([*tags, (259, SHORT, (5,)), (262, SHORT, (2,)), (317, SHORT, (2,))])


def _label_picture() -> Picture:
    """Return a paper label with a bar code and lines like handwriting, 463 x 387."""
    picture = np.full((463, 387, 3), (236, 238, 233), np.uint8)
    bars = np.array([[mark == "1" for mark in line] for line in _LABEL_TEXT])
    text = np.kron(bars, np.ones((22, 18), bool))
    picture[40 : 40 + text.shape[0], 45 : 45 + text.shape[1]][text] = (24, 22, 40)
    widths = np.repeat(np.arange(90) * 7 % 5 < 2, 3)
    picture[260:400, 60 : 60 + widths.size][:, widths] = (12, 12, 12)
    return picture


def _macro_picture() -> Picture:
    """Return the whole glass slide seen small, label on the left, 431 x 1280."""
    picture = np.full((431, 1280, 3), (214, 216, 213), np.uint8)
    label = _label_picture()[15:446, :]
    picture[:, : label.shape[1]] = label
    stained = tissue_mask(np.arange(320) * 30, np.arange(720) * 30) > 0
    picture[60:380, 480:1200][stained] = (206, 120, 178)
    return picture
