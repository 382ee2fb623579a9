"""The contract between a vendor's file and the converter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from coverslip.tiler.codecs.base import Pixels
from coverslip.tiler.reading import ReadableLevel
from coverslip.validators.report import Finding

__all__ = [
    "AssociatedImage",
    "OpticalPath",
    "PixelSpacing",
    "SlideMetadata",
    "SlideSource",
    "SourceLevel",
    "SourcePyramid",
]


@dataclass(frozen=True, slots=True)
class PixelSpacing:
    """Distance between pixel centres.

    Parameters
    ----------
    row_mm, column_mm : float
        Between rows (Y) and between columns (X), as in Pixel Spacing (PS3.3 10.7.1.3).
    origin : str
        Where it was found, e.g. ``"Aperio MPP"``, ``"TIFF resolution"``, ``"--mpp"``.
    """

    row_mm: float
    column_mm: float
    origin: str


@dataclass(frozen=True, slots=True)
class OpticalPath:
    """One channel. All that is unknown is None or empty."""

    identifier: str = "0"
    description: str | None = None
    illumination: str = "brightfield"
    """``brightfield`` or ``epifluorescence``."""
    illumination_wave_length_nm: float | None = None
    filter_pass_through_wave_length_nm: float | None = None


@dataclass(frozen=True, slots=True)
class SlideMetadata:
    """What the vendor's file says of the slide and the scanner; None where it says nothing.

    `identifying` maps names of fields that may identify a person or a slide (file name, user, barcode ...)
    to their text: never written or logged, kept so that the output can be searched for leaks.
    """

    manufacturer: str | None = None
    manufacturer_model_name: str | None = None
    device_serial_number: str | None = None
    software_versions: tuple[str, ...] = ()
    objective_lens_power: float | None = None
    objective_lens_numerical_aperture: float | None = None
    acquisition_datetime: datetime | None = None
    """Naive unless the file gives a time zone."""
    icc_profile: bytes | None = None
    overview_origin_mm: tuple[float, float] | None = None
    """(X, Y) of the overview's first pixel in the slide coordinate system (PS3.3 C.8.12.2)."""
    focus_method: str = "AUTO"
    """Focus Method (PS3.3 C.8.12.4)."""
    restricted: Mapping[str, str] = field(default_factory=dict)
    """DICOM keyword to text that is written only if a de-identification policy asks for it."""
    identifying: Mapping[str, str] = field(default_factory=dict)


class SourceLevel(ReadableLevel, Protocol):
    """One stored resolution, readable, with what the file says of it."""

    @property
    def level_index(self) -> int:
        """0 for the base."""
        ...

    @property
    def compression(self) -> str:
        """As a user would name it: ``"JPEG"``, ``"JPEG 2000"``, ``"deflate"``, ``"none"``."""
        ...

    @property
    def color(self) -> str:
        """Components as stored: ``"RGB"``, ``"YCbCr 4:2:0"``, ``"monochrome"``."""
        ...

    @property
    def lossy_method(self) -> str | None:
        """Lossy Image Compression Method of the stored pixels, None if they never were lossy."""
        ...

    @property
    def stored_bytes(self) -> int:
        """Bytes that the stored tiles take in the file."""
        ...

    @property
    def not_reusable(self) -> str | None:
        """Why the stored tiles cannot be DICOM frames; None if they can."""
        ...

    @property
    def pixel_spacing(self) -> PixelSpacing | None:
        """Spacing of this level as the file states it; None if it does not, or states junk."""
        ...


@dataclass(frozen=True, slots=True)
class SourcePyramid:
    """One scanned region at all its stored resolutions, largest first.

    Parameters
    ----------
    levels : sequence of SourceLevel
        `levels[0]` is the base. All have the same planes and sample type.
    optical_paths : tuple of OpticalPath
    focal_plane_offsets_um : tuple of float
        Z of each focal plane relative to the first.
    origin_mm : tuple of float or None
        (X, Y) of the matrix's first pixel in the slide coordinate system, if the file tells.
    stitched : bool
        Whether pixels are put together from overlapping or blended stored tiles, or flattened.
    bad_tiles : mapping
        By level: frames that do not decode, and are read as missing because that was asked for.
    orientation : tuple of float or None
        Image Orientation (Slide), if the file tells; the label lies on the left without it.
    lossy_history : mapping
        By level: method and ratio of each lossy compression before that of the stored tiles, if the file tells.
    """

    levels: Sequence[SourceLevel]
    optical_paths: tuple[OpticalPath, ...] = (OpticalPath(),)
    focal_plane_offsets_um: tuple[float, ...] = (0.0,)
    origin_mm: tuple[float, float] | None = None
    stitched: bool = False
    bad_tiles: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    orientation: tuple[float, ...] | None = None
    lossy_history: Mapping[int, tuple[tuple[str, float], ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AssociatedImage:
    """A label, overview (macro) or thumbnail.

    Parameters
    ----------
    name : str
        ``label``, ``overview`` or ``thumbnail``.
    rows, columns : int
    read : callable
        Returns (rows, columns, 3) uint8 RGB.
    lossy_method : str or None
        As in `SourceLevel`.
    stored_bytes : int or None
        What it takes in the file, if that is known.
    label_side : str or None
        Of an overview: the end that shows the slide's label, ``"left"`` or ``"right"``; None if that is not certain.
    masked : bool
        Whether the label is painted over.
    """

    name: str
    rows: int
    columns: int
    read: Callable[[], Pixels]
    lossy_method: str | None = None
    stored_bytes: int | None = None
    label_side: str | None = None
    masked: bool = False

    @property
    def shows_label(self) -> bool:
        """Whether the picture shows the slide's label, with what is written on it."""
        return self.name == "label" or (self.name == "overview" and not self.masked)


class SlideSource(Protocol):
    """Random access to stored and decoded tiles, and the metadata, of one open slide. Thread safe."""

    @property
    def path(self) -> Path:
        """The file the slide was opened by."""
        ...

    @property
    def files(self) -> Sequence[Path]:
        """Every file that belongs to the slide, in a fixed order; what the source digest covers."""
        ...

    @property
    def format_name(self) -> str:
        """Registry name, e.g. ``"aperio-svs"``."""
        ...

    @property
    def format_title(self) -> str:
        """For people, e.g. ``"Aperio SVS"``."""
        ...

    @property
    def metadata(self) -> SlideMetadata:
        """What the file says of the slide and the scanner."""
        ...

    @property
    def pyramids(self) -> Sequence[SourcePyramid]:
        """Every scanned region, in the order of the file."""
        ...

    @property
    def associated_images(self) -> Mapping[str, AssociatedImage]:
        """Label, overview and thumbnail, by name, as far as the file has them."""
        ...

    @property
    def findings(self) -> Sequence[Finding]:
        """What is noteworthy about the file as found when it was opened."""
        ...

    def close(self) -> None:
        """Release the files; reading afterwards is a mistake."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
