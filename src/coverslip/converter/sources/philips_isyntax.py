"""Philips iSyntax: wavelets, which pyisyntax makes pixels of, after XML that says what was scanned, and when."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self

from isyntax import ISyntax

from coverslip.converter.sources.base import AssociatedImage, SlideMetadata, SourcePyramid
from coverslip.converter.sources.philips_xml import attribute_text, picture_of_jpeg, properties, scanned_images
from coverslip.converter.sources.pixel_level import PixelLevel
from coverslip.converter.sources.spacing import plausible_spacing, scaled_spacing
from coverslip.converter.sources.tiff_structure import TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata
from coverslip.converter.sources.xml_text import parse_xml
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.tiler.codecs.base import Pixels
from coverslip.validators.report import Finding, Severity

__all__ = ["IsyntaxSource", "open_source"]

_END_OF_XML = b"\x04"
_MOST_XML_BYTES = 1 << 28
_MOST_PIXELS = 1 << 38
_METHOD = "PHILIPS_DP_1_0"
"""As Philips's own files name it: DICOM has no defined term for these wavelets."""
_TRIAL = "import sys; from isyntax import ISyntax; ISyntax.open(sys.argv[1]).close()"
_TRIAL_S = 120
_PICTURES: Mapping[str, Callable[[ISyntax], memoryview | None]] = {
    "label": ISyntax.read_label_image_jpeg,
    "overview": ISyntax.read_macro_image_jpeg,
}


class _IsyntaxLevel(PixelLevel):
    """One level; a `SourceLevel` without stored frames. The library is asked by one thread at a time."""

    def __init__(self, slide: ISyntax, lock: Lock, level_index: int, lossy: str | None, stored_bytes: int) -> None:
        self._slide, self._lock = slide, lock
        columns, rows = slide.level_dimensions[level_index]
        super().__init__(
            (rows, columns),
            level_index,
            not_reusable="iSyntax holds wavelets of the whole picture, not tiles",
            compression=("Philips wavelets", lossy),
            stored_bytes=stored_bytes,
        )

    def _read(self, row: int, column: int, rows: int, columns: int, focal_plane_index: int) -> Pixels:
        try:
            with self._lock:
                rgba: Pixels = self._slide.read_region(column, row, columns, rows, self.level_index)
        except Exception as error:
            message = f"pyisyntax cannot read {rows} x {columns} pixels at ({row}, {column}): {type(error).__name__}"
            raise CorruptSourceError(message, level_index=self.level_index) from error
        return rgba[..., :3]


@dataclass(frozen=True, slots=True)
class IsyntaxSource:
    """A `SlideSource` that pyisyntax reads."""

    path: Path
    closing: ExitStack
    metadata: SlideMetadata
    pyramids: Sequence[SourcePyramid]
    associated_images: Mapping[str, AssociatedImage]
    findings: Sequence[Finding]
    format_name: str = "philips-isyntax"
    format_title: str = "Philips iSyntax"

    @property
    def files(self) -> Sequence[Path]:
        """The one file."""
        return (self.path,)

    def close(self) -> None:
        """Close the file; harmless if closed already."""
        self.closing.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(path: Path, _structure: TiffStructure | None, _background: tuple[int, int, int]) -> IsyntaxSource:
    """Open an iSyntax file.

    Raises
    ------
    UnsupportedSourceError
        If it holds no scanned image.
    CorruptSourceError
        If the library does not open it, or its XML does not parse.
    """
    root = parse_xml(_read_xml(path), "the XML of an iSyntax file")
    scans = [image for image in scanned_images(root) if attribute_text(image, "PIM_DP_IMAGE_TYPE") == "WSI"]
    if len(scans) != 1:
        raise UnsupportedSourceError(f"an iSyntax file of {len(scans)} scanned images, of which one is read")
    _try_to_open(path)
    closing = ExitStack()
    try:
        slide = closing.enter_context(ISyntax.open(path))
        stated = dict(properties(root, scans[0]))
        findings: list[Finding] = []
        levels = _levels(slide, path.stat().st_size, _lossy_method(stated), findings)
        associated: dict[str, AssociatedImage] = {}
        for name, read in _PICTURES.items():
            data = read(slide)
            picture = picture_of_jpeg(bytes(data), name) if data is not None else None
            if isinstance(picture, Finding):
                findings.append(picture)
            elif picture is not None:
                associated[name] = picture
        profile = slide.read_icc_profile()
        metadata = slide_metadata(stated, load_vendor("philips"), bytes(profile) if profile is not None else None)
        versions = stated.get("philips.DICOM_SOFTWARE_VERSIONS", "").split('"')
        metadata = replace(metadata, software_versions=tuple(version for version in versions if version.strip()))
        return IsyntaxSource(path, closing, metadata, (SourcePyramid(levels),), associated, tuple(findings))
    except BaseException:
        closing.close()
        raise


def _read_xml(path: Path) -> str:
    """Return the XML with which the file begins."""
    parts: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        while size < _MOST_XML_BYTES and (part := file.read(1 << 20)):
            text, end, _ = part.partition(_END_OF_XML)
            parts.append(text)
            size += len(text)
            if end:
                return b"".join(parts).rstrip(b"\0\r\n").decode("utf-8", "replace")
    raise CorruptSourceError("an iSyntax file whose XML has no end")


def _try_to_open(path: Path) -> None:
    """Open the file in a process of its own: the library ends its process where a file is damaged."""
    try:
        done = subprocess.run([sys.executable, "-c", _TRIAL, path], capture_output=True, check=False, timeout=_TRIAL_S)
    except subprocess.TimeoutExpired as error:
        raise CorruptSourceError("an iSyntax file that pyisyntax does not come to an end with") from error
    if done.returncode:
        raise CorruptSourceError("an iSyntax file that pyisyntax cannot open: it is damaged or cut off")


def _levels(slide: ISyntax, file_bytes: int, lossy: str | None, findings: list[Finding]) -> list[_IsyntaxLevel]:
    sizes = slide.level_dimensions
    columns, rows = sizes[0]
    if not 0 < columns * rows <= _MOST_PIXELS:
        raise CorruptSourceError(f"a scanned area of {rows} x {columns} pixels, which no slide has")
    spacing = plausible_spacing(slide.mpp_y, slide.mpp_x, "iSyntax dimensions")
    if spacing is None:
        message = "the slide states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message))
    lock = Lock()
    sizes = [size for size in sizes if min(size) > 0]
    shares = sum(width * height for width, height in sizes)
    levels = []
    for index, (width, height) in enumerate(sizes):
        level = _IsyntaxLevel(slide, lock, index, lossy, round(file_bytes * width * height / shares))
        level.pixel_spacing = scaled_spacing(spacing, rows / height, columns / width)
        levels.append(level)
    return levels


def _lossy_method(stated: Mapping[str, str]) -> str | None:
    """Return the method of compression, None if the file says that nothing was lost."""
    if stated.get("philips.DICOM_LOSSY_IMAGE_COMPRESSION") == "00":
        return None
    return _METHOD
