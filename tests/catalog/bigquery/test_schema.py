"""The schema that BigQuery gets follows from the rules of export, and BigQuery takes it."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.datadict import dictionary_keyword, dictionary_VM, dictionary_VR, tag_for_keyword

from coverslip.catalog.bigquery.place import parse_place
from coverslip.catalog.bigquery.tables import TABLES, shapes
from coverslip.catalog.bigquery.views import translate_views
from coverslip.catalog.schema import Field, as_bigquery, baseline_fields
from tests.catalog.bigquery.fake.schemas import check_schema

# The rules as they are written down, not as the product computes them.
RULES = {
    **dict.fromkeys("AE AS CS LO LT SH ST UC UI UR UT DS IS".split(), "STRING"),
    **dict.fromkeys("AT SL SS UL US SV UV".split(), "INTEGER"),
    **dict.fromkeys("FL FD".split(), "FLOAT"),
    "DA": "DATE", "TM": "TIME", "DT": "TIMESTAMP", "PN": "RECORD", "SQ": "RECORD",
}  # fmt: skip
PARTS = ["FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix"]


def golden(field: Field) -> tuple[str, str]:
    """Return type and mode of a keyword by the rules."""
    tag = tag_for_keyword(field.name)
    assert tag is not None, field.name
    vr = dictionary_VR(tag)
    kind = next(RULES[each] for each in vr.split(" or ") if each in RULES)
    return kind, "REPEATED" if vr == "SQ" or dictionary_VM(tag) != "1" else "NULLABLE"


def walk(fields: tuple[Field, ...]) -> Iterator[Field]:
    for field in fields:
        yield field
        if field.name == "OtherElements" or (field.fields and field.fields[0].name == "Alphabetic"):
            continue
        yield from walk(field.fields)


def test_every_column_of_the_pinned_schema_at_any_depth_is_what_the_rules_say() -> None:
    seen = 0
    for field in walk(baseline_fields()):
        if field.name == "OtherElements":
            assert as_bigquery(field.fields) == [
                {"name": "Tag", "type": "STRING", "mode": "NULLABLE"},
                {"name": "Data", "type": "STRING", "mode": "REPEATED"},
            ]
            continue
        if [each.name for each in field.fields] == ["Id", "Value"]:
            continue  # a repeating group
        seen += 1
        assert (field.type, field.mode) == golden(field), field.name
        if dictionary_VR(tag_for_keyword(field.name)) == "PN":
            assert [each.name for each in field.fields] == ["Alphabetic", "Ideographic", "Phonetic"]
            assert {tuple(part.name for part in group.fields) for group in field.fields} == {tuple(PARTS)}
        assert dictionary_keyword(tag_for_keyword(field.name)) == field.name
    assert seen > 1500


def test_text_that_others_cast_to_numbers_stays_text() -> None:
    fields = {field.name: field for field in walk(baseline_fields())}
    for name in ("ObjectiveLensPower", "ObjectiveLensNumericalAperture", "PixelSpacing", "InstanceNumber"):
        assert fields[name].type == "STRING", name
    assert fields["NumberOfFrames"].type == "STRING"
    assert fields["TotalPixelMatrixColumns"].type == "INTEGER"


def test_bigquery_takes_every_table_with_all_pinned_columns() -> None:
    made = list(shapes(baseline_fields()))
    for shape in made:
        plain = check_schema(as_bigquery(shape.fields))
        by_name = {each["name"]: each for each in plain}
        assert len(shape.cluster) <= 4
        assert {by_name[name]["mode"] for name in shape.cluster} <= {"NULLABLE"}
        if shape.bucket:
            assert by_name[shape.bucket] == {**by_name[shape.bucket], "type": "INTEGER", "mode": "REQUIRED"}
    assert [shape.name for shape in made][-1] == "catalog_state"
    assert {table.name for table in TABLES.values()} < {shape.name for shape in made}


def test_views_with_all_pinned_columns_are_short_enough_and_name_whole_tables() -> None:
    views = translate_views(parse_place("bigquery://my-project.slides", {}), baseline_fields())
    assert max(len(query) for query in views.values()) < 256 * 1024
    for name, query in views.items():
        assert "getvariable" not in query, name
        assert "`my-project`.`slides`.`" in query, name
        assert " history." not in query, name
