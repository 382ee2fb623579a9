"""Write docs/tables.md, the page of all tables and columns with the source of each: ``make tables``.

Tables, columns and types are those of a new catalog; `SOURCES` says where each comes from, and a test asks headers
whether that is true.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from coverslip.catalog.columns import ColumnTree
from coverslip.catalog.database import make_tables, open_catalog
from coverslip.catalog.export_rules import MAX_DEPTH

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tables.md"
HEADERS = "dicom_metadata"


COLON = "; ends at a colon in it"
"""A rule that IDC's queries have."""


def _same(names: str) -> dict[str, str]:
    """Return sources of columns that are called what their attribute is."""
    return {name: f"`{name}`" for name in names.split()}


def _code(prefix: str, path: str, rule: str = "") -> dict[str, str]:
    return {
        f"{prefix}_CodeMeaning": f"`{path}.CodeMeaning`{rule}",
        f"{prefix}_code_designator_value_str": (f"`{path}`: `CodingSchemeDesignator`, a colon, `CodeValue`{rule}"),
    }


def _prepared(prefix: str, concept: str, rule: str) -> dict[str, str]:
    return {
        f"{prefix}_CodeMeaning": f"preparation steps, concept {concept}: `CodeMeaning`; {rule}",
        f"{prefix}_code_designator_value_str": f"preparation steps, concept {concept}: the code; {rule}",
    }


def _versions(thing: str) -> dict[str, str]:
    return {
        "init_version": f"first version of the catalog that had this {thing}",
        "revised_version": f"version in which this {thing} became as it is",
        "final_version": "last version in which it was so; 0 while it is",
    }


def _idc_versions(level: str, *, final: bool = True) -> dict[str, str]:
    told = {
        f"{level}_init_idc_version": f"first version of the catalog that had this {level}",
        f"{level}_revised_idc_version": f"version in which this {level} became as it is",
        f"{level}_final_idc_version": "last version in which it was so; 0 while it is",
    }
    return told if final else {name: text for name, text in told.items() if "_final_" not in name}


_STEP = "`SpecimenDescriptionSequence[*].SpecimenPreparationSequence[*].SpecimenPreparationStepContentItemSequence`"
_FIRST = "of the first specimen, distinct and sorted"
_FACT = "the collection's facts: {0}"
_HASH_OF = "MD5 of the sorted, concatenated hashes of its {0}; NULL if one is not known"
_COLLECTION_ID = (
    "the collection's facts: collection_id; else `ClinicalTrialProtocolID`, or what the Clinical Trial Processor "
    "noted, in lower case with `_` for `-`"
)
_INSTANCE_UUID = "UUID version 5 of SOP Instance UID and MD5, or as the object's name tells"
_SERIES_UUID = "UUID version 5 of Series Instance UID and series_hash, or as the objects' names tell"
_STUDY_UUID = "UUID version 5 of Study Instance UID and study_hash"
_CASE = "UUID version 5 of collection, patient and patient_hash"
_MD5 = "MD5 of the file: of conversion.json or the store, else of its bytes"
_SIZE = "size of the file in bytes"
_URLS = {
    "gcs_url": "where the object lies, if in a bucket at Google",
    "gcs_bucket": "of gcs_url",
    "aws_url": "where the object lies, if in a bucket of S3",
    "aws_bucket": "of aws_url",
}
_SERIES_URLS = {
    "series_gcs_url": "the folder of all of its objects, if they have one, at Google",
    "series_aws_url": "the folder of all of its objects, if they have one, in S3",
}
_LICENSE = {name: _FACT.format(name) for name in ("license_url", "license_long_name", "license_short_name")}
_UIDS = "SOPInstanceUID SeriesInstanceUID StudyInstanceUID PatientID"
_PREPARATION = {
    **_prepared("embeddingMedium", "SCT 430863003", _FIRST),
    **_prepared("tissueFixative", "SCT 430864009", _FIRST),
    **_prepared("staining_usingSubstance", "SCT 424361007", _FIRST),
}
_ANATOMY = "SpecimenDescriptionSequence[{0}].PrimaryAnatomicStructureSequence[0]"
_MODIFIER = f"{_ANATOMY}.PrimaryAnatomicStructureModifierSequence[0]"
_SPECIMEN = "SpecimenDescriptionSequence[*]"
_PATH = "OpticalPathSequence[*]"
_OF_CHANNEL = "of the step that names this channel (NCIt C44170)"
_ALL = "; all of them, sorted, with commas between"

