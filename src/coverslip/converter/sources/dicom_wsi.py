"""DICOM slides made elsewhere: the instances of one series, whose frames are kept as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.uid import UID

from coverslip.converter.sources.base import AssociatedImage, PixelSpacing, SlideMetadata, SourcePyramid
from coverslip.converter.sources.dicom_level import DicomLevel, unreadable_kind
from coverslip.converter.sources.spacing import plausible_spacing, scaled_spacing
from coverslip.converter.sources.tiff_source import full_chroma_findings
from coverslip.converter.sources.tiff_structure import TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata
from coverslip.errors import CorruptSourceError, SourceError, StoreError, UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.tiler.codecs.base import Pixels
from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding, Severity
from coverslip.validators.series import FoundSeries, SeriesView, find_series
from coverslip.validators.stored_file import LocalFile

__all__ = ["DicomSource", "open_source"]

_ASSOCIATED = {"THUMBNAIL": "thumbnail", "OVERVIEW": "overview", "LABEL": "label"}
_TEXT_VRS = ("AS", "DA", "DT", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UT")
_MOST_ASSOCIATED_PIXELS = 1 << 26


@dataclass(frozen=True, slots=True)
class DicomSource:
    """A `SlideSource` of the instances of one series."""

    path: Path
    view: SeriesView
    metadata: SlideMetadata
    pyramids: Sequence[SourcePyramid]
    associated_images: Mapping[str, AssociatedImage]
    findings: Sequence[Finding]
    format_name: str = "dicom"
    format_title: str = "DICOM WSI"

    @property
    def files(self) -> Sequence[Path]:
        """The instances by name: whichever of them the slide is opened by, they are the same."""
        paths = (instance.file.local_path for instance in self.view.instances)
        return sorted(path for path in paths if path is not None)

    def close(self) -> None:
        """Close the files; harmless if closed already."""
        self.view.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_source(path: Path, structure: TiffStructure | None, background: tuple[int, int, int]) -> DicomSource:
    """Open the series that a file belongs to; the other instances lie in the same folder.

    Raises
    ------
    UnsupportedSourceError
        If it is no slide of 8-bit RGB.
    CorruptSourceError
        If an instance of it is damaged.
    """
    if structure is not None:  # a file that is a TIFF too
        structure.close()
    try:
        view = _find(path).open()
    except StoreError as error:
        raise SourceError(str(error)) from error
    try:
        return _describe(path, view, background)
    except BaseException:
        view.close()
        raise


def _find(path: Path) -> FoundSeries:
    """Return the series of a file."""
    (own, *_), unreadable = _series_of([path])
    if unreadable:
        raise CorruptSourceError("a DICOM file whose header cannot be read")
    candidates = sorted(file for file in path.parent.iterdir() if file != path and _is_dicom(file))
    series, _ = _series_of([path, *candidates])
    return next(one for one in series if one.series_instance_uid == own.series_instance_uid)


def _series_of(paths: Sequence[Path]) -> tuple[list[FoundSeries], list[Finding]]:
    found, unreadable = find_series(LocalFile(path) for path in paths)
    return found or [FoundSeries("", "", ())], unreadable


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return path.is_file() and file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def _describe(path: Path, view: SeriesView, background: tuple[int, int, int]) -> DicomSource:
    if view.unreadable:
        raise CorruptSourceError(f"{len(view.unreadable)} files of the DICOM series whose header cannot be read")
    if not view.slide_images:
        kinds = sorted({UID(str(one.header.get("SOPClassUID", ""))).name for one in view.instances})
        raise UnsupportedSourceError(f"DICOM of another kind ({', '.join(kinds)[:80]}), expected a whole slide image")
    findings = list(_unused(view))
    groups = [_in_order(group) for group in view.levels]
    if not groups:
        raise UnsupportedSourceError("a DICOM series without a VOLUME instance: label, overview or thumbnail alone")
    base = groups[0][0]
    if min(base.matrix_size) < 1:
        raise CorruptSourceError(f"a matrix of {base.matrix_size[0]} x {base.matrix_size[1]} pixels")
    kind = unreadable_kind(base)
    if kind:
        raise UnsupportedSourceError(f"a DICOM slide of {kind}, which is not read yet; 8-bit RGB is")
    planes_um = _focal_planes(groups[0])
    spacing = _spacing(base)
    if spacing is None:
        message = "the slide states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message))
    levels: list[DicomLevel] = []
    for group in groups:
        reason = _misfit(group, groups[0], levels)
        if reason:
            rows, columns = group[0].matrix_size
            message = f"level of {rows} x {columns} {reason} and is left out"
            findings.append(Finding("source.level-order", Severity.WARNING, message))
            continue
        level = DicomLevel(group, len(levels), background=background, planes_um=planes_um)
        rows, columns = group[0].matrix_size
        level.pixel_spacing = scaled_spacing(spacing, base.matrix_size[0] / rows, base.matrix_size[1] / columns)
        levels.append(level)
        findings += _remarks(level)
    orientation = _numbers(base, "ImageOrientationSlide", 6)
    pyramid = SourcePyramid(
        levels,
        focal_plane_offsets_um=tuple(planes_um),
        origin_mm=_origin(base),
        orientation=orientation,
        lossy_history={level.level_index: level.lossy_history for level in levels if level.lossy_history},
    )
    associated = dict(_associated(view, background, findings))
    metadata = _metadata(base, associated, view)
    return DicomSource(
        path, view, metadata, (pyramid,), associated, (*findings, *full_chroma_findings(levels))
    )  # fmt: skip


def _unused(view: SeriesView) -> Iterator[Finding]:
    known = [one for one in view.slide_images if one.flavor in ("VOLUME", *_ASSOCIATED)]
    others = len(view.instances) - len(known)
    if others:
        message = f"{others} of {len(view.instances)} instances are no part of the slide's picture and are left out"
        yield Finding("source.page-unused", Severity.WARNING, message)


def _in_order(group: list[InstanceView]) -> list[InstanceView]:
    """Return the instance of a level, or the parts of its concatenation in the order of their frames.

    Raises
    ------
    UnsupportedSourceError
        If several instances show one size: channels or focal planes.
    """
    if len(group) > 1:
        names = {str(one.header.get("ConcatenationUID", "")) for one in group}
        if len(names) > 1 or names == {""}:
            message = f"a DICOM slide of {len(group)} instances of one size (channels or planes), which is not read yet"
            raise UnsupportedSourceError(message)
    parts = sorted(group, key=lambda one: one.number("ConcatenationFrameOffsetNumber"))
    counted = 0
    for part in parts:
        if part.number("ConcatenationFrameOffsetNumber") != counted:
            raise CorruptSourceError(f"part of a concatenation with frames {counted + 1} and up is missing")
        counted += part.number_of_frames
    whole = parts[0].number("InConcatenationTotalNumber", len(parts))
    if whole > len(parts):
        raise CorruptSourceError(f"{len(parts)} parts of a concatenation, expected {whole}")
    return parts


def _misfit(group: list[InstanceView], base: list[InstanceView], levels: Sequence[DicomLevel]) -> str | None:
    """Say why a level is none of the base's pyramid; None if it is."""
    first = base[0]
    rows, columns = group[0].matrix_size
    if group is base:
        return None
    if unreadable_kind(group[0]):
        return f"holds {unreadable_kind(group[0])}"
    if not 0 < rows < first.matrix_size[0] or abs(columns - first.matrix_size[1] * rows / first.matrix_size[0]) > 2:
        return "has not the shape of the base"
    grid = levels[-1].grid
    if rows >= grid.total_pixel_matrix_rows or columns > grid.total_pixel_matrix_columns:
        return "is not smaller than the level above it"
    return None


