"""8-bit RGB TIFF files of no particular vendor: pyramids of pages or SubIFDs, in tiles or strips."""

from __future__ import annotations

from pathlib import Path

from coverslip.converter.sources.base import PixelSpacing, SourcePyramid
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.stored_tiles import unreadable_kind
from coverslip.converter.sources.tiff_source import TiffSource, open_levels
from coverslip.converter.sources.tiff_structure import TagCode, TiffPage, TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata, tiff_properties
from coverslip.errors import UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.validators.report import Finding, Severity

__all__ = ["open_source", "open_tiff", "resolution"]

_UM_PER_UNIT = {2: 25400.0, 3: 10000.0}


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> TiffSource:
    """Open a TIFF file whose directories are read already.

    Raises
    ------
    UnsupportedSourceError
        If it is not one 8-bit RGB image and its reductions.
    CorruptSourceError
        If a page is damaged.
    """
    return open_tiff(path, structure, background, resolution(structure.pages[0]), ("generic-tiff", "Generic TIFF"))


def open_tiff(
    path: Path,
    structure: TiffStructure,
    background: tuple[int, int, int],
    spacing: PixelSpacing | None,
    names: tuple[str, str],
) -> TiffSource:
    """Open one image and its reductions.

    Parameters
    ----------
    path : Path
    structure : TiffStructure
    background : tuple of int
    spacing : PixelSpacing or None
        Of the first page.
    names : tuple of str
        Registry name and title of the format.
    """
    base = structure.pages[0]
    kind = unreadable_kind(base)
    if kind:
        raise UnsupportedSourceError(f"a TIFF file of {kind}, which is not read yet; 8-bit RGB is")
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
    metadata = slide_metadata(tiff_properties(base), load_vendor("generic"), base.data(TagCode.ICC_PROFILE) or None)
    return TiffSource(path, structure, *names, metadata, (pyramid,), {}, (*findings, *remarks))


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


def resolution(page: TiffPage) -> PixelSpacing | None:
    """Return the spacing that the resolution tags give; None for a screen's or a printer's, or for no unit."""
    unit_um = _UM_PER_UNIT.get(page.integer(TagCode.RESOLUTION_UNIT, 2))
    across, down = page.rational(TagCode.X_RESOLUTION), page.rational(TagCode.Y_RESOLUTION)
    if not (unit_um and across and down):
        return None
    return plausible_spacing(unit_um / down, unit_um / across, "TIFF resolution")