_AUXILIARY = {
    "collection_name": _FACT.format("name"),
    "collection_id": _COLLECTION_ID,
    "collection_timestamp": "date of the version in which the collection became as it is",
    "collection_hash": _HASH_OF.format("patients"),
    **_idc_versions("collection"),
    "PatientID": "`PatientID`",
    "idc_case_id": _CASE,
    "patient_hash": _HASH_OF.format("studies"),
    **_idc_versions("patient"),
    "StudyInstanceUID": "`StudyInstanceUID`",
    "study_uuid": _STUDY_UUID,
    "study_instances": "number of its instances",
    "study_hash": _HASH_OF.format("series"),
    **_idc_versions("study"),
    "SeriesInstanceUID": "`SeriesInstanceUID`",
    "series_uuid": _SERIES_UUID,
    **_SERIES_URLS,
    "series_instances": "number of its instances",
    "series_hash": _HASH_OF.format("instances"),
    **_idc_versions("series"),
    "source_DOI": _FACT.format("source_doi"),
    "source_URL": _FACT.format("source_url"),
    "versioned_Source_DOI": _FACT.format("versioned_source_doi"),
    "analysis_result_id": _FACT.format("analysis_result_id"),
    "SOPInstanceUID": "`SOPInstanceUID`",
    "instance_uuid": _INSTANCE_UUID,
    "instance_size": _SIZE,
    "instance_hash": _MD5,
    **_idc_versions("instance"),
    **_URLS,
    "access": _FACT.format("access"),
    **_LICENSE,
}

