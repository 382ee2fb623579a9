"""Leica SCN: a BigTIFF file of JPEG tiles that holds one pyramid for each scanned region, and a macro image."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from coverslip.converter.sources.base import AssociatedImage, PixelSpacing, SourcePyramid
from coverslip.converter.sources.generic_tiff import resolution
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.tiff_source import TiffSource, associated_image, open_levels
from coverslip.converter.sources.tiff_structure import TagCode, TiffPage, TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata, tiff_properties
from coverslip.converter.sources.xml_text import parse_xml
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.validators.report import Finding, Severity

__all__ = ["open_source"]

_BRIGHTFIELD = "brightfield"
_MOST_REGIONS = 1000


@dataclass(frozen=True, slots=True)
class _Image:
    """One image element: a region, or the macro image.

    Parameters
    ----------
    element : Element
    place_nm, size_nm : tuple of int
        (X, Y) in the collection.
    pages : sequence of int
        Directories of the levels in the middle focal plane, largest first.
    planes, channels : int
    """

    element: ET.Element
    place_nm: tuple[int, int]
    size_nm: tuple[int, int]
    pages: Sequence[int]
    columns: int
    planes: int
    channels: int

    def text(self, path: str) -> str:
        """Return the text of an element below, or of an attribute after ``@``; empty if it is absent."""
        path, _, attribute = path.partition("@")
        found = self.element.find("/".join(f"{{*}}{name}" for name in path.split("/")))
        if found is None:
            return ""
        return (found.get(attribute, "") if attribute else found.text or "").strip()

    @property
    def illumination(self) -> str:
        """``brightfield`` or ``fluorescence``."""
        return self.text("scanSettings/illuminationSettings/illuminationSource")


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> TiffSource:
    """Open an SCN file whose directories are read already.

    Raises
    ------
    UnsupportedSourceError
        If no region is brightfield.
    CorruptSourceError
        If the XML or a page is damaged.
    """
    collection = _collection(structure.pages[0].description)
    extent = _size(collection)
    images = [_image(element) for element in collection.findall("{*}image")[:_MOST_REGIONS]]
    macros = [image for image in images if image.place_nm == (0, 0) and image.size_nm == extent]
    scanned = [image for image in images if image not in macros]
    regions = [image for image in scanned if image.illumination == _BRIGHTFIELD and image.channels == 1]
    if not regions:
        kinds = "fluorescence, which is not read yet; brightfield is" if scanned else "no scanned region"
        raise UnsupportedSourceError(f"a Leica SCN slide of {kinds}")
    findings: list[Finding] = []
    if len(regions) < len(scanned):
        message = f"{len(scanned) - len(regions)} of {len(scanned)} regions are fluorescence and are left out"
        findings.append(Finding("source.region-unused", Severity.WARNING, message))
    pyramids = []
    for number, region in enumerate(regions, start=1):
        place = f"region {number}" if len(regions) > 1 else ""
        pyramid, remarks = _open_region(structure, region, extent, background, place)
        pyramids.append(pyramid)
        findings += remarks
    associated: dict[str, AssociatedImage] = {}
    for macro in macros[:1]:
        image = associated_image(structure, _page(structure, macro.pages[0]), "overview", "ISO_10918_1")
        if isinstance(image, Finding):
            findings.append(image)
        else:
            associated["overview"] = image
    base = _page(structure, regions[0].pages[0])
    properties = _properties(collection, regions[0]) | {
        name: text for name, text in tiff_properties(base).items() if name != "tiff.ImageDescription"
    }
    metadata = slide_metadata(properties, load_vendor("leica"), base.data(TagCode.ICC_PROFILE) or None)
    return TiffSource(
        path, structure, "leica-scn", "Leica SCN", metadata, tuple(pyramids), associated,
        tuple(dict.fromkeys(findings)),
    )  # fmt: skip


def _open_region(
    structure: TiffStructure, region: _Image, extent: tuple[int, int], background: tuple[int, int, int], place: str
) -> tuple[SourcePyramid, list[Finding]]:
    findings: list[Finding] = []
    pages = [_page(structure, index) for index in region.pages]
    spacing = _spacing(pages[0], region)
    if spacing is None:
        message = "the slide states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message, place))
    if region.planes > 1:
        message = f"one of {region.planes} focal planes is read, the one that was focused on"
        findings.append(Finding("source.focal-planes-unused", Severity.WARNING, message, place))
    levels, remarks = open_levels(structure, pages, spacing, background)
    # With the label on the left both axes of the slide run against the rows and columns of a picture (PS3.3 C.8.12.2).
    x_nm, y_nm = extent[1] - region.place_nm[1], extent[0] - region.place_nm[0]
    origin = (x_nm / 1e6, y_nm / 1e6)
    return SourcePyramid(levels, origin_mm=origin), findings + remarks


def _spacing(base: TiffPage, region: _Image) -> PixelSpacing | None:
    """Return the spacing of the resolution tags, else that of the region's extent."""
    found = resolution(base)
    if found is not None or not region.columns:
        return found
    um = region.size_nm[0] / region.columns / 1000
    return plausible_spacing(um, um, "SCN view")


