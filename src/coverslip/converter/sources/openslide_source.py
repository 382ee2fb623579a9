"""8-bit RGB slides that only OpenSlide reads: regions of pixels, cropped to the scanned area; no stored frames."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from ctypes import POINTER, c_uint32
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from types import TracebackType
from typing import Self

import cv2
import numpy as np
from openslide import OpenSlide, OpenSlideError, OpenSlideUnsupportedFormatError, lowlevel

from coverslip.converter.sources.base import AssociatedImage, PixelSpacing, SlideMetadata, SourcePyramid
from coverslip.converter.sources.pixel_level import PixelLevel
from coverslip.converter.sources.spacing import plausible_spacing, scaled_spacing
from coverslip.converter.sources.stored_tiles import unreadable_kind
from coverslip.converter.sources.tiff_structure import Compression, TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata, unknown_loss
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import VendorTable, load_vendor
from coverslip.tiler.codecs.base import Pixels
from coverslip.validators.report import Finding, Severity

__all__ = ["OpenSlideLevel", "OpenSlideSource", "open_source"]

_MOST_PIXELS = 1 << 38
"""Of a base level: half a million by half a million."""
_LONGEST_SIDE = 1 << 21
_STITCHED = frozenset({"mirax", "trestle", "ventana", "zeiss"})
"""Vendors whose tiles may overlap; OpenSlide lays them over each other."""

_COMPRESSIONS: dict[int | str, tuple[str, str | None]] = {
    Compression.NONE: ("none", None),
    Compression.LZW: ("LZW", None),
    Compression.DEFLATE: ("deflate", None),
    Compression.OLD_DEFLATE: ("deflate", None),
    Compression.JPEG: ("JPEG", "ISO_10918_1"),
    Compression.APERIO_JPEG2000_YCBCR: ("JPEG 2000", "ISO_15444_1"),
    Compression.APERIO_JPEG2000_RGB: ("JPEG 2000", "ISO_15444_1"),
    "1.2.840.10008.1.2.1": ("none", None),
    "1.2.840.10008.1.2.4.50": ("JPEG", "ISO_10918_1"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000", None),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", "ISO_15444_1"),
    "hamamatsu": ("JPEG", "ISO_10918_1"),
    "hamamatsu-vmu": ("none", None),
    "mirax": ("JPEG", "ISO_10918_1"),
    "sakura": ("JPEG", "ISO_10918_1"),
}
"""Name and Lossy Image Compression Method, by TIFF compression, DICOM transfer syntax or vendor."""

_FORMATS = {
    "argos": "argos-avs",
    "dicom": "dicom",
    "hamamatsu": "hamamatsu-vms",
    "huron": "huron-tiff",
    "leica": "leica-scn",
    "mirax": "mirax",
    "philips": "philips-tiff",
    "sakura": "sakura-svslide",
    "trestle": "trestle",
    "ventana": "ventana",
    "zeiss": "zeiss-czi",
}
"""Registry name by OpenSlide's vendor."""

_ASSOCIATED = {"label": "label", "macro": "overview", "thumbnail": "thumbnail"}


