"""What all sources that read a TIFF file themselves have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from coverslip.converter.sources.base import AssociatedImage, PixelSpacing, SlideMetadata, SourceLevel, SourcePyramid
from coverslip.converter.sources.spacing import scaled_spacing
from coverslip.converter.sources.stored_tiles import unreadable_kind
from coverslip.converter.sources.tiff_level import TiffLevel
from coverslip.converter.sources.tiff_structure import TiffPage, TiffStructure
from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import Pixels
from coverslip.validators.report import Finding, Severity

__all__ = ["TiffSource", "associated_image", "full_chroma_findings", "open_levels"]


_MOST_ASSOCIATED_PIXELS = 1 << 26
"""More than any label or macro image has; 200 MB decoded."""


@dataclass(frozen=True, slots=True)
class TiffSource:
    """A `SlideSource` in one TIFF file; `companions` read the same file and are closed with it."""

    path: Path
    structure: TiffStructure
    format_name: str
    format_title: str
    metadata: SlideMetadata
    pyramids: Sequence[SourcePyramid]
    associated_images: Mapping[str, AssociatedImage]
    findings: Sequence[Finding]
    companions: ExitStack = field(default_factory=ExitStack)

    @property
    def files(self) -> Sequence[Path]:
        """The one file."""
        return (self.path,)

    def close(self) -> None:
        """Close the file; harmless if closed already."""
        self.structure.close()
        self.companions.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_levels(
    structure: TiffStructure,
    pages: Sequence[TiffPage],
    base_spacing: PixelSpacing | None,
    background: tuple[int, int, int],
    history: str | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
) -> tuple[list[TiffLevel], list[Finding]]:
    """Open the pages of one pyramid, base first, and collect what is noteworthy about their tiles.

    `sizes` are (rows, columns) of the pictures, where pages are padded. A page that is not smaller than the one before
    is left out with a finding.
    """
    levels: list[TiffLevel] = []
    findings: list[Finding] = []
    sizes = sizes or [(page.rows, page.columns) for page in pages]
    for page, (rows, columns) in zip(pages, sizes, strict=True):
        if levels and not _is_smaller((rows, columns), levels[-1]):
            message = f"page of {rows} x {columns} is not smaller than the level above it and is left out"
            findings.append(Finding("source.level-order", Severity.WARNING, message, f"level {len(levels)}"))
            continue
        try:
            level = TiffLevel(
                structure, page, len(levels), background=background, history=history, size=(rows, columns)
            )
        except CorruptSourceError as error:
            if error.level_index is not None:
                raise
            raise CorruptSourceError(error.reason, level_index=len(levels), byte_offset=error.byte_offset) from error
        level.pixel_spacing = scaled_spacing(base_spacing, sizes[0][0] / rows, sizes[0][1] / columns)
        levels.append(level)
        findings += level.findings
    return levels, findings + full_chroma_findings(levels)


def full_chroma_findings(levels: Sequence[SourceLevel]) -> list[Finding]:
    """Return the remark that is due where stored frames are YCbCr with chroma at full resolution."""
    if not any(level.color == "YCbCr 4:4:4" and level.frame_format for level in levels):
        return []
    message = (
        "stored frames are YCbCr 4:4:4, kept bit for bit as YBR_FULL_422: DICOM has no other name for them in slides,"
        " and a JPEG tells its own sampling"
    )
    return [Finding("frames.ycbcr-444", Severity.INFO, message, "", "PS3.3 C.7.6.3.1.2")]


def _is_smaller(size: tuple[int, int], level: TiffLevel) -> bool:
    grid = level.grid
    rows, columns = size
    return (
        rows <= grid.total_pixel_matrix_rows
        and columns <= grid.total_pixel_matrix_columns
        and (rows, columns) != (grid.total_pixel_matrix_rows, grid.total_pixel_matrix_columns)
    )


def associated_image(
    structure: TiffStructure, page: TiffPage, name: str, lossy_method: str | None = None
) -> AssociatedImage | Finding:
    """Return a page as a label, overview or thumbnail, opened when it is read; a finding if it cannot be read."""
    problem = unreadable_kind(page)
    try:
        stored_bytes = int(page.segments()[1].sum())
    except CorruptSourceError as error:
        problem = problem or error.reason
    if page.rows * page.columns > _MOST_ASSOCIATED_PIXELS:
        problem = f"{page.rows} x {page.columns} pixels"
    if problem:
        message = f"the {name} image holds {problem}, which is not read; it is left out"
        return Finding("source.associated-image-unread", Severity.WARNING, message, name)
    rows, columns = page.rows, page.columns

    def read() -> Pixels:
        try:
            level = TiffLevel(structure, page, 0, background=(255, 255, 255))
            return level.read_region(0, 0, rows, columns)[0]
        except CorruptSourceError as error:
            raise CorruptSourceError(f"{name} image: {error.reason}", byte_offset=error.byte_offset) from error

    return AssociatedImage(name, rows, columns, read, lossy_method, stored_bytes)
