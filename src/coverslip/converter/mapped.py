"""Put what a metadata map says of a slide into its header."""

from __future__ import annotations

import re
from copy import deepcopy
from typing import Any

from pydicom import config as pydicom_config
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from coverslip.converter.dataset import code_item
from coverslip.converter.uids import derive_uid
from coverslip.errors import UsageError
from coverslip.metadata_maps.codes import Code
from coverslip.metadata_maps.evaluate import AttributeTree, AttributeValue, MappedSlide
from coverslip.metadata_maps.evaluate import code_item as code_tree

__all__ = ["apply_mapped", "name_specimens"]

_PRIVATE = re.compile(r'\(([0-9A-Fa-f]{4}),"(.+)",([0-9A-Fa-f]{2})\)')
_LONGEST_CODE_VALUE = 16


def apply_mapped(ds: Dataset, mapped: MappedSlide) -> None:
    """Set a map's attributes in a header that has the modules of specimen and optical path already.

    Every specimen of the map becomes an item made after the header's first one; what is said of one optical path goes
    for all of them.

    Raises
    ------
    UsageError
        If a value does not fit its attribute.
    """
    _fill(ds, mapped.attributes)
    if mapped.specimens:
        blank = ds.SpecimenDescriptionSequence[0]
        items = [deepcopy(blank) for _ in mapped.specimens]
        for item, tree in zip(items, mapped.specimens, strict=True):
            _fill(item, tree)
        ds.SpecimenDescriptionSequence = items
    for index, item in enumerate(ds.get("OpticalPathSequence", ())):
        if len(mapped.optical_paths) == 1 or index < len(mapped.optical_paths):
            _fill(item, mapped.optical_paths[index if len(mapped.optical_paths) > 1 else 0])


def name_specimens(ds: Dataset, uid_root: str) -> None:
    """Give each specimen the UID that follows from patient and specimen identifier."""
    for item in ds.SpecimenDescriptionSequence:
        item.SpecimenUID = derive_uid(uid_root, "specimen", str(ds.get("PatientID", "")), item.SpecimenIdentifier)


def _fill(ds: Dataset, tree: AttributeTree) -> None:
    for name, value in tree.items():
        private = _PRIVATE.fullmatch(name)
        if private:
            block = ds.private_block(int(private[1], 16), private[2], create=True)
            block.add_new(int(private[3], 16), "LO", value)
            continue
        tag = tag_for_keyword(name)
        if tag is None:
            raise UsageError(f"{name}: not a keyword of the DICOM data dictionary")
        try:
            ds[tag] = DataElement(tag, dictionary_VR(tag), _plain(value), validation_mode=pydicom_config.RAISE)
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(f"{name}: {str(error).splitlines()[0]}") from None


def _plain(value: AttributeValue) -> Any:
    """Return a value as pydicom takes it."""
    if isinstance(value, Code):
        long = len(value.value) > _LONGEST_CODE_VALUE
        return Sequence([_item(code_tree(value)) if long else code_item(value)])
    if isinstance(value, tuple):
        if all(isinstance(each, dict) for each in value):
            return Sequence([_item(each) for each in value if isinstance(each, dict)])
        return list(value)
    return value


def _item(tree: AttributeTree) -> Dataset:
    item = Dataset()
    _fill(item, tree)
    return item