class OpenSlideLevel(PixelLevel):
    """One level of a slide, cropped to its scanned area; a `SourceLevel` without stored frames.

    Parameters
    ----------
    slide : OpenSlide
        Must outlive the level; OpenSlide's reads are thread safe.
    level_index : int
    area : tuple of int
        (row, column, rows, columns) of the scanned area in pixels of the base.
    background : tuple of int
        RGB under what is transparent.
    compression : tuple
        Name, and Lossy Image Compression Method.
    stored_bytes : int
        Estimate, as OpenSlide does not tell: the share of the files' bytes that falls to this level's pixels.
    """

    def __init__(
        self,
        slide: OpenSlide,
        level_index: int,
        area: tuple[int, int, int, int],
        *,
        background: tuple[int, int, int],
        compression: tuple[str, str | None],
        stored_bytes: int,
    ) -> None:
        self._slide = slide
        self.background = background
        self._background = np.array(background, np.uint16)
        self._top, self._left, rows, columns = area
        self._downsample = slide.level_downsamples[level_index]
        level_rows, level_columns = (max(1, round(extent / self._downsample)) for extent in (rows, columns))
        super().__init__(
            (level_rows, level_columns),
            level_index,
            not_reusable="OpenSlide gives pixels, not the stored tiles",
            compression=compression,
            stored_bytes=stored_bytes,
        )

    def _read(self, row: int, column: int, rows: int, columns: int, focal_plane_index: int) -> Pixels:
        # Straight into an array of premultiplied ARGB words: half the time of a PIL image.
        words = np.empty((rows, columns), np.uint32)
        x = self._left + round(column * self._downsample)
        y = self._top + round(row * self._downsample)
        target = words.ctypes.data_as(POINTER(c_uint32))
        try:
            lowlevel._read_region(self._slide._osr, target, x, y, self.level_index, columns, rows)  # noqa: SLF001
        except OpenSlideError as error:
            raise CorruptSourceError(
                f"OpenSlide cannot read {rows} x {columns} pixels at ({row}, {column}): {_one_line(error)}",
                level_index=self.level_index,
            ) from error
        return _over_background(words, self._background)


