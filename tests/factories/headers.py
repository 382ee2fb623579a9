"""Instances of slides that are all header: what a catalog reads, in files of a few kilobytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID

__all__ = ["code", "slide_header", "text_item", "write_header"]

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"


def code(value: str, scheme: str, meaning: str) -> Dataset:
    """Return the item of a coded entry."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def text_item(concept: Dataset, text: str) -> Dataset:
    """Return a content item with a text."""
    item = Dataset()
    item.ValueType, item.TextValue = "TEXT", text
    item.ConceptNameCodeSequence = Sequence([concept])
    return item


def slide_header(series: str = "1.2.3", number: int = 1, **attributes: Any) -> Dataset:
    """Return the header of one level of a slide of patient P1."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["DERIVED", "PRIMARY", "VOLUME", "RESAMPLED"]
    ds.SOPClassUID = WSI
    ds.SOPInstanceUID = f"{series}.{number}"
    ds.StudyInstanceUID = "1.2.9"
    ds.SeriesInstanceUID = series
    ds.StudyDate, ds.StudyTime = "20240102", "030405.25"
    ds.AccessionNumber = "A1"
    ds.Modality = "SM"
    ds.Manufacturer = "Scanners"
    ds.PatientName = "Doe^Jane^^Dr^=^^=^"
    ds.PatientID = "P1"
    ds.PatientSex = "F"
    ds.ClinicalTrialProtocolID = "TRIAL-ONE"
    ds.SeriesNumber = "1"
    ds.InstanceNumber = str(number)
    ds.ContainerIdentifier = "S1"
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3, "RGB"
    ds.Rows = ds.Columns = 16
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    ds.TotalPixelMatrixColumns, ds.TotalPixelMatrixRows = 64 // number, 48 // number
    path = Dataset()
    path.OpticalPathIdentifier = "1"
    path.ObjectiveLensPower = "20"
    path.IlluminationTypeCodeSequence = Sequence([code("111744", "DCM", "Brightfield illumination")])
    ds.OpticalPathSequence = Sequence([path])
    measures = Dataset()
    measures.PixelSpacing = [f"{0.0005 * number:g}"] * 2
    groups = Dataset()
    groups.PixelMeasuresSequence = Sequence([measures])
    ds.SharedFunctionalGroupsSequence = Sequence([groups])
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def write_header(folder: Path, ds: Dataset, *, syntax: str = JPEG_BASELINE, name: str = "") -> Path:
    """Write an instance whose only frame has two bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    path = folder / (name or f"{ds.SOPInstanceUID}.dcm")
    if UID(syntax).is_encapsulated:
        # An empty offset table, one fragment, and the end.
        ds.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x02\0\0\0ab"
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    else:
        ds.PixelData = b"ab"
        ds["PixelData"].VR = "OB" if syntax != "1.2.840.10008.1.2" else "OW"
    dcmwrite(path, ds, enforce_file_format=True)
    return path
