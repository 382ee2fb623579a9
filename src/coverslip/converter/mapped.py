"""Put what a metadata map says of a slide into its header."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from coverslip.converter.uids import derive_uid
from coverslip.errors import UsageError
from coverslip.metadata_maps.codes import Code
from coverslip.metadata_maps.evaluate import AttributeTree, AttributeValue, MappedSlide, code_item

__all__ = ["apply_mapped", "name_specimens"]

_PRIVATE = re.compile(r'\(([0-9A-Fa-f]{4}),"(.+)",([0-9A-Fa-f]{2})\)')


def apply_mapped(ds: Dataset, mapped: MappedSlide) -> None:
    """Set a map's attributes in a header that has the modules of specimen and optical path already.

    Every specimen of the map becomes an item made after the header's first one; what is said of one optical path goes
    for all of them, and what is said of several for as many.

    Raises
    ------
    UsageError
        If a value does not fit its attribute, or the slide has another number of optical paths than the map tells of.
    """
    vrs = mapped.private_vrs
    _fill(ds, mapped.attributes, vrs)
    if mapped.specimens:
        blank = ds.SpecimenDescriptionSequence[0]
        items = [deepcopy(blank) for _ in mapped.specimens]
        for item, tree in zip(items, mapped.specimens, strict=True):
            _fill(item, tree, vrs)
        ds.SpecimenDescriptionSequence = items
    paths = ds.get("OpticalPathSequence", ())
    trees = mapped.optical_paths
    if len(trees) == 1 and len(paths) > 1:
        # One identifier cannot tell several paths apart: they keep their own.
        trees = ({keyword: value for keyword, value in trees[0].items() if keyword != "OpticalPathIdentifier"},)
        trees *= len(paths)
    if trees and len(trees) != len(paths):
        raise UsageError(
            f"OpticalPathSequence: the map tells of {len(trees)} optical paths, the slide has {len(paths)}"
        )
    for item, tree in zip(paths, trees, strict=False):
        _fill(item, tree, vrs)


def name_specimens(ds: Dataset, uid_root: str) -> None:
    """Give each specimen the UID that follows from patient and specimen identifier."""
    for item in ds.SpecimenDescriptionSequence:
        item.SpecimenUID = derive_uid(uid_root, "specimen", str(ds.get("PatientID", "")), item.SpecimenIdentifier)


def _fill(ds: Dataset, tree: AttributeTree, private_vrs: Mapping[str, str]) -> None:
    for name, value in tree.items():
        private = _PRIVATE.fullmatch(name)
        plain = _plain(value, private_vrs)
        if private:
            block = ds.private_block(int(private[1], 16), private[2], create=True)
            block.add_new(int(private[3], 16), private_vrs[name], plain)
            continue
        tag = tag_for_keyword(name)
        if tag is None:
            raise UsageError(f"{name}: not a keyword of the DICOM data dictionary")
        try:
            ds[tag] = DataElement(tag, dictionary_VR(tag), plain, validation_mode=pydicom_config.RAISE)
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"{name}: {str(error).splitlines()[0]}") from None


def _plain(value: AttributeValue, private_vrs: Mapping[str, str]) -> Any:
    """Return a value as pydicom takes it."""
    if isinstance(value, Code):
        return Sequence([_item(code_item(value), private_vrs)])
    if isinstance(value, tuple):
        if all(isinstance(each, dict) for each in value):
            return Sequence([_item(each, private_vrs) for each in value if isinstance(each, dict)])
        return list(value)
    return value


def _item(tree: AttributeTree, private_vrs: Mapping[str, str]) -> Dataset:
    item = Dataset()
    _fill(item, tree, private_vrs)
    return item
