"""Pages of JPEG tiles or one JPEG strip, as vendors' TIFF files hold them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from tests.factories.aperio import cut_tiles
from tests.factories.jpeg_tiles import encode_jpeg
from tests.factories.tiff_stream import LONG, SHORT, WIDE, Tag, TiffStream

__all__ = ["write_jpeg_strip", "write_jpeg_tiles"]

Picture = NDArray[np.uint8]


def write_jpeg_tiles(
    stream: TiffStream,
    pixels: Picture,
    tile: int,
    tags: Sequence[Tag] = (),
    *,
    missing: Collection[tuple[int, int]] = (),
    size: tuple[int, int] | None = None,
    subsampling: str = "420",
    quality: int = 80,
) -> None:
    """Append a page of complete JPEG tiles, YCbCr.

    Parameters
    ----------
    tags : sequence of Tag
        Beside those of size and coding.
    missing : collection of (int, int)
        (row, column) of tiles with neither offset nor bytes.
    size : (int, int)
        Rows and columns that the tags state, where they are not those of the picture.
    """
    offsets: list[int] = []
    counts: list[int] = []

    def write(row: int, column: int, part: Picture) -> None:
        data = b"" if (row, column) in missing else encode_jpeg(part, quality, subsampling=subsampling)
        offsets.append(stream.write(data) if data else 0)
        counts.append(len(data))

    cut_tiles(pixels, (tile, tile), write)
    places: list[Tag] = [(322, LONG, (tile,)), (323, LONG, (tile,)), (324, WIDE, offsets), (325, WIDE, counts)]
    stream.write_ifd([*_coding(size or pixels.shape[:2], subsampling), *places, *tags])


def write_jpeg_strip(stream: TiffStream, pixels: Picture, tags: Sequence[Tag] = ()) -> None:
    """Append a page of one JPEG strip, YCbCr 4:2:0."""
    data = encode_jpeg(pixels, 80, subsampling="420")
    places: list[Tag] = [
        (273, WIDE, (stream.write(data),)),
        (278, LONG, (pixels.shape[0],)),
        (279, WIDE, (len(data),)),
    ]
    stream.write_ifd([*_coding(pixels.shape[:2], "420"), *places, *tags])


def _coding(size: tuple[int, int], subsampling: str) -> list[Tag]:
    sampling = {"444": (1, 1), "422": (2, 1), "420": (2, 2)}[subsampling]
    return [
        (256, LONG, (size[1],)),
        (257, LONG, (size[0],)),
        (258, SHORT, (8, 8, 8)),
        (259, SHORT, (7,)),
        (262, SHORT, (6,)),
        (277, SHORT, (3,)),
        (284, SHORT, (1,)),
        (530, SHORT, sampling),
    ]
