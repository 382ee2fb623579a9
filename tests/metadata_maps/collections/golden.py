"""Apply a shipped map to rows written in a test, and put preparation steps as one reads them in a dump."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from coverslip.metadata_maps.codes import Code
from coverslip.metadata_maps.evaluate import AttributeTree, AttributeValue, MappedSlide, apply_map, slide_facts
from coverslip.metadata_maps.language import MetadataMap, load_map
from coverslip.metadata_maps.tables import Row, Table, normalize_name


@cache
def shipped_map(name: str) -> MetadataMap:
    """Read a shipped map once."""
    return load_map(name)


def table_of(*rows: Mapping[str, str]) -> Table:
    """Return a table in memory; its first row stands on line 2."""
    columns = tuple(rows[0])
    return Table(
        Path("table.csv"),
        columns,
        tuple(
            Row(number, {normalize_name(column): cells[column] for column in columns})
            for number, cells in enumerate(rows, 2)
        ),
    )


def map_slide(name: str, file: str, *rows: Mapping[str, str], **tables: Table) -> MappedSlide:
    """Apply a shipped map to a slide and its rows."""
    return apply_map(shipped_map(name), slide_facts(file), table_of(*rows).rows, tables)


def coded(value: AttributeValue | Code) -> str:
    """Return a code, or the one item of a code sequence, as ``39607008 SCT Lung``."""
    if isinstance(value, tuple) and not isinstance(value, Code):
        (item,) = value
        value = Code(item["CodeValue"], item["CodingSchemeDesignator"], item["CodeMeaning"])
    return " ".join(value)


def modifier(specimen: AttributeTree) -> str:
    """Return the modifier of the only primary anatomic structure."""
    (item,) = specimen["PrimaryAnatomicStructureSequence"]
    return coded(item["PrimaryAnatomicStructureModifierSequence"])


def preparation(specimen: AttributeTree) -> list[list[str]]:
    """Return each step's content items as ``121041 DCM Specimen Identifier = TCGA-05-4244``, in any order."""
    return [
        sorted(
            f"{coded(item['ConceptNameCodeSequence'])} = "
            + (item["TextValue"] if item["ValueType"] == "TEXT" else coded(item["ConceptCodeSequence"]))
            for item in step["SpecimenPreparationStepContentItemSequence"]
        )
        for step in specimen["SpecimenPreparationSequence"]
    ]


def steps(text: str) -> list[list[str]]:
    """Read expected steps: paragraphs of content items."""
    return [sorted(line.strip() for line in each.strip().splitlines()) for each in text.strip().split("\n\n")]
