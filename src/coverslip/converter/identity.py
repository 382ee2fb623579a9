"""What names a slide, a study and a file: UIDs that follow identity, and UUIDs that follow a file's bytes.

docs/identity.md tells which UIDs change with what.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping

from coverslip.converter.uids import derive_uid

__all__ = ["NAMESPACE", "IdentityUids", "identity_uids", "instance_uuid", "merkle_md5", "series_uuid", "version_uids"]

NAMESPACE = uuid.UUID("4d9adcc1-360e-5d17-a803-386bd2f03c9f")
"""Of the UUIDs of files and series: UUIDv5 of the name ``coverslip`` in the namespace of OIDs (RFC 9562, 6.6)."""

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


def instance_uuid(sop_instance_uid: str, md5: str) -> str:
    """Return the UUID of one version of an instance: another as soon as a byte of its file is another."""
    return str(uuid.uuid5(NAMESPACE, f"{sop_instance_uid}{md5}"))


def merkle_md5(md5s: Iterable[str]) -> str:
    """Return the MD5 of the sorted, concatenated MD5s of what something is made of, as IDC versions its data."""
    return hashlib.md5("".join(sorted(md5s)).encode(), usedforsecurity=False).hexdigest()


def series_uuid(series_instance_uid: str, md5s: Iterable[str]) -> str:
    """Return the UUID of one version of a series, from its UID and the MD5s of its instances."""
    return str(uuid.uuid5(NAMESPACE, f"{series_instance_uid}{merkle_md5(md5s)}"))
