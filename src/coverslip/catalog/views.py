"""The views of a catalog: what users query, in DuckDB's SQL.

All of them show the current version, or the one that the variable `as_of` holds: ``SET VARIABLE as_of = 3``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from coverslip.catalog.schema import Field, quote
from coverslip.catalog.tables import DERIVED_TABLES, DICOM_METADATA, STORED_TABLES
from coverslip.uuids import NAMESPACE

__all__ = ["UUID5_MACRO", "VALID", "create_views", "view_queries"]

_LATEST = "2147483647"
_AS_OF = f"coalesce(getvariable('as_of'), {_LATEST})"
VALID = f"revised_version <= {_AS_OF} AND (final_version = 0 OR final_version >= {_AS_OF})"
"""Of which rows of `history` the views are made."""

# RFC 9562, 5.5: SHA-1 of the namespace's 16 bytes and the name, with version and variant set. UUIDs made here are those
# of conversion.json.
UUID5_MACRO = f"""
    CREATE MACRO IF NOT EXISTS coverslip_uuid(name) AS (
        WITH hashed AS (SELECT sha1(unhex('{NAMESPACE.hex}') || encode(name)) AS hex)
        SELECT substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-5' || substr(hex, 14, 3) || '-' ||
            substr('89ab', (instr('0123456789abcdef', substr(hex, 17, 1)) - 1) % 4 + 1, 1) ||
            substr(hex, 18, 3) || '-' || substr(hex, 21, 12)
        FROM hashed)"""

_SAME_PATIENT = (
    "{0}.collection_id IS NOT DISTINCT FROM {1}.collection_id AND {0}.PatientID IS NOT DISTINCT FROM {1}.PatientID"
)

_AUXILIARY = f"""
    SELECT facts.name AS collection_name, instances.collection_id AS collection_id,
        CAST(versions.version_date AS TIMESTAMP) AS collection_timestamp,
        collections.collection_hash AS collection_hash,
        collections.init_version AS collection_init_idc_version,
        collections.revised_version AS collection_revised_idc_version,
        collections.final_version AS collection_final_idc_version,
        instances.PatientID AS PatientID, patients.idc_case_id AS idc_case_id, patients.patient_hash AS patient_hash,
        patients.init_version AS patient_init_idc_version, patients.revised_version AS patient_revised_idc_version,
        patients.final_version AS patient_final_idc_version,
        instances.StudyInstanceUID AS StudyInstanceUID, studies.study_uuid AS study_uuid,
        studies.study_instances AS study_instances, studies.study_hash AS study_hash,
        studies.init_version AS study_init_idc_version, studies.revised_version AS study_revised_idc_version,
        studies.final_version AS study_final_idc_version,
        instances.SeriesInstanceUID AS SeriesInstanceUID, series.series_uuid AS series_uuid,
        series.series_gcs_url AS series_gcs_url, series.series_aws_url AS series_aws_url,
        series.series_instances AS series_instances, series.series_hash AS series_hash,
        series.init_version AS series_init_idc_version, series.revised_version AS series_revised_idc_version,
        series.final_version AS series_final_idc_version,
        series.source_doi AS source_DOI, series.source_url AS source_URL,
        series.versioned_source_doi AS versioned_Source_DOI, series.analysis_result_id AS analysis_result_id,
        instances.SOPInstanceUID AS SOPInstanceUID, instances.instance_uuid AS instance_uuid,
        instances.instance_size AS instance_size, instances.instance_hash AS instance_hash,
        instances.init_version AS instance_init_idc_version,
        instances.revised_version AS instance_revised_idc_version,
        instances.final_version AS instance_final_idc_version,
        instances.gcs_url AS gcs_url, instances.gcs_bucket AS gcs_bucket,
        instances.aws_url AS aws_url, instances.aws_bucket AS aws_bucket,
        facts.access AS access, series.license_url AS license_url,
        series.license_long_name AS license_long_name, series.license_short_name AS license_short_name
    FROM instances
    LEFT JOIN series ON series.SeriesInstanceUID = instances.SeriesInstanceUID
    LEFT JOIN studies ON studies.StudyInstanceUID = instances.StudyInstanceUID
        AND {_SAME_PATIENT.format("studies", "instances")}
    LEFT JOIN patients ON {_SAME_PATIENT.format("patients", "instances")}
    LEFT JOIN collections ON collections.collection_id IS NOT DISTINCT FROM instances.collection_id
    LEFT JOIN history.collection_facts AS facts ON facts.collection_id = instances.collection_id
    LEFT JOIN versions ON versions.version = collections.revised_version"""

_DICOM_ALL_FIRST = {
    "collection_name": "aux.collection_name",
    "collection_id": "aux.collection_id",
    "collection_timestamp": "aux.collection_timestamp",
    "collection_hash": "aux.collection_hash",
    "collection_init_idc_version": "aux.collection_init_idc_version",
    "collection_revised_idc_version": "aux.collection_revised_idc_version",
    "collection_tumorLocation": "array_to_string(facts.tumor_locations, ', ')",
    "collection_species": "array_to_string(facts.species, ', ')",
    "collection_cancerType": "array_to_string(facts.cancer_types, ', ')",
    "access": "aux.access",
    "idc_case_id": "aux.idc_case_id",
    "patient_hash": "aux.patient_hash",
    "patient_init_idc_version": "aux.patient_init_idc_version",
    "patient_revised_idc_version": "aux.patient_revised_idc_version",
    "crdc_study_uuid": "aux.study_uuid",
    "study_hash": "aux.study_hash",
    "study_init_idc_version": "aux.study_init_idc_version",
    "study_revised_idc_version": "aux.study_revised_idc_version",
    "crdc_series_uuid": "aux.series_uuid",
    "series_gcs_url": "aux.series_gcs_url",
    "series_aws_url": "aux.series_aws_url",
    "series_hash": "aux.series_hash",
    "series_init_idc_version": "aux.series_init_idc_version",
    "series_revised_idc_version": "aux.series_revised_idc_version",
    "crdc_instance_uuid": "aux.instance_uuid",
    "instance_hash": "aux.instance_hash",
    "instance_size": "aux.instance_size",
    "instance_init_idc_version": "aux.instance_init_idc_version",
    "instance_revised_idc_version": "aux.instance_revised_idc_version",
    "gcs_url": "aux.gcs_url",
    "gcs_bucket": "aux.gcs_bucket",
    "aws_url": "aux.aws_url",
    "aws_bucket": "aux.aws_bucket",
    "Source_DOI": "aux.source_DOI",
    "Source_URL": "aux.source_URL",
    "Versioned_Source_DOI": "aux.versioned_Source_DOI",
    "analysis_result_id": "aux.analysis_result_id",
    "license_url": "aux.license_url",
    "license_long_name": "aux.license_long_name",
    "license_short_name": "aux.license_short_name",
}
"""Columns of `dicom_all` before those of the headers, named and ordered as IDC's."""

