"""Philips TIFF files: BigTIFF of JPEG tiles, sparse and padded to whole tiles, with pictures and spacings in XML."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.factories.aperio import block_mean
from tests.factories.jpeg_tiles import encode_jpeg
from tests.factories.tiff_stream import ASCII, LONG, Tag, TiffStream
from tests.factories.tissue import tissue
from tests.factories.vendor_pages import write_jpeg_strip, write_jpeg_tiles

__all__ = ["write_philips"]


def write_philips(
    path: Path,
    *,
    rows: int = 384,
    columns: int = 640,
    tile: int = 128,
    levels: int = 4,
    spacing_mm: tuple[float, float] = (0.0005, 0.0005),
    pages_of_pictures: bool = False,
    missing_tiles: Collection[tuple[int, int, int]] = (),
    spacings: Sequence[str] | None = None,
    label: bytes | None = None,
    scanned_images: int = 1,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Write a slide, and return its picture before compression.

    Parameters
    ----------
    spacing_mm : (float, float)
        Row and column, of the base.
    pages_of_pictures : bool
        Whether label and macro image are pages of their own, not in the XML.
    missing_tiles : collection of (int, int, int)
        (level, row, column) of tiles that are not stored.
    spacings : sequence of str or None
        Pixel spacings of the levels as the XML states them.
    label : bytes or None
        In place of the label's JPEG.
    """
    picture = tissue(rows, columns, seed)
    if spacings is None:
        spacings = [f'"{spacing_mm[0] * 2**level:g}" "{spacing_mm[1] * 2**level:g}"' for level in range(levels)]
    label_picture, macro = tissue(60, 50, seed + 50), tissue(40, 110, seed + 51)
    representations = "".join(
        _object("PixelDataRepresentation", _attribute("DICOM_PIXEL_SPACING", text)) for text in spacings
    )
    wsi = _object(
        "DPScannedImage",
        _attribute("PIM_DP_IMAGE_TYPE", "WSI"),
        _attribute("DICOM_DERIVATION_DESCRIPTION", 'tiff-useBigTIFF=1-levels=40,10002-q80-sourceFilename="T-levels=9"'),
        _array("PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE", representations),
    )
    pictures = ""
    if not pages_of_pictures:
        for kind, data in (
            ("LABELIMAGE", label if label is not None else encode_jpeg(label_picture, 80, subsampling="420")),
            ("MACROIMAGE", encode_jpeg(macro, 80, subsampling="420")),
        ):
            text = base64.b64encode(data).decode()
            pictures += _object(
                "DPScannedImage", _attribute("PIM_DP_IMAGE_TYPE", kind), _attribute("PIM_DP_IMAGE_DATA", text)
            )
    root = _object(
        "DPUfsImport",
        _attribute("DICOM_MANUFACTURER", "PHILIPS"),
        _attribute("DICOM_DEVICE_SERIAL_NUMBER", "FMT0000"),
        _attribute("DICOM_ACQUISITION_DATETIME", "20160718122300.000000"),
        _attribute("PIM_DP_UFS_BARCODE", base64.b64encode(b"BC-4711").decode()),
        _array("PIM_DP_SCANNED_IMAGES", wsi * scanned_images + pictures),
    )
    text = f'<?xml version="1.0" encoding="UTF-8" ?>{root}'
    with TiffStream(path, bigtiff=True) as stream:
        for level in range(levels):
            pixels = picture if level == 0 else block_mean(picture, 2**level)
            padding = [(0, -extent % tile) for extent in pixels.shape[:2]]
            padded = np.pad(pixels, (*padding, (0, 0)), constant_values=255)
            description = text.encode() if level == 0 else f"level={level}".encode()
            tags: list[Tag] = [(254, LONG, (int(level > 0),)), (270, ASCII, description + b"\0")]
            if level == 0:
                tags.append((305, ASCII, b"Philips DP v1.0\0"))
            # The base states its own size, all others that of whole tiles.
            size = (rows, columns) if level == 0 else None
            missing = {(row, column) for other, row, column in missing_tiles if other == level}
            write_jpeg_tiles(stream, padded, tile, tags, missing=missing, size=size)
        if pages_of_pictures:
            write_jpeg_strip(stream, label_picture, [(270, ASCII, b"Label\0")])
            write_jpeg_strip(stream, macro, [(270, ASCII, b"Macro -offset=(0,0)\0")])
    return picture


def _attribute(name: str, text: str) -> str:
    text = text.replace('"', "&quot;")
    return f'<Attribute Name="{name}" Group="0x0000" Element="0x0000" PMSVR="IString">{text}</Attribute>'


def _array(name: str, content: str) -> str:
    start = f'<Attribute Name="{name}" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray">'
    return f"{start}<Array>{content}</Array></Attribute>"


def _object(kind: str, *content: str) -> str:
    return f'<DataObject ObjectType="{kind}">{"".join(content)}</DataObject>'
