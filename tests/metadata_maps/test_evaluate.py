"""What a map makes of a slide's file name and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from coverslip.errors import UsageError
from coverslip.metadata_maps.codes import Code, code
from coverslip.metadata_maps.evaluate import MappedSlide, apply_map, code_item, slide_facts
from coverslip.metadata_maps.language import load_map
from coverslip.metadata_maps.tables import Row, Table, normalize_name
from coverslip.validators.report import Severity


class Apply(Protocol):
    def __call__(
        self,
        text: str,
        *rows: Mapping[str, str],
        slide: str = ...,
        tables: Mapping[str, Sequence[Mapping[str, str]]] = ...,
    ) -> MappedSlide: ...


def make_rows(rows: Sequence[Mapping[str, str]]) -> tuple[Row, ...]:
    return tuple(
        Row(number, {normalize_name(name): value for name, value in row.items()})
        for number, row in enumerate(rows, start=2)
    )


@pytest.fixture
def apply(tmp_path: Path) -> Apply:
    """Apply a map to a slide with the given rows."""

    def applied(
        text: str,
        *rows: Mapping[str, str],
        slide: str = "/data/TCGA-LUAD/TCGA-05-4244-01Z-00-DX1.uuid.svs",
        tables: Mapping[str, Sequence[Mapping[str, str]]] = {},
    ) -> MappedSlide:
        (tmp_path / "m.toml").write_text(text)
        second = {
            name: Table(Path(f"{name}.csv"), tuple(values[0]), make_rows(values)) for name, values in tables.items()
        }
        return apply_map(load_map(tmp_path / "m.toml"), slide_facts(slide), make_rows(rows), second)

    return applied


def problems(slide: MappedSlide) -> list[tuple[str, int | None, str, str]]:
    return [(each.kind, each.row, each.column, each.keyword) for each in slide.problems]


@pytest.mark.parametrize(
    ("spec", "cells", "value"),
    [
        ("'fixed'", {}, "fixed"),
        ("7", {}, "7"),
        ("'{a}-{b_c}'", {"A": "x", "b c": "y"}, "x-y"),
        ("'{{{a}}}'", {"a": "x"}, "{x}"),
        ("'{a|id}'", {"a": "TCGA-LUAD"}, "tcga_luad"),
        ("'{a|lower|upper}'", {"a": "x"}, "X"),
        ("'{file_name}'", {}, "TCGA-05-4244-01Z-00-DX1.uuid.svs"),
        ("'{stem}'", {}, "TCGA-05-4244-01Z-00-DX1.uuid"),
        ("'{folder}'", {}, "TCGA-LUAD"),
        ("'{path}'", {}, "/data/TCGA-LUAD/TCGA-05-4244-01Z-00-DX1.uuid.svs"),
        ("{ column = 'Sample ID' }", {"sample_id": " x "}, "x"),
        ("{ column = 'stem' }", {"stem": "column"}, "column"),
        ("{ columns = ['a', 'b'] }", {"a": "", "b": "y"}, "y"),
        ("{ join = ['a', '{b}', 'c'], with = '; ' }", {"a": "x", "b": "", "c": "z"}, "x; z"),
        ("{ in = '{file_name}', match = '^\\w+-\\w+' }", {}, "TCGA-05"),
        ("{ in = '{file_name}', match = '^(\\w+)-(\\w+)' }", {}, "TCGA"),
        ("{ in = '{file_name}', match = '^(\\w+)-(?P<StudyDescription>\\w+)' }", {}, "05"),
        ("{ column = 'a', values = { ' Male' = 'man' } }", {"a": "MALE "}, "man"),
        ("{ column = 'a', values = {}, unmapped = 'keep' }", {"a": "x"}, "x"),
        ("{ column = 'a', values = { x = 'lung cancer' } , codes = 'v' }", {}, None),
        ("{ column = 'a', default = 'none' }", {"a": ""}, "none"),
        ("['{a}', '{b}', 'last']", {"a": "", "b": "y"}, "y"),
        ("[{ text = 'first', when = { a = 'x' } }, 'last']", {"a": "X"}, "first"),
        ("[{ text = 'first', when = { a = ['x', 'y'] } }, 'last']", {"a": "z"}, "last"),
        ("[{ text = 'first', when = { a = { not = 'x' } } }, 'last']", {"a": "z"}, "first"),
        ("[{ text = 'first', when = { a = { present = false } } }, 'last']", {}, "first"),
        ("[{ text = 'first', when = { a = { match = '^z' }, b = 'y' } }, 'last']", {"a": "zz", "b": "y"}, "first"),
        ("[{ text = 'first', when = { a = { match = '^z' }, b = 'y' } }, 'last']", {"a": "zz", "b": "n"}, "last"),
        ("{ column = 'a', codes = { x = 'lung' } }", {"a": "x"}, "Lung"),
    ],
)
def test_a_value_follows_from_its_source(apply: Apply, spec: str, cells: dict[str, str], value: str | None) -> None:
    text = f"[attributes]\nStudyDescription = {spec}"
    if value is None:
        with pytest.raises(UsageError, match="values and codes"):
            apply(text, cells)
        return
    slide = apply(text, cells)
    assert (slide.attributes, slide.problems) == ({"StudyDescription": value}, ())


def test_a_template_is_empty_where_any_of_its_names_is(apply: Apply) -> None:
    assert apply("[attributes]\nStudyDescription = 'x {a}'", {"a": ""}).attributes == {}


def test_empty_attributes_are_left_out_unless_of_type_2(apply: Apply) -> None:
    text = "[attributes]\nPatientID = '{a}'\nStudyDescription = '{a}'\nPatientSex = '{a}'"
    assert apply(text, {}).attributes == {"PatientID": "", "PatientSex": ""}


def test_variables_may_use_each_other_in_any_order_and_their_own_column(apply: Apply) -> None:
    text = """
        [variables]
        name = "{project}, {patient}"
        patient = { in = "{stem}", match = '^(?P<case>TCGA)-(?P<patient>\\w+)' }
        project = { column = "project", values = { a = "A" } }
        [attributes]
        StudyDescription = "{name}"
    """
    assert apply(text, {"project": "a"}).attributes == {"StudyDescription": "A, 05"}


def test_what_is_required_and_empty_is_missing(apply: Apply) -> None:
    text = "[attributes]\nPatientID = [{ column = 'a', required = true }, '{b}']"
    slide = apply(text, {"a": "", "b": ""})
    assert problems(slide) == [("missing", 2, "a", "PatientID")]
    assert slide.has_errors
    assert apply(text, {"a": "", "b": "x"}).problems == ()


def test_what_is_required_under_a_condition_that_fails_is_not_missing(apply: Apply) -> None:
    text = "[attributes]\nPatientID = { column = 'a', required = true, when = { b = 'x' } }"
    assert apply(text, {}).problems == ()


def test_a_value_that_the_value_table_lacks_is_told_with_row_column_and_value(apply: Apply) -> None:
    slide = apply("[attributes]\nPatientSex = { column = 'sex', values = { male = 'M' } }", {"sex": "divers"})
    (problem,) = slide.problems
    assert (problem.kind, problem.row, problem.column, problem.keyword) == ("unmapped", 2, "sex", "PatientSex")
    assert problem.message == "the map's value table lacks 'divers'"
    assert slide.attributes == {"PatientSex": ""}


def test_a_value_table_may_say_nothing_of_a_value_or_drop_the_others(apply: Apply) -> None:
    text = "[attributes]\nEthnicGroup = { column = 'a', values = { unknown = '', x = 'X' }, unmapped = 'drop' }"
    for value in ("Unknown", "other"):
        slide = apply(text, {"a": value})
        assert (slide.attributes, slide.problems) == ({}, ())


def test_values_are_split_before_and_after_the_value_table(apply: Apply) -> None:
    text = "[attributes]\nSoftwareVersions = { column = 'a', values = { x = 'X+Y', z = 'Z' }, split = '+' }"
    assert apply(text, {"a": "x + z"}).attributes == {"SoftwareVersions": ("X", "Y", "Z")}


def test_several_values_of_an_attribute_that_holds_one_are_invalid(apply: Apply) -> None:
    slide = apply("[attributes]\nPatientID = { value = ['a', 'b'] }", {})
    assert problems(slide) == [("invalid", 2, "", "PatientID")]


@pytest.mark.parametrize(
    ("policy", "severity", "value"),
    [("error", Severity.ERROR, None), ("drop", Severity.WARNING, None), ("clip", Severity.WARNING, "a" * 16)],
)
def test_what_is_too_long_is_never_clipped_silently(
    apply: Apply, policy: str, severity: Severity, value: str | None
) -> None:
    text = f"[attributes]\nEthnicGroup = {{ column = 'a', on_too_long = '{policy}' }}"
    slide = apply(text, {"a": "a" * 17})
    (problem,) = slide.problems
    assert (problem.kind, problem.severity, problem.keyword) == ("too-long", severity, "EthnicGroup")
    assert "17 characters, SH holds 16" in problem.message
    assert slide.attributes.get("EthnicGroup") == value
    assert slide.has_errors == (policy == "error")


def test_dates_units_and_ages_are_in_the_form_of_dicom(apply: Apply) -> None:
    text = """
        [attributes]
        StudyDate = { column = "visit date", date = "%m/%d/%Y" }
        PatientSize = { column = "height", unit = "m", from_unit = "cm" }
        PatientAge = { column = "age", unit = "days" }
        PatientName = "{name}"
        SeriesNumber = 3
    """
    slide = apply(text, {"visit date": "2/13/2020", "height": "172", "age": "20000", "name": "P1"})
    assert slide.attributes == {
        "StudyDate": "20200213",
        "PatientSize": "1.72",
        "PatientAge": "054Y",
        "PatientName": "P1^",
        "SeriesNumber": "3",
    }
    slide = apply(text, {"visit date": "13/2/2020", "height": "tall", "age": "-999"})
    assert [(each.kind, each.keyword) for each in slide.problems] == [
        ("invalid", "StudyDate"),
        ("invalid", "PatientSize"),
        ("invalid", "PatientAge"),
    ]


def test_private_attributes_and_sequences_are_kept_as_they_are(apply: Apply) -> None:
    text = """
        [attributes]
        '(0013,"CTP",10)' = { text = "{project}", vr = "LO" }
        [[attributes.OtherPatientIDsSequence]]
        when = { other = { present = true } }
        PatientID = "{other}"
        [[attributes.OtherPatientIDsSequence]]
        PatientID = "{project}"
        [attributes.ContainerComponentSequence]
        ContainerComponentTypeCodeSequence = "slide"
    """
    assert apply(text, {"project": "x"}).attributes == {
        '(0013,"CTP",10)': "x",
        "OtherPatientIDsSequence": ({"PatientID": "x"},),
        "ContainerComponentSequence": ({"ContainerComponentTypeCodeSequence": code("slide")},),
    }


def test_a_code_may_be_named_given_inline_looked_up_or_modified(apply: Apply) -> None:
    text = """
        [variables]
        organ = { column = "organ", codes = { l = "lung" } }
        [attributes]
        AdmittingDiagnosesCodeSequence = { code = { value = "X1", scheme = "99TEST", meaning = "A test" } }
        AnatomicRegionSequence = "{organ}"
        StudyDescription = "of {organ}"
        [specimen]
        SpecimenTypeCodeSequence = "slide"
        PrimaryAnatomicStructureSequence = { column = "organ", codes = "organs", modifier = [
            { column = "status", codes = { n = "normal" }, unmapped = "drop" },
            "neoplasm-primary",
        ] }
        [values.organs]
        l = { code = "lung" }
    """
    lung, primary = code("lung"), code("neoplasm-primary")
    slide = apply(text, {"organ": "L", "status": "?"})
    assert slide.problems == ()
    assert slide.attributes == {
        "AdmittingDiagnosesCodeSequence": Code("X1", "99TEST", "A test"),
        "AnatomicRegionSequence": lung,
        "StudyDescription": "of Lung",
    }
    assert slide.specimens[0]["PrimaryAnatomicStructureSequence"] == (
        {**code_item(lung), "PrimaryAnatomicStructureModifierSequence": primary},
    )
    normal = apply(text, {"organ": "L", "status": "N"}).specimens[0]["PrimaryAnatomicStructureSequence"]
    assert normal[0]["PrimaryAnatomicStructureModifierSequence"] == code("normal")


def test_a_name_that_is_no_code_is_unmapped(apply: Apply) -> None:
    slide = apply("[specimen]\nSpecimenTypeCodeSequence = '{a}'", {"a": "slyde"})
    assert problems(slide) == [("unmapped", 2, "a", "SpecimenTypeCodeSequence")]


def test_a_code_value_of_more_than_16_characters_is_a_long_code_value(apply: Apply) -> None:
    text = """
        [specimen]
        SpecimenTypeCodeSequence = { value = "12345678901234567", scheme = "99TEST", meaning = "Long" }
    """
    assert apply(text, {}).specimens[0]["SpecimenTypeCodeSequence"] == (
        {"LongCodeValue": "12345678901234567", "CodingSchemeDesignator": "99TEST", "CodeMeaning": "Long"},
    )


def test_preparation_steps_become_content_items_in_order(apply: Apply) -> None:
    text = """
        [attributes]
        ContainerIdentifier = "S1"
        [specimen]
        steps = ["section", "frozen", "staining"]
        [steps.section]
        container = "microscope-slide"
        type = "slide"
        parent = "{block}"
        parent_type = "gross-specimen"
        content = [{ concept = "sampling-method", value = "block-sectioning" }]
        [steps.frozen]
        when = { kind = "frozen" }
        content = [{ concept = "embedding-medium", value = "tissue-freezing-medium" }]
        [steps.staining]
        specimen = "{block}"
        content = [
            { concept = "processing-type", value = "staining" },
            { concept = "using-substance", value = { column = "dye", codes = { h = "hematoxylin-stain" } } },
            { concept = "using-substance", value = { text = "{note}" } },
            { concept = "using-substance", value = "water-soluble-eosin-stain", when = { note = { present = true } } },
            { concept = "dilution", value = { column = "dilution", unit = "ug/ml" } },
            { concept = { value = "111702", scheme = "DCM", meaning = "DateTime of processing" }, \
value = { column = "day", date = "%Y-%m-%d" } },
        ]
    """
    slide = apply(text, {"block": "B1", "kind": "ffpe", "dye": "H", "dilution": "0.5", "day": "2020-02-13"})
    assert slide.problems == ()

    def coded(concept: str, value: str) -> dict[str, object]:
        return {
            "ValueType": "CODE", "ConceptNameCodeSequence": code(concept), "ConceptCodeSequence": code(value)
        }  # fmt: skip

    def text_item(concept: str, value: str) -> dict[str, object]:
        return {"ValueType": "TEXT", "ConceptNameCodeSequence": code(concept), "TextValue": value}

    keyword = "SpecimenPreparationStepContentItemSequence"
    assert slide.specimens == (
        {
            "SpecimenPreparationSequence": (
                {
                    keyword: (
                        text_item("specimen-identifier", "S1"),
                        coded("specimen-container", "microscope-slide"),
                        coded("specimen-type", "slide"),
                        coded("sampling-method", "block-sectioning"),
                        text_item("parent-specimen-identifier", "B1"),
                        coded("parent-specimen-type", "gross-specimen"),
                    )
                },
                {
                    keyword: (
                        text_item("specimen-identifier", "B1"),
                        coded("processing-type", "staining"),
                        coded("using-substance", "hematoxylin-stain"),
                        {
                            "ValueType": "NUMERIC",
                            "ConceptNameCodeSequence": code("dilution"),
                            "NumericValue": "0.5",
                            "MeasurementUnitsCodeSequence": Code("ug/ml", "UCUM", "ug/ml"),
                        },
                        {
                            "ValueType": "DATETIME",
                            "ConceptNameCodeSequence": Code("111702", "DCM", "DateTime of processing"),
                            "DateTime": "20200213",
                        },
                    )
                },
            ),
            "SpecimenIdentifier": "S1",
        },
    )


SPECIMENS = """
    [attributes]
    PatientID = "{patient}"
    ContainerIdentifier = "{stem}"
    [specimen]
    SpecimenIdentifier = "{sample}"
    SpecimenLocalizationContentItemSequence = [
        { concept = "location-of-sampling-site", value = { text = "{place}" } },
    ]
