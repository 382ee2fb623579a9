"""Headers in the DICOM JSON model, with what is large behind BulkDataURIs (PS3.18 10.4, Annex F)."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from coverslip.stores.quiet import no_pydicom_warnings

if TYPE_CHECKING:
    from pydicom.dataelem import DataElement
    from pydicom.dataset import Dataset

__all__ = ["BASE_PLACEHOLDER", "make_metadata", "read_bulk"]

BASE_PLACEHOLDER = "coverslip-base:"
"""Stands for the URL of the service, which clients may know by different names."""

_INLINE_BYTES = 64
_LEFT_OUT = frozenset({0x7FE00001, 0x7FE00002, 0xFFFCFFFC})
"""Offset tables, which say where frames lie in a file that nobody sees, and padding."""
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_PATH = re.compile(r"[0-9A-F]{8}(?:/\d{1,6}/[0-9A-F]{8}){0,8}")


def make_metadata(header: Dataset, url_path: str) -> bytes:
    """Return a header as a JSON object.

    Parameters
    ----------
    header : Dataset
    url_path : str
        Of the instance below the service.
    """
    with no_pydicom_warnings():
        model = _model(header, f"{BASE_PLACEHOLDER}{url_path}/bulkdata/", "")
    syntax = header.file_meta.get("TransferSyntaxUID") if hasattr(header, "file_meta") else None
    if syntax:
        model["00083002"] = {"vr": "UI", "Value": [str(syntax)]}
    return json.dumps(dict(sorted(model.items())), separators=(",", ":"), allow_nan=False).encode()


def _model(dataset: Dataset, bulk_url: str, path: str) -> dict[str, Any]:
    model: dict[str, Any] = {}
    for tag in dataset.keys():  # noqa: SIM118 - items of a data set are elements
        if tag in _LEFT_OUT or tag.group in (0x0002, 0x0000):
            continue
        try:
            element = dataset[tag]
            model[f"{tag:08X}"] = _element(element, bulk_url, path)
        except Exception:  # noqa: BLE001, S112 - one damaged value must not hide the others
            continue
    return model


def _element(element: DataElement, bulk_url: str, path: str) -> dict[str, Any]:
    place = f"{path}{element.tag:08X}"
    if element.VR == "SQ":
        items = [_model(item, bulk_url, f"{place}/{number}/") for number, item in enumerate(element.value)]
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    if element.VR in _BINARY and isinstance(element.value, bytes) and len(element.value) > _INLINE_BYTES:
        return {"vr": element.VR, "BulkDataURI": bulk_url + place}
    found: dict[str, Any] = element.to_json_dict(None, 1 << 30)
    json.dumps(found, allow_nan=False)  # JSON knows no NaN
    return found


def read_bulk(header: Dataset, path: str) -> bytes | None:
    """Return the bytes of a binary element by its path in a BulkDataURI, None if there is none."""
    if not _PATH.fullmatch(path):
        return None
    dataset = header
    *steps, last = path.split("/")
    try:
        for tag, number in zip(steps[::2], steps[1::2], strict=True):
            dataset = dataset[int(tag, 16)].value[int(number)]
        element = dataset[int(last, 16)]
    except (KeyError, IndexError, TypeError, AttributeError):
        return None
    is_binary = element.VR in _BINARY and isinstance(element.value, bytes) and element.tag not in _LEFT_OUT
    return element.value if is_binary else None
