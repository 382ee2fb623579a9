"""The tables that are stored, as fields: what every writer makes and every view reads.

Stored tables lie in the schema ``history`` and hold every version of a row; views without a schema show one version of
them (`views`). A row is valid from `revised_version` to `final_version`, 0 while it is current, as IDC counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coverslip.catalog.schema import Field

__all__ = [
    "DERIVED_TABLES",
    "DICOM_METADATA",
    "FACTS",
    "STORED_TABLES",
    "VERSION_FIELDS",
    "StoredTable",
    "staged_instance_fields",
    "staged_series_fields",
]

DICOM_METADATA = "dicom_metadata"


def _strings(names: str) -> tuple[Field, ...]:
    return tuple(Field(name) for name in names.split())


def _integers(names: str) -> tuple[Field, ...]:
    return tuple(Field(name, "INTEGER") for name in names.split())


INIT = Field("init_version", "INTEGER", description="Version in which it first appeared.")
VERSION_FIELDS = (
    Field("revised_version", "INTEGER", description="Version in which this state of it first appeared."),
    Field("final_version", "INTEGER", description="Last version that has this state of it; 0 while it is current."),
)

FACTS = (
    *_strings("collection_id name description"),
    *(Field(name, "STRING", "REPEATED") for name in ("cancer_types", "tumor_locations", "species")),
    *_strings(
        "subjects supporting_data license_url license_long_name license_short_name source_doi source_url access "
        "versioned_source_doi program_id status analysis_result_id analysis_result_title citation"
    ),
)
"""What a map says of a collection that DICOM has no place for, as it stands in conversion.json."""

_CODE = "CodeMeaning code_designator_value_str".split()


def _code(prefix: str) -> tuple[Field, ...]:
    return tuple(Field(f"{prefix}_{part}") for part in _CODE)


def _codes(prefix: str) -> tuple[Field, ...]:
    return tuple(Field(f"{prefix}_{part}", "STRING", "REPEATED") for part in _CODE)


_PREPARATION = (*_codes("embeddingMedium"), *_codes("tissueFixative"), *_codes("staining_usingSubstance"))

_CONVERSION = (
    *_strings("coverslip_version"),
    *_integers("output_format"),
    *_strings("source_format source_sha256"),
    *_integers("source_files source_bytes"),
    *_strings("replaces_SeriesInstanceUID replaces_reason"),
    Field("curated", "STRING", "REPEATED"),
    Field(
        "instances",
        "RECORD",
        "REPEATED",
        (
            *_strings("SOPInstanceUID image_flavor"),
            Field("reuses_frames", "BOOLEAN"),
            *_strings("origin"),
            *_integers("missing_tiles"),
            *_strings("offset_table"),
        ),
    ),
    Field("findings", "RECORD", "REPEATED", _strings("rule severity message place reference")),
    *_strings("validation_mode validation_profile"),
    Field("validation_passed", "BOOLEAN"),
    Field("validation_counts", "RECORD", "REPEATED", (*_strings("name"), *_integers("count"))),
)


def staged_instance_fields() -> tuple[Field, ...]:
    """Return what is kept of every instance besides its row of `dicom_metadata`, in the same order of rows."""
    return (
        *_integers("row_index"),
        *_strings("SOPInstanceUID SeriesInstanceUID StudyInstanceUID PatientID collection_id"),
        *_strings("instance_uuid instance_hash"),
        *_integers("instance_size"),
        *_strings("content_key location folder"),
        Field("drops", "RECORD", "REPEATED", _strings("path reason")),
    )


def staged_series_fields() -> tuple[Field, ...]:
    """Return what is kept of every conversion.json or other statement of facts, a row per series."""
    return (
        Field("SeriesInstanceUID"),
        Field("location"),
        Field("facts", "RECORD", "NULLABLE", FACTS),
        Field("converted", "BOOLEAN"),
        *_CONVERSION,
    )


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table of the schema ``history``.

    Parameters
    ----------
    name : str
    fields : tuple of Field
        Without those that say of which versions a row is.
    key : tuple of str
        Columns that name the thing whose versions the rows are.
    description : str
    versioned : bool
        Whether every version of a row is kept; otherwise the table holds what was told last.
    """

    name: str
    fields: tuple[Field, ...]
    key: tuple[str, ...]
    description: str
    versioned: bool = True

    @property
    def all_fields(self) -> tuple[Field, ...]:
        """The columns as they are stored."""
        return (*self.fields, *VERSION_FIELDS) if self.versioned else self.fields


def stored_dicom_metadata(fields: Iterable[Field]) -> StoredTable:
    """Return the table of headers, with the columns that it has in a catalog."""
    return StoredTable(DICOM_METADATA, tuple(fields), ("SOPInstanceUID",), "A row per instance: its header.")