"""


def test_several_rows_are_several_specimens_with_their_localization(apply: Apply) -> None:
    rows = [{"patient": "P", "sample": f"S{index}", "place": place} for index, place in enumerate(["left", "right"])]
    slide = apply(SPECIMENS, *rows, slide="a.ome.tif")
    assert slide.problems == ()
    assert (slide.container_identifier, slide.attributes["PatientID"]) == ("a", "P")
    assert [specimen["SpecimenIdentifier"] for specimen in slide.specimens] == ["S0", "S1"]
    assert [specimen["SpecimenLocalizationContentItemSequence"][0]["TextValue"] for specimen in slide.specimens] == [
        "left",
        "right",
    ]


def test_rows_of_one_slide_that_disagree_or_repeat_a_specimen_are_told(apply: Apply) -> None:
    slide = apply(SPECIMENS, {"patient": "P", "sample": "S"}, {"patient": "Q", "sample": "S"})
    assert problems(slide) == [
        ("inconsistent", 3, "patient", "PatientID"),
        ("duplicate", 3, "", "SpecimenIdentifier"),
    ]
    slide = apply(SPECIMENS, {"patient": "P", "sample": "S"}, {"patient": "P"})
    assert problems(slide) == [("missing", 3, "", "SpecimenIdentifier")]


def test_the_only_specimen_has_the_identifier_of_the_container(apply: Apply) -> None:
    slide = apply("[attributes]\nContainerIdentifier = 'C'", {})
    assert slide.specimens == ({"SpecimenIdentifier": "C"},)


JOINED = """
    [tables.sample]
    on = { "sample id" = "{sample.sample_id}" }
    [attributes]
    PatientID = "{sample:participant.participant_id}"
    EthnicGroup = { column = "sample:race" }
