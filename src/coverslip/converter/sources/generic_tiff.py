"""8-bit RGB TIFF files of no particular vendor: pyramids of pages or SubIFDs, in tiles or strips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from coverslip.converter.sources.base import AssociatedImage, PixelSpacing, SourcePyramid
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.stored_tiles import unreadable_kind
from coverslip.converter.sources.tiff_source import TiffSource, open_levels
from coverslip.converter.sources.tiff_structure import TagCode, TiffPage, TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata, tiff_properties
from coverslip.errors import UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.validators.report import Finding, Severity

__all__ = ["OpenedImage", "open_image", "open_source", "resolution"]

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
    base, *rest = structure.pages
    opened = open_image(structure, base, rest, resolution(base), background)
    return opened.as_source(path, structure, ("generic-tiff", "Generic TIFF"))


@dataclass(frozen=True, slots=True)
class OpenedImage:
    """One image and its reductions."""

    base: TiffPage
    pyramid: SourcePyramid
    findings: tuple[Finding, ...]

    def as_source(
        self,
        path: Path,
        structure: TiffStructure,
        names: tuple[str, str],
        associated: Mapping[str, AssociatedImage] | None = None,
        findings: Sequence[Finding] = (),
    ) -> TiffSource:
        """Return the slide that this is the image of; `names` are registry name and title of its format."""
        profile = self.base.data(TagCode.ICC_PROFILE) or None
        metadata = slide_metadata(tiff_properties(self.base), load_vendor("generic"), profile)
        return TiffSource(
            path, structure, *names, metadata, (self.pyramid,), associated or {}, (*findings, *self.findings)
        )


def open_image(
    structure: TiffStructure,
    base: TiffPage,
    rest: Sequence[TiffPage],
    spacing: PixelSpacing | None,
    background: tuple[int, int, int],
) -> OpenedImage:
    """Open a page and those of the others, and of its sub-pages, that are reductions of it.

    Parameters
    ----------
    structure : TiffStructure
    base : TiffPage
    rest : sequence of TiffPage
    spacing : PixelSpacing or None
        Of the base.
    background : tuple of int

    Raises
    ------
    UnsupportedSourceError
        If it is not 8-bit RGB, or several pages are as large as the base.
    """
    kind = unreadable_kind(base)
    if kind:
        raise UnsupportedSourceError(f"a TIFF file of {kind}, which is not read yet; 8-bit RGB is")
    findings: list[Finding] = []
    if spacing is None:
        message = "the file states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message))
    pages, others = _pyramid_pages(structure, base, rest)
    if others:
        message = f"{others} of {1 + len(rest)} pages are not reductions of the first and are left out"
        findings.append(Finding("source.page-unused", Severity.WARNING, message))
    levels, remarks = open_levels(structure, pages, spacing, background)
    if any(level.color == "RGBA" for level in levels):
        message = "pixels have an alpha channel: they are laid over the background colour"
        findings.append(Finding("source.alpha-flattened", Severity.INFO, message))
    return OpenedImage(base, SourcePyramid(levels), (*findings, *remarks))


def _pyramid_pages(structure: TiffStructure, base: TiffPage, rest: Sequence[TiffPage]) -> tuple[list[TiffPage], int]:
    """Return the base and its reductions, largest first, and the number of pages that are neither.

    Raises
    ------
    UnsupportedSourceError
        If several pages are as large as the base: channels, focal planes or time points.
    """
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