STORED_TABLES = (
    StoredTable(
        "instances",
        (
            *_strings("SOPInstanceUID SeriesInstanceUID StudyInstanceUID PatientID collection_id"),
            *_strings("instance_uuid instance_hash"),
            *_integers("instance_size"),
            *_strings("content_key location gcs_url gcs_bucket aws_url aws_bucket"),
            Field("drops", "RECORD", "REPEATED", _strings("path reason")),
            INIT,
        ),
        ("SOPInstanceUID",),
        "A row per instance: which file it is, where it lies, and what of its header has no column.",
    ),
    StoredTable(
        "series",
        (
            *_strings("SeriesInstanceUID StudyInstanceUID PatientID collection_id series_uuid series_hash"),
            *_integers("series_instances"),
            *_strings("content_key series_gcs_url series_aws_url source_doi source_url versioned_source_doi"),
            *_strings("analysis_result_id license_url license_long_name license_short_name"),
            INIT,
        ),
        ("SeriesInstanceUID",),
        "A row per series.",
    ),
    StoredTable(
        "studies",
        (
            *_strings("StudyInstanceUID PatientID collection_id study_uuid study_hash"),
            *_integers("study_instances"),
            *_strings("content_key"),
            INIT,
        ),
        ("collection_id", "PatientID", "StudyInstanceUID"),
        "A row per study of a patient.",
    ),
    StoredTable(
        "patients",
        (*_strings("PatientID collection_id idc_case_id patient_hash content_key"), INIT),
        ("collection_id", "PatientID"),
        "A row per patient of a collection.",
    ),
    StoredTable(
        "collections",
        (*_strings("collection_id collection_hash content_key"), INIT),
        ("collection_id",),
        "A row per collection.",
    ),
    StoredTable(
        "collection_facts",
        (*(field for field in FACTS if field.name not in ("analysis_result_id", "analysis_result_title", "citation")),),
        ("collection_id",),
        "A row per collection: what its map says of it.",
        versioned=False,
    ),
    StoredTable(
        "analysis_result_facts",
        (
            *_strings("analysis_result_id analysis_result_title source_doi source_url collections"),
            *_strings("license_url license_long_name license_short_name description citation"),
        ),
        ("analysis_result_id",),
        "A row per analysis result: what is said of it.",
        versioned=False,
    ),
    StoredTable(
        "conversions",
        (Field("SeriesInstanceUID"), *_CONVERSION),
        ("SeriesInstanceUID",),
        "A row per series that has a conversion.json: how it was made, and what validation said.",
    ),
)

DERIVED_TABLES = (
    StoredTable(
        "idc_index",
        (
            *_strings("PatientID SeriesInstanceUID StudyInstanceUID PatientAge PatientSex StudyDate StudyDescription"),
            *_strings("BodyPartExamined Modality SOPClassUID sop_class_name TransferSyntaxUID transfer_syntax_name"),
            *_strings("PhotometricInterpretation PixelRepresentation Manufacturer ManufacturerModelName SeriesDate"),
            *_strings("SeriesDescription SeriesNumber"),
            *_integers("instanceCount"),
            *_strings("aws_bucket"),
            Field("series_size_MB", "FLOAT"),
        ),
        ("SeriesInstanceUID",),
        "What the view idc_index shows of the headers of a series.",
    ),
    StoredTable(
        "sm_index",
        (
            *_strings("SeriesInstanceUID ContainerIdentifier"),
            *_PREPARATION,
            Field("min_PixelSpacing_2sf", "FLOAT"),
            *_integers("max_TotalPixelMatrixColumns max_TotalPixelMatrixRows ObjectiveLensPower"),
            *reversed(_code("primaryAnatomicStructure")),
            *reversed(_code("primaryAnatomicStructureModifier")),
            *reversed(_code("illuminationType")),
            *reversed(_code("admittingDiagnosis")),
        ),
        ("SeriesInstanceUID",),
        "A row per series of slide microscopy.",
    ),
    StoredTable(
        "sm_instance_index",
        (
            *_strings("SOPInstanceUID SeriesInstanceUID"),
            *_PREPARATION,
            Field("PixelSpacing_0", "FLOAT"),
            Field("ImageType", "STRING", "REPEATED"),
            *_strings("TransferSyntaxUID"),
            *_integers("instance_size TotalPixelMatrixColumns TotalPixelMatrixRows"),
            *_strings("crdc_instance_uuid"),
        ),
        ("SOPInstanceUID",),
        "A row per instance of slide microscopy.",
    ),
    StoredTable(
        "sm_channel_index",
        (
            *_strings("SeriesInstanceUID OpticalPathIdentifier OpticalPathDescription"),
            *_strings("target antibody antibody_rrid fluorophore clone dilution cycle staining_technique"),
            Field("excitation_wavelength_nm", "FLOAT"),
            Field("emission_wavelength_nm", "FLOAT"),
            *_code("illuminationType"),
            *_code("illuminationColor"),
            *_strings("ObjectiveLensPower ObjectiveLensNumericalAperture"),
        ),
        ("SeriesInstanceUID", "OpticalPathIdentifier"),
        "A row per optical path of a series of slide microscopy.",
    ),
    StoredTable(
        "sm_specimen_index",
        (
            *_strings("SeriesInstanceUID"),
            *_integers("specimen_number"),
            *_strings("SpecimenIdentifier SpecimenUID SpecimenShortDescription SpecimenDetailedDescription"),
            *_code("specimenType"),
            *_code("primaryAnatomicStructure"),
            *_code("primaryAnatomicStructureModifier"),
            *_integers("step_number"),
            *_strings("step_specimen_identifier parent_specimen_identifier"),
            *_code("processingType"),
            *_code("step_method"),
            *_code("tissueFixative"),
            *_code("embeddingMedium"),
            *_codes("usingSubstance"),
            Field(
                "content",
                "RECORD",
                "REPEATED",
                _strings("concept_CodeMeaning concept_code_designator_value_str value value_code_designator_value_str"),
            ),
        ),
        ("SeriesInstanceUID", "specimen_number", "step_number"),
        "A row per preparation step of each specimen of a series; a specimen without steps has one row.",
    ),
)
