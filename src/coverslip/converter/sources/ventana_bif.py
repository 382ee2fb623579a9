"""Ventana BIF and TIFF: BigTIFF of JPEG tiles, which may overlap, with XML of the iScan scanner."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree as ET

from coverslip.converter.sources.base import AssociatedImage, SlideSource, SourcePyramid
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.tiff_source import TiffSource, associated_image, open_levels
from coverslip.converter.sources.tiff_structure import TagCode, TiffPage, TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata, tiff_properties
from coverslip.converter.sources.xml_text import parse_xml
from coverslip.errors import CorruptSourceError, MissingDependencyError, UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.validators.report import Finding, Severity

__all__ = ["open_source"]

_PICTURES = {"Label Image": "overview", "Label_Image": "overview", "Thumbnail": "thumbnail"}
"""ImageDescription of pages that are no levels; the label image shows the whole glass."""
_LEVEL = re.compile(r"(?:^|\s)level=(\d+)\b")


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> SlideSource:
    """Open a Ventana slide whose directories are read already.

    Tiles that lie side by side are passed on as they are; a slide whose tiles overlap, or that has several areas, is
    put together by OpenSlide.

    Raises
    ------
    UnsupportedSourceError
        If there are no levels in tiles.
    CorruptSourceError
        If the XML or a page is damaged.
    MissingDependencyError
        If tiles overlap and OpenSlide does not load.
    """
    pages = dict(sorted(_levels(structure)))
    if 0 not in pages or not all(page.is_tiled for page in pages.values()):
        raise UnsupportedSourceError("a Ventana slide without levels in tiles")
    base = pages[0]
    if not _lies_side_by_side(base):
        _require_placeable(base)
        return _stitched(path, structure, background)
    properties = _properties(structure, base)
    resolution = _number(properties.get("ventana.ScanRes", ""))
    spacing = plausible_spacing(resolution, resolution, "Ventana ScanRes")
    findings: list[Finding] = []
    if spacing is None:
        message = "the slide states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message))
    levels, remarks = open_levels(structure, list(pages.values()), spacing, background)
    associated: dict[str, AssociatedImage] = {}
    for page in structure.pages:
        name = _PICTURES.get(page.description.strip())
        if name is not None and name not in associated:
            image = associated_image(structure, page, name, "ISO_10918_1")
            if isinstance(image, Finding):
                findings.append(image)
            else:
                associated[name] = image
    metadata = slide_metadata(properties, load_vendor("ventana"), base.data(TagCode.ICC_PROFILE) or None)
    return TiffSource(
        path, structure, "ventana", "Ventana BIF", metadata, (SourcePyramid(levels),), associated,
        (*findings, *remarks),
    )  # fmt: skip


def _levels(structure: TiffStructure) -> Iterator[tuple[int, TiffPage]]:
    for page in structure.pages:
        found = _LEVEL.search(page.description)
        if found:
            yield int(found[1]), page


def _lies_side_by_side(base: TiffPage) -> bool:
    """Whether the tiles of the base make the picture as they are: one area, and no overlap anywhere.

    A Ventana TIFF, which tells nothing of areas, has been put together already.
    """
    text = base.text(TagCode.XMP)
    if not text.strip():
        return True
    root = parse_xml(text, "the XML of a Ventana slide")
    areas = [area for area in root.iterfind(".//ImageInfo") if area.get("AOIScanned", "1") != "0"]
    if len(areas) != 1:
        return False
    (area,) = areas
    origins = [origin for origins in root.iterfind("AoiOrigin") for origin in origins]
    if any(_number(origin.get(name, "0")) for origin in origins[:1] for name in ("OriginX", "OriginY")):
        return False
    covered = (
        _number(area.get("NumRows", "0")) * base.segment_rows >= base.rows,
        _number(area.get("NumCols", "0")) * base.segment_columns >= base.columns,
    )
    overlaps = (joint.get(name, "0") for joint in area.iter("TileJointInfo") for name in ("OverlapX", "OverlapY"))
    return all(covered) and not any(_number(overlap) for overlap in overlaps)


def _require_placeable(base: TiffPage) -> None:
    """Refuse tiles of which OpenSlide could not tell the places: it takes means over joints, and hangs without any."""
    root = parse_xml(base.text(TagCode.XMP), "the XML of a Ventana slide")
    joints = [
        joint
        for area in root.iterfind(".//ImageInfo")
        if area.get("AOIScanned", "1") != "0"
        for joint in area.iter("TileJointInfo")
    ]
    for direction, name, tile in (("RIGHT", "OverlapX", base.segment_columns), ("UP", "OverlapY", base.segment_rows)):
        weighted = [
            (_number(joint.get("Confidence", "0")), _number(joint.get(name, "0")))
            for joint in joints
            if joint.get("Direction") == direction
        ]
        weight = sum(confidence for confidence, _ in weighted)
        overlap = sum(confidence * shared for confidence, shared in weighted) / weight if weight > 0 else tile
        if not -tile < overlap < tile:
            raise UnsupportedSourceError(
                f"a Ventana slide whose tiles are not joined {'across' if direction == 'RIGHT' else 'down'}:"
                " their places are not known"
            )


def _stitched(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> SlideSource:
    try:
        from coverslip.converter.sources import openslide_source
    except Exception as error:
        raise MissingDependencyError(
            "Ventana slides whose tiles overlap are read with openslide, which does not load: pip install"
            " openslide-python openslide-bin"
        ) from error
    return openslide_source.open_source(path, structure, background)


def _properties(structure: TiffStructure, base: TiffPage) -> dict[str, str]:
    """Return the attributes of the scanner's element, named as OpenSlide names them, and the base's tags."""
    found = {f"ventana.{name}": text for name, text in _iscan(structure).attrib.items() if text}
    return found | tiff_properties(base) | {"openslide.objective-power": found.get("ventana.Magnification", "")}


def _iscan(structure: TiffStructure) -> ET.Element:
    for page in structure.pages:
        text = page.text(TagCode.XMP)
        if "<iScan" in text:
            root = parse_xml(text, "the XML of a Ventana slide")
            found = root if root.tag == "iScan" else root.find(".//iScan")
            if found is not None:
                return found
    raise CorruptSourceError("a Ventana slide without an iScan element")


def _number(text: str) -> float:
    """Return a number, 0 for what is none."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if abs(number) < 1e12 else 0.0