def _focal_planes(base: list[InstanceView]) -> list[float]:
    """Return Z of the focal planes in micrometres, the lowest 0.

    Raises
    ------
    UnsupportedSourceError
        If there are several optical paths.
    """
    first = base[0]
    if max(first.number("NumberOfOpticalPaths", 1), len(first.optical_path_identifiers)) > 1:
        raise UnsupportedSourceError("a DICOM slide of several optical paths, which is not read yet")
    if first.header.get("DimensionOrganizationType") == "TILED_FULL":
        count = max(1, first.number("TotalPixelMatrixFocalPlanes", 1))
        if count == 1:
            return [0.0]
        if count > 1000:
            raise CorruptSourceError(f"{count} focal planes, which no slide has")
        try:
            measures = first.header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            step_um = abs(float(measures.SpacingBetweenSlices)) * 1000
        except (AttributeError, IndexError, TypeError, ValueError):
            step_um = 1.0
        return [index * step_um for index in range(count)]
    heights = sorted({round(z, 3) for part in base for _row, _column, _path, z in part.frame_positions})
    if len(heights) > 1000:
        raise UnsupportedSourceError("a DICOM slide whose frames lie each at its own height, which is not read")
    return heights or [0.0]


def _spacing(base: InstanceView) -> PixelSpacing | None:
    """Return the Pixel Spacing, else what follows from the extent of the imaged volume."""
    stated = base.pixel_spacing_mm
    if stated is not None:
        return plausible_spacing(stated[0] * 1000, stated[1] * 1000, "DICOM Pixel Spacing")
    extent = [_number(base, keyword) for keyword in ("ImagedVolumeHeight", "ImagedVolumeWidth")]
    rows, columns = base.matrix_size
    return plausible_spacing(1000 * extent[0] / rows, 1000 * extent[1] / columns, "DICOM Imaged Volume")


def _number(instance: InstanceView, keyword: str) -> float:
    try:
        return float(instance.header.get(keyword) or 0)
    except (TypeError, ValueError):
        return 0.0


