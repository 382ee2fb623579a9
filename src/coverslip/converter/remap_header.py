"""The header of an instance whose pixels stay and whose metadata are others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from coverslip.converter.dataset import add_specimen, code_item, set_attribute, set_deidentification
from coverslip.converter.identity import identity_uids
from coverslip.converter.mapped import apply_mapped, name_specimens
from coverslip.converter.request import curated_texts
from coverslip.converter.uids import OUTPUT_FORMAT, derive_uid
from coverslip.metadata_maps import codes
from coverslip.metadata_maps.codes import Code
from coverslip.metadata_maps.deid.claims import DeidClaims, claim_again
from coverslip.metadata_maps.evaluate import MappedSlide

__all__ = ["NewMetadata", "remapped_headers"]

_KEPT_GROUPS = (0x0028, 0x0048, 0x5200)
"""Image pixel, whole slide microscopy, functional groups."""

_KEPT_KEYWORDS = frozenset(
    "ImageType SOPClassUID Modality AcquisitionDate AcquisitionTime AcquisitionDateTime ContentDate ContentTime "
    "SeriesDate SeriesTime TimezoneOffsetFromUTC VolumetricProperties VolumeBasedCalculationTechnique "
    "DerivationDescription DerivationCodeSequence Manufacturer ManufacturerModelName DeviceSerialNumber "
    "SoftwareVersions ContributingEquipmentSequence AcquisitionContextSequence AcquisitionUID PyramidUID "
    "InstanceNumber PositionReferenceIndicator DimensionOrganizationType DimensionOrganizationSequence "
    "DimensionIndexSequence ConcatenationUID InConcatenationNumber InConcatenationTotalNumber "
    "ConcatenationFrameOffsetNumber SOPInstanceUIDOfConcatenationSource PresentationLUTShape PatientIdentityRemoved "
    "DeidentificationMethod DeidentificationMethodCodeSequence LongitudinalTemporalInformationModified".split()
)
"""What else tells of pixels, of how they were made, and of what was done for the patient's privacy."""

_LABEL_KEYWORDS = ("BarcodeValue", "LabelText")


@dataclass(frozen=True, slots=True)
class NewMetadata:
    """What takes the place of the old metadata.

    Parameters
    ----------
    mapped : MappedSlide
    attributes : mapping
        The user's ``--set``, after the map's.
    uid_root : str
    """

    mapped: MappedSlide
    attributes: Mapping[str, str]
    uid_root: str

    def version(self) -> str:
        """Return all of it as one stable text that UIDs are derived from."""
        mapped = self.mapped
        parts = [mapped.attributes, mapped.specimens, mapped.optical_paths, dict(self.attributes)]
        return json.dumps(parts, sort_keys=True)


def remapped_headers(olds: list[Dataset], new: NewMetadata, pixel_digest: str) -> list[Dataset]:
    """Return the new headers of all instances of a series.

    What is kept is listed here; everything else is the map's or is gone, so that nothing of the old metadata stays
    unnoticed. The items of kept sequences are taken over from `olds`, which are changed by that.

    Parameters
    ----------
    olds : list of Dataset
    new : NewMetadata
    pixel_digest : str
        Of the frames of all instances.
    """
    first = olds[0]
    container = (
        new.attributes.get("ContainerIdentifier")
        or new.mapped.container_identifier
        or str(first.get("ContainerIdentifier", ""))
        or f"SLIDE-{pixel_digest[:16].upper()}"
    )
    identity = {key: value for key, value in new.mapped.attributes.items() if isinstance(value, str)}
    uids = identity_uids(new.uid_root, {**identity, **new.attributes}, container)
    renamed = _renamed_uids(olds, new, pixel_digest)
    headers = []
    for old in olds:
        old.decode()
        ds = _kept(old)
        ds.SpecificCharacterSet = "ISO_IR 192"
        ds.PatientName = ds.PatientID = ds.PatientBirthDate = ds.PatientSex = ""
        ds.StudyDate = ds.StudyTime = ds.StudyID = ds.AccessionNumber = ds.ReferringPhysicianName = ""
        ds.SeriesNumber = 1
        ds.SOPInstanceUID, ds.SeriesInstanceUID = old.SOPInstanceUID, old.SeriesInstanceUID
        ds.AcquisitionUID = old.get("AcquisitionUID", "")
        for keyword in _LABEL_KEYWORDS:
            if keyword in old:
                setattr(ds, keyword, "")
        add_specimen(ds, container, uids["specimen"])
        _rename(ds, renamed)
        ds.StudyInstanceUID, ds.FrameOfReferenceUID = uids["study"], uids["frame of reference"]
        _tell_of_the_change(ds)
        apply_mapped(ds, new.mapped)
        for keyword, text in new.attributes.items():
            set_attribute(ds, keyword, text)
        name_specimens(ds, new.uid_root)
        set_deidentification(ds, claim_again(_claims_of(old), curated_texts(new.mapped, new.attributes)))
        headers.append(ds)
    return headers


