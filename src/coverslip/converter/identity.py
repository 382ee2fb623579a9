"""What names a slide, a study and a file: UIDs that follow identity, and UUIDs that follow a file's bytes.

docs/identity.md tells which UIDs change with what.
"""

from __future__ import annotations

from collections.abc import Mapping

from coverslip.converter.uids import derive_uid
from coverslip.uuids import NAMESPACE, instance_uuid, merkle_md5, series_uuid

__all__ = ["NAMESPACE", "IdentityUids", "identity_uids", "instance_uuid", "merkle_md5", "series_uuid", "version_uids"]

type IdentityUids = dict[str, str]
"""UIDs by the names that `SeriesIdentity` is built from."""


def identity_uids(root: str, attributes: Mapping[str, str], container: str) -> IdentityUids:
    """Return the UIDs of study, frame of reference and specimen, which follow from who and what they belong to.

    Parameters
    ----------
    root : str
    attributes : mapping
        Patient ID, Study ID, Accession Number and Specimen Identifier, as far as they are known; UIDs that stand here
        are taken as they are.
    container : str
        Container Identifier.
    """
    patient = attributes.get("PatientID", "")
    visit = attributes.get("StudyID", ""), attributes.get("AccessionNumber", "")
    # Without a patient each slide is a study of its own.
    study = (patient, *visit) if patient else ("", *visit, container)
    return {
        "study": attributes.get("StudyInstanceUID") or derive_uid(root, "study", *study),
        "frame of reference": attributes.get("FrameOfReferenceUID")
        or derive_uid(root, "frame of reference", patient, container),
        "specimen": derive_uid(root, "specimen", patient, attributes.get("SpecimenIdentifier", container)),
    }


def version_uids(root: str, *version: str) -> IdentityUids:
    """Return the UIDs that no other bytes ever carry, named by everything that shapes the output."""
    return {name: derive_uid(root, name, *version) for name in ("series", "acquisition", "pyramid", "dimension")}
