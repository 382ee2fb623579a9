"""TIFF files of vendors that hold tiles side by side: Trestle, Huron, Argos, and exports of Motic and Mikroscan."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.factories.aperio import block_mean
from tests.factories.tiff_stream import ASCII, LONG, RATIONAL, SHORT, Tag, TiffStream
from tests.factories.tissue import tissue
from tests.factories.vendor_pages import write_jpeg_strip, write_jpeg_tiles

__all__ = ["write_argos", "write_export", "write_huron", "write_trestle"]

Picture = NDArray[np.uint8]
_PER_CM = (20_000, 1)  # 0.5 um per pixel


def write_trestle(
    path: Path,
    *,
    rows: int = 300,
    columns: int = 420,
    tile: int = 128,
    levels: int = 2,
    overlap: int = 0,
    missing: Collection[tuple[int, int]] = (),
    seed: int = 0,
) -> Picture:
    """Write a slide whose tiles share so many pixels, and return the picture that the pages show."""
    picture = tissue(rows, columns, seed)
    overlaps = " ".join(f"{overlap >> level} {overlap >> level}" for level in range(levels))
    text = f"Objective Power=20;Background Color=F0F0F0;OverlapsXY= {overlaps};JPEG Quality=80\0".encode()
    # The tags hold micrometres per pixel, of an objective that is seldom the right one.
    tags: list[Tag] = [(270, ASCII, text), (305, ASCII, b"MedScan 2.5\0"), *_resolution((1, 2), 1)]
    with TiffStream(path) as stream:
        for level in range(levels):
            pixels = picture if level == 0 else block_mean(picture, 2**level)
            write_jpeg_tiles(stream, pixels, tile, tags, missing=missing if level == 0 else ())
    return picture


def write_huron(
    path: Path, *, rows: int = 300, columns: int = 420, tile: int = 128, levels: int = 2, seed: int = 0
) -> Picture:
    """Write a slide, and return its picture."""
    picture = tissue(rows, columns, seed)
    text = b"Source = Bright Field\r\nResolution = 0.5 um\r\nOperator = Ann Other\0"
    with TiffStream(path, bigtiff=True) as stream:
        for level in range(levels):
            pixels = picture if level == 0 else block_mean(picture, 2**level)
            tags: list[Tag] = [
                (254, LONG, (int(level > 0),)),
                (271, ASCII, b"Huron\0"),
                (272, ASCII, b"LE120\0"),
                *_resolution((_PER_CM[0] >> level, 1), 3),
                *([(270, ASCII, text)] if level == 0 else []),
            ]
            write_jpeg_tiles(stream, pixels, tile, tags)
    return picture


def write_argos(
    path: Path, *, rows: int = 300, columns: int = 420, tile: int = 128, levels: int = 2, planes: int = 1, seed: int = 0
) -> Picture:
    """Write the pyramids of all focal planes, thumbnail and overview, and return the picture of the middle plane."""
    xml = (
        f'<?xml version="1.0"?><Argos.Scan.Metadata><MinZ>0</MinZ><MaxZ>{planes - 1}</MaxZ>'
        "<ObjectiveMagnification>20</ObjectiveMagnification><Barcode>BC-4711-7</Barcode></Argos.Scan.Metadata>"
    )
    pictures = [tissue(rows, columns, seed + plane) for plane in range(planes)]
    with TiffStream(path, bigtiff=True) as stream:
        for plane, picture in enumerate(pictures):
            for level in range(levels):
                pixels = picture if level == 0 else block_mean(picture, 2**level)
                tags = _resolution((_PER_CM[0] >> level, 1), 3)
                if plane == level == 0:
                    tags.append((65000, ASCII, xml.encode() + b"\0"))
                write_jpeg_tiles(stream, pixels, tile, tags)
        write_jpeg_strip(stream, tissue(60, 84, seed + 50))
        write_jpeg_strip(stream, tissue(60, 170, seed + 51))
    return pictures[(planes - 1) // 2]


def write_export(
    path: Path, make: str, *, rows: int = 300, columns: int = 420, tile: int = 128, levels: int = 2, seed: int = 0
) -> Picture:
    """Write what scanners of other makers export: a pyramid of pages with their name, and a label after it."""
    picture = tissue(rows, columns, seed)
    with TiffStream(path, bigtiff=True) as stream:
        for level in range(levels):
            pixels = picture if level == 0 else block_mean(picture, 2**level)
            tags: list[Tag] = [
                (254, LONG, (int(level > 0),)),
                (271, ASCII, make.encode() + b"\0"),
                (272, ASCII, b"SL5\0"),
                *_resolution((_PER_CM[0] >> level, 1), 3),
            ]
            write_jpeg_tiles(stream, pixels, tile, tags, subsampling="422")
        write_jpeg_strip(stream, tissue(50, 60, seed + 50), [(254, LONG, (1,))])
    return picture


def _resolution(value: tuple[int, int], unit: int) -> list[Tag]:
    return [(282, RATIONAL, value), (283, RATIONAL, value), (296, SHORT, (unit,))]