_COLLECTIONS = """
    SELECT facts.name AS collection_name, collections.collection_id AS collection_id,
        array_to_string(facts.cancer_types, ', ') AS cancer_types,
        array_to_string(facts.tumor_locations, ', ') AS tumor_locations,
        TRY_CAST(facts.subjects AS BIGINT) AS subjects, array_to_string(facts.species, ', ') AS species,
        CASE WHEN facts.collection_id IS NOT NULL THEN [struct_pack(
            source_id := facts.collection_id, source_doi := facts.source_doi, source_url := facts.source_url,
            license := struct_pack(license_url := facts.license_url, license_long_name := facts.license_long_name,
                license_short_name := facts.license_short_name),
            "Access" := facts.access)] ELSE [] END AS sources,
        facts.supporting_data AS supporting_data, facts.program_id AS program_id, facts.status AS status,
        versions.version_date AS updated, facts.description AS description
    FROM collections
    LEFT JOIN history.collection_facts AS facts ON facts.collection_id = collections.collection_id
    LEFT JOIN versions ON versions.version = collections.revised_version"""

_ANALYSIS_RESULTS = """
    SELECT facts.analysis_result_id AS analysis_result_id, facts.analysis_result_title AS analysis_result_title,
        facts.source_doi AS source_doi, facts.source_url AS source_url, counted.subjects AS subjects,
        counted.collections AS collections, counted.modalities AS modalities, CAST(NULL AS DATE) AS updated,
        facts.license_url AS license_url, facts.license_long_name AS license_long_name,
        facts.license_short_name AS license_short_name, facts.description AS description, facts.citation AS citation
    FROM history.analysis_result_facts AS facts
    JOIN (
        SELECT series.analysis_result_id AS analysis_result_id,
            count(DISTINCT series.collection_id || '/' || series.PatientID) AS subjects,
            string_agg(DISTINCT series.collection_id, ', ' ORDER BY series.collection_id) AS collections,
            string_agg(DISTINCT idc.Modality, ', ' ORDER BY idc.Modality) AS modalities
        FROM series LEFT JOIN idc_index AS idc ON idc.SeriesInstanceUID = series.SeriesInstanceUID
        GROUP BY series.analysis_result_id
    ) AS counted ON counted.analysis_result_id = facts.analysis_result_id"""

