"""Hamamatsu NDPI: a variant of TIFF that holds one huge JPEG for each level and focal plane, and a macro image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from coverslip.converter.sources.base import AssociatedImage, SourcePyramid
from coverslip.converter.sources.generic_tiff import resolution
from coverslip.converter.sources.restart_jpeg import RestartJpeg, intervals_of_tile
from coverslip.converter.sources.restart_level import RestartLevel
from coverslip.converter.sources.spacing import scaled_spacing
from coverslip.converter.sources.stored_tiles import unreadable_kind
from coverslip.converter.sources.tiff_source import TiffSource, associated_image, full_chroma_findings
from coverslip.converter.sources.tiff_structure import Compression, Photometric, TagCode, TiffPage, TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata, tiff_properties
from coverslip.errors import CorruptSourceError, MissingDependencyError, UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.tiler.codecs.jpeg_stream import JpegColor
from coverslip.validators.report import Finding, Severity

if TYPE_CHECKING:
    from coverslip.converter.sources.openslide_source import OpenSlideLevel

__all__ = ["open_source"]

_MACRO = -1.0
"""Of the tag that holds the magnification of every other page; -2 is the map of what was scanned."""
_SIXTEEN_BITS = 7
"""Capture modes from this on hold 16-bit pixels, whatever the other tags say."""
_MOST_WHOLE_PIXELS = 1 << 20
"""Of a JPEG that cannot be cut and is still decoded as a whole, where it must be read."""
_MOST_PADDING, _LITTLE_PADDING = 0.05, 4 << 20
"""What a level may take more for tiles of the base's size: a share of the base's bytes, or a number that is little."""
_TEXTS = {"hamamatsu.Reference": TagCode.NDPI_REFERENCE, "hamamatsu.ScannerSerialNumber": TagCode.NDPI_SERIAL_NUMBER}


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> TiffSource:
    """Open an NDPI file whose directories are read already.

    Raises
    ------
    UnsupportedSourceError
        If it is a fluorescence slide, or its pixels are not 8-bit RGB in JPEG.
    CorruptSourceError
        If a page is damaged.
    """
    levels = _pages_by_level(structure)
    base = levels[0][0]
    _require_brightfield(base)
    spacing = resolution(base)
    findings: list[Finding] = []
    if spacing is None:
        message = "the slide states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message))
    opened: list[RestartLevel | OpenSlideLevel] = []
    with ExitStack() as closing:
        reader = _WholeReader(path, closing, background)
        for pages in levels:
            level = _open_level(structure, pages, opened, reader, background)
            grid, base_grid = level.grid, opened[0].grid if opened else level.grid
            level.pixel_spacing = scaled_spacing(
                spacing,
                base_grid.total_pixel_matrix_rows / grid.total_pixel_matrix_rows,
                base_grid.total_pixel_matrix_columns / grid.total_pixel_matrix_columns,
            )
            if level.not_reusable:
                message = f"{level.not_reusable}: its pixels are encoded again"
                place = f"level {level.level_index}"
                findings.append(Finding("source.no-restart-markers", Severity.INFO, message, place))
            opened.append(level)
        kept = closing.pop_all()
    associated: dict[str, AssociatedImage] = {}
    for page in structure.pages:
        if page.rational(TagCode.NDPI_SOURCE_LENS) == _MACRO and not associated:
            image = associated_image(structure, page, "overview", "ISO_10918_1")
            if isinstance(image, Finding):
                findings.append(image)
            else:
                associated["overview"] = replace(image, label_side=load_vendor("hamamatsu").overview_label)
    findings += full_chroma_findings(opened)
    offsets = _focal_planes(levels[0])
    metadata = slide_metadata(_properties(base), load_vendor("hamamatsu"), base.data(TagCode.ICC_PROFILE) or None)
    return TiffSource(
        path, structure, "hamamatsu-ndpi", "Hamamatsu NDPI", metadata,
        (SourcePyramid(opened, focal_plane_offsets_um=offsets),), associated, tuple(findings), kept,
    )  # fmt: skip


def _pages_by_level(structure: TiffStructure) -> list[list[TiffPage]]:
    """Return the pages of each level, largest first, those of a level by focal plane, the lowest first.

    Levels without all focal planes of the base are left out.
    """
    sizes: dict[tuple[int, int], dict[int, TiffPage]] = {}
    for page in structure.pages:
        if (page.rational(TagCode.NDPI_SOURCE_LENS) or 0) > 0:
            sizes.setdefault((page.rows, page.columns), {}).setdefault(_focal_plane(page), page)
    if not sizes:
        raise UnsupportedSourceError("a Hamamatsu NDPI file without a scanned image")
    ordered = [sizes[size] for size in sorted(sizes, reverse=True)]
    planes = sorted(ordered[0])
    return [[level[plane] for plane in planes] for level in ordered if set(planes) <= set(level)]


def _focal_plane(page: TiffPage) -> int:
    """Return the height of a page's focal plane in nanometres."""
    return page.integer(TagCode.NDPI_FOCAL_PLANE, 0)


def _focal_planes(pages: Sequence[TiffPage]) -> tuple[float, ...]:
    """Return the heights in micrometres, relative to the first."""
    heights = [_focal_plane(page) for page in pages]
    return tuple((height - heights[0]) / 1000 for height in heights)


