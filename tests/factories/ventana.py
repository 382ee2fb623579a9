"""Ventana BIF and TIFF files: BigTIFF of JPEG tiles, which overlap in a BIF, with the XML of the iScan scanner."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.factories.aperio import block_mean
from tests.factories.tiff_stream import ASCII, Tag, TiffStream
from tests.factories.tissue import tissue
from tests.factories.vendor_pages import write_jpeg_strip, write_jpeg_tiles

__all__ = ["write_ventana"]

ISCAN = (
    '<?xml version="1.0"?><iScan Magnification="20" ScanRes="0.4650" UnitNumber="2000515" UserName="Ann Other"'
    ' BuildVersion="3.3.1.1" Barcode1D="BC-4711"{}/>'
)
_BYTE = 1


def write_ventana(
    path: Path,
    *,
    tile_rows: int = 3,
    tile_columns: int = 4,
    tile: int = 128,
    overlap: tuple[int, int] = (0, 0),
    areas: bool = True,
    iscan: str | None = None,
    levels: int = 2,
    quality: int = 80,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Write a slide of one area, and return its picture before compression.

    Parameters
    ----------
    overlap : (int, int)
        Pixels that neighbouring tiles share, down and across; lower levels hold the reduced tiles side by side.
    areas : bool
        Whether there is XML that tells where tiles lie: a BIF; else a Ventana TIFF.
    iscan : str or None
        In place of the scanner's XML.
    """
    step = tile - overlap[0], tile - overlap[1]
    size = (tile_rows - 1) * step[0] + tile, (tile_columns - 1) * step[1] + tile
    picture = tissue(*size, seed)
    rows = [
        np.concatenate(
            [picture[row * step[0] :, column * step[1] :][:tile, :tile] for column in range(tile_columns)], axis=1
        )
        for row in range(tile_rows)
    ]
    laid_out = np.concatenate(rows)  # side by side, with what they share twice
    with TiffStream(path, bigtiff=True) as stream:
        text = (iscan or ISCAN.format("")).encode()
        write_jpeg_strip(stream, tissue(90, 240, seed + 50), [(270, ASCII, b"Label_Image\0"), (700, _BYTE, text)])
        write_jpeg_strip(stream, tissue(45, 120, seed + 51), [(270, ASCII, b"Thumbnail\0")])
        for level in range(levels):
            pixels = laid_out if level == 0 else block_mean(laid_out, 2**level)
            name = f"level={level} mag={20 / 2**level:g} quality={quality}\0".encode()
            tags: list[Tag] = [(270, ASCII, name)]
            if areas and level == 0:
                tags.append((700, _BYTE, _areas(tile_rows, tile_columns, tile, overlap).encode()))
            write_jpeg_tiles(stream, pixels, tile, tags, quality=quality)
    return picture


def _areas(rows: int, columns: int, tile: int, overlap: tuple[int, int]) -> str:
    joints = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="99" Direction="{direction}" Tile1="{first}" Tile2="{second}"'
        f' OverlapX="{overlap[1] if direction == "RIGHT" else 0}" OverlapY="{overlap[0] if direction == "UP" else 0}"/>'
        for direction, first, second in _joints(rows, columns)
    )
    return (
        '<?xml version="1.0"?><EncodeInfo Ver="2"><SlideInfo/><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0"'
        f' Width="{tile}" Height="{tile}" NumRows="{rows}" NumCols="{columns}" Pos-X="0" Pos-Y="0">{joints}</ImageInfo>'
        '</SlideStitchInfo><AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )


def _joints(rows: int, columns: int) -> Iterator[tuple[str, int, int]]:
    def number(row: int, column: int) -> int:
        """Count from the lower left corner, to and fro."""
        up = rows - 1 - row
        return up * columns + (columns - 1 - column if up % 2 else column) + 1

    for row in range(rows):
        for column in range(columns):
            if column + 1 < columns:
                yield "RIGHT", number(row, column), number(row, column + 1)
            if row:
                yield "UP", number(row, column), number(row - 1, column)