def _claims_of(old: Dataset) -> DeidClaims:
    """Return what a header says of de-identification."""
    items = old.get("DeidentificationMethodCodeSequence", ())
    return DeidClaims(
        old.get("PatientIdentityRemoved") == "YES",
        str(old.get("DeidentificationMethod", "")),
        tuple(Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning) for item in items),
        str(old.get("LongitudinalTemporalInformationModified", "")),
    )


def _kept(old: Dataset) -> Dataset:
    ds = Dataset()
    for element in old:
        if element.tag.group in _KEPT_GROUPS or element.keyword in _KEPT_KEYWORDS:
            ds[element.tag] = element
    ds.remove_private_tags()
    return ds


def _renamed_uids(olds: list[Dataset], new: NewMetadata, pixel_digest: str) -> dict[str, str]:
    """Return the UID that takes the place of each one that names this version of the series."""
    series = str(olds[0].SeriesInstanceUID)
    version = (series, pixel_digest, new.version(), str(OUTPUT_FORMAT))
    renamed = {"": derive_uid(new.uid_root, "acquisition", *version)}

    def rename(kind: str, ds: Dataset, keyword: str) -> None:
        uid = str(ds.get(keyword, ""))
        if uid:
            renamed[uid] = derive_uid(new.uid_root, kind, *version, uid)

    for old in olds:
        rename("series", old, "SeriesInstanceUID")
        rename("instance", old, "SOPInstanceUID")
        rename("acquisition", old, "AcquisitionUID")
        rename("pyramid", old, "PyramidUID")
        rename("concatenation", old, "ConcatenationUID")
        rename("instance", old, "SOPInstanceUIDOfConcatenationSource")
        for item in old.get("DimensionOrganizationSequence", ()):
            rename("dimension", item, "DimensionOrganizationUID")
    return renamed


def _rename(ds: Dataset, renamed: Mapping[str, str]) -> None:
    """Replace UIDs wherever they stand, so that references within the series stay right."""

    def replace(_ds: Dataset, element: DataElement) -> None:
        if element.VR != "UI":
            return
        value: Any = element.value
        if isinstance(value, MultiValue):
            element.value = [renamed.get(each, each) for each in value]
        else:
            element.value = renamed.get(value or "", value)

    ds.walk(replace)


def _tell_of_the_change(ds: Dataset) -> None:
    """Name this program among the equipment that contributed, unless it made the series in the first place."""
    items = list(ds.get("ContributingEquipmentSequence", ()))
    if any(item.get("Manufacturer") == "coverslip" for item in items):
        return
    item = Dataset()
    item.PurposeOfReferenceCodeSequence = Sequence([code_item(codes.MODIFYING_EQUIPMENT)])
    item.Manufacturer = item.ManufacturerModelName = "coverslip"
    item.SoftwareVersions = f"output format {OUTPUT_FORMAT}"
    item.ContributionDescription = "Replacement of the metadata; the frames are unchanged"
    ds.ContributingEquipmentSequence = [*items, item]