SOURCES: dict[str, dict[str, str]] = {
    "idc_index": {
        "collection_id": _COLLECTION_ID,
        "analysis_result_id": _FACT.format("analysis_result_id"),
        **_same("PatientID SeriesInstanceUID StudyInstanceUID"),
        "source_DOI": _FACT.format("source_doi"),
        **_same(
            "PatientAge PatientSex StudyDate StudyDescription BodyPartExamined Modality SOPClassUID Manufacturer "
            "ManufacturerModelName SeriesDate SeriesDescription SeriesNumber"
        ),
        "sop_class_name": "name of SOPClassUID",
        "TransferSyntaxUID": f"`TransferSyntaxUID`{_ALL}",
        "transfer_syntax_name": f"IDC's names of these, else those of the standard{_ALL}",
        "PhotometricInterpretation": f"`PhotometricInterpretation`{_ALL}",
        "PixelRepresentation": f"`PixelRepresentation`{_ALL}",
        "instanceCount": "number of its instances",
        "license_short_name": _FACT.format("license_short_name"),
        **_idc_versions("series", final=False),
        "aws_bucket": "of the objects, if they lie in S3",
        "crdc_series_uuid": _SERIES_UUID,
        "series_aws_url": "the folder of all of its objects in S3, and `*`",
        "series_size_MB": "sum of the sizes of its files, in 1,000,000 bytes",
    },
    "sm_index": {
        **_same("SeriesInstanceUID ContainerIdentifier"),
        **_PREPARATION,
        "min_PixelSpacing_2sf": (
            "smallest `PixelSpacing[0]`, else `SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]."
            "PixelSpacing[0]`; millimetres, two figures"
        ),
        "max_TotalPixelMatrixColumns": "largest `TotalPixelMatrixColumns`, else `Columns`",
        "max_TotalPixelMatrixRows": "largest `TotalPixelMatrixRows`, else `Rows`",
        "ObjectiveLensPower": "`OpticalPathSequence[0].ObjectiveLensPower`, NULL unless its text is an integer",
        **_code("primaryAnatomicStructure", _ANATOMY.format(0), COLON),
        **_code("primaryAnatomicStructureModifier", _MODIFIER.format(0), COLON),
        **_code("illuminationType", "OpticalPathSequence[0].IlluminationTypeCodeSequence[0]", COLON),
        **_code("admittingDiagnosis", "AdmittingDiagnosesCodeSequence[0]", COLON),
    },
    "sm_instance_index": {
        **_same("SOPInstanceUID SeriesInstanceUID"),
        **_PREPARATION,
        "PixelSpacing_0": "`SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing[0]`",
        **_same("ImageType TransferSyntaxUID TotalPixelMatrixColumns TotalPixelMatrixRows"),
        "instance_size": _SIZE,
        "crdc_instance_uuid": _INSTANCE_UUID,
    },
    "sm_channel_index": {
        "SeriesInstanceUID": "`SeriesInstanceUID`",
        "OpticalPathIdentifier": f"`{_PATH}.OpticalPathIdentifier`",
        "OpticalPathDescription": f"`{_PATH}.OpticalPathDescription`",
        "target": f"preparation steps, concept SCT 246094008, {_OF_CHANNEL}",
        "antibody": f"preparation steps, concept SCT 424361007, without the RRID, {_OF_CHANNEL}",
        "antibody_rrid": f"`AB_` and digits in that text, {_OF_CHANNEL}",
        "fluorophore": f"preparation steps, concept NCIt C2480 or UMLS C0598447, {_OF_CHANNEL}",
        "clone": f"preparation steps, concept NCIt C37925, {_OF_CHANNEL}",
        "dilution": f"preparation steps, concept UMLS or NCIt C4281604, {_OF_CHANNEL}",
        "cycle": f"preparation steps, concept NCIt C25472, {_OF_CHANNEL}",
        "staining_technique": f"preparation steps, concept SCT 703857004, {_OF_CHANNEL}",
        "excitation_wavelength_nm": f"`{_PATH}.IlluminationWaveLength`",
        "emission_wavelength_nm": f"`{_PATH}.LightPathFilterPassThroughWavelength`",
        **_code("illuminationType", f"{_PATH}.IlluminationTypeCodeSequence[0]", COLON),
        **_code("illuminationColor", f"{_PATH}.IlluminationColorCodeSequence[0]", COLON),
        "ObjectiveLensPower": f"`{_PATH}.ObjectiveLensPower`",
        "ObjectiveLensNumericalAperture": f"`{_PATH}.ObjectiveLensNumericalAperture`",
    },
    "sm_specimen_index": {
        "SeriesInstanceUID": "`SeriesInstanceUID`",
        "specimen_number": "place of the specimen in `SpecimenDescriptionSequence`, from 1",
        **{
            name: f"`{_SPECIMEN}.{name}`"
            for name in "SpecimenIdentifier SpecimenUID SpecimenShortDescription SpecimenDetailedDescription".split()
        },
        **_code("specimenType", f"{_SPECIMEN}.SpecimenTypeCodeSequence[0]"),
        **_code("primaryAnatomicStructure", _ANATOMY.format("*")),
        **_code("primaryAnatomicStructureModifier", _MODIFIER.format("*")),
        "step_number": "place of the step in `SpecimenPreparationSequence`, from 1; NULL without steps",
        "step_specimen_identifier": "content of the step, concept DCM 121041",
        "parent_specimen_identifier": "content of the step, concept DCM 111705",
        **_prepared("processingType", "DCM 111701", "of the step"),
        **_prepared("step_method", "DCM 111704, SCT 17636008 or SCT 703857004", "of the step"),
        **_prepared("tissueFixative", "SCT 430864009", "of the step"),
        **_prepared("embeddingMedium", "SCT 430863003", "of the step"),
        **_prepared("usingSubstance", "SCT 424361007", "of the step, in its order"),
        "content": f"every item of {_STEP}: concept, value, and their codes",
    },
    "auxiliary_metadata": _AUXILIARY,
    "original_collections_metadata": {
        "collection_name": _FACT.format("name"),
        "collection_id": _COLLECTION_ID,
        **{name: _FACT.format(name) for name in ("cancer_types", "tumor_locations", "subjects", "species")},
        "sources": "the collection's facts: collection_id, source_doi, source_url, license and access",
        **{name: _FACT.format(name) for name in ("supporting_data", "program_id", "status", "description")},
        "updated": "date of the version in which the collection became as it is",
    },
    "analysis_results_metadata": {
        **{
            name: _FACT.format(name)
            for name in (
                "analysis_result_id",
                "analysis_result_title",
                "source_doi",
                "source_url",
                "license_url",
                "license_long_name",
                "license_short_name",
                "description",
                "citation",
            )
        },
        "subjects": "number of patients with such series",
        "collections": "collections with such series",
        "modalities": "modalities of such series",
        "updated": "always NULL",
    },
    "conversions": {
        "SeriesInstanceUID": "conversion.json: series_instance_uid",
        **{
            name: f"conversion.json: {place}"
            for name, place in {
                "coverslip_version": "coverslip_version",
                "output_format": "output_format",
                "source_format": "source.format",
                "source_sha256": "source.sha256",
                "source_files": "source.files",
                "source_bytes": "source.bytes",
                "replaces_SeriesInstanceUID": "replaces.series_instance_uid",
                "replaces_reason": "replaces.reason",
                "curated": "curated",
                "instances": "instances",
                "findings": "findings",
                "validation_mode": "validation.mode",
                "validation_profile": "validation.profile",
                "validation_passed": "validation.passed",
                "validation_counts": "validation.counts",
            }.items()
        },
        **{name: text for name, text in _versions("statement").items() if name != "init_version"},
    },
    "instances": {
        **_same(_UIDS),
        "collection_id": _COLLECTION_ID,
        "instance_uuid": _INSTANCE_UUID,
        "instance_hash": _MD5,
        "instance_size": _SIZE,
        "content_key": "what tells its versions apart: instance_hash, else the MD5 of its row and size",
        "location": "path or URL that it was read from",
        **_URLS,
        "drops": "what of its header has no column, and why",
        **_versions("instance"),
    },
    "series": {
        **_same("SeriesInstanceUID StudyInstanceUID PatientID"),
        "collection_id": _COLLECTION_ID,
        "series_uuid": _SERIES_UUID,
        "series_hash": _HASH_OF.format("instances"),
        "series_instances": "number of its instances",
        "content_key": "what tells its versions apart",
        **_SERIES_URLS,
        **{
            name: _FACT.format(name)
            for name in ("source_doi", "source_url", "versioned_source_doi", "analysis_result_id")
        },
        **_LICENSE,
        **_versions("series"),
    },
    "studies": {
        **_same("StudyInstanceUID PatientID"),
        "collection_id": _COLLECTION_ID,
        "study_uuid": _STUDY_UUID,
        "study_hash": _HASH_OF.format("series"),
        "study_instances": "number of its instances",
        "content_key": "what tells its versions apart",
        **_versions("study"),
    },
    "patients": {
        "PatientID": "`PatientID`",
        "collection_id": _COLLECTION_ID,
        "idc_case_id": _CASE,
        "patient_hash": _HASH_OF.format("studies"),
        "content_key": "what tells its versions apart",
        **_versions("patient"),
    },
    "collections": {
        "collection_id": _COLLECTION_ID,
        "collection_hash": _HASH_OF.format("patients"),
        "content_key": "what tells its versions apart",
        **_versions("collection"),
    },
    "versions": {
        "version": "`--catalog-version`, else the next number",
        "label": "`--version-label`",
        "version_date": "`--version-date`",
    },
    "tombstones": {
        "SeriesInstanceUID": "`SERIES` of `coverslip retract`",
        "reason": "`--reason` of `coverslip retract`",
        "version": "version in which it was taken out",
    },
    "schema_changes": {
        "version": "version in which a column was added",
        "table_name": "always dicom_metadata",
        "path": "name of the column, with those of the records around it",
        "type": "BigQuery's type",
        "mode": "BigQuery's mode",
    },
    "export_drops": {
        **_same("SOPInstanceUID SeriesInstanceUID"),
        "path": "what of the header has no column, with the sequences around it",
        "reason": "why: binary, unknown, nested too deep, 1 MiB or more, per frame, or the type that it does not fit",
    },
    "dicom_metadata_curated": _same("SOPInstanceUID SeriesInstanceUID BodyPartExamined"),
}