def _numbers(instance: InstanceView, keyword: str, count: int) -> tuple[float, ...] | None:
    try:
        values = tuple(round(float(value), 9) + 0.0 for value in instance.header.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    return values if len(values) == count and all(abs(value) <= 1 for value in values) else None


def _origin(instance: InstanceView) -> tuple[float, float] | None:
    """Return (X, Y) of the first pixel; none for the corner of the glass, which programs write that know none."""
    try:
        item = instance.header.TotalPixelMatrixOriginSequence[0]
        place = float(item.XOffsetInSlideCoordinateSystem), float(item.YOffsetInSlideCoordinateSystem)
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
    return place if place != (0.0, 0.0) and all(abs(length) < 1000 for length in place) else None


def _remarks(level: DicomLevel) -> Iterator[Finding]:
    place = f"level {level.level_index}"
    if level.missing_tiles:
        message = f"{level.missing_tiles} of {level.grid.number_of_frames} tiles are not in the file and are written as"
        yield Finding("source.missing-tile", Severity.WARNING, f"{message} background", place)
    if level.marker_added:
        message = "JPEG frames of RGB without a marker that says so: it is added, all else is copied bit for bit"
        yield Finding("source.rgb-unmarked", Severity.INFO, message, place, "PS3.5 8.2.1")
    if level.loss_untold:
        message = "the header tells of a lossy compression but not of which: it cannot be told"
        yield Finding("source.compression-unknown", Severity.WARNING, message, place, "PS3.3 C.7.6.1.1.5")
    if level.color_differs:
        message = "Photometric Interpretation is not what the JPEG frames say of themselves: theirs is written"
        yield Finding("source.photometric-interpretation", Severity.WARNING, message, place, "PS3.5 8.2.1")


def _associated(
    view: SeriesView, background: tuple[int, int, int], findings: list[Finding]
) -> Iterator[tuple[str, AssociatedImage]]:
    """Yield the first instance of each kind of picture that is no level."""
    seen: set[str] = set()
    for instance in view.slide_images:
        name = _ASSOCIATED.get(instance.flavor)
        if name is None or name in seen:
            continue
        seen.add(name)
        rows, columns = instance.matrix_size
        problem = unreadable_kind(instance)
        if not 0 < rows * columns <= _MOST_ASSOCIATED_PIXELS:
            problem = f"{rows} x {columns} pixels"
        try:
            level = None if problem else DicomLevel([instance], 0, background=background)
        except SourceError as error:
            problem = str(error)
            level = None
        if level is None:
            message = f"the {name} image holds {problem}, which is not read; it is left out"
            findings.append(Finding("source.associated-image-unread", Severity.WARNING, message, name))
            continue
        yield name, AssociatedImage(
            name, rows, columns, _reader(name, level), level.lossy_method, level.stored_bytes
        )  # fmt: skip


def _reader(name: str, level: DicomLevel) -> Callable[[], Pixels]:
    def read() -> Pixels:
        try:
            rows, columns = level.grid.total_pixel_matrix_rows, level.grid.total_pixel_matrix_columns
            return level.read_region(0, 0, rows, columns)[0]
        except CorruptSourceError as error:
            raise CorruptSourceError(f"{name} image: {error.reason}", byte_offset=error.byte_offset) from error

    return read


def _metadata(base: InstanceView, associated: Mapping[str, AssociatedImage], view: SeriesView) -> SlideMetadata:
    """Return what the header of the base says, and where the overview lies if it lies as the base does."""
    properties: dict[str, str] = {}
    for instance in (base, *(one for one in view.slide_images if one.flavor in ("LABEL", "OVERVIEW"))):
        for name, text in _texts(instance.header):
            properties.setdefault(name, text)
    path = _first_item(base.header, "OpticalPathSequence")
    for keyword in ("ObjectiveLensPower", "ObjectiveLensNumericalAperture"):
        value = path.get(keyword)
        if value is not None:
            properties[f"dicom.{keyword}"] = str(value)
    profile = path.get("ICCProfile") or base.header.get("ICCProfile")
    metadata = slide_metadata(properties, load_vendor("dicom"), bytes(profile) if profile else None)
    overview = next((one for one in view.slide_images if one.flavor == "OVERVIEW"), None)
    if overview is None or "overview" not in associated:
        return metadata
    alike = _numbers(overview, "ImageOrientationSlide", 6) == _numbers(base, "ImageOrientationSlide", 6)
    return replace(metadata, overview_origin_mm=_origin(overview) if alike else None)


def _first_item(ds: Dataset, keyword: str) -> Dataset:
    items = ds.get(keyword) or ()
    return items[0] if items else Dataset()


def _texts(ds: Dataset) -> Iterator[tuple[str, str]]:
    """Yield keyword and text of all elements of free text, at any depth, but for those of single frames."""
    for element in ds:
        if element.VR == "SQ" and element.keyword != "PerFrameFunctionalGroupsSequence":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in _TEXT_VRS and element.value:
            values = element.value if element.VM > 1 else [element.value]
            name = element.keyword or f"({element.tag.group:04x},{element.tag.element:04x})"
            text = "|".join(str(value) for value in values)
            if text.casefold() != "unknown":
                yield f"dicom.{name}", text