def _over_background(words: Pixels, background: Pixels) -> Pixels:
    """Lay premultiplied ARGB words, (rows, columns) uint32, over a colour; returns (rows, columns, 3) uint8 RGB."""
    if words.dtype.byteorder == ">" or not np.little_endian:
        words = words.byteswap()
    bgra = words.view(np.uint8).reshape(*words.shape, 4)
    rgb: Pixels = cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGB)
    if int(np.bitwise_and.reduce(words, axis=None)) >> 24 != 255:
        rest = (255 - bgra[..., 3:].astype(np.uint16)) * background
        rgb = (rgb + (rest + 127) // 255).clip(0, 255).astype(np.uint8)
    return rgb


@dataclass(frozen=True, slots=True)
class OpenSlideSource:
    """A `SlideSource` that OpenSlide reads."""

    path: Path
    files: Sequence[Path]
    closing: ExitStack
    format_name: str
    format_title: str
    metadata: SlideMetadata
    pyramids: Sequence[SourcePyramid]
    associated_images: Mapping[str, AssociatedImage]
    findings: Sequence[Finding]

    @property
    def levels(self) -> Sequence[OpenSlideLevel]:
        """Levels of the one pyramid, for a reader that takes over some of them."""
        return [level for level in self.pyramids[0].levels if isinstance(level, OpenSlideLevel)]

    def close(self) -> None:
        """Close the slide; harmless if closed already."""
        self.closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(
    path: Path,
    structure: TiffStructure | None,
    background: tuple[int, int, int],
    compression: tuple[str, str | None] | None = None,
) -> OpenSlideSource:
    """Open a slide with OpenSlide.

    Parameters
    ----------
    path : Path
    structure : TiffStructure or None
        The file's directories if it is a TIFF; closed here, OpenSlide reads them itself.
    background : tuple of int
        RGB under what is transparent, unless the slide tells its own.
    compression : tuple, optional
        Name and lossy method, where the caller knows better than OpenSlide tells.

    Raises
    ------
    UnsupportedSourceError
        If OpenSlide does not know the file, or it is not 8-bit RGB.
    CorruptSourceError
        If it is damaged.
    """
    page = None
    if structure is not None:
        page = max(structure.pages, key=lambda page: page.rows * page.columns)
        kind = unreadable_kind(page)
        if kind:
            raise UnsupportedSourceError(f"a slide of {kind}, which is not read yet; 8-bit RGB is")
    tiff_compression = page.compression if page else None
    if structure is not None:
        structure.close()
    try:
        slide = OpenSlide(path)
    except OpenSlideUnsupportedFormatError as error:
        raise UnsupportedSourceError("a slide file that OpenSlide does not know") from error
    except OpenSlideError as error:
        raise UnsupportedSourceError(f"a slide that OpenSlide cannot read: {_one_line(error)}") from error
    try:
        return _describe(path, slide, compression or tiff_compression, background)
    except BaseException:
        slide.close()
        raise


def _describe(
    path: Path,
    slide: OpenSlide,
    known_compression: tuple[str, str | None] | int | None,
    background: tuple[int, int, int],
) -> OpenSlideSource:
    properties = slide.properties
    vendor = properties.get("openslide.vendor", "unknown")
    table = load_vendor(vendor)
    title = table.title or f"{vendor} (OpenSlide)"
    findings: list[Finding] = []
    compression = (
        known_compression
        if isinstance(known_compression, tuple)
        else _compression(properties, known_compression, vendor)
    )
    if compression[0] in ("unknown", "JPEG XR"):
        findings.append(unknown_loss(compression[0]))
    if _is_vmu(properties):
        message = "samples of 12 bits are read as their upper eight"
        findings.append(Finding("source.bits-dropped", Severity.WARNING, message))
    spacing = _spacing(properties, table)
    if spacing is None:
        message = "the slide states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message))
    colour = re.fullmatch(r"#?([0-9A-Fa-f]{6})", table.text("Background", properties) or "")
    if colour:
        red, green, blue = bytes.fromhex(colour[1])
        background = (red, green, blue)
    closing = ExitStack()  # an OpenSlide must not be closed twice, this may be
    closing.callback(slide.close)
    files = _files(path, vendor)
    stored_bytes = sum(file.stat().st_size for file in files)
    areas = _scanned_areas(properties, slide.dimensions, vendor)
    pyramids = []
    for area in areas:
        if not 0 < area[2] * area[3] <= _MOST_PIXELS or max(area[2:]) > _LONGEST_SIDE:
            raise CorruptSourceError(f"a scanned area of {area[2]} x {area[3]} pixels, which no slide has")
        share = area[2] * area[3] / sum(one[2] * one[3] for one in areas)
        levels = _levels(slide, area, spacing, background, compression, round(stored_bytes * share))
        stitched = vendor in _STITCHED or (len(areas) == 1 and "openslide.region[1].x" in properties)
        origin = _origin(area, slide.dimensions, spacing)
        pyramids.append(SourcePyramid(levels, origin_mm=origin, stitched=stitched))
    metadata = slide_metadata(properties, table, lowlevel.read_icc_profile(slide._osr))  # noqa: SLF001
    return OpenSlideSource(
        path, files, closing, _FORMATS.get(vendor, f"openslide-{vendor}"), title, metadata, pyramids,
        _associated_images(slide, background, compression[1], table.overview_label), tuple(findings),
    )  # fmt: skip


def _levels(
    slide: OpenSlide,
    area: tuple[int, int, int, int],
    spacing: PixelSpacing | None,
    background: tuple[int, int, int],
    compression: tuple[str, str | None],
    file_bytes: int,
) -> list[OpenSlideLevel]:
    """Open all levels; spacing of a level is that of the base times base size over level size."""
    shares = [downsample**-2 for downsample in slide.level_downsamples]
    levels: list[OpenSlideLevel] = []
    for index, share in enumerate(shares):
        level = OpenSlideLevel(
            slide,
            index,
            area,
            background=background,
            compression=compression,
            stored_bytes=round(file_bytes * share / sum(shares)),
        )
        rows, columns = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
        level.pixel_spacing = scaled_spacing(spacing, area[2] / rows, area[3] / columns)
        levels.append(level)
    return levels


def _compression(properties: Mapping[str, str], tiff_compression: int | None, vendor: str) -> tuple[str, str | None]:
    """Return the name of the compression, ``"unknown"`` if nothing tells, and the lossy method of all there was."""
    if properties.get("mirax.LAYER_0_LEVEL_0_SECTION.IMAGE_FORMAT", "JPEG") != "JPEG":
        return "PNG or BMP", None
    if _is_vmu(properties):
        vendor = "hamamatsu-vmu"
    keys = (tiff_compression, properties.get("dicom.TransferSyntaxUID"), vendor)
    name, method = next((_COMPRESSIONS[key] for key in keys if key in _COMPRESSIONS), ("unknown", None))
    history = _first(properties, ("dicom.LossyImageCompressionMethod", "dicom.LossyImageCompressionMethod[0]"))
    return name, method or history


def _is_vmu(properties: Mapping[str, str]) -> bool:
    """Whether this is Hamamatsu's uncompressed form, NGR."""
    return "hamamatsu.BitsPerPixel" in properties


def _spacing(properties: Mapping[str, str], table: VendorTable) -> PixelSpacing | None:
    try:
        row_um, column_um = (float(properties[name]) for name in table.fields["PixelSpacing"])
    except (KeyError, ValueError):
        return None
    if row_um == column_um == 1 and properties.get("tiff.ResolutionUnit") == "none":
        return None  # what TIFF files say that know nothing
    return plausible_spacing(row_um, column_um, "OpenSlide mpp")


def _scanned_areas(
    properties: Mapping[str, str], dimensions: tuple[int, int], vendor: str
) -> list[tuple[int, int, int, int]]:
    """Return (row, column, rows, columns) of each scene of a CZI if none covers another, else of OpenSlide's bounds."""
    regions: list[tuple[int, int, int, int]] = []
    while vendor == "zeiss" and f"openslide.region[{len(regions)}].x" in properties:
        name = f"openslide.region[{len(regions)}]"
        row, column, rows, columns = (int(properties[f"{name}.{side}"]) for side in ("y", "x", "height", "width"))
        regions.append((row, column, rows, columns))
    if len(regions) > 1 and not any(_overlap(one, other) for one, other in combinations(regions, 2)):
        return regions
    bounds = [properties.get(f"openslide.bounds-{name}") for name in ("y", "x", "height", "width")]
    if any(bound is None for bound in bounds):
        return [(0, 0, dimensions[1], dimensions[0])]
    row, column, rows, columns = (int(bound) for bound in bounds if bound is not None)
    return [(row, column, rows, columns)]


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Whether two areas, (row, column, rows, columns), have pixels in common."""
    return all(one[axis] < other[axis] + other[axis + 2] and other[axis] < one[axis] + one[axis + 2] for axis in (0, 1))


def _origin(
    area: tuple[int, int, int, int], dimensions: tuple[int, int], spacing: PixelSpacing | None
) -> tuple[float, float] | None:
    """Return (X, Y) of the scanned area on a canvas that shows the slide with its label on the left."""
    row, column, rows, columns = area
    if spacing is None or (row, column, columns, rows) == (0, 0, *dimensions):
        return None
    return row * spacing.row_mm, (dimensions[0] - column) * spacing.column_mm


def _files(path: Path, vendor: str) -> tuple[Path, ...]:
    """Return the file and those that belong to it, sorted by name."""
    others: list[Path] = []
    if vendor == "mirax":
        folder = path.with_suffix("")
        others = sorted(file for file in folder.iterdir() if file.is_file()) if folder.is_dir() else []
    elif path.suffix.lower() in (".vms", ".vmu"):
        values = re.findall(r"^[^=\r\n]+=(.+?)\s*$", path.read_text("utf-8", "replace"), re.MULTILINE)
        named = {path.parent / value for value in values if value and "/" not in value}
        others = sorted(file for file in named if file.is_file())
    return (path, *others)


def _associated_images(
    slide: OpenSlide, background: tuple[int, int, int], lossy_method: str | None, label_side: str | None
) -> dict[str, AssociatedImage]:
    def reader(name: str) -> AssociatedImage:
        def read() -> Pixels:
            try:
                picture = np.asarray(slide.associated_images[name], np.uint16)
            except OpenSlideError as error:
                raise CorruptSourceError(f"{_ASSOCIATED[name]} image: {_one_line(error)}") from error
            alpha = picture[..., 3:]
            blended = (picture[..., :3] * alpha + np.array(background, np.uint16) * (255 - alpha) + 127) // 255
            return np.ascontiguousarray(blended.astype(np.uint8))

        rows, columns = (int(slide.properties[f"openslide.associated.{name}.{side}"]) for side in ("height", "width"))
        return AssociatedImage(_ASSOCIATED[name], rows, columns, read, lossy_method, label_side=label_side)

    return {_ASSOCIATED[name]: reader(name) for name in slide.associated_images if name in _ASSOCIATED}


def _first(properties: Mapping[str, str], names: Sequence[str]) -> str | None:
    return next((properties[name] for name in names if properties.get(name)), None)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
