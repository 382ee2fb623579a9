from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from tools.make_baseline_schema import main as make_baseline
from tools.make_baseline_schema import queried_keywords

from coverslip.catalog import schema
from coverslip.catalog.export_rules import field_of
from coverslip.catalog.schema import (
    Addition,
    Field,
    arrow_schema,
    as_bigquery,
    baseline_fields,
    create_table,
    fields_from_bigquery,
    merge_fields,
)
from coverslip.catalog.staging import part_fields

# NULLABLE at IDC: its schema predates a dictionary in which it may have several values.
KNOWN_MISMATCHES = {"SegmentAlgorithmName"}


def walk(fields) -> Iterator[tuple[str, Field]]:
    for field in fields:
        yield field.name, field
        yield from walk(field.fields)


@pytest.fixture(scope="module")
def stated(shared: Path) -> tuple[Field, ...]:
    """IDC's own columns of `dicom_all`."""
    told = json.loads((shared / "idc" / "dicom_all.schema.json").read_text())
    return fields_from_bigquery(told["schema"]["fields"])


def test_types_and_modes_are_those_of_idc_for_every_keyword_both_know(stated) -> None:
    compared, different = set(), set()
    for name, field in walk(stated):
        tag = tag_for_keyword(name)
        ours = field_of(tag) if tag is not None else None
        if ours is None:
            continue
        compared.add(name)
        if (ours.type, ours.mode) != (field.type, field.mode):
            different.add(name)
    assert len(compared) > 1000
    assert different == KNOWN_MISMATCHES


def test_repeating_groups_and_names_have_idc_s_fields(stated) -> None:
    by_name = {field.name: field for field in stated}
    for tag in (0x60000010, 0x60000050, 0x50000005, 0x00100010):
        theirs, ours = by_name[field_of(tag).name], field_of(tag)
        assert as_bigquery([ours]) == strip(as_bigquery([theirs]))


def strip(entries):
    """Return a schema without descriptions."""
    return [
        {name: strip(value) if name == "fields" else value for name, value in entry.items() if name != "description"}
        for entry in entries
    ]


def test_the_pinned_schema_is_what_its_program_writes(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tools.make_baseline_schema.PACKAGE", tmp_path)
    make_baseline()
    written = (tmp_path / schema.BASELINE_FILE).read_bytes()
    pinned = Path(schema.__file__).with_name(schema.BASELINE_FILE)
    assert written == pinned.read_bytes(), "run `make baseline`"


def test_columns_that_are_pinned_already_stay_where_they_are(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("tools.make_baseline_schema.PACKAGE", tmp_path)
    old = Field("Private", "STRING")
    (tmp_path / schema.BASELINE_FILE).write_text(json.dumps(as_bigquery([old])))
    make_baseline()
    fields = fields_from_bigquery(json.loads((tmp_path / schema.BASELINE_FILE).read_text()))
    assert fields[0] == old
    assert {field.name for field in fields} > {field.name for field in baseline_fields()}


def test_the_pinned_schema_follows_the_rules_and_holds_what_idc_queries() -> None:
    fields = baseline_fields()
    for name, field in walk(fields):
        tag = tag_for_keyword(name)
        if tag is not None:
            ours = field_of(tag)
            assert (field.type, field.mode) == (ours.type, ours.mode), name
    assert set(queried_keywords()) <= {field.name for _, field in walk(fields)}
    names = [field.name for field in fields]
    assert len(names) == len({name.lower() for name in names})
    assert "PerFrameFunctionalGroupsSequence" not in names
    assert names[-1] == "OtherElements"


def test_one_tree_gives_the_same_fields_to_all_engines(tmp_path) -> None:
    fields = baseline_fields()
    assert fields_from_bigquery(json.loads(json.dumps(as_bigquery(fields)))) == fields
    parquet.write_table(pa.Table.from_pylist([], schema=arrow_schema(fields)), tmp_path / "empty.parquet")
    assert part_fields(tmp_path / "empty.parquet") == fields
    with duckdb.connect() as connection:
        connection.execute(create_table("tree", fields))
        made = connection.execute("DESCRIBE tree").fetchall()
        read = connection.execute("DESCRIBE FROM read_parquet(?)", [str(tmp_path / "empty.parquet")]).fetchall()
    assert [row[:2] for row in made] == [row[:2] for row in read]


def test_fields_are_only_added_behind_those_there_are_in_the_order_of_their_names() -> None:
    inner = Field("S", "RECORD", "REPEATED", (Field("b"),))
    old = (Field("x"), inner)
    new = (Field("z"), Field("S", "RECORD", "REPEATED", (Field("c", "INTEGER"), Field("a"))), Field("y", "DATE"))
    merged, additions = merge_fields(old, new)
    record = Field("S", "RECORD", "REPEATED", (Field("b"), Field("a"), Field("c", "INTEGER")))
    assert merged == (Field("x"), record, Field("y", "DATE"), Field("z"))
    assert additions == [
        Addition("S.a", "STRING", "NULLABLE"),
        Addition("S.c", "INTEGER", "NULLABLE"),
        Addition("y", "DATE", "NULLABLE"),
        Addition("z", "STRING", "NULLABLE"),
    ]
    assert merge_fields(merged, new) == (merged, [])


def test_a_field_never_changes_its_type() -> None:
    with pytest.raises(ValueError, match=r"S\.a: INTEGER NULLABLE, expected STRING NULLABLE"):
        merge_fields(
            (Field("S", "RECORD", "REPEATED", (Field("a"),)),),
            (Field("S", "RECORD", "REPEATED", (Field("a", "INTEGER"),)),),
        )


def test_binary_elements_and_what_the_dictionary_does_not_know_have_no_column() -> None:
    assert [field_of(tag) for tag in (0x7FE00010, 0x00282000, 0x00080002, 0x00090010)] == [None] * 4
    assert keyword_for_tag(0x00282000) == "ICCProfile"
