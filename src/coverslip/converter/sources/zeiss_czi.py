"""Zeiss CZI: read by OpenSlide, and where it knows a dimension of the file not, by Zeiss's own library."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from types import MappingProxyType, TracebackType
from typing import Any, Self
from xml.etree import ElementTree as ET

from coverslip.converter.sources.base import AssociatedImage, SlideMetadata, SlideSource, SourcePyramid
from coverslip.converter.sources.czi_directory import CziTile, check_tiles, read_directory
from coverslip.converter.sources.pixel_level import PixelLevel
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.tiff_structure import TiffStructure
from coverslip.converter.sources.vendor_metadata import slide_metadata, unknown_loss
from coverslip.converter.sources.xml_text import parse_xml
from coverslip.errors import CorruptSourceError, MissingDependencyError, UnsupportedSourceError
from coverslip.metadata_maps.vendor_table import load_vendor
from coverslip.tiler.codecs.base import Pixels
from coverslip.validators.report import Finding, Severity

__all__ = ["CziLevel", "CziSource", "open_source"]

_MOST_PIXELS = 1 << 38
_INSTALL = "pip install 'coverslip[czi]'"
_COMPRESSIONS: Mapping[int, tuple[str, str | None]] = {
    0: ("none", None),
    1: ("JPEG", "ISO_10918_1"),
    2: ("LZW", None),
    4: ("JPEG XR", None),
    5: ("Zstandard", None),
    6: ("Zstandard", None),
}
"""Name and lossy method by the number in the file; JPEG XR may be lossy or not, and DICOM has no word for it."""
_UNKNOWN: tuple[str, str | None] = ("unknown", None)


class CziLevel(PixelLevel):
    """The base level of a scene; a `SourceLevel` without stored frames.

    Parameters
    ----------
    reader : pylibCZIrw.czi.CziReader
        Must outlive the level.
    lock : Lock
        Held while the reader reads.
    scene : int or None
        None if the file has no scenes.
    area : tuple of int
        (row, column, rows, columns) on the plane of all scenes.
    focal_planes : int
    background : tuple of int
        RGB of what was not scanned.
    compression : tuple
        Name, and Lossy Image Compression Method.
    stored_bytes : int
    """

    def __init__(
        self,
        reader: Any,
        lock: Lock,
        scene: int | None,
        area: tuple[int, int, int, int],
        *,
        focal_planes: int,
        background: tuple[int, int, int],
        compression: tuple[str, str | None],
        stored_bytes: int,
    ) -> None:
        self._reader, self._lock, self._scene = reader, lock, scene
        self._top, self._left = area[:2]
        self._background = tuple(value / 255 for value in background)
        super().__init__(
            area[2:],
            0,
            not_reusable="pylibCZIrw gives pixels, not the stored tiles",
            compression=compression,
            stored_bytes=stored_bytes,
            focal_planes=focal_planes,
        )

    def _read(self, row: int, column: int, rows: int, columns: int, focal_plane_index: int) -> Pixels:
        try:
            with self._lock:
                bgr: Pixels = self._reader.read(
                    roi=(self._left + column, self._top + row, columns, rows),
                    plane={"Z": focal_plane_index},
                    scene=self._scene,
                    pixel_type="Bgr24",
                    background_pixel=self._background,
                )
        except Exception as error:
            message = f"pylibCZIrw cannot read {rows} x {columns} pixels at ({row}, {column}): {_one_line(error)}"
            raise CorruptSourceError(message, level_index=0) from error
        return bgr[..., ::-1]


@dataclass(frozen=True, slots=True)
class CziSource:
    """A `SlideSource` that pylibCZIrw reads."""

    path: Path
    closing: ExitStack
    metadata: SlideMetadata
    pyramids: Sequence[SourcePyramid]
    findings: Sequence[Finding]
    format_name: str = "zeiss-czi"
    format_title: str = "Zeiss CZI"
    associated_images: Mapping[str, AssociatedImage] = field(default_factory=lambda: MappingProxyType({}))
    """The library does not give label and overview."""

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


def open_source(path: Path, structure: TiffStructure | None, background: tuple[int, int, int]) -> SlideSource:
    """Open a CZI file with OpenSlide, else with pylibCZIrw.

    Raises
    ------
    UnsupportedSourceError
        If neither reads it, or it is not 8-bit RGB.
    MissingDependencyError
        If OpenSlide does not read it and pylibCZIrw is not there.
    """
    tiles = read_directory(path)
    check_tiles(path, tiles)
    try:
        from coverslip.converter.sources import openslide_source

        return openslide_source.open_source(path, structure, background, _compression(tiles))
    except UnsupportedSourceError as error:
        reason = str(error)
    except Exception as error:
        if isinstance(error, CorruptSourceError):
            raise
        reason = f"OpenSlide does not load ({type(error).__name__})"
    try:
        from pylibCZIrw import czi
    except Exception as error:
        message = f"{reason}; CZI of more dimensions is read with pylibCZIrw, which is not there: {_INSTALL}"
        raise MissingDependencyError(message) from error
    closing = ExitStack()
    try:
        try:
            reader = closing.enter_context(czi.open_czi(str(path)))
            return _describe(path, closing, reader, tiles, background)
        except (UnsupportedSourceError, CorruptSourceError):
            raise
        except Exception as error:
            raise UnsupportedSourceError(f"{reason}; nor does pylibCZIrw: {_one_line(error)}") from error
    except BaseException:
        closing.close()
        raise


def _describe(
    path: Path, closing: ExitStack, reader: Any, tiles: Sequence[CziTile], background: tuple[int, int, int]
) -> CziSource:
    box = reader.total_bounding_box
    kinds = sorted(set(reader.pixel_types.values()))
    channels, times = (box.get(name, (0, 1))[1] for name in ("C", "T"))
    if kinds != ["Bgr24"] or channels != 1 or times != 1:
        words = f"{channels} channels of {'/'.join(kinds)} and {times} time points"
        raise UnsupportedSourceError(f"a CZI file of {words}, which is not read yet; one 8-bit RGB channel is")
    planes = box.get("Z", (0, 1))[1]
    root = parse_xml(reader.raw_metadata, "the XML of a CZI slide")
    scaling = _scaling_um(root)
    spacing = plausible_spacing(scaling.get("Y", 0), scaling.get("X", 0), "CZI Scaling")
    findings: list[Finding] = []
    if spacing is None:
        message = "the slide states no pixel spacing that is a slide's: it is unknown and must be given"
        findings.append(Finding("source.spacing-unknown", Severity.WARNING, message))
    compression = _compression(tiles)
    is_mosaic = sum(not tile.is_reduced for tile in tiles) > 1
    if compression[0] in ("unknown", "JPEG XR"):
        findings.append(unknown_loss(compression[0]))
    whole = reader.total_bounding_rectangle
    scenes: dict[int | None, Any] = dict(sorted(reader.scenes_bounding_rectangle.items())) or {None: whole}
    pixels = sum(scene.w * scene.h for scene in scenes.values())
    lock = Lock()
    pyramids = []
    for number, scene in scenes.items():
        if not 0 < scene.w * scene.h <= _MOST_PIXELS or not 1 <= planes <= 1000:
            raise CorruptSourceError(f"a scanned area of {scene.h} x {scene.w} pixels, which no slide has")
        level = CziLevel(
            reader,
            lock,
            number,
            (scene.y, scene.x, scene.h, scene.w),
            focal_planes=planes,
            background=background,
            compression=compression,
            stored_bytes=round(path.stat().st_size * scene.w * scene.h / pixels),
        )
        level.pixel_spacing = spacing
        origin = None
        if spacing is not None and len(scenes) > 1:  # the plane of all scenes, with the label on the left
            origin = (scene.y - whole.y) * spacing.row_mm, (whole.x + whole.w - scene.x) * spacing.column_mm
        step_um = scaling.get("Z") or 1.0
        offsets = tuple(round(index * step_um, 6) for index in range(planes))
        pyramids.append(SourcePyramid([level], focal_plane_offsets_um=offsets, origin_mm=origin, stitched=is_mosaic))
    properties = dict(_properties(root))
    metadata = slide_metadata(properties, load_vendor("zeiss"), None)
    return CziSource(path, closing, metadata, tuple(pyramids), tuple(findings))


def _compression(tiles: Sequence[CziTile]) -> tuple[str, str | None]:
    """Return how the tiles of the base are compressed; of several ways that which lost something."""
    numbers = sorted({tile.compression for tile in tiles if not tile.is_reduced})
    names = [_COMPRESSIONS.get(number, _UNKNOWN) for number in numbers] or [_UNKNOWN]
    return next((each for each in names if each[1]), names[-1])


def _scaling_um(root: ET.Element) -> dict[str, float]:
    """Return micrometres from pixel to pixel along each axis; the file has metres."""
    found = {}
    for distance in root.iterfind("Metadata/Scaling/Items/Distance"):
        try:
            found[distance.get("Id", "")] = float(distance.findtext("Value", "")) * 1e6
        except ValueError:
            continue
    return found


def _properties(root: ET.Element) -> Iterator[tuple[str, str]]:
    """Yield the texts of the metadata, named as OpenSlide names them."""
    metadata = root.find("Metadata")
    for part in metadata if metadata is not None else ():
        if part.tag in ("Information", "Scaling"):
            yield from _texts(part, f"zeiss.{part.tag}")
    power = root.findtext("Metadata/Information/Instrument/Objectives/Objective/NominalMagnification")
    yield "openslide.objective-power", power or ""


def _texts(element: ET.Element, name: str) -> Iterator[tuple[str, str]]:
    for key, text in element.attrib.items():
        yield f"{name}.{key}", text
    if element.text and element.text.strip():
        yield name, element.text.strip()
    for child in element:
        label = child.get("Id", child.tag)
        yield from _texts(child, f"{name}.{label if re.fullmatch(r'[\w:]{1,40}', label) else child.tag}")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