_IDC_INDEX = f"""
    SELECT series.collection_id AS collection_id, series.analysis_result_id AS analysis_result_id,
        index.PatientID AS PatientID, index.SeriesInstanceUID AS SeriesInstanceUID,
        index.StudyInstanceUID AS StudyInstanceUID, series.source_doi AS source_DOI,
        PatientAge, PatientSex, StudyDate, StudyDescription, BodyPartExamined, Modality, SOPClassUID, sop_class_name,
        TransferSyntaxUID, transfer_syntax_name, PhotometricInterpretation, PixelRepresentation, Manufacturer,
        ManufacturerModelName, SeriesDate, SeriesDescription, SeriesNumber, instanceCount,
        series.license_short_name AS license_short_name, series.init_version AS series_init_idc_version,
        series.revised_version AS series_revised_idc_version, index.aws_bucket AS aws_bucket,
        series.series_uuid AS crdc_series_uuid, series.series_aws_url || '*' AS series_aws_url,
        "series_size_MB"
    FROM (SELECT * FROM history.idc_index WHERE {VALID}) AS index
    LEFT JOIN series ON series.SeriesInstanceUID = index.SeriesInstanceUID"""


def create_views(dicom_fields: Iterable[Field]) -> Iterator[str]:
    """Yield the statements that make all views, each after those that it reads.

    Parameters
    ----------
    dicom_fields : iterable of Field
        Columns of `dicom_metadata` in this catalog.
    """
    for name, query in view_queries(dicom_fields):
        yield f"CREATE OR REPLACE VIEW {name} AS {query}"


def view_queries(dicom_fields: Iterable[Field]) -> Iterator[tuple[str, str]]:
    """Yield the name and the query of each view, after those that it reads."""
    headers = tuple(dicom_fields)
    for table in (*STORED_TABLES, *DERIVED_TABLES):
        if table.name == "idc_index" or not table.versioned:
            continue
        fields = table.all_fields if table in STORED_TABLES else table.fields
        yield table.name, f"SELECT {_columns(fields)} FROM history.{table.name} WHERE {VALID}"
    yield DICOM_METADATA, f"SELECT {_columns(headers)} FROM history.{DICOM_METADATA} WHERE {VALID}"
    yield "idc_index", _IDC_INDEX
    yield "auxiliary_metadata", _AUXILIARY
    yield "dicom_all", _dicom_all(headers)
    yield "original_collections_metadata", _COLLECTIONS
    yield "analysis_results_metadata", _ANALYSIS_RESULTS
    yield "dicom_metadata_curated", "SELECT SOPInstanceUID, SeriesInstanceUID, BodyPartExamined FROM dicom_metadata"
    yield (
        "export_drops",
        """SELECT SOPInstanceUID, SeriesInstanceUID, dropped.path AS path, dropped.reason AS reason
        FROM instances, unnest(drops) AS _drops(dropped)""",
    )


def _columns(fields: Iterable[Field]) -> str:
    return ", ".join(quote(field.name) for field in fields)


def _dicom_all(headers: Iterable[Field]) -> str:
    first = ", ".join(f"{source} AS {quote(name)}" for name, source in _DICOM_ALL_FIRST.items())
    taken = {name.lower() for name in _DICOM_ALL_FIRST}
    rest = ", ".join(f"headers.{quote(field.name)}" for field in headers if field.name.lower() not in taken)
    return f"""
    SELECT {first}, {rest}
    FROM dicom_metadata AS headers
    LEFT JOIN auxiliary_metadata AS aux ON aux.SOPInstanceUID = headers.SOPInstanceUID
    LEFT JOIN history.collection_facts AS facts ON facts.collection_id = aux.collection_id"""
