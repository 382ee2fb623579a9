"""Write the pinned schema of `dicom_metadata`: ``make baseline``.

It holds, with types and modes by the rules of export:

- the attributes of the VL Whole Slide Microscopy Image IOD at every depth (PS3.3 A.32.8), from the tables of the
  standard that highdicom carries, without per-frame functional groups and binary values, and of a coded entry what
  tells the code;
- the file meta information;
- every column that IDC's queries for idc_index, sm_index and sm_instance_index read, from the package idc-index-data.

Running it again gives the same file. A newer highdicom may know more attributes; columns are only ever added, so what
the file holds already stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from pydicom.datadict import dictionary_keyword, tag_for_keyword

from coverslip.catalog.export_rules import OTHER_ELEMENTS, field_of
from coverslip.catalog.schema import BASELINE_FILE, Field, as_bigquery, fields_from_bigquery, merge_fields

IOD = "vl-whole-slide-microscopy-image"
PACKAGE = Path(__file__).resolve().parents[1] / "src" / "coverslip" / "catalog"
QUERIES = ("idc_index", "sm_index", "sm_instance_index")
PER_FRAME = "PerFrameFunctionalGroupsSequence"
FILE_META = range(0x00020002, 0x00020104)
# Of a coded entry (PS3.3 8.8) where its context group comes from is left out; a file that has it adds the columns.
CODE_CONTEXT = {
    "ContextGroupExtensionCreatorUID", "ContextGroupExtensionFlag", "ContextGroupLocalVersion", "ContextGroupVersion",
    "ContextIdentifier", "ContextUID", "EquivalentCodeSequence", "MappingResource", "MappingResourceName",
    "MappingResourceUID",
}  # fmt: skip

type Tree = dict[str, Tree]


def standard_attributes() -> Tree:
    """Return the keywords of the IOD by nesting."""
    folder = resources.files("highdicom") / "_standard"
    modules = json.loads((folder / "iod_module_map.json").read_text(encoding="utf-8"))[IOD]
    attributes = json.loads((folder / "module_attribute_map.json").read_text(encoding="utf-8"))
    tree: Tree = {}
    for module in modules:
        for attribute in attributes[module["key"]]:
            path = (*attribute["path"], attribute["keyword"])
            if PER_FRAME not in path:
                level = tree
                for keyword in path:
                    level = level.setdefault(keyword, {})
    return tree


def queried_keywords() -> Iterator[str]:
    """Yield the keywords of the top level that IDC's queries read."""
    folder = resources.files("idc_index_data")
    for name in QUERIES:
        text = re.sub(r"(#|--).*", "", (folder / f"{name}.sql").read_text(encoding="utf-8"))
        yield from (word for word in re.findall(r"[A-Z]\w+", text) if tag_for_keyword(word) is not None)


def as_fields(tree: Tree) -> tuple[Field, ...]:
    """Return the columns of one nesting level, in the order of their tags."""
    is_code = "CodeValue" in tree and "CodeMeaning" in tree
    tags = {tag: keyword for keyword in tree if (tag := tag_for_keyword(keyword)) is not None}
    found = []
    for tag in sorted(tags):
        keyword = tags[tag]
        field = field_of(tag)
        if field is None or (is_code and keyword in CODE_CONTEXT):
            continue
        if field.type == "RECORD" and not field.fields:
            field = Field(field.name, field.type, field.mode, as_fields(tree[keyword]))
            if not field.fields:
                continue
        found.append(field)
    return tuple(found)


def main() -> None:
    """Write the file."""
    tree = standard_attributes()
    for keyword in queried_keywords():
        tree.setdefault(keyword, {})
    for tag in FILE_META:
        field = field_of(tag)
        if field is not None:
            tree.setdefault(dictionary_keyword(tag), {})
    fields = (*as_fields(tree), OTHER_ELEMENTS)
    path = PACKAGE / BASELINE_FILE
    if path.exists():
        fields, _ = merge_fields(fields_from_bigquery(json.loads(path.read_text(encoding="utf-8"))), fields)
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in as_bigquery(fields))
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