"""


def test_a_second_table_is_joined_by_equality(apply: Apply) -> None:
    samples = [{"Sample_ID": "S", "participant.participant_id": "P"}, {"Sample_ID": "S1"}]
    slide = apply(JOINED, {"sample.sample_id": "S"}, tables={"sample": samples})
    assert (slide.attributes, slide.problems) == ({"PatientID": "P"}, ())


def test_rows_that_a_second_table_lacks_or_has_twice_are_told(apply: Apply) -> None:
    samples = [{"sample_id": "S", "participant.participant_id": "P", "race": "x"}]
    samples += [{"sample_id": "S", "participant.participant_id": "Q", "race": "x"}]
    slide = apply(JOINED, {"sample.sample_id": "T"}, tables={"sample": samples})
    assert problems(slide) == [("no-row", 2, "sample.sample_id", "")]
    slide = apply(JOINED, {"sample.sample_id": "S"}, tables={"sample": samples})
    assert problems(slide) == [("ambiguous", 2, "sample:participant.participant_id", "")]
    assert slide.attributes == {"PatientID": "", "EthnicGroup": "x"}


def test_second_tables_are_asked_for_by_name_and_column(apply: Apply) -> None:
    with pytest.raises(UsageError, match="--table sample=FILE"):
        apply(JOINED, {})
    with pytest.raises(UsageError, match="--table other: the map knows no table of that name, wanted one of sample"):
        apply(JOINED, {}, tables={"sample": [{"sample_id": "S"}], "other": [{"a": "b"}]})
    with pytest.raises(UsageError, match=r"'sample\.csv': has no column 'sample id'"):
        apply(JOINED, {}, tables={"sample": [{"id": "S"}]})
    assert apply(JOINED.replace("[attr", "required = false\n[attr"), {}).problems == ()


def test_each_row_of_a_second_table_gives_a_step_and_an_optical_path(apply: Apply) -> None:
    text = """
        [tables.channel]
        on = { slide = "{stem}" }
        [variables]
        target = "{channel:target}"
        [specimen]
        SpecimenIdentifier = "S"
        steps = ["antibody"]
        [steps.antibody]
        each = "channel"
        content = [{ concept = "component-investigated", value = { text = "{target}" } }]
        [optical_path]
        each = "channel"
        OpticalPathDescription = "{target}"
        IlluminationWaveLength = { column = "channel:excitation" }
    """
    channels = [
        {"slide": "a", "target": "DNA", "excitation": "385"},
        {"slide": "b", "target": "CD3", "excitation": "475"},
        {"slide": "a", "target": "CD8", "excitation": "555"},
    ]
    slide = apply(text, {}, slide="a.tif", tables={"channel": channels})
    assert slide.problems == ()
    assert slide.optical_paths == (
        {"OpticalPathDescription": "DNA", "IlluminationWaveLength": 385.0},
        {"OpticalPathDescription": "CD8", "IlluminationWaveLength": 555.0},
    )
    assert slide.optical_paths[0] == slide.optical_paths[0]
    steps = slide.specimens[0]["SpecimenPreparationSequence"]
    found = [step["SpecimenPreparationStepContentItemSequence"][1]["TextValue"] for step in steps]
    assert found == ["DNA", "CD8"]


def test_clinical_trial_modules_are_whole_or_told(apply: Apply) -> None:
    slide = apply("[attributes]\nClinicalTrialProtocolID = 'TCGA-LUAD'\nClinicalTrialTimePointID = '{a}'", {})
    assert problems(slide) == [("missing", 2, "", "ClinicalTrialSponsorName")]
    assert slide.attributes == {
        "ClinicalTrialProtocolID": "TCGA-LUAD",
        "ClinicalTrialTimePointID": "",
        "ClinicalTrialProtocolName": "",
        "ClinicalTrialSiteID": "",
        "ClinicalTrialSiteName": "",
    }


def test_collection_facts_are_texts_and_lists_and_the_id_follows_from_the_protocol(apply: Apply) -> None:
    text = """
        [collection]
        name = "{project}"
        cancer_types = ["Lung", "{absent}", "Breast"]
        [attributes]
        ClinicalTrialProtocolID = "{project}"
        ClinicalTrialSponsorName = "TCGA"
    """
    assert apply(text, {"project": "TCGA-LUAD"}).collection == {
        "name": "TCGA-LUAD",
        "cancer_types": ("Lung", "Breast"),
        "collection_id": "tcga_luad",
    }
    own = text.replace("name =", "collection_id = 'own'\nname =")
    assert apply(own, {"project": "TCGA-LUAD"}).collection["collection_id"] == "own"


def test_every_value_tells_where_it_comes_from_and_curated_keywords_are_listed(apply: Apply) -> None:
    text = """
        [attributes]
        PatientSex = { column = "sex", values = { m = "M" } }
        [specimen]
        SpecimenIdentifier = ["{absent}", "S"]
        [optical_path]
        ObjectiveLensPower = { column = "zoom", match = '\\d+' }
    """
    slide = apply(text, {"sex": "m", "zoom": "40X"})
    assert slide.origins == {
        "PatientSex": "column sex, value table (m.toml: attributes.PatientSex)",
        "SpecimenDescriptionSequence[0].SpecimenIdentifier": 'text "S" (m.toml: specimen.SpecimenIdentifier[1])',
        "OpticalPathSequence[0].ObjectiveLensPower": "column zoom, match (m.toml: optical_path.ObjectiveLensPower)",
    }
    assert slide.curated_keywords == ("ObjectiveLensPower", "PatientSex", "SpecimenIdentifier")


def test_a_slide_without_a_row_has_what_its_name_tells(apply: Apply) -> None:
    slide = apply("[attributes]\nPatientID = { in = '{stem}', match = '^TCGA-\\w+-\\w+' }\nStudyID = '{a}'")
    assert slide.attributes == {"PatientID": "TCGA-05-4244", "StudyID": ""}
