"""Philips TIFF: BigTIFF of JPEG tiles, sparse and padded, with the size of every level and the pictures in XML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

from coverslip.converter.sources.base import AssociatedImage, SourcePyramid
from coverslip.converter.sources.philips_xml import (
    attribute_text,
    picture_of_base64,
    properties,
    representations,
    scanned_images,
)
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.tiff_source import TiffSource, associated_image, open_levels
from coverslip.converter.sources.tiff_structure import TagCode, TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata, tiff_properties
from coverslip.converter.sources.xml_text import parse_xml
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.validators.report import Finding, Severity

__all__ = ["open_source"]

_PICTURES = {"label": ("Label", "LABELIMAGE"), "overview": ("Macro", "MACROIMAGE")}
"""Start of the ImageDescription of a page, and type of an image in the XML."""


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> TiffSource:
    """Open a Philips TIFF whose directories are read already.

    Raises
    ------
    UnsupportedSourceError
        If it does not hold one scanned image in tiles.
    CorruptSourceError
        If the XML or a page is damaged.
    """
    root = parse_xml(structure.pages[0].description, "the XML of a Philips slide")
    scanned = [image for image in scanned_images(root) if attribute_text(image, "PIM_DP_IMAGE_TYPE") == "WSI"]
    pages = [page for page in structure.pages if page.is_tiled]
    if len(scanned) != 1 or not pages:
        raise UnsupportedSourceError(f"a Philips TIFF of {len(scanned)} scanned images, of which one is read")
    spacings = [_spacing(one) for one in representations(scanned[0])]
    sizes = _sizes([(page.rows, page.columns) for page in pages], spacings)
    findings: list[Finding] = []
    base = spacings[0]
    spacing = plausible_spacing(base[0] * 1000, base[1] * 1000, "Philips XML")
    if spacing is None:
        message = "the slide states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message))
    levels, remarks = open_levels(structure, pages, spacing, background, sizes=sizes)
    associated: dict[str, AssociatedImage] = {}
    for name in _PICTURES:
        picture = _picture(structure, root, name)
        if isinstance(picture, Finding):
            findings.append(picture)
        elif picture is not None:
            associated[name] = picture
    stated = dict(properties(root, scanned[0])) | {
        name: text for name, text in tiff_properties(structure.pages[0]).items() if name != "tiff.ImageDescription"
    }
    profile = structure.pages[0].data(TagCode.ICC_PROFILE) or None
    metadata = slide_metadata(stated, load_vendor("philips"), profile)
    return TiffSource(
        path, structure, "philips-tiff", "Philips TIFF", metadata, (SourcePyramid(levels),), associated,
        (*findings, *remarks),
    )  # fmt: skip


def _sizes(pages: Sequence[tuple[int, int]], spacings: Sequence[tuple[float, float]]) -> list[tuple[int, int]]:
    """Return (rows, columns) of each level: those of the base, reduced. Pages are padded to whole tiles."""
    if len(spacings) != len(pages):
        raise CorruptSourceError(f"{len(spacings)} levels in the XML of a Philips slide, {len(pages)} in its pages")
    (rows, columns), (base_row, base_column) = pages[0], spacings[0]
    sizes = []
    for row, column in spacings:
        factor = max(1, round((row / base_row + column / base_column) / 2))
        sizes.append((max(1, rows // factor), max(1, columns // factor)))
    if any(a > c or b > d for (a, b), (c, d) in zip(sizes, pages, strict=True)):
        raise CorruptSourceError("a level in the XML of a Philips slide is larger than its page")
    return sizes


def _spacing(representation: ET.Element) -> tuple[float, float]:
    """Return (row, column) in millimetres."""
    numbers = re.findall(r"[\d.eE+-]+", attribute_text(representation, "DICOM_PIXEL_SPACING"))
    try:
        row, column = (float(number) for number in numbers)
    except ValueError:
        row = column = 0.0
    if not (0 < row < 1e6 and 0 < column < 1e6):
        raise CorruptSourceError("a level in the XML of a Philips slide lacks its pixel spacing")
    return row, column


def _picture(structure: TiffStructure, root: ET.Element, name: str) -> AssociatedImage | Finding | None:
    """Return label or macro image: a page of its own, else a JPEG in the XML."""
    start, kind = _PICTURES[name]
    for page in structure.pages:
        if not page.is_tiled and page.description.startswith(start):
            return associated_image(structure, page, name, "ISO_10918_1")
    for image in scanned_images(root):
        if attribute_text(image, "PIM_DP_IMAGE_TYPE") == kind:
            text = attribute_text(image, "PIM_DP_IMAGE_DATA")
            return picture_of_base64(text, name) if text else None
    return None
