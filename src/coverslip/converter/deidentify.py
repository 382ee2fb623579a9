"""The de-identification policy applied to what a source says of its slide."""

from __future__ import annotations

from dataclasses import replace

from coverslip.converter.sources.base import SlideMetadata
from coverslip.metadata_maps.deid.keys import DeidKey
from coverslip.metadata_maps.deid.policy import DeidRecord, Policy, Value, apply_policy

__all__ = ["deidentify"]

_FIELDS = {
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "manufacturer_model_name",
    "DeviceSerialNumber": "device_serial_number",
    "SoftwareVersions": "software_versions",
    "ObjectiveLensPower": "objective_lens_power",
    "ObjectiveLensNumericalAperture": "objective_lens_numerical_aperture",
    "AcquisitionDateTime": "acquisition_datetime",
    "ICCProfile": "icc_profile",
}


def deidentify(
    metadata: SlideMetadata, policy: Policy, key: DeidKey | None, patient: str
) -> tuple[SlideMetadata, DeidRecord]:
    """Return the metadata that may be written, and what was done to get them.

    Parameters
    ----------
    metadata : SlideMetadata
        As the source gives them.
    policy : Policy
    key : DeidKey or None
        Needed by policies that hash or shift.
    patient : str
        Patient ID, by which dates are shifted.

    Raises
    ------
    UsageError
        If the policy needs a key or a patient and there is none.
    """
    values: dict[str, Value] = {
        keyword: value for keyword, name in _FIELDS.items() if (value := getattr(metadata, name)) not in (None, ())
    }
    values |= metadata.restricted
    kept, record = apply_policy(
        policy, values, patient=patient, key=key, identifying=tuple(metadata.identifying.values())
    )
    software = kept.get("SoftwareVersions", ())
    if isinstance(software, str):
        kept["SoftwareVersions"] = (software,)
    empty = SlideMetadata()
    fields = {name: kept.get(keyword, getattr(empty, name)) for keyword, name in _FIELDS.items()}
    restricted = {keyword: str(kept[keyword]) for keyword in metadata.restricted if keyword in kept}
    return replace(metadata, **fields, restricted=restricted), record
