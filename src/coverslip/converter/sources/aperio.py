"""Aperio SVS: a TIFF file of JPEG or JPEG 2000 tiles, with a thumbnail, a label and a macro image in strips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coverslip.converter.sources.aperio_description import AperioDescription, parse_description
from coverslip.converter.sources.base import AssociatedImage, PixelSpacing, SlideMetadata, SourcePyramid
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.tiff_source import TiffSource, associated_image, open_levels
from coverslip.converter.sources.tiff_structure import Compression, TagCode, TiffPage, TiffStructure
from coverslip.errors import UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.validators.report import Finding, Severity

__all__ = ["open_source"]

FORMAT_NAME = "aperio-svs"
FORMAT_TITLE = "Aperio SVS"

_LOSSY_METHODS: dict[int, str] = {
    Compression.JPEG: "ISO_10918_1",
    Compression.APERIO_JPEG2000_YCBCR: "ISO_15444_1",
    Compression.APERIO_JPEG2000_RGB: "ISO_15444_1",
}
_SLIDE_WIDTH_MM = 25.4
_LARGEST_OFFSET_MM = 1000
"""Top and Left beyond this are no place on any glass."""


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> TiffSource:
    """Open an Aperio slide whose directories are read already.

    Raises
    ------
    UnsupportedSourceError
        If no page is tiled, or the tiles are not 8-bit RGB.
    CorruptSourceError
        If a page is damaged.
    """
    pages = [page for page in structure.pages if page.is_tiled]
    if not pages:
        raise UnsupportedSourceError("Aperio SVS without tiled pages")
    description = parse_description(pages[0].description)
    spacing, findings = _base_spacing(description)
    levels, remarks = open_levels(structure, pages, spacing, background, description.lossy_method)
    findings += remarks
    associated: dict[str, AssociatedImage] = {}
    for name, page in _associated_pages(structure.pages).items():
        image = associated_image(structure, page, name, _LOSSY_METHODS.get(page.compression))
        if isinstance(image, Finding):
            findings.append(image)
        else:
            associated[name] = replace(image, label_side=load_vendor("aperio").overview_label)
    width_mm = _overview_width_mm(associated.get("overview"))
    pyramid = SourcePyramid(levels, origin_mm=_origin(description, width_mm))
    metadata = _metadata(description, pages[0], width_mm)
    return TiffSource(path, structure, FORMAT_NAME, FORMAT_TITLE, metadata, (pyramid,), associated, tuple(findings))


def _base_spacing(description: AperioDescription) -> tuple[PixelSpacing | None, list[Finding]]:
    """Return the spacing of the base; a finding instead of it where MPP is absent, no number or absurd."""
    mpp = description.number("MPP")
    spacing = None if mpp is None else plausible_spacing(mpp, mpp, "Aperio MPP")
    if spacing:
        return spacing, []
    if "MPP" not in description.fields:
        problem = "no MPP in the image description"
    elif mpp is None:
        problem = "MPP in the image description is not a number"
    else:
        problem = f"MPP {mpp:g} in the image description is no slide's"
    message = f"{problem}: the pixel spacing is unknown and must be given"
    return None, [Finding("source.spacing-unknown", Severity.WARNING, message)]


def _associated_pages(pages: Sequence[TiffPage]) -> dict[str, TiffPage]:
    """Tell label, overview and thumbnail apart: by the description, else by NewSubfileType, else by place."""
    found: dict[str, TiffPage] = {}
    for page in pages:
        if page.is_tiled:
            continue
        kind = parse_description(page.description).page_kind
        subfile_type = page.integer(TagCode.NEW_SUBFILE_TYPE, 0)
        if kind == "label" or (kind is None and subfile_type == 1):
            name = "label"
        elif kind == "macro" or subfile_type == 9:
            name = "overview"
        else:
            name = "thumbnail"
        found.setdefault(name, page)
    return found


def _overview_width_mm(overview: AssociatedImage | None) -> float | None:
    """Width of the macro image, whose height is that of the slide."""
    return _SLIDE_WIDTH_MM / overview.rows * overview.columns if overview else None


def _origin(description: AperioDescription, overview_width_mm: float | None) -> tuple[float, float] | None:
    """Return (X, Y) of the first pixel with the label on the left: X is Top, Y runs from the far end of the macro."""
    top, left = description.number("Top"), description.number("Left")
    if top is None or left is None or overview_width_mm is None:
        return None
    if max(abs(top), abs(left)) > _LARGEST_OFFSET_MM:
        return None
    return top, overview_width_mm - left


def _metadata(description: AperioDescription, base: TiffPage, overview_width_mm: float | None) -> SlideMetadata:
    fields = {**description.fields, "ImageDescription": description.text}
    table = load_vendor("aperio")
    model = table.text("ManufacturerModelName", fields)
    return SlideMetadata(
        manufacturer="Leica Biosystems" if "Leica" in description.header else table.manufacturer,
        manufacturer_model_name=model or ("ScanScope" if "ScanScope ID" in fields else None),
        device_serial_number=table.text("DeviceSerialNumber", fields),
        software_versions=description.software_versions,
        objective_lens_power=table.lens_power(fields),
        acquisition_datetime=description.acquisition_datetime,
        icc_profile=base.data(TagCode.ICC_PROFILE) or None,
        overview_origin_mm=(_SLIDE_WIDTH_MM, overview_width_mm) if overview_width_mm else None,
        focus_method=table.focus_method,
        restricted=table.restricted(fields),
        identifying=description.identifying,
    )