_OF_DICOM_ALL = {
    "collection_tumorLocation": _FACT.format("tumor_locations"),
    "collection_species": _FACT.format("species"),
    "collection_cancerType": _FACT.format("cancer_types"),
    "crdc_study_uuid": _STUDY_UUID,
    "crdc_series_uuid": _SERIES_UUID,
    "crdc_instance_uuid": _INSTANCE_UUID,
    "Source_DOI": _FACT.format("source_doi"),
    "Source_URL": _FACT.format("source_url"),
    "Versioned_Source_DOI": _FACT.format("versioned_source_doi"),
}
_NOT_OF_DICOM_ALL = frozenset(
    """
    PatientID StudyInstanceUID SeriesInstanceUID SOPInstanceUID study_uuid series_uuid instance_uuid study_instances
    series_instances source_DOI source_URL versioned_Source_DOI collection_final_idc_version patient_final_idc_version
    study_final_idc_version series_final_idc_version instance_final_idc_version
    """.split()
)
SOURCES["dicom_all"] = {
    **{name: source for name, source in _AUXILIARY.items() if name not in _NOT_OF_DICOM_ALL},
    **_OF_DICOM_ALL,
}

ABOUT = {
    "idc_index": "One row per series, with IDC's columns.",
    "sm_index": "One row per slide, with IDC's columns. What comes from a sequence is the smallest of all instances.",
    "sm_instance_index": "One row per instance of a slide, with IDC's columns.",
    "sm_channel_index": "One row per optical path of a slide.",
    "sm_specimen_index": "One row per preparation step of each specimen of a slide; one for a specimen without steps.",
    "auxiliary_metadata": "One row per instance: identities, versions, places and license.",
    "original_collections_metadata": "One row per collection.",
    "analysis_results_metadata": "One row per analysis result that series name.",
    "conversions": "One row per series that has a conversion.json.",
    "instances": "One row per instance.",
    "series": "One row per series.",
    "studies": "One row per study of a patient.",
    "patients": "One row per patient of a collection.",
    "collections": "One row per collection.",
    "versions": "One row per version of the catalog.",
    "tombstones": "One row per series that was retracted.",
    "schema_changes": "One row per column that was added to those that are pinned.",
    "export_drops": "One row per element that is not in dicom_metadata.",
    "dicom_metadata_curated": "For IDC's queries, which read this table too.",
    "dicom_all": "One row per instance: these columns, then those of dicom_metadata that are not among them.",
}

