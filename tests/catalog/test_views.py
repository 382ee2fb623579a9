"""The views are IDC's tables: the same columns, and the same rows as its own queries give."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import duckdb
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from tools.tables_page import SOURCES

from coverslip.catalog.index import IndexRequest, index_paths
from coverslip.converter.mapped import apply_mapped
from tests.catalog.idc_queries import QUERIES, query
from tests.factories.headers import code, slide_header, text_item, write_header
from tests.metadata_maps.collections.golden import table_of
from tests.metadata_maps.collections.test_htan import CHANNELS, htan

DUCKDB_TYPES = {"STRING": "VARCHAR", "INTEGER": "BIGINT", "FLOAT": "DOUBLE"}


def mapped_channels(folder: Path) -> None:
    """Write a slide with two channels as the map of HTAN describes it."""
    ds = slide_header("1.2.70", 1, SpecimenDescriptionSequence=Sequence([Dataset()]))
    path = ds.OpticalPathSequence[0]
    ds.OpticalPathSequence = Sequence([path, Dataset()])
    ds.OpticalPathSequence[1].update(path)
    told = htan({"Channel Metadata Filename": "channels/BEMS350173.csv"}, channel=table_of(*CHANNELS))
    apply_mapped(ds, told)
    for number in (1, 2):
        ds.SOPInstanceUID = f"1.2.70.{number}"
        write_header(folder, ds)


def odd_slides(folder: Path) -> None:
    """Write slides at which the queries might part: colons, several values, nothing, zero."""
    write_header(folder, slide_header("1.2.80", ContainerIdentifier=None, OpticalPathSequence=None))
    stained = Dataset()
    stained.SpecimenPreparationStepContentItemSequence = Sequence([])
    for meaning, value in (("b: x", "2"), ("a", "1"), ("a", "1")):
        item = Dataset()
        item.ValueType = "CODE"
        item.ConceptNameCodeSequence = Sequence([code("424361007", "SCT", "Using substance")])
        item.ConceptCodeSequence = Sequence([code(value, "SCT", meaning)])
        stained.SpecimenPreparationStepContentItemSequence.append(item)
    specimen = Dataset()
    specimen.SpecimenIdentifier = "S"
    specimen.SpecimenPreparationSequence = Sequence([stained])
    specimen.PrimaryAnatomicStructureSequence = Sequence([code("39607008", "SCT", "Lung: left")])
    second = Dataset()
    second.SpecimenIdentifier = "T"
    for number, specimens in ((1, [specimen]), (2, [specimen, second]), (3, [])):
        ds = slide_header("1.2.81", number, SpecimenDescriptionSequence=Sequence(specimens))
        ds.AdmittingDiagnosesCodeSequence = Sequence([code("2", "SCT", "B"), code("1", "SCT", "A")])
        ds.PatientAge = "" if number == 1 else "060Y"
        write_header(folder, ds, syntax="1.2.840.10008.1.2.4.50" if number < 3 else "1.2.840.10008.1.2.4.90")
    ds = slide_header("1.2.82", PixelSpacing=["0.00024689", "0.1"])
    write_header(folder, ds)
    ds = slide_header("1.2.83")
    ds.Modality, ds.SOPClassUID = "CT", "1.2.840.10008.5.1.4.1.1.2"
    ds.BodyPartExamined = "CHEST"
    write_header(folder, ds)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory, tcga_series: Path, shared: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """Converted slides, slides as a map tells of them, and all foreign ones."""
    folder = tmp_path_factory.mktemp("views")
    mapped_channels(folder / "in")
    odd_slides(folder / "in")
    paths = (str(folder / "in"), str(tcga_series), str(shared / "slides" / "dicom"))
    report = index_paths(IndexRequest(paths, str(folder / "catalog.duckdb")))
    assert report.failures == ()
    with duckdb.connect(str(folder / "catalog.duckdb"), read_only=True) as connection:
        yield connection


@pytest.mark.parametrize("name", QUERIES)
def test_idc_s_own_query_gives_the_rows_of_our_view(catalog, name: str) -> None:
    theirs = catalog.execute(query(name))
    columns, rows = [each[0] for each in theirs.description], theirs.fetchall()
    ours = catalog.execute(f"SELECT * FROM {name}")
    assert [each[0] for each in ours.description] == columns
    found = ours.fetchall()
    assert len(found) > 6
    assert sorted(map(repr, found)) == sorted(map(repr, rows))


@pytest.mark.parametrize("name", QUERIES)
def test_a_view_has_the_columns_and_types_that_idc_states(catalog, name: str) -> None:
    text = (resources.files("idc_index_data") / f"{name}_schema.json").read_text()
    stated = [
        (column["name"], DUCKDB_TYPES[column["type"]] + ("[]" if column["mode"] == "REPEATED" else ""))
        for column in json.loads(text)["columns"]
    ]
    assert [(row[0], row[1]) for row in catalog.execute(f"DESCRIBE {name}").fetchall()] == stated


def test_dicom_all_has_idc_s_columns_before_those_of_the_headers(catalog, shared: Path) -> None:
    schema = json.loads((shared / "idc" / "dicom_all.schema.json").read_text())["schema"]["fields"]
    names = [field["name"] for field in schema]
    first = names[: names.index("MediaStorageSOPClassUID")]
    found = [row[0] for row in catalog.execute("DESCRIBE dicom_all").fetchall()]
    assert found[: len(first)] == first
    assert len(found) == len(set(found))
    assert {"PatientID", "SpecimenDescriptionSequence", "Tag_00091004"} - set(found) == {"Tag_00091004"}


def test_a_power_that_is_no_integer_as_text_is_null_as_in_bigquery(tmp_path, index, ask) -> None:
    for number, power in enumerate(("20", "40.0", "x", "+63", " 5"), 1):
        path = Dataset()
        path.ObjectiveLensPower = "1"
        ds = slide_header(f"1.2.{number}", OpticalPathSequence=Sequence([path]))
        ds.OpticalPathSequence[0]["ObjectiveLensPower"]._value = power  # as a careless writer has it
        write_header(tmp_path / "in", ds)
    index(tmp_path / "in")
    texts = ask("SELECT OpticalPathSequence[1].ObjectiveLensPower FROM dicom_all ORDER BY SeriesInstanceUID")
    assert texts == [("20",), ("40.0",), ("x",), ("+63",), ("5",)]
    powers = ask("SELECT ObjectiveLensPower FROM sm_index ORDER BY SeriesInstanceUID")
    assert powers == [(20,), (None,), (None,), (63,), (5,)]


def test_our_converter_writes_a_power_that_idc_s_cast_takes(tcga_series: Path, catalog) -> None:
    texts = catalog.execute(
        "SELECT DISTINCT OpticalPathSequence[1].ObjectiveLensPower FROM dicom_all WHERE collection_id = 'tcga_luad'"
    ).fetchall()
    assert texts == [("40",)]
    assert dcmread(next(tcga_series.glob("*.dcm"))).OpticalPathSequence[0].ObjectiveLensPower.original_string == "40"


def test_each_optical_path_tells_its_target_antibody_fluorophore_and_wavelengths(catalog) -> None:
    rows = catalog.execute(
        """SELECT OpticalPathIdentifier, OpticalPathDescription, target, antibody, antibody_rrid, fluorophore, clone,
            dilution, cycle, staining_technique, excitation_wavelength_nm, emission_wavelength_nm,
            illuminationType_CodeMeaning, illuminationColor_CodeMeaning, ObjectiveLensPower,
            ObjectiveLensNumericalAperture
        FROM sm_channel_index WHERE SeriesInstanceUID = '1.2.70' ORDER BY 1"""
    ).fetchall()
    light = "Epifluorescence illumination", "Narrow", "20", "0.75"
    how = "Fluorescent staining"
    assert rows == [
        ("Channel:0:0", "DAPI", "DNA", "DAPI", None, None, None, None, "1", how, 395.0, 431.0, *light),
        (
            *("Channel:0:1", "CD45-2", "CD45", "Anti-CD45", "AB_394606", "Alexa Fluor 488", "HI30", "1:100", "2", how),
            *(485.0, 525.0),
            *light,
        ),
    ]


def test_every_slide_has_a_row_for_each_optical_path(catalog) -> None:
    expected = catalog.execute(
        """SELECT DISTINCT SeriesInstanceUID, path.OpticalPathIdentifier
        FROM dicom_all, unnest(OpticalPathSequence) AS _(path) WHERE Modality = 'SM' ORDER BY ALL"""
    ).fetchall()
    found = catalog.execute("SELECT SeriesInstanceUID, OpticalPathIdentifier FROM sm_channel_index ORDER BY ALL")
    assert found.fetchall() == expected


def test_every_specimen_and_step_has_a_row(catalog) -> None:
    rows = catalog.execute(
        """SELECT specimen_number, SpecimenIdentifier, step_number, usingSubstance_CodeMeaning,
            primaryAnatomicStructure_CodeMeaning
        FROM sm_specimen_index WHERE SeriesInstanceUID = '1.2.81' ORDER BY ALL"""
    ).fetchall()
    assert rows == [(1, "S", 1, ["b: x", "a", "a"], "Lung: left"), (2, "T", None, [], None)]
    steps = catalog.execute(
        """SELECT step_number, step_specimen_identifier, parent_specimen_identifier, processingType_CodeMeaning,
            step_method_CodeMeaning, tissueFixative_CodeMeaning, embeddingMedium_CodeMeaning, usingSubstance_CodeMeaning
        FROM sm_specimen_index WHERE SpecimenIdentifier = 'TCGA-05-4244-01Z-00-DX1' ORDER BY 1"""
    ).fetchall()
    slide, block, vial = "TCGA-05-4244-01Z-00-DX1", "TCGA-05-4244-01Z-00", "TCGA-05-4244-01Z"
    sampling = "Specimen Sampling"
    assert steps == [
        (1, "TCGA-05-4244-01", None, "Specimen Collection", "Removal", None, None, []),
        (2, vial, "TCGA-05-4244-01", sampling, "Sampling of tissue specimen", None, None, []),
        (3, block, vial, sampling, "Sampling of tissue specimen", None, None, []),
        (4, slide, block, sampling, "Block sectioning", None, None, []),
        (5, block, None, "Specimen processing", None, "Formalin", None, []),
        (6, block, None, "Specimen processing", None, None, "Paraffin wax", []),
        (7, slide, None, "Staining", None, None, None, ["hematoxylin stain", "water soluble eosin stain"]),
    ]


def test_a_stain_that_is_only_text_is_found(tmp_path, index, ask) -> None:
    step = Dataset()
    step.SpecimenPreparationStepContentItemSequence = Sequence(
        [text_item(code("424361007", "SCT", "Using substance"), "Antibodies")]
    )
    specimen = Dataset()
    specimen.SpecimenIdentifier = "S"
    specimen.SpecimenPreparationSequence = Sequence([step])
    write_header(tmp_path / "in", slide_header(SpecimenDescriptionSequence=Sequence([specimen])))
    index(tmp_path / "in")
    query = "SELECT usingSubstance_CodeMeaning, usingSubstance_code_designator_value_str FROM sm_specimen_index"
    assert ask(query) == [(["Antibodies"], [])]
    assert ask("SELECT staining_usingSubstance_CodeMeaning FROM sm_index") == [([],)]


def test_a_transfer_syntax_that_idc_refuses_has_a_name_here(tmp_path, index, ask) -> None:
    write_header(tmp_path / "in", slide_header(), syntax="1.2.840.10008.1.2.4.201")
    index(tmp_path / "in")
    assert ask("SELECT transfer_syntax_name FROM idc_index") == [
        ("High-Throughput JPEG 2000 Image Compression (Lossless Only)",)
    ]


def test_uuids_made_in_sql_are_those_of_the_converter(catalog) -> None:
    from coverslip.uuids import instance_uuid

    with duckdb.connect() as connection:
        from coverslip.catalog.views import UUID5_MACRO

        connection.execute(UUID5_MACRO)
        for number in range(50):
            (found,) = connection.execute("SELECT coverslip_uuid(?)", [f"1.2.{number}é"]).fetchone()
            assert found == instance_uuid(f"1.2.{number}", "é")


PATH = re.compile(
    r"`([A-Z][\w.\[\]*]+)`(?:: `CodingSchemeDesignator`, a colon, `CodeValue`)?(; ends at a colon in it)?"
)


def values_at(ds: Dataset, path: str) -> list[object]:
    """Return what stands at a path such as ``OpticalPathSequence[*].ObjectiveLensPower``, of all items."""
    first, _, rest = path.partition(".")
    keyword, bracket, place = first.rstrip("]").partition("[")
    value = ds.get(keyword)
    if value is None or value == "":
        return []
    if bracket:
        value = list(value) if place == "*" else list(value)[:1]
    if rest:
        return [found for item in value for found in values_at(item, rest)]
    return list(value) if bracket or isinstance(value, MultiValue) else [value]


def text_of(value: object) -> str:
    if isinstance(value, Dataset):
        parts = (value.get("CodingSchemeDesignator"), value.get("CodeValue"), value.get("CodeMeaning"))
        return ":".join(parts[:2]) if all(parts) else "None"
    if isinstance(value, int | float) and not hasattr(value, "original_string"):
        return repr(float(value))
    return str(getattr(value, "original_string", None) or value).replace("-", "")


@pytest.mark.parametrize(
    "table", ["idc_index", "sm_index", "sm_instance_index", "sm_channel_index", "sm_specimen_index"]
)
def test_a_column_that_is_said_to_come_from_an_attribute_has_its_value(catalog, table: str) -> None:
    key = "SOPInstanceUID" if table == "sm_instance_index" else "SeriesInstanceUID"
    files: dict[str, list[Dataset]] = {}
    for uid, location in catalog.execute(f"SELECT {key}, location FROM instances").fetchall():
        files.setdefault(uid, []).append(dcmread(location, stop_before_pixels=True))
    simple = {name: found for name, text in SOURCES[table].items() if (found := PATH.fullmatch(text))}
    assert len(simple) > 5
    rows = catalog.execute(f"SELECT * FROM {table}")
    names = [column[0] for column in rows.description]
    seen = set()
    for row in rows.fetchall():
        told = dict(zip(names, row, strict=True))
        for name, matched in simple.items():
            path, cut = matched.groups()
            headers = [{**ds.file_meta, **ds} for ds in files[told[key]]]
            there = {text_of(value) for ds in headers for value in values_at(Dataset(ds), path)}
            if cut and name.endswith("CodeMeaning"):
                there = {text.partition(":")[0] for text in there}
            value = told[name]
            if value is None or value == []:
                assert "*" in path or not there - {"", "None"} or name.startswith("primary"), (name, there)
                continue
            seen.add(name)
            found = value if isinstance(value, list) else [value]
            assert {text_of(each) for each in found} <= there, (name, path)
    assert len(seen) > len(simple) / 2
