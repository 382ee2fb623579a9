"""Tiled and striped TIFF files of no particular vendor."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tests.factories.aperio import cut_tiles
from tests.factories.jpeg_tiles import encode_jpeg, split_tables
from tests.factories.tiff_stream import LONG, RATIONAL, SHORT, UNDEFINED, WIDE, Tag, TiffStream
from tests.factories.tissue import tissue

__all__ = ["encode_plain", "write_tiled_tiff"]

COMPRESSIONS = {"none": 1, "lzw": 5, "jpeg": 7, "deflate": 8}
PIXELS_PER_CM = (39573, 1)  # 0.2527 um per pixel
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


def write_tiled_tiff(
    path: Path,
    *,
    rows: int = 700,
    columns: int = 900,
    tile: int | tuple[int, int] = 256,
    compression: str = "jpeg",
    downsamples: Sequence[int] = (2, 4),
    resolution: tuple[int, int] | None = PIXELS_PER_CM,
    resolution_unit: int | None = 3,
    byteorder: Literal["<", ">"] = "<",
    bigtiff: bool = False,
    planar: bool = False,
    samples: int = 3,
    dtype: DTypeLike = np.uint8,
    striped: bool = False,
    quality: int = 80,
    subsampling: str = "420",
    seed: int = 0,
    image: NDArray[np.generic] | None = None,
) -> NDArray[np.generic]:
    """Write a pyramid of pages, the reduced ones marked by NewSubfileType 1.

    Parameters
    ----------
    path : Path
        Created or overwritten.
    rows, columns : int
        Size of the base; `image` overrides it.
    tile : int or (int, int)
        Rows and columns of a tile; a strip has as many rows as a tile.
    compression : {"jpeg", "lzw", "deflate", "none"}
        JPEG takes uint8 of 1 or 3 samples, not planar, and is YCbCr for 3.
    downsamples : sequence of int
        Of the pages below the base, each made by taking every n-th pixel.
    resolution : (int, int) or None
        Numerator and denominator of XResolution and YResolution; None leaves them out.
    resolution_unit : int or None
        1 none, 2 inch, 3 centimetre; None leaves the tag out.
    planar : bool
        One plane of tiles per sample.
    samples : int
        1 (grey), 3 (RGB) or 4 (RGBA).
    dtype : dtype
        uint8, uint16 or float32; wider ones hold the 8-bit values unscaled.
    striped : bool
        Strips over the whole width in place of tiles.
    image : ndarray, optional
        (rows, columns, samples), or (rows, columns) for one sample, of `dtype`.

    Returns
    -------
    ndarray
        The base picture before compression.
    """
    picture = _picture(rows, columns, samples, seed).astype(dtype) if image is None else image
    size = (tile, tile) if isinstance(tile, int) else tile
    scale: list[Tag] = [] if resolution is None else [(282, RATIONAL, resolution), (283, RATIONAL, resolution)]
    unit: list[Tag] = [] if resolution_unit is None else [(296, SHORT, (resolution_unit,))]
    with TiffStream(path, byteorder=byteorder, bigtiff=bigtiff) as stream:
        for downsample in (1, *downsamples):
            level = picture[::downsample, ::downsample]
            chunk = (size[0], level.shape[1]) if striped else size
            planes = list(np.moveaxis(level, 2, 0)) if planar else [level]
            chunks: list[bytes] = []
            tables = b""
            for plane in planes:
                for pixels in _cut(plane, chunk, striped=striped):
                    data = _encode(pixels, compression, byteorder, quality, subsampling)
                    if compression == "jpeg":
                        tables, data = split_tables(data)
                    chunks.append(data)
            offsets = [stream.write(data) for data in chunks]
            tags = _tags(level, chunk, offsets, [len(data) for data in chunks], striped=striped, planar=planar)
            tags += _coding_tags(compression, samples, subsampling, tables)
            reduced: Tag = (254, LONG, (int(downsample > 1),))
            stream.write_ifd([*tags, *scale, *unit, reduced])
    return picture


def encode_plain(pixels: NDArray[np.generic], compression: str) -> bytes:
    """Encode with a byte compression: "none", "lzw" or "deflate"."""
    data = pixels.tobytes()
    if compression == "none":
        return data
    import imagecodecs

    return bytes(imagecodecs.lzw_encode(data) if compression == "lzw" else imagecodecs.zlib_encode(data, 6))


def _picture(rows: int, columns: int, samples: int, seed: int) -> NDArray[np.uint8]:
    picture = tissue(rows, columns, seed)
    if samples == 1:
        return np.ascontiguousarray(picture[..., 1])
    if samples == 4:
        return np.concatenate([picture, np.full((rows, columns, 1), 255, np.uint8)], axis=2)
    return picture


def _cut(plane: NDArray[np.generic], chunk: tuple[int, int], *, striped: bool) -> list[NDArray[np.generic]]:
    if striped:  # the last strip is short, not padded
        return [plane[row : row + chunk[0]] for row in range(0, plane.shape[0], chunk[0])]
    tiles: list[NDArray[np.generic]] = []
    cut_tiles(plane, chunk, lambda _row, _column, pixels: tiles.append(pixels))
    return tiles


def _encode(
    pixels: NDArray[np.generic], compression: str, byteorder: Literal["<", ">"], quality: int, subsampling: str
) -> bytes:
    if compression == "jpeg":
        return encode_jpeg(pixels.astype(np.uint8), quality, subsampling=subsampling)
    return encode_plain(pixels.astype(pixels.dtype.newbyteorder(byteorder)), compression)


def _tags(
    level: NDArray[np.generic],
    chunk: tuple[int, int],
    offsets: list[int],
    byte_counts: list[int],
    *,
    striped: bool,
    planar: bool,
) -> list[Tag]:
    samples = level.shape[2] if level.ndim == 3 else 1
    places: list[Tag] = (
        [(273, WIDE, offsets), (278, LONG, (chunk[0],)), (279, WIDE, byte_counts)]
        if striped
        else [(322, LONG, (chunk[1],)), (323, LONG, (chunk[0],)), (324, WIDE, offsets), (325, WIDE, byte_counts)]
    )
    return [
        (256, LONG, (level.shape[1],)),
        (257, LONG, (level.shape[0],)),
        (258, SHORT, (8 * level.dtype.itemsize,) * samples),
        (277, SHORT, (samples,)),
        (284, SHORT, (2 if planar else 1,)),
        (339, SHORT, (_SAMPLE_FORMATS[level.dtype.kind],) * samples),
        *([(338, SHORT, (2,))] if samples == 4 else []),
        *places,
    ]


def _coding_tags(compression: str, samples: int, subsampling: str, tables: bytes) -> list[Tag]:
    tags: list[Tag] = [(259, SHORT, (COMPRESSIONS[compression],))]
    if samples == 1:
        return [*tags, (262, SHORT, (1,)), *([(347, UNDEFINED, tables)] if tables else [])]
    if compression != "jpeg":
        return [*tags, (262, SHORT, (2,))]
    sampling = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[subsampling]
    return [*tags, (262, SHORT, (6,)), (347, UNDEFINED, tables), (530, SHORT, sampling)]