def _collection(description: str) -> ET.Element:
    found = parse_xml(description, "the XML of a Leica SCN slide").find("{*}collection")
    if found is None:
        raise CorruptSourceError("the XML of a Leica SCN slide has no collection")
    return found


def _image(element: ET.Element) -> _Image:
    view = element.find("{*}view")
    dimensions = element.findall("{*}pixels/{*}dimension")
    if view is None or not dimensions:
        raise CorruptSourceError("an image in the XML of a Leica SCN slide lacks its view or its dimensions")
    heights = {_integer(one, "z", 0) for one in dimensions}
    focused = [one for one in dimensions if _integer(one, "z", 0) == min(heights)]
    channels = {one.get("c", "0") for one in focused}
    levels = sorted(focused, key=lambda one: (_integer(one, "sizeX"), _integer(one, "sizeY")), reverse=True)
    return _Image(
        element,
        (_integer(view, "offsetX", 0), _integer(view, "offsetY", 0)),
        _size(view),
        [_integer(one, "ifd") for one in levels],
        _integer(levels[0], "sizeX"),
        len(heights),
        len(channels),
    )


def _size(element: ET.Element) -> tuple[int, int]:
    return _integer(element, "sizeX"), _integer(element, "sizeY")


def _integer(element: ET.Element, name: str, default: int | None = None) -> int:
    text = element.get(name)
    if text is None and default is not None:
        return default
    try:
        return int(text or "")
    except ValueError as error:
        raise CorruptSourceError(f"{name} in the XML of a Leica SCN slide is no whole number") from error


def _page(structure: TiffStructure, index: int) -> TiffPage:
    if not 0 <= index < len(structure.pages):
        raise CorruptSourceError(f"directory {index} of {len(structure.pages)} is asked for by the XML")
    return structure.pages[index]


def _properties(collection: ET.Element, region: _Image) -> dict[str, str]:
    """Return what the XML says, named as OpenSlide names it."""
    objective = region.text("scanSettings/objectiveSettings/objective")
    return {
        "leica.barcode": _barcode(collection),
        "leica.creation-date": region.text("creationDate"),
        "leica.device-model": region.text("device@model"),
        "leica.device-version": region.text("device@version"),
        "leica.aperture": region.text("scanSettings/illuminationSettings/numericalAperture"),
        "openslide.objective-power": objective,
    }


def _barcode(collection: ET.Element) -> str:
    """Return the barcode, an attribute in the older namespace and Base64 in an element of the newer one."""
    found = collection.find("{*}barcode")
    if found is None:
        return collection.get("barcode", "")
    try:
        return base64.b64decode(found.text or "", validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return found.text or ""
