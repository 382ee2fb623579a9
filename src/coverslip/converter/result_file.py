"""`conversion.json`: what became of a slide, beside the instances of its series."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from coverslip import __version__
from coverslip.converter.request import InstanceResult, SeriesResult
from coverslip.converter.sources.base import SlideSource
from coverslip.converter.uids import OUTPUT_FORMAT
from coverslip.uuids import instance_uuid, merkle_md5, series_uuid

__all__ = ["RESULT_FILE", "is_complete", "series_as_json", "source_as_json", "write_result_file"]

RESULT_FILE = "conversion.json"


def series_as_json(series: SeriesResult) -> dict[str, Any]:
    """Return a series as it stands in `conversion.json` and in ``--json``."""
    md5s = [instance.md5 for instance in series.instances if instance.md5 is not None]
    written = bool(md5s) and len(md5s) == len(series.instances)
    return {
        "study_instance_uid": series.study_instance_uid,
        "series_instance_uid": series.series_instance_uid,
        "series_uuid": series_uuid(series.series_instance_uid, md5s) if written else None,
        "series_md5": merkle_md5(md5s) if written else None,
        "replaces": asdict(series.replaces) if series.replaces else None,
        "collection": dict(series.collection),
        "curated": list(series.curated),
        "instances": [_instance_as_json(instance) for instance in series.instances],
        "unused_levels": list(series.unused_levels),
        "findings": [asdict(finding) for finding in series.findings],
        "validation": asdict(series.validation) if series.validation else None,
    }


def _instance_as_json(instance: InstanceResult) -> dict[str, Any]:
    uuid = instance_uuid(instance.sop_instance_uid, instance.md5) if instance.md5 else None
    return {**asdict(instance), "instance_uuid": uuid}


def source_as_json(source: SlideSource, digest: str, size_bytes: int | None = None) -> dict[str, Any]:
    """Return what may be told of a slide: neither its name nor any text from its file.

    Parameters
    ----------
    size_bytes : int, optional
        Where its files are not here to be asked.
    """
    return {
        "format": source.format_name,
        "sha256": digest,
        "files": len(source.files),
        "bytes": sum(path.stat().st_size for path in source.files) if size_bytes is None else size_bytes,
    }


def write_result_file(
    folder: Path, series: SeriesResult, source: Mapping[str, Any], timings_s: Mapping[str, float]
) -> None:
    """Write `conversion.json`; `source` tells where the pixels come from."""
    result = {
        "coverslip_version": __version__,
        "output_format": OUTPUT_FORMAT,
        "source": dict(source),
        **series_as_json(series),
        "timings_s": dict(timings_s),
    }
    (folder / RESULT_FILE).write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def is_complete(folder: Path, file_names: Sequence[str]) -> bool:
    """Say whether a folder holds just the files that its `conversion.json` lists, of the sizes it states."""
    try:
        stated = json.loads((folder / RESULT_FILE).read_text(encoding="utf-8"))["instances"]
        sizes = {instance["file_name"]: instance["size_bytes"] for instance in stated}
        present = {path.name: path.stat().st_size for path in folder.glob("*.dcm")}
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return sizes == present and set(sizes) == set(file_names)