HEAD = f"""# Tables and columns

Made by `make tables` from the code; tests compare it with the tables, and sources with headers. Types are DuckDB's.
`[0]` is the first item of a sequence or value, `[*]` stands for all of them. Where the instances of a series differ, a
column of a series has the smallest value, unless it says otherwise. Every table shows the current version, or that of
`--as-of`. The *collection's facts* are what the map says of a collection, from `conversion.json`, or the file of
`--facts`.
*Preparation steps* are the items of
{_STEP}.

## dicom_metadata

One row per instance: its header, by the rules by which the Healthcare API exports to BigQuery.

- A column is named by the keyword of its attribute; the file meta information is included. {{count}} attributes of the
  top level are pinned; others are added when a header has them, which `schema_changes` tells. No column is taken away.
- The type follows from the value representation in the dictionary: AE AS CS LO LT SH ST UC UI UR UT DS IS are strings,
  AT SL SS UL US SV UV integers, FL FD floats, DA dates, TM times, DT timestamps; PN is a record of `Alphabetic`,
  `Ideographic` and `Phonetic`, each of `FamilyName`, `GivenName`, `MiddleName`, `NamePrefix` and `NameSuffix`.
- An attribute with a value multiplicity other than 1 is a list; a sequence is a list of records.
- Private elements are `OtherElements`, records of `Tag` (`Tag_GGGGEEEE`) and `Data`, at their level; private sequences
  are columns `Tag_GGGGEEEE`. Repeating groups (50xx, 60xx) are lists of `Id` and `Value`.
- Not in the table, and told by `export_drops`: binary values, per-frame functional groups, what is nested deeper than
  {MAX_DEPTH}, sequences of 1 MiB or more, unknown elements, and values that do not fit their type.
"""


def describe_catalog() -> dict[str, list[tuple[str, str]]]:
    """Return the columns and types of every table and view of a new catalog."""
    with tempfile.TemporaryDirectory() as folder, open_catalog(Path(folder) / "catalog.duckdb") as connection:
        make_tables(connection)
        names = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'")
        return {
            name: [(row[0], row[1]) for row in connection.execute(f"DESCRIBE {name}").fetchall()]
            for (name,) in names.fetchall()
        }


def tables_page() -> str:
    """Return the text of docs/tables.md."""
    tables = describe_catalog()
    pinned = sum(1 for field in ColumnTree().fields() if field.name != "OtherElements")
    lines = [HEAD.replace("{count}", str(pinned))]
    for table, about in ABOUT.items():
        lines += [f"## {table}", "", about, "", "| column | type | source |", "|---|---|---|"]
        lines += _rows(tables[table], SOURCES[table])
        lines.append("")
    return "\n".join(lines)


def _rows(columns: list[tuple[str, str]], sources: Mapping[str, str]) -> Iterator[str]:
    headers = {field.name for field in ColumnTree().fields()}
    for name, kind in columns:
        if name not in sources and name in headers:
            continue  # dicom_all goes on with the columns of dicom_metadata
        yield f"| {name} | {_short(kind)} | {sources[name]} |"


def _short(kind: str) -> str:
    """Return a type with the names of a record's columns and without their types."""
    found = re.fullmatch(r"STRUCT\((.*)\)((?:\[\])?)", kind)
    if not found:
        return kind
    inner = re.sub(r"STRUCT\([^)]*\)", "STRUCT", found[1])
    names = [part.strip().split(" ")[0].strip('"') for part in inner.split(",")]
    return f"STRUCT{found[2]} of {', '.join(names)}"


if __name__ == "__main__":
    PAGE.write_text(tables_page(), encoding="utf-8")
