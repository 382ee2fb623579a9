"""The SQL by which the tables of series and instances follow from headers, in DuckDB.

They are computed once for each version of a series, when it is indexed, so that a search reads narrow tables. Names
and meaning of the columns of `idc_index`, `sm_index` and `sm_instance_index` are those of the tables of the same name
at IDC; the statements are our own, and a test runs those of IDC over the same headers and wants the same rows.

Each statement reads `affected`, a table of SeriesInstanceUIDs, the views of `views`, and the tables of `BETWEEN`.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["BETWEEN", "DERIVATIONS", "TRANSFER_SYNTAX_NAMES", "derivation"]

TRANSFER_SYNTAX_NAMES = {
    "1.2.840.10008.1.2": "Implicit VR Little Endian",
    "1.2.840.10008.1.2.1": "Explicit VR Little Endian",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline",
    "1.2.840.10008.1.2.4.51": "JPEG Extended",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
}
"""As IDC names them; others have the name of the standard."""

_AFFECTED = "SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM affected)"


def _prefixed(sequence: str, *, meaning_last: bool) -> str:
    """Return a coded entry as one text, NULL if a part of it is missing."""
    scheme, value, meaning = (f"{sequence}.{part}" for part in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning"))
    parts = (scheme, value, meaning) if meaning_last else (meaning, scheme, value)
    return " || ':' || ".join(parts)


def _first_code(sequence: str, prefix: str, *, meaning_first: bool = False) -> str:
    """Return two columns of the first coded entry of a group, in the order of the alphabet, taken apart at colons."""
    text = f"min({_prefixed(sequence, meaning_last=True)})"
    code = f"split_part({text}, ':', 1) || ':' || split_part({text}, ':', 2) AS {prefix}_code_designator_value_str"
    meaning = f"split_part({text}, ':', 3) AS {prefix}_CodeMeaning"
    return ", ".join((meaning, code) if meaning_first else (code, meaning))


def _stain(name: str, *codes: str) -> str:
    """Return a column of what a preparation step says of one concept."""
    told = ", ".join(f"'{code}'" for code in codes)
    return f"min(item.value) FILTER (item.concept_code_designator_value_str IN ({told})) AS {name}"


_STRUCTURE = "SpecimenDescriptionSequence[1].PrimaryAnatomicStructureSequence[1]"
_MODIFIER = f"{_STRUCTURE}.PrimaryAnatomicStructureModifierSequence[1]"
_ILLUMINATION = "OpticalPathSequence[1].IlluminationTypeCodeSequence[1]"

_PREPARATION = {"embeddingMedium": "430863003", "tissueFixative": "430864009", "staining_usingSubstance": "424361007"}


def _preparation_columns(source: str) -> str:
    columns = []
    for prefix in _PREPARATION:
        texts = f"coalesce({source}.{prefix}, [])"
        meaning, code = "split_part(text, ':', 1)", "substr(text, instr(text, ':') + 1)"
        columns += [
            f"list_transform({texts}, lambda text: {meaning}) AS {prefix}_CodeMeaning",
            f"list_transform({texts}, lambda text: {code}) AS {prefix}_code_designator_value_str",
        ]
    return ", ".join(columns)


def _preparation_lists(text: str) -> str:
    return ", ".join(
        f"list(DISTINCT {text} ORDER BY {text}) FILTER (concept = 'SCT:{code}' AND {text} IS NOT NULL) AS {prefix}"
        for prefix, code in _PREPARATION.items()
    )


# Instances of a slide mostly tell the same of its specimens: each telling is looked at once. A hash tells them apart
# within one series, where there are few.
_SLIDES = f"""
    SELECT SOPInstanceUID, SeriesInstanceUID, ContainerIdentifier, OpticalPathSequence, AdmittingDiagnosesCodeSequence,
        TotalPixelMatrixColumns, TotalPixelMatrixRows, "Columns", "Rows", ImageType, TransferSyntaxUID,
        TRY_CAST(PixelSpacing[1] AS DOUBLE) AS spacing,
        TRY_CAST(SharedFunctionalGroupsSequence[1].PixelMeasuresSequence[1].PixelSpacing[1] AS DOUBLE)
            AS shared_spacing,
        hash(SpecimenDescriptionSequence) AS told, len(SpecimenDescriptionSequence) AS specimens
    FROM dicom_metadata WHERE Modality = 'SM' AND {_AFFECTED}"""

_TELLINGS = """
    SELECT SOPInstanceUID, headers.SeriesInstanceUID AS SeriesInstanceUID, told, first_told,
        SpecimenDescriptionSequence
    FROM dicom_metadata AS headers JOIN (
        SELECT min(SOPInstanceUID) AS SOPInstanceUID, told, specimens,
            row_number() OVER (PARTITION BY SeriesInstanceUID
                ORDER BY coalesce(specimens, 0) DESC, min(SOPInstanceUID)) = 1 AS first_told
        FROM slides GROUP BY SeriesInstanceUID, told, specimens) USING (SOPInstanceUID)"""

_PREPARATIONS = f"""
    SELECT SeriesInstanceUID, told, name.CodingSchemeDesignator || ':' || name.CodeValue AS concept,
        {_prefixed("code", meaning_last=False)} AS text
    FROM (SELECT SeriesInstanceUID, told, unnest(item.ConceptNameCodeSequence) AS name,
            item.ConceptCodeSequence AS codes
        FROM (SELECT SeriesInstanceUID, told, unnest(step.SpecimenPreparationStepContentItemSequence) AS item
            FROM (SELECT SeriesInstanceUID, told,
                    unnest(SpecimenDescriptionSequence[1].SpecimenPreparationSequence) AS step FROM tellings)
        )), unnest(codes) AS _codes(code)"""

_SM_INDEX = f"""
    WITH structures AS (
        SELECT SeriesInstanceUID, {_first_code(_STRUCTURE, "primaryAnatomicStructure")},
            {_first_code(_MODIFIER, "primaryAnatomicStructureModifier")}
        FROM tellings GROUP BY SeriesInstanceUID),
    preparation AS (
        SELECT SeriesInstanceUID, {_preparation_lists("text")} FROM preparations GROUP BY SeriesInstanceUID),
    series AS (
        SELECT SeriesInstanceUID,
            min(ContainerIdentifier) AS ContainerIdentifier,
            min(OpticalPathSequence[1].ObjectiveLensPower) AS power,
            coalesce(max(TotalPixelMatrixColumns), max("Columns")) AS max_TotalPixelMatrixColumns,
            coalesce(max(TotalPixelMatrixRows), max("Rows")) AS max_TotalPixelMatrixRows,
            coalesce(min(spacing), min(shared_spacing)) AS spacing,
            {_first_code(_ILLUMINATION, "illuminationType")},
            {_first_code("AdmittingDiagnosesCodeSequence[1]", "admittingDiagnosis")}
        FROM slides GROUP BY SeriesInstanceUID)
    SELECT series.* EXCLUDE (power, spacing), structures.* EXCLUDE (SeriesInstanceUID),
        {_preparation_columns("preparation")},
        CASE WHEN spacing = 0 THEN 0
            ELSE round(spacing, CAST(1 - floor(log10(abs(spacing))) AS INTEGER)) END AS min_PixelSpacing_2sf,
        -- BigQuery casts no text with a decimal point to an integer; DuckDB would.
        CASE WHEN regexp_full_match(power, '[+-]?[0-9]+') THEN TRY_CAST(power AS BIGINT) END AS ObjectiveLensPower
    FROM series LEFT JOIN structures USING (SeriesInstanceUID) LEFT JOIN preparation USING (SeriesInstanceUID)"""

_SM_INSTANCE_INDEX = f"""
    WITH preparation AS (
        SELECT SeriesInstanceUID, told, {_preparation_lists("text")} FROM preparations GROUP BY SeriesInstanceUID, told)
    SELECT slides.SOPInstanceUID, slides.SeriesInstanceUID,
        {_preparation_columns("preparation")},
        shared_spacing AS PixelSpacing_0,
        ImageType, TransferSyntaxUID, instances.instance_size, TotalPixelMatrixColumns, TotalPixelMatrixRows,
        instances.instance_uuid AS crdc_instance_uuid
    FROM slides
    LEFT JOIN preparation ON preparation.SeriesInstanceUID = slides.SeriesInstanceUID AND preparation.told = slides.told
    LEFT JOIN instances ON instances.SOPInstanceUID = slides.SOPInstanceUID"""

_SM_CHANNEL_INDEX = f"""
    WITH paths AS (
        SELECT SOPInstanceUID, SeriesInstanceUID, unnest(OpticalPathSequence) AS path FROM slides),
    channels AS (
        SELECT SeriesInstanceUID, path.OpticalPathIdentifier AS OpticalPathIdentifier,
            min(path.OpticalPathDescription) AS OpticalPathDescription,
            min(path.IlluminationWaveLength) AS excitation_wavelength_nm,
            min(path.LightPathFilterPassThroughWavelength) AS emission_wavelength_nm,
            {_first_code("path.IlluminationTypeCodeSequence[1]", "illuminationType", meaning_first=True)},
            {_first_code("path.IlluminationColorCodeSequence[1]", "illuminationColor", meaning_first=True)},
            min(path.ObjectiveLensPower) AS ObjectiveLensPower,
            min(path.ObjectiveLensNumericalAperture) AS ObjectiveLensNumericalAperture
        FROM paths GROUP BY ALL),
    items AS (
        SELECT SeriesInstanceUID, specimen_number, step_number, unnest(content) AS item FROM steps),
    stains AS (
        SELECT SeriesInstanceUID, specimen_number, step_number,
            {_stain("channel", "NCIt:C44170")},
            {_stain("target", "SCT:246094008")},
            {_stain("substance", "SCT:424361007")},
            {_stain("fluorophore", "NCIt:C2480", "UMLS:C0598447")},
            {_stain("clone", "NCIt:C37925")},
            {_stain("dilution", "UMLS:C4281604", "NCIt:C4281604")},
            {_stain("cycle", "NCIt:C25472")},
            {_stain("staining_technique", "SCT:703857004")}
        FROM items GROUP BY ALL)
    SELECT channels.*, target, fluorophore, clone, dilution, cycle, staining_technique,
        nullif(regexp_extract(substance, 'AB_[0-9]+'), '') AS antibody_rrid,
        nullif(trim(regexp_replace(substance, '[(]?(RRID:)?AB_[0-9]+[)]?', ''), ' ,;'), '') AS antibody
    FROM channels LEFT JOIN (
        SELECT * FROM stains WHERE channel IS NOT NULL
        QUALIFY row_number() OVER (PARTITION BY SeriesInstanceUID, channel ORDER BY specimen_number, step_number) = 1
    ) AS stains ON stains.SeriesInstanceUID = channels.SeriesInstanceUID
        AND stains.channel = channels.OpticalPathIdentifier"""


def _value_of(code: str) -> str:
    return f"list_filter(content, lambda item: item.concept_code_designator_value_str = '{code}')"


def _coded(code: str, prefix: str) -> str:
    found = f"{_value_of(code)}[1]"
    code = f"{found}.value_code_designator_value_str AS {prefix}_code_designator_value_str"
    return f"{found}.value AS {prefix}_CodeMeaning, {code}"


def _code_columns(sequence: str, prefix: str) -> str:
    value = f"coalesce({sequence}.CodeValue, {sequence}.LongCodeValue, {sequence}.URNCodeValue)"
    return (
        f"{sequence}.CodeMeaning AS {prefix}_CodeMeaning, "
        f"{sequence}.CodingSchemeDesignator || ':' || {value} AS {prefix}_code_designator_value_str"
    )


_CONTENT = """
    list_transform(coalesce(step.SpecimenPreparationStepContentItemSequence, []), lambda item: struct_pack(
        concept_CodeMeaning := item.ConceptNameCodeSequence[1].CodeMeaning,
        concept_code_designator_value_str := item.ConceptNameCodeSequence[1].CodingSchemeDesignator || ':' || coalesce(
            item.ConceptNameCodeSequence[1].CodeValue, item.ConceptNameCodeSequence[1].LongCodeValue),
        value := coalesce(item.ConceptCodeSequence[1].CodeMeaning, item.TextValue,
            CAST(item."DateTime" AS VARCHAR), CAST(item."Date" AS VARCHAR), CAST(item."Time" AS VARCHAR),
            array_to_string(item.NumericValue, '\\'), item.UID),
        value_code_designator_value_str := item.ConceptCodeSequence[1].CodingSchemeDesignator || ':' || coalesce(
            item.ConceptCodeSequence[1].CodeValue, item.ConceptCodeSequence[1].LongCodeValue)))"""

# What the instance tells that tells of most specimens.
_STEPS = f"""
    WITH specimens AS (
        SELECT SeriesInstanceUID, unnest(SpecimenDescriptionSequence) AS specimen,
            generate_subscripts(SpecimenDescriptionSequence, 1) AS specimen_number FROM tellings WHERE first_told),
    numbered AS (
        SELECT SeriesInstanceUID, specimen, specimen_number, step, step_number
        FROM specimens LEFT JOIN LATERAL (
            SELECT unnest(specimen.SpecimenPreparationSequence) AS step,
                generate_subscripts(specimen.SpecimenPreparationSequence, 1) AS step_number) ON true)
    SELECT SeriesInstanceUID, specimen_number,
        specimen.SpecimenIdentifier AS SpecimenIdentifier, specimen.SpecimenUID AS SpecimenUID,
        specimen.SpecimenShortDescription AS SpecimenShortDescription,
        specimen.SpecimenDetailedDescription AS SpecimenDetailedDescription,
        {_code_columns("specimen.SpecimenTypeCodeSequence[1]", "specimenType")},
        {_code_columns("specimen.PrimaryAnatomicStructureSequence[1]", "primaryAnatomicStructure")},
        {
    _code_columns(
        "specimen.PrimaryAnatomicStructureSequence[1].PrimaryAnatomicStructureModifierSequence[1]",
        "primaryAnatomicStructureModifier",
    )
},
        step_number, {_CONTENT} AS content
    FROM numbered"""

_SM_SPECIMEN_INDEX = f"""
    SELECT * EXCLUDE (method), method.value AS step_method_CodeMeaning,
        method.value_code_designator_value_str AS step_method_code_designator_value_str
    FROM (SELECT *,
        {_value_of("DCM:121041")}[1].value AS step_specimen_identifier,
        {_value_of("DCM:111705")}[1].value AS parent_specimen_identifier,
        {_coded("DCM:111701", "processingType")},
        coalesce({_value_of("DCM:111704")}[1], {_value_of("SCT:17636008")}[1],
            {_value_of("SCT:703857004")}[1]) AS method,
        {_coded("SCT:430864009", "tissueFixative")},
        {_coded("SCT:430863003", "embeddingMedium")},
        list_transform({_value_of("SCT:424361007")}, lambda item: item.value) AS usingSubstance_CodeMeaning,
        list_filter(list_transform({_value_of("SCT:424361007")}, lambda item: item.value_code_designator_value_str),
            lambda code: code IS NOT NULL) AS usingSubstance_code_designator_value_str
        FROM steps)"""


def _names(column: str, names: Mapping[str, str]) -> str:
    cases = " ".join(f"WHEN '{uid}' THEN '{name}'" for uid, name in names.items())
    return f"CASE {column} {cases} ELSE {column} END"


def _idc_index(names: Mapping[str, str]) -> str:
    syntaxes = {
        **{uid: name for uid, name in names.items() if uid.startswith("1.2.840.10008.1.2")},
        **TRANSFER_SYNTAX_NAMES,
    }
    classes = {uid: name for uid, name in names.items() if uid.startswith("1.2.840.10008.5.1.4.")}

    def all_of(value: str) -> str:
        return f"array_to_string(list(DISTINCT {value} ORDER BY {value}) FILTER ({value} IS NOT NULL), ',')"

    syntax = _names("TransferSyntaxUID", syntaxes)
    return f"""
    SELECT min(headers.PatientID) AS PatientID, SeriesInstanceUID, min(StudyInstanceUID) AS StudyInstanceUID,
        min(nullif(PatientAge, '')) AS PatientAge, min(PatientSex) AS PatientSex,
        min(CAST(StudyDate AS VARCHAR)) AS StudyDate, min(StudyDescription) AS StudyDescription,
        min(BodyPartExamined) AS BodyPartExamined, min(Modality) AS Modality, min(SOPClassUID) AS SOPClassUID,
        {_names("min(SOPClassUID)", classes)} AS sop_class_name,
        {all_of("TransferSyntaxUID")} AS TransferSyntaxUID,
        {all_of(f"({syntax})")} AS transfer_syntax_name,
        {all_of("PhotometricInterpretation")} AS PhotometricInterpretation,
        {all_of("CAST(PixelRepresentation AS VARCHAR)")} AS PixelRepresentation,
        min(Manufacturer) AS Manufacturer, min(ManufacturerModelName) AS ManufacturerModelName,
        min(CAST(SeriesDate AS VARCHAR)) AS SeriesDate, min(nullif(SeriesDescription, '')) AS SeriesDescription,
        min(SeriesNumber) AS SeriesNumber, count(*) AS instanceCount, min(aws_bucket) AS aws_bucket,
        sum(CAST(instance_size AS DOUBLE)) / 1000000.0 AS "series_size_MB"
    FROM dicom_metadata AS headers
    LEFT JOIN (SELECT SOPInstanceUID, instance_size, aws_bucket FROM instances) USING (SOPInstanceUID)
    WHERE {_AFFECTED} GROUP BY SeriesInstanceUID"""


DERIVATIONS = {
    "sm_index": _SM_INDEX,
    "sm_instance_index": _SM_INSTANCE_INDEX,
    "sm_channel_index": _SM_CHANNEL_INDEX,
    "sm_specimen_index": _SM_SPECIMEN_INDEX,
}

BETWEEN = {"slides": _SLIDES, "tellings": _TELLINGS, "preparations": _PREPARATIONS, "steps": _STEPS}
"""Tables that those are made from, and the queries that make them, in order."""


def derivation(table: str) -> str:
    """Return the query that makes the rows of a table for the series in `affected`."""
    if table == "idc_index":
        from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]

        return _idc_index({uid: entry[0].replace("'", "''") for uid, entry in UID_dictionary.items()})
    return DERIVATIONS[table]
