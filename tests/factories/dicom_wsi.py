"""DICOM slides as other converters and scanners write them: tiled full or sparse, in many transfer syntaxes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import UID

from tests.factories.aperio import block_mean, cut_tiles
from tests.factories.jpeg_tiles import encode_jpeg, merge_tables, split_tables
from tests.factories.tissue import tissue

__all__ = ["DicomCoding", "write_dicom_wsi"]

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
_UIDS = {
    "jpeg": "1.2.840.10008.1.2.4.50",
    "jpeg-rgb": "1.2.840.10008.1.2.4.50",
    "jpeg-rgb-unmarked": "1.2.840.10008.1.2.4.50",
    "j2k": "1.2.840.10008.1.2.4.90",
    "j2k-lossy": "1.2.840.10008.1.2.4.91",
    "jpegls": "1.2.840.10008.1.2.4.80",
    "none": "1.2.840.10008.1.2.1",
    "implicit": "1.2.840.10008.1.2",
}
_PHOTOMETRIC = {"jpeg": "YBR_FULL_422", "j2k": "YBR_RCT", "j2k-lossy": "YBR_ICT"}


@dataclass(frozen=True, slots=True)
class DicomCoding:
    """How pictures become frames.

    Parameters
    ----------
    name : str
        ``jpeg``, ``jpeg-rgb``, ``jpeg-rgb-unmarked``, ``j2k``, ``j2k-lossy``, ``jpegls``, ``none`` or ``implicit``.
    sparse : bool
        TILED_SPARSE: each frame tells its place, and they come in reverse order.
    planar : bool
        Colour planes apart, of uncompressed frames.
    """

    name: str = "jpeg"
    subsampling: str = "420"
    sparse: bool = False
    planar: bool = False

    def encode(self, pixels: NDArray[np.uint8]) -> bytes:
        """Return one frame."""
        if self.name in ("none", "implicit"):
            return (np.moveaxis(pixels, 2, 0) if self.planar else pixels).tobytes()
        import imagecodecs

        if self.name == "jpegls":
            return bytes(imagecodecs.jpegls_encode(pixels))
        if self.name.startswith("j2k"):
            lossless = self.name == "j2k"
            level = 0 if lossless else 40
            return bytes(imagecodecs.jpeg2k_encode(pixels, level, codecformat="j2k", mct=True, reversible=lossless))
        if not self.name.startswith("jpeg-rgb"):
            return encode_jpeg(pixels, 85, subsampling=self.subsampling)
        stream = encode_jpeg(pixels, 85, rgb=True)
        return stream if self.name == "jpeg-rgb" else merge_tables(*split_tables(stream))


def write_dicom_wsi(
    folder: Path,
    *,
    rows: int = 300,
    columns: int = 420,
    tile: tuple[int, int] = (128, 128),
    coding: DicomCoding = DicomCoding(),
    downsamples: Sequence[int] = (4,),
    planes: int = 1,
    missing: Collection[tuple[int, int]] = (),
    parts: int = 1,
    pictures: bool = True,
    seed: int = 0,
    **attributes: Any,
) -> NDArray[np.uint8]:
    """Write a series into a folder, and return the base's picture before compression; of several planes the lowest.

    Parameters
    ----------
    planes : int
        Focal planes, 2 µm from each other.
    missing : collection of (int, int)
        (row, column) of tiles of the base that have no frame; for sparse tiling.
    parts : int
        Instances of a concatenation that the base is parted into.
    pictures : bool
        Whether there are a label, an overview and a thumbnail.
    attributes
        DICOM keywords to values, in all instances; None leaves out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stack = [tissue(rows, columns, seed + plane) for plane in range(planes)]
    number = 0
    for downsample in (1, *downsamples):
        level = [picture if downsample == 1 else block_mean(picture, downsample) for picture in stack]
        frames, places = _cut(level, tile, coding, missing if downsample == 1 else ())
        flavor = "VOLUME"
        count = parts if downsample == 1 else 1
        bounds = [len(frames) * part // count for part in range(count + 1)]
        for part in range(count):
            number += 1
            ds = _header(number, flavor, level[0].shape[:2], tile, coding, attributes)
            ds.TotalPixelMatrixFocalPlanes = planes
            spacing = 0.0005 * downsample
            _add_groups(ds, spacing, 0.002 if planes > 1 else None)
            _add_frames(ds, coding, frames[bounds[part] : bounds[part + 1]], places[bounds[part] : bounds[part + 1]])
            if count > 1:
                ds.ConcatenationUID, ds.SOPInstanceUIDOfConcatenationSource = "2.25.900", "2.25.901"
                ds.InConcatenationNumber, ds.InConcatenationTotalNumber = part + 1, count
                ds.ConcatenationFrameOffsetNumber = bounds[part]
            _override(ds, attributes)
            _write(folder, ds, coding)
    for flavor, size in (("LABEL", (60, 50)), ("OVERVIEW", (60, 170)), ("THUMBNAIL", (30, 42))) if pictures else ():
        number += 1
        picture = tissue(*size, seed + number)
        ds = _header(number, flavor, size, size, coding, attributes)
        _add_groups(ds, 0.005 if flavor == "THUMBNAIL" else None, None)
        _add_frames(ds, coding, [coding.encode(picture)], [(0, 0, 0)])
        _override(ds, attributes)
        _write(folder, ds, coding)
    return stack[0]


def _cut(
    level: list[NDArray[np.uint8]], tile: tuple[int, int], coding: DicomCoding, missing: Collection[tuple[int, int]]
) -> tuple[list[bytes], list[tuple[int, int, int]]]:
    frames: list[bytes] = []
    places: list[tuple[int, int, int]] = []
    for plane, picture in enumerate(level):

        def keep(row: int, column: int, pixels: NDArray[np.uint8], plane: int = plane) -> None:
            if (row, column) not in missing:
                frames.append(coding.encode(np.ascontiguousarray(pixels)))
                places.append((row * tile[0], column * tile[1], plane))

        cut_tiles(picture, tile, keep)
    return (frames[::-1], places[::-1]) if coding.sparse else (frames, places)


def _header(
    number: int,
    flavor: str,
    size: tuple[int, int],
    tile: tuple[int, int],
    coding: DicomCoding,
    attributes: dict[str, Any],
) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", flavor, "NONE"]
    ds.SOPClassUID, ds.SOPInstanceUID = WSI, f"2.25.77{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "2.25.5", "2.25.6", "2.25.7"
    ds.Modality, ds.Manufacturer, ds.ManufacturerModelName = "SM", "Maker", "Scanner 7"
    ds.DeviceSerialNumber, ds.SoftwareVersions = "SN-4711-9", "7.1"
    ds.PatientName, ds.PatientID = "Other^Ann", "PAT-4711-3"
    ds.AccessionNumber, ds.ContainerIdentifier = "ACC-4711-5", "S-4711-8"
    ds.AcquisitionDateTime = "20230405060708"
    ds.DimensionOrganizationType = "TILED_SPARSE" if coding.sparse else "TILED_FULL"
    ds.Rows, ds.Columns = tile
    ds.TotalPixelMatrixRows, ds.TotalPixelMatrixColumns = size
    ds.SamplesPerPixel, ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 3, 8, 8, 7, 0
    ds.PhotometricInterpretation = _PHOTOMETRIC.get(coding.name, "RGB")
    ds.PlanarConfiguration = int(coding.planar)
    ds.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem, origin.YOffsetInSlideCoordinateSystem = "12.5", "31"
    ds.TotalPixelMatrixOriginSequence = [origin]
    path = Dataset()
    path.OpticalPathIdentifier, path.ObjectiveLensPower = "1", "20"
    ds.OpticalPathSequence = [path]
    ds.NumberOfOpticalPaths = 1
    lossy = (coding.name.startswith("jpeg") and coding.name != "jpegls") or coding.name == "j2k-lossy"
    ds.LossyImageCompression = "01" if lossy else "00"
    if lossy:
        ds.LossyImageCompressionMethod = "ISO_15444_1" if coding.name == "j2k-lossy" else "ISO_10918_1"
        ds.LossyImageCompressionRatio = "12.5"
    return ds


def _add_groups(ds: Dataset, spacing: float | None, between: float | None) -> None:
    measures, shared = Dataset(), Dataset()
    if spacing is not None:
        measures.PixelSpacing = [spacing, spacing]
        measures.SliceThickness = 0.001
        if between is not None:
            measures.SpacingBetweenSlices = between
        shared.PixelMeasuresSequence = [measures]
    ds.SharedFunctionalGroupsSequence = [shared]


def _add_frames(ds: Dataset, coding: DicomCoding, frames: list[bytes], places: list[tuple[int, int, int]]) -> None:
    ds.NumberOfFrames = len(frames)
    if coding.sparse:
        items = []
        for row, column, plane in places:
            position, item = Dataset(), Dataset()
            position.RowPositionInTotalImagePixelMatrix = row + 1
            position.ColumnPositionInTotalImagePixelMatrix = column + 1
            position.XOffsetInSlideCoordinateSystem = position.YOffsetInSlideCoordinateSystem = "0"
            position.ZOffsetInSlideCoordinateSystem = str(2 * plane)
            item.PlanePositionSlideSequence = [position]
            items.append(item)
        ds.PerFrameFunctionalGroupsSequence = items
    native = coding.name in ("none", "implicit")
    data = b"".join(frames) if native else encapsulate(frames)
    ds.PixelData = data + bytes(len(data) % 2)
    ds["PixelData"].VR = "OB" if coding.name != "implicit" else "OW"


def _override(ds: Dataset, attributes: dict[str, Any]) -> None:
    for keyword, value in attributes.items():
        if value is None:
            if keyword in ds:
                delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)


def _write(folder: Path, ds: Dataset, coding: DicomCoding) -> None:
    ds.ensure_file_meta()
    ds.file_meta.TransferSyntaxUID = UID(_UIDS[coding.name])
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.file_meta.ImplementationClassUID = UID("2.25.1")
    number = str(ds.SOPInstanceUID).removeprefix("2.25.77")
    dcmwrite(folder / f"{int(number):02}-{ds.ImageType[2].lower()}.dcm", ds, enforce_file_format=True)
