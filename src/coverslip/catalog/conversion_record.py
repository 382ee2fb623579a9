"""Read `conversion.json`, and facts that a user states, into the row that is kept of a series.

A record is optional: series made elsewhere have none, and are indexed by their headers alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coverslip.catalog.tables import FACTS
from coverslip.errors import UsageError

__all__ = ["RECORD_FILE", "SeriesRecord", "as_collection_id", "read_facts", "read_record"]

RECORD_FILE = "conversion.json"

_LISTS = {fact.name for fact in FACTS if fact.repeated}


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """What is known of a series besides its headers.

    Parameters
    ----------
    series_instance_uid : str
    row : dict
        By columns of `tables.staged_series_fields`, without location.
    files : mapping
        By file name: size in bytes and MD5 as they were when the series was made.
    time_ns : int
        When the record was written; a file that is newer may have changed since.
    """

    series_instance_uid: str
    row: dict[str, Any]
    files: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    time_ns: int = 0

    @property
    def collection_id(self) -> str | None:
        """Id of the collection, if it is told."""
        facts = self.row.get("facts") or {}
        return facts.get("collection_id")


def as_collection_id(protocol: str) -> str:
    """Return the id of a collection as IDC writes it: the protocol's in lower case, dashes as underscores."""
    return protocol.lower().replace("-", "_")


def read_record(data: bytes, time_ns: int = 0) -> SeriesRecord:
    """Read a `conversion.json`.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        record = json.loads(data)
        source, replaces = record.get("source") or {}, record.get("replaces") or {}
        validation = record.get("validation") or {}
        row = {
            "SeriesInstanceUID": record["series_instance_uid"],
            "facts": _facts(record.get("collection") or {}),
            "converted": True,
            "coverslip_version": record.get("coverslip_version"),
            "output_format": record.get("output_format"),
            "source_format": source.get("format"),
            "source_sha256": source.get("sha256"),
            "source_files": source.get("files"),
            "source_bytes": source.get("bytes"),
            "replaces_SeriesInstanceUID": replaces.get("series_instance_uid"),
            "replaces_reason": replaces.get("reason"),
            "curated": list(record.get("curated") or ()),
            "instances": [_instance(each) for each in record["instances"]],
            "findings": [_finding(each) for each in record.get("findings") or ()],
            "validation_mode": validation.get("mode"),
            "validation_profile": validation.get("profile"),
            "validation_passed": validation.get("passed"),
            "validation_counts": [
                {"name": str(name), "count": int(count)}
                for name, count in sorted((validation.get("counts") or {}).items())
            ],
        }
        files = {
            each["file_name"]: (each["size_bytes"], each["md5"]) for each in record["instances"] if each.get("md5")
        }
        return SeriesRecord(record["series_instance_uid"], row, files, time_ns)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"no {RECORD_FILE}: {error}") from None


def _instance(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "SOPInstanceUID": entry["sop_instance_uid"],
        "image_flavor": entry.get("image_flavor"),
        "reuses_frames": entry.get("reuses_frames"),
        "origin": entry.get("origin"),
        "missing_tiles": entry.get("missing_tiles"),
        "offset_table": entry.get("offset_table"),
    }


def _finding(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry.get(name) for name in ("rule", "severity", "message", "place", "reference")}


def _facts(told: Mapping[str, Any]) -> dict[str, Any] | None:
    facts: dict[str, Any] = {}
    for fact in FACTS:
        value = told.get(fact.name)
        if value is None or value in ("", []):
            continue
        if fact.name in _LISTS:
            facts[fact.name] = [str(each) for each in (value if isinstance(value, list | tuple) else [value])]
        else:
            facts[fact.name] = str(value)
    return facts or None


def read_facts(path: Path) -> dict[str, Any]:
    """Read a user's statement of facts: a JSON object as in `collection` of conversion.json.

    Raises
    ------
    UsageError
        If it cannot be read, or names a fact that there is not.
    """
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: no JSON object of facts: {error}") from None
    names = [fact.name for fact in FACTS]
    if not isinstance(told, dict) or not told.get("collection_id"):
        raise UsageError(f"{path}: expected a JSON object with a collection_id")
    unknown = sorted(set(told) - set(names))
    if unknown:
        raise UsageError(f"{path}: {unknown[0]}: no such fact; there are {_and(names)}")
    return _facts(told) or {}


def _and(names: Iterable[str]) -> str:
    return ", ".join(names)
