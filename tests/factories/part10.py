"""Part 10 files for stores: small slides' instances with frames of random bytes, and sparse ones of any size."""

from __future__ import annotations

import hashlib
import io
import os
import random
import struct
from pathlib import Path

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate_extended
from pydicom.uid import UID

from coverslip.stores.base import InstanceUids, LocalInstance

__all__ = ["JPEG_BASELINE", "NATIVE", "WSI", "local_instance", "write_part10", "write_sparse_part10"]

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
NATIVE = "1.2.840.10008.1.2.1"


def local_instance(path: Path, uids: InstanceUids, transfer_syntax_uid: str, name: str = "") -> LocalInstance:
    """Return what an upload knows of a file."""
    with open(path, "rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()
    name = name or f"series-of-{uids.series_instance_uid}/{path.stem}.dcm"
    return LocalInstance(path, uids, WSI, transfer_syntax_uid, path.stat().st_size, md5, name)


def _data_set(uids: InstanceUids, patient: str, transfer_syntax_uid: str, rows: int, frames: int) -> Dataset:
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.SOPClassUID = WSI
    ds.SOPInstanceUID = uids.sop_instance_uid
    ds.StudyInstanceUID = uids.study_instance_uid
    ds.SeriesInstanceUID = uids.series_instance_uid
    ds.StudyDate = "20240102"
    ds.StudyTime = "030405.25"
    ds.Modality = "SM"
    ds.PatientName = patient
    ds.PatientID = "P-1"
    ds.SeriesNumber = "7"
    ds.ContainerIdentifier = "S-1"
    ds.ImagedVolumeWidth = 15.25
    ds.SliceThickness = "0.001"
    ds.SamplesPerPixel = 3
    ds.PhotometricInterpretation = "RGB"
    ds.NumberOfFrames = str(frames)
    ds.Rows = ds.Columns = rows
    ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8
    ds.HighBit = 7
    ds.PixelRepresentation = 0
    optical_path = Dataset()
    optical_path.OpticalPathIdentifier = "1"
    optical_path.ICCProfile = bytes(range(256)) * 12
    ds.OpticalPathSequence = [optical_path]
    ds.SpecimenLabelInImage = "NO"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    return ds


def write_part10(
    folder: Path,
    *,
    seed: int = 1,
    series: int = 1,
    frames: int = 5,
    frame_bytes: int = 600,
    patient: str = "Muster^Maß",
    transfer_syntax_uid: str = JPEG_BASELINE,
    uids: InstanceUids | None = None,
    name: str = "",
) -> LocalInstance:
    """Write an instance; `seed` makes its UID, its name and its frames, the other arguments change content alone."""
    uids = uids or InstanceUids("2.25.10", f"2.25.20{series}", f"2.25.30{series}{seed}")
    source = random.Random(f"{seed} {frame_bytes} {frames}")
    rows = 16
    ds = _data_set(uids, patient, transfer_syntax_uid, rows, frames)
    if transfer_syntax_uid == NATIVE:
        ds.PixelData = source.randbytes(rows * rows * 3 * frames)
    else:
        # Odd lengths, so that padding is met with too.
        stored = [b"\xff\xd8" + source.randbytes(frame_bytes + 2 * index) + b"\xff\xd9" for index in range(frames)]
        stored = [frame + b"\x00" * (len(frame) % 2) for frame in stored]
        ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(stored)
        ds["PixelData"].is_undefined_length = True
        ds["PixelData"].VR = "OB"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uids.sop_instance_uid}.dcm"
    dcmwrite(path, ds, enforce_file_format=True)
    return local_instance(path, uids, transfer_syntax_uid, name)


def write_sparse_part10(folder: Path, size_bytes: int, frame_bytes: int = 1 << 20, *, number: int = 1) -> LocalInstance:
    """Write an instance of about a size whose frames are holes, so that it takes hardly any room."""
    uids = InstanceUids("2.25.10", "2.25.209", f"2.25.309{number}")
    frames = max(1, size_bytes // (frame_bytes + 8))
    ds = _data_set(uids, "Sparse", JPEG_BASELINE, 16, frames)
    places = [index * (frame_bytes + 8) for index in range(frames)]
    ds.ExtendedOffsetTable = struct.pack(f"<{frames}Q", *places)
    ds.ExtendedOffsetTableLengths = struct.pack(f"<{frames}Q", *[frame_bytes] * frames)
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{uids.sop_instance_uid}.dcm"
    with open(path, "wb") as file:
        file.write(buffer.getvalue())
        file.write(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF))
        file.write(struct.pack("<HHI", 0xFFFE, 0xE000, 0))
        for _ in range(frames):
            file.write(struct.pack("<HHI", 0xFFFE, 0xE000, frame_bytes))
            file.seek(frame_bytes - 2, os.SEEK_CUR)
            file.write(b"\xff\xd9")
        file.write(struct.pack("<HHI", 0xFFFE, 0xE0DD, 0))
    return local_instance(path, uids, JPEG_BASELINE)
