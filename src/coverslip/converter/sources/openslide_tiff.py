"""Trestle, Huron and Argos: TIFF files that OpenSlide describes, whose tiles are copied where they lie side by side."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from coverslip.converter.sources.base import SlideSource, SourceLevel
from coverslip.converter.sources.openslide_source import OpenSlideLevel, OpenSlideSource
from coverslip.converter.sources.openslide_source import open_source as open_with_openslide
from coverslip.converter.sources.tiff_level import TiffLevel
from coverslip.converter.sources.tiff_source import full_chroma_findings
from coverslip.converter.sources.tiff_structure import TagCode, TiffPage, TiffStructure
from coverslip.errors import UnsupportedSourceError
from coverslip.validators.report import Finding, Severity

__all__ = ["open_source"]


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> SlideSource:
    """Open a slide with OpenSlide, and take over its tiles where it puts them one beside the other.

    Raises
    ------
    UnsupportedSourceError
        If OpenSlide does not read the slide.
    CorruptSourceError
        If it is damaged.
    """
    first = structure.pages[0]
    planes = _focal_planes(first)
    # OpenSlide, which closes the structure, opens the file anew; so do the tiles.
    own = None if _has_overlaps(first) else TiffStructure(path, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    with ExitStack() as stack:
        if own is not None:
            stack.callback(own.close)
        slide = open_with_openslide(path, structure, background)
        stack.callback(slide.close)
        if planes > 1:
            message = f"of {planes} focal planes the one in the middle is read"
            unused = Finding("source.focal-planes-unused", Severity.WARNING, message)
            slide = replace(slide, findings=(*slide.findings, unused))
        if own is not None:
            slide.closing.callback(own.close)
            slide = _with_tiles(slide, own, [page for page in own.pages if page.is_tiled], (planes - 1) // 2)
        stack.pop_all()
    return slide


def _with_tiles(slide: OpenSlideSource, own: TiffStructure, pages: Sequence[TiffPage], plane: int) -> OpenSlideSource:
    """Return the slide with levels of tiles in place of OpenSlide's, of which there is a page of the very size."""
    pyramid = slide.pyramids[0]
    levels: list[SourceLevel] = []
    findings: list[Finding] = []
    for level in slide.levels:
        tiles = _tiled_level(level, own, pages, plane)
        if tiles is not None:
            findings += tiles.findings
        levels.append(level if tiles is None else tiles)
    copied = all(isinstance(level, TiffLevel) for level in levels)
    return replace(
        slide,
        pyramids=(replace(pyramid, levels=levels, stitched=pyramid.stitched and not copied),),
        findings=(*slide.findings, *findings, *full_chroma_findings(levels)),
    )


def _tiled_level(level: OpenSlideLevel, own: TiffStructure, pages: Sequence[TiffPage], plane: int) -> TiffLevel | None:
    size = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
    fitting = [page for page in pages if (page.rows, page.columns) == size]
    if plane >= len(fitting):
        return None
    try:
        tiles = TiffLevel(own, fitting[plane], level.level_index, background=level.background)
    except UnsupportedSourceError:
        return None
    tiles.pixel_spacing = level.pixel_spacing
    return tiles


def _has_overlaps(page: TiffPage) -> bool:
    """Whether a Trestle slide says that neighbouring tiles share pixels, on any level."""
    found = re.search(r"OverlapsXY\s*=([^;]*)", page.description)
    return found is not None and any(number != "0" for number in found[1].split())


def _focal_planes(page: TiffPage) -> int:
    """Return how many focal planes an Argos slide has."""
    text = page.text(TagCode.ARGOS_METADATA) if TagCode.ARGOS_METADATA in page else ""
    bounds = [re.search(rf"<{name}>\s*(-?\d{{1,4}})\s*<", text) for name in ("MinZ", "MaxZ")]
    lowest, highest = (int(bound[1]) if bound else 0 for bound in bounds)
    return max(1, highest - lowest + 1)
