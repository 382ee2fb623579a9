"""Leica SCN files: BigTIFF of JPEG tiles, with the place of every image in XML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.factories.aperio import block_mean
from tests.factories.tiff_stream import ASCII, RATIONAL, SHORT, Tag, TiffStream
from tests.factories.tissue import tissue
from tests.factories.vendor_pages import write_jpeg_tiles

__all__ = ["ScnRegion", "write_scn"]

_SLIDE_NM = (26_564_529, 76_734_493)
_NAMESPACE = "http://www.leica-microsystems.com/scn/2010/10/01"


@dataclass(frozen=True, slots=True)
class ScnRegion:
    """One scanned region.

    Parameters
    ----------
    rows, columns : int
    place_nm : (int, int)
        X and Y on the slide.
    illumination : {"brightfield", "fluorescence"}
    planes, channels : int
        Each is a page of its own.
    """

    rows: int = 300
    columns: int = 420
    place_nm: tuple[int, int] = (5_000_000, 10_000_000)
    illumination: str = "brightfield"
    planes: int = 1
    channels: int = 1
    objective: str = "20"


def write_scn(
    path: Path,
    regions: Sequence[ScnRegion] = (ScnRegion(),),
    *,
    nm_per_pixel: int = 500,
    tile: int = 128,
    resolution: bool = True,
    macro: bool = True,
    xml: str | None = None,
    seed: int = 0,
) -> list[NDArray[np.uint8]]:
    """Write a slide with levels at 1 and 4, and return the picture of each region before compression.

    Parameters
    ----------
    resolution : bool
        Whether the resolution tags are those of the pixels; else they say 1 without a unit.
    xml : str or None
        In place of the XML that fits.
    """
    pictures = [tissue(region.rows, region.columns, seed + index) for index, region in enumerate(regions)]
    elements: list[str] = []
    pages: list[tuple[NDArray[np.uint8], int]] = []
    if macro:
        elements.append(
            _element("macro", (0, 0), _SLIDE_NM, (90, 32), ['<dimension sizeX="32" sizeY="90" r="0" ifd="0"/>'])
        )
        pages.append((tissue(90, 32, seed + 50), 0))
    for index, (region, picture) in enumerate(zip(regions, pictures, strict=True)):
        dimensions = []
        for plane in range(region.planes):
            for channel in range(region.channels):
                for level, factor in enumerate((1, 4)):
                    pixels = picture if factor == 1 else block_mean(picture, factor)
                    pixels = np.roll(pixels, plane * 7, axis=0)
                    size = f'sizeX="{pixels.shape[1]}" sizeY="{pixels.shape[0]}"'
                    extra = (f' z="{plane}"' if region.planes > 1 else "") + (
                        f' c="{channel}"' if region.channels > 1 else ""
                    )
                    dimensions.append(f'<dimension {size} r="{level}"{extra} ifd="{len(pages)}"/>')
                    pages.append((pixels, 10_000_000 // nm_per_pixel // factor))
        extent = region.columns * nm_per_pixel, region.rows * nm_per_pixel
        elements.append(
            _element(
                f"image_{index}",
                region.place_nm,
                extent,
                picture.shape[:2],
                dimensions,
                region.illumination,
                region.objective,
            )
        )
    barcode = base64.b64encode(b"BC-4711").decode()
    text = xml or (
        f'<?xml version="1.0" encoding="utf-8"?><scn xmlns="{_NAMESPACE}" uuid="x"><collection name="c" uuid="c"'
        f' sizeX="{_SLIDE_NM[0]}" sizeY="{_SLIDE_NM[1]}"><barcode>{barcode}</barcode>{"".join(elements)}'
        "</collection></scn>"
    )
    with TiffStream(path, bigtiff=True) as stream:
        for number, (pixels, per_cm) in enumerate(pages):
            tags: list[Tag] = [(270, ASCII, text.encode() + b"\0")] if number == 0 else []
            known = resolution and per_cm
            scale = (per_cm, 1) if known else (1, 1)
            tags += [(282, RATIONAL, scale), (283, RATIONAL, scale), (296, SHORT, (3 if known else 1,))]
            write_jpeg_tiles(stream, pixels, tile, tags)
    return pictures


def _element(
    name: str,
    place: tuple[int, int],
    extent: tuple[int, int],
    size: tuple[int, ...],
    dimensions: list[str],
    illumination: str = "brightfield",
    objective: str = "0.6",
) -> str:
    return (
        f'<image name="{name}" uuid="{name}"><creationDate>2012-01-01T00:00:00Z</creationDate>'
        f'<device model="Leica SCN400" version="1.4"/><pixels sizeX="{size[1]}" sizeY="{size[0]}">'
        f'{"".join(dimensions)}</pixels><view sizeX="{extent[0]}" sizeY="{extent[1]}" offsetX="{place[0]}"'
        f' offsetY="{place[1]}" spacingZ="0"/><scanSettings><objectiveSettings><objective>{objective}</objective>'
        f"</objectiveSettings><illuminationSettings><numericalAperture>0.4</numericalAperture>"
        f"<illuminationSource>{illumination}</illuminationSource></illuminationSettings></scanSettings></image>"
    )