def _require_brightfield(base: TiffPage) -> None:
    """Refuse what is not brightfield: its JPEG may look like 8-bit RGB and is not."""
    wavelength = base.rational(TagCode.NDPI_WAVELENGTH) or 0
    if base.text(TagCode.NDPI_FILTER_SET).strip() or wavelength > 0:
        raise UnsupportedSourceError(
            "a Hamamatsu NDPI fluorescence slide: one channel, coloured for display, of a set of files; it is not read"
            " yet, brightfield is"
        )
    if base.integer(TagCode.NDPI_CAPTURE_MODE, 0) >= _SIXTEEN_BITS:
        raise UnsupportedSourceError("a Hamamatsu NDPI slide of 16-bit pixels, which is not read yet; 8-bit RGB is")
    if base.compression == Compression.JPEG_XR_NDPI:
        raise UnsupportedSourceError("a Hamamatsu NDPI slide in JPEG XR, which is not read yet; JPEG is")
    kind = unreadable_kind(base)
    if kind or base.compression != Compression.JPEG:
        raise UnsupportedSourceError(f"a Hamamatsu NDPI slide of {kind or 'pixels not in JPEG'}, which is not read yet")


class _WholeReader:
    """Reads levels that cannot be cut with OpenSlide, which is opened for the first of them."""

    def __init__(self, path: Path, closing: ExitStack, background: tuple[int, int, int]) -> None:
        self._path = path
        self._closing = closing
        self._background = background
        self._levels: Sequence[OpenSlideLevel] | None = None

    def level(self, rows: int, columns: int, level_index: int, reason: str) -> OpenSlideLevel:
        """Return OpenSlide's level of that size."""
        if self._levels is None:
            self._levels = self._open()
        for level in self._levels:
            grid = level.grid
            if (grid.total_pixel_matrix_rows, grid.total_pixel_matrix_columns) == (rows, columns):
                level.level_index, level.not_reusable = level_index, reason
                return level
        raise CorruptSourceError(f"no level of {rows} x {columns} in OpenSlide's reading", level_index=level_index)

    def _open(self) -> Sequence[OpenSlideLevel]:
        try:
            from coverslip.converter.sources import openslide_source
        except Exception as error:
            raise MissingDependencyError(
                "NDPI levels without restart markers are read with openslide, which does not load: pip install"
                " openslide-python openslide-bin"
            ) from error
        source = self._closing.enter_context(openslide_source.open_source(self._path, None, self._background))
        return source.levels


def _open_level(
    structure: TiffStructure,
    pages: Sequence[TiffPage],
    larger: Sequence[RestartLevel | OpenSlideLevel],
    reader: _WholeReader,
    background: tuple[int, int, int],
) -> RestartLevel | OpenSlideLevel:
    color: JpegColor = "rgb" if pages[0].photometric == Photometric.RGB else "ycbcr"
    planes = []
    stored_bytes, level_index = 0, len(larger)
    for page in pages:
        offsets, counts = page.segments()
        if offsets.size != 1:
            raise CorruptSourceError(f"{offsets.size} strips, expected one JPEG", level_index=level_index)
        offset, size = offsets.item(0), counts.item(0)
        stored_bytes += size
        try:
            planes.append(RestartJpeg(structure, offset, size, (page.rows, page.columns), color, _starts(page)))
        except CorruptSourceError as error:
            raise CorruptSourceError(error.reason, level_index=level_index, byte_offset=offset) from error
    first = planes[0]
    reason = first.intervals.reason
    if reason is None or first.rows * first.columns <= _MOST_WHOLE_PIXELS:
        tile = None
        if larger:
            base = larger[0]
            most_padding = max(_MOST_PADDING * base.stored_bytes, _LITTLE_PADDING) / max(1, stored_bytes)
            tile = intervals_of_tile(first.intervals, (base.grid.rows, base.grid.columns), most_padding)
        return RestartLevel(
            planes, level_index, stored_bytes=stored_bytes, color=color, background=background, tile=tile
        )
    if len(planes) > 1:
        raise UnsupportedSourceError(f"focal planes of which {reason}, which are not read")
    return reader.level(first.rows, first.columns, level_index, reason)


def _starts(page: TiffPage) -> NDArray[np.int64] | None:
    """Return where the restart intervals start, as the tags tell: low words, and high words in files over 4 GB."""
    low, high = page.values(TagCode.NDPI_MCU_STARTS), page.values(TagCode.NDPI_MCU_STARTS_HIGH)
    if not low.size or low.dtype.kind != "u" or (high.size and (high.size != low.size or high.dtype.kind != "u")):
        return None
    starts = low.astype(np.int64)
    if high.size:
        starts += high.astype(np.int64) << 32
    return starts


def _properties(base: TiffPage) -> dict[str, str]:
    """Return the texts of the base's tags and of its property map, named as OpenSlide names them."""
    properties = dict(_property_map(base.text(TagCode.NDPI_PROPERTY_MAP)))
    properties |= {name: base.text(tag) for name, tag in _TEXTS.items()} | tiff_properties(base)
    lens = base.rational(TagCode.NDPI_SOURCE_LENS)
    return properties | {"openslide.objective-power": f"{lens:g}" if lens else ""}


def _property_map(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, equals, value = line.partition("=")
        if equals and name.strip() and value.strip():
            yield f"hamamatsu.{name.strip()}", value.strip()
