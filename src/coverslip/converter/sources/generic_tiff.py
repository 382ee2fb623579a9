"""8-bit RGB TIFF files of no particular vendor: pyramids of pages or SubIFDs, in tiles or strips; plain OME-TIFF."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.parsers.expat import ErrorString

from coverslip.converter.sources.base import PixelSpacing, SlideMetadata, SourcePyramid
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.stored_tiles import unreadable_kind
from coverslip.converter.sources.tiff_source import TiffSource, open_levels
from coverslip.converter.sources.tiff_structure import TagCode, TiffPage, TiffStructure
from coverslip.errors import UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.validators.report import Finding, Severity

__all__ = ["open_source"]

_PROPERTIES = {
    "tiff.ImageDescription": TagCode.IMAGE_DESCRIPTION,
    "tiff.DocumentName": TagCode.DOCUMENT_NAME,
    "tiff.Make": TagCode.MAKE,
    "tiff.Model": TagCode.MODEL,
    "tiff.Software": TagCode.SOFTWARE,
    "tiff.DateTime": TagCode.DATE_TIME,
    "tiff.Artist": TagCode.ARTIST,
    "tiff.HostComputer": TagCode.HOST_COMPUTER,
}
_UM_PER_UNIT = {2: 25400.0, 3: 10000.0}
_OME_UNITS_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 0.001, "mm": 1000.0, "cm": 10000.0}


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> TiffSource:
    """Open a TIFF file whose directories are read already.

    Raises
    ------
    UnsupportedSourceError
        If it is not one 8-bit RGB image and its reductions.
    CorruptSourceError
        If a page is damaged.
    """
    base = structure.pages[0]
    pixels = _ome_pixels(base.description)
    kind = unreadable_kind(base)
    if kind:
        raise UnsupportedSourceError(f"a TIFF file of {kind}, which is not read yet; 8-bit RGB is")
    if pixels is None:
        name, title, spacing = "generic-tiff", "Generic TIFF", _resolution(base)
    else:
        name, title, spacing = "ome-tiff", "OME-TIFF", _ome_spacing(pixels)
    findings: list[Finding] = []
    if spacing is None:
        message = "the file states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message))
    pages, others = _pyramid_pages(structure)
    if others:
        message = f"{others} of {len(structure.pages)} pages are not reductions of the first and are left out"
        findings.append(Finding("source.page-unused", Severity.WARNING, message))
    levels, remarks = open_levels(structure, pages, spacing, background)
    pyramid = SourcePyramid(levels)
    return TiffSource(path, structure, name, title, _metadata(base), (pyramid,), {}, (*findings, *remarks))


def _pyramid_pages(structure: TiffStructure) -> tuple[list[TiffPage], int]:
    """Return the base and its reductions, largest first, and the number of pages that are neither.

    Raises
    ------
    UnsupportedSourceError
        If several pages are as large as the base: channels, focal planes or time points.
    """
    base, *rest = structure.pages
    alike = 1 + sum((page.rows, page.columns) == (base.rows, base.columns) for page in rest)
    if alike > 1:
        raise UnsupportedSourceError(f"{alike} images of one size (channels or planes), which is not read yet; one is")
    reduced = [page for page in (*structure.sub_pages(base), *rest) if _is_reduction(page, base)]
    reduced.sort(key=lambda page: page.rows * page.columns, reverse=True)
    return [base, *reduced], sum(not _is_reduction(page, base) for page in rest)


def _is_reduction(page: TiffPage, base: TiffPage) -> bool:
    """Whether a page is smaller than the base, of its shape within two pixels, and stored alike."""
    if not 0 < page.rows < base.rows or unreadable_kind(page) or page.is_tiled != base.is_tiled:
        return False
    return abs(page.columns - base.columns * page.rows / base.rows) <= 2


def _resolution(page: TiffPage) -> PixelSpacing | None:
    """Return the spacing that the resolution tags give; None for a screen's or a printer's, or for no unit."""
    unit_um = _UM_PER_UNIT.get(page.integer(TagCode.RESOLUTION_UNIT, 2))
    across, down = page.rational(TagCode.X_RESOLUTION), page.rational(TagCode.Y_RESOLUTION)
    if not (unit_um and across and down):
        return None
    return plausible_spacing(unit_um / down, unit_um / across, "TIFF resolution")


def _ome_pixels(description: str) -> dict[str, str] | None:
    """Return the attributes of the one Pixels element of OME-XML; None if the text is none.

    Raises
    ------
    UnsupportedSourceError
        If the XML does not parse, or the image is not plainly one 8-bit RGB plane.
    """
    if not re.search(r"<(\w+:)?OME\b", description[:4096]):
        return None
    try:
        # Bytes, as the text may declare an encoding of its own. Expat itself limits how far entities expand.
        root = ET.fromstring(description.encode())  # noqa: S314
    except ET.ParseError as error:
        raise UnsupportedSourceError(
            f"OME-TIFF whose OME-XML does not parse: {ErrorString(error.code)} in line {error.position[0]}"
        ) from error
    found = root.findall(".//{*}Pixels")
    if len(found) != 1:
        raise UnsupportedSourceError(f"OME-TIFF of {len(found)} images, which is not read yet; one is")
    pixels = dict(found[0].attrib)
    channels = found[0].findall("{*}Channel")
    samples = [channel.get("SamplesPerPixel", "1") for channel in channels]
    sizes = [pixels.get(name, "1") for name in ("SizeZ", "SizeT")]
    sample_type = pixels.get("Type", "unknown")
    if sample_type != "uint8" or sizes != ["1", "1"] or pixels.get("SizeC") != "3" or samples not in (["3"], []):
        count, planes, points, kind = map(_known_word, (pixels.get("SizeC", "?"), *sizes, sample_type))
        raise UnsupportedSourceError(
            f"OME-TIFF of {count} samples in {len(channels)} channels, {planes} focal planes and "
            f"{points} time points of {kind}, which is not read yet; one 8-bit RGB plane is"
        )
    return pixels


def _known_word(text: str) -> str:
    """Return a number or the name of a sample type, "?" for what no message may repeat."""
    return text if re.fullmatch(r"\d{1,9}|u?int\d\d?|float|double|(double-)?complex|bit", text) else "?"


def _ome_spacing(pixels: dict[str, str]) -> PixelSpacing | None:
    """Return the spacing that PhysicalSizeX and PhysicalSizeY give; micrometres if no unit is said."""
    try:
        row_um, column_um = (
            float(pixels[name]) * _OME_UNITS_UM[pixels.get(f"{name}Unit", "µm")]
            for name in ("PhysicalSizeY", "PhysicalSizeX")
        )
    except (KeyError, ValueError):
        return None
    return plausible_spacing(row_um, column_um, "OME PhysicalSize")


def _metadata(base: TiffPage) -> SlideMetadata:
    properties = {name: base.text(tag) for name, tag in _PROPERTIES.items()}
    table = load_vendor("generic")
    software = table.text("SoftwareVersions", properties)
    return SlideMetadata(
        manufacturer=table.text("Manufacturer", properties),
        manufacturer_model_name=table.text("ManufacturerModelName", properties),
        software_versions=(software,) if software else (),
        acquisition_datetime=table.acquisition_datetime(properties),
        icc_profile=base.data(TagCode.ICC_PROFILE) or None,
        focus_method=table.focus_method,
        restricted=table.restricted(properties),
        identifying=table.identifying_fields(properties),
    )
