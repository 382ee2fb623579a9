"""The code table against a plain copy of it, and the meanings that published queries filter on."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from coverslip.errors import UsageError
from coverslip.metadata_maps import codes
from coverslip.metadata_maps.codes import Code, code, read_codes

GOLDEN = Path(__file__).with_name("codes.tsv")
SOURCES = Path(__file__).resolve().parents[2] / "src" / "coverslip"

# Code value, scheme and meaning as they stand in slides that IDC publishes.
PREPARATION = [
    ("121041", "DCM", "Specimen Identifier"),
    ("111701", "DCM", "Processing type"),
    ("111704", "DCM", "Sampling Method"),
    ("111705", "DCM", "Parent Specimen Identifier"),
    ("111707", "DCM", "Parent specimen type"),
    ("434711009", "SCT", "Specimen container"),
    ("371439000", "SCT", "Specimen type"),
    ("17636008", "SCT", "Specimen Collection"),
    ("118292001", "SCT", "Removal"),
    ("433465004", "SCT", "Specimen Sampling"),
    ("433465004", "SCT", "Sampling of tissue specimen"),
    ("434472006", "SCT", "Block sectioning"),
    ("9265001", "SCT", "Specimen processing"),
    ("127790008", "SCT", "Staining"),
    ("430864009", "SCT", "Tissue Fixative"),
    ("430863003", "SCT", "Embedding medium"),
    ("424361007", "SCT", "Using substance"),
    ("431510009", "SCT", "Formalin"),
    ("311731000", "SCT", "Paraffin wax"),
    ("433469005", "SCT", "Tissue freezing medium"),
    ("12710003", "SCT", "hematoxylin stain"),
    ("36879007", "SCT", "water soluble eosin stain"),
    ("434746001", "SCT", "Specimen vial"),
    ("434464009", "SCT", "Tissue cassette"),
    ("433466003", "SCT", "Microscope slide"),
    ("119376003", "SCT", "Tissue specimen"),
    ("430861001", "SCT", "Gross specimen"),
    ("1179252003", "SCT", "Slide"),
    ("86049000", "SCT", "Neoplasm, Primary"),
    ("17621005", "SCT", "Normal"),
]

# IDC publishes these codes with more than one meaning; every other code has one.
TWO_MEANINGS = {
    "113276009", "14799000", "371304004", "371311000", "400056003", "433465004", "65801008", "71252005", "89837001",
    "C0598447",
}  # fmt: skip


def test_every_code_has_the_value_scheme_and_meaning_of_the_golden_table():
    with open(GOLDEN, newline="", encoding="utf-8") as file:
        golden = {row["name"]: Code(row["value"], row["scheme"], row["meaning"])
                  for row in csv.DictReader(file, delimiter="\t")}  # fmt: skip
    assert dict(read_codes()) == golden


@pytest.mark.parametrize("expected", PREPARATION)
def test_preparation_concepts_have_the_published_meaning(expected):
    assert Code(*expected) in read_codes().values()


def test_names_are_kebab_case_and_values_fit_a_code_sequence():
    for name, entry in read_codes().items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert len(entry.value) <= 16
        assert 0 < len(entry.meaning) <= 64
        assert entry.meaning == entry.meaning.strip()
        assert entry.scheme_designator in {"SCT", "DCM", "NCIt", "UMLS", "LN"}


def test_only_known_codes_have_two_meanings():
    meanings = defaultdict(set)
    for entry in read_codes().values():
        meanings[entry.value].add(entry.meaning)
    assert {value for value, texts in meanings.items() if len(texts) > 1} == TWO_MEANINGS


def test_snomed_codes_have_a_valid_check_digit():
    for entry in read_codes().values():
        if entry.scheme_designator == "SCT":
            assert verhoeff(entry.value) == 0, entry


def test_an_unknown_name_is_a_usage_error_that_names_it():
    with pytest.raises(UsageError, match="paraffin-waks"):
        code("paraffin-waks")


def test_constants_are_entries_of_the_table():
    assert Code("1179252003", "SCT", "Slide") == codes.SLIDE
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = codes.nothing_here


def test_every_constant_used_in_the_sources_exists():
    used = {name for file in SOURCES.rglob("*.py") for name in re.findall(r"\bcodes\.([A-Z_]+)\b", file.read_text())}
    assert used
    for name in used:
        assert isinstance(getattr(codes, name), Code)


def test_importing_the_module_does_not_read_the_table():
    check = "import coverslip.metadata_maps.codes as c; assert c.read_codes.cache_info().currsize == 0"
    subprocess.run([sys.executable, "-c", check], check=True, env={"PYTHONPATH": str(SOURCES.parent)})


def verhoeff(digits: str) -> int:
    """Check sum of a SNOMED CT identifier (dihedral group of order ten); 0 for a valid one."""
    check = 0
    for position, digit in enumerate(reversed(digits)):
        value = int(digit)
        for _ in range(position % 8):
            value = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[value]
        check = dihedral(check, value)
    return check


def dihedral(a: int, b: int) -> int:
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5
