"""The flat table of slides that searches read: a row per slide series, every value that a filter asks for beside it.

It follows from the derived tables and is kept in ``history.search_slide`` by the transaction that merges
(`refresh_search`), for the current version only. A catalog that lacks it, or is looked at as it was (``as_of``), gets
the same rows in a temporary table (`prepare_search`).

Texts are kept twice: as they are, for display and counts, and as words between spaces (`words`), so that a search for
words or codes is a search for a substring. ``search_patient`` counts the series of every patient by modality.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "CHANNEL_LISTS",
    "CODED_FIELDS",
    "PATIENT_TABLE",
    "SLIDE_COLUMNS",
    "SLIDE_TABLE",
    "VALID",
    "carry_search",
    "create_slide_table",
    "exact_sum",
    "prepare_search",
    "refresh_search",
    "words",
]

_AS_OF = "coalesce(getvariable('as_of'), 2147483647)"
VALID = f"revised_version <= {_AS_OF} AND (final_version = 0 OR final_version >= {_AS_OF})"
"""Of which rows of `history` the views are made."""

SLIDE_TABLE = "search_slide"
PATIENT_TABLE = "search_patient"

CODED_FIELDS = {
    "stain": "SCT:424361007",
    "fixative": "SCT:430864009",
    "embedding": "SCT:430863003",
    "anatomy": None,
    "tissue": None,
    "specimen_type": None,
    "diagnosis": None,
    "illumination": None,
}
"""Fields of meanings and codes; of the first three, the concept that names them in a preparation step."""

CHANNEL_LISTS = {
    "channel_names": "channel",
    "targets": "target",
    "antibodies": "antibody",
    "fluorophores": "fluorophore",
}
"""Columns that list what the channels of a slide have of something."""

_CHANNEL = (
    "STRUCT(channel VARCHAR, target VARCHAR, antibody VARCHAR, rrid VARCHAR, fluorophore VARCHAR, "
    "channel_words VARCHAR, target_words VARCHAR, antibody_words VARCHAR, fluorophore_words VARCHAR)"
)

SLIDE_COLUMNS: dict[str, str] = {
    "SeriesInstanceUID": "VARCHAR",
    "StudyInstanceUID": "VARCHAR",
    "collection_id": "VARCHAR",
    "PatientID": "VARCHAR",
    "ContainerIdentifier": "VARCHAR",
    "published": "BOOLEAN",
    "known": "VARCHAR",
    "StudyDescription": "VARCHAR",
    "SeriesDescription": "VARCHAR",
    "Manufacturer": "VARCHAR",
    "ManufacturerModelName": "VARCHAR",
    "scanner_words": "VARCHAR",
    "license_short_name": "VARCHAR",
    "license_words": "VARCHAR",
    "source_doi": "VARCHAR",
    "crdc_series_uuid": "VARCHAR",
    "series_revised_version": "BIGINT",
    "instance_count": "BIGINT",
    "size_mb": "DOUBLE",
    **{
        name: kind
        for field in CODED_FIELDS
        for name, kind in ((field, "VARCHAR[]"), (f"{field}_codes", "VARCHAR[]"), (f"{field}_words", "VARCHAR"))
    },
    "channels": f"{_CHANNEL}[]",
    **dict.fromkeys(CHANNEL_LISTS, "VARCHAR[]"),
    "objective": "DOUBLE",
    "spacing_um": "DOUBLE",
    "matrix_columns": "BIGINT",
    "matrix_rows": "BIGINT",
    "validation": "VARCHAR",
    "text_words": "VARCHAR",
}
"""Columns of the table and their types in DuckDB.

`known` says how much the row can tell: ``all``, ``sm_index`` (what IDC's table of that name has) or ``series`` (what
IDC's index of series has); of a published slide that is not in this catalog the rest is unknown, not absent.
"""

_LETTERS = r"[\p{L}\p{N}]+"


def words(texts: str, codes: str | None = None) -> str:
    """Return an expression for the words of a list of texts, and for codes, between spaces and in lower case.

    A text gives its words, and once more those without what is neither letter nor space: Ki-67 is found by "ki 67" and
    "ki67". A code SCT:12710003 gives itself and what follows the colon.
    """
    parts = (
        f"flatten(list_transform(list_filter({texts}, lambda _t: _t IS NOT NULL), lambda _t: list_concat("
        f"regexp_extract_all(lower(nfc_normalize(_t)), '{_LETTERS}'), regexp_extract_all(regexp_replace("
        f"lower(nfc_normalize(_t)), '[^\\p{{L}}\\p{{N}}\\s]+', '', 'g'), '{_LETTERS}'))))"
    )
    if codes is not None:
        parts = (
            f"list_concat({parts}, flatten(list_transform(list_filter({codes}, lambda _c: _c IS NOT NULL), "
            "lambda _c: [lower(_c), lower(substr(_c, instr(_c, ':') + 1))])))"
        )
    return f"nullif(' ' || array_to_string(list_sort(list_distinct({parts})), ' ') || ' ', '  ')"


def _lists(pairs: str, field: str) -> str:
    """Return the three columns of a coded field from a list of structs (meaning, code)."""
    meanings = f"list_transform({pairs}, lambda _p: _p.meaning)"
    codes = f"list_transform({pairs}, lambda _p: _p.code)"
    return f"{meanings} AS {field}, {codes} AS {field}_codes, {words(meanings, codes)} AS {field}_words"


def _pairs(meaning: str, code: str, where: str) -> str:
    pair = f"struct_pack(meaning := {meaning}, code := {code})"
    return f"coalesce(list(DISTINCT {pair} ORDER BY {pair}) FILTER ({where}), [])"


def _code_pairs(prefix: str) -> str:
    meaning, code = f"{prefix}_CodeMeaning", f"{prefix}_code_designator_value_str"
    return _pairs(meaning, code, f"{meaning} IS NOT NULL")


def _slides(connection: DuckDBPyConnection, among: str = "true") -> str:
    """Return the query of all rows, of the version that the views show, for series that fulfil a condition."""
    by_content = ", ".join(
        f"{_pairs('item.value', 'item.value_code_designator_value_str', f'''{_CONCEPT} = '{concept}' ''')} AS {field}"
        for field, concept in CODED_FIELDS.items()
        if concept
    )
    have = {row[0] for row in connection.execute("SELECT column_name FROM (DESCRIBE dicom_metadata)").fetchall()}
    codes = "AdmittingDiagnosesCodeSequence" if "AdmittingDiagnosesCodeSequence" in have else _NO_CODES
    texts = "AdmittingDiagnosesDescription" if "AdmittingDiagnosesDescription" in have else "CAST([] AS VARCHAR[])"
    of_channels = ", ".join(
        f"list_sort(list_distinct(list_filter(list_transform(channels, lambda _c: _c.{part}), "
        f"lambda _v: _v IS NOT NULL))) AS {name}"
        for name, part in CHANNEL_LISTS.items()
    )
    return f"""
    WITH specimens AS (
        SELECT SeriesInstanceUID,
            {_code_pairs("primaryAnatomicStructure")} AS anatomy,
            {_code_pairs("primaryAnatomicStructureModifier")} AS tissue,
            {_code_pairs("specimenType")} AS specimen_type,
            list_concat(list(DISTINCT SpecimenShortDescription), list(DISTINCT SpecimenDetailedDescription)) AS texts
        FROM sm_specimen_index WHERE {among} GROUP BY SeriesInstanceUID),
    items AS (
        SELECT SeriesInstanceUID, unnest(content) AS item FROM sm_specimen_index WHERE {among}),
    preparations AS (
        SELECT SeriesInstanceUID, {by_content},
            list(DISTINCT item.value) FILTER ({_CONCEPT} NOT IN {_NO_DESCRIPTION}) AS texts
        FROM items GROUP BY SeriesInstanceUID),
    channels AS (
        SELECT SeriesInstanceUID, {_code_pairs("illuminationType")} AS illumination,
            max(TRY_CAST(ObjectiveLensPower AS DOUBLE)) AS objective,
            list(DISTINCT OpticalPathDescription) AS texts,
            list(struct_pack(
                channel := coalesce(OpticalPathDescription, OpticalPathIdentifier), target := target,
                antibody := antibody, rrid := antibody_rrid, fluorophore := fluorophore,
                channel_words := {words("[OpticalPathIdentifier, OpticalPathDescription]")},
                target_words := {words("[target]")}, antibody_words := {words("[antibody, antibody_rrid]")},
                fluorophore_words := {words("[fluorophore]")}) ORDER BY OpticalPathIdentifier, OpticalPathDescription
            ) AS channels
        FROM sm_channel_index WHERE {among} GROUP BY SeriesInstanceUID),
    diagnoses AS (
        SELECT SeriesInstanceUID, {_pairs("code.CodeMeaning", _DIAGNOSIS_CODE, "code.CodeMeaning IS NOT NULL")} AS pairs
        FROM (SELECT SeriesInstanceUID, unnest({codes}) AS code FROM dicom_metadata
            WHERE Modality = 'SM' AND {among}) GROUP BY SeriesInstanceUID),
    diagnosis_texts AS (
        SELECT SeriesInstanceUID, list(DISTINCT text ORDER BY text) AS texts
        FROM (SELECT SeriesInstanceUID, unnest({texts}) AS text FROM dicom_metadata
            WHERE Modality = 'SM' AND {among}) GROUP BY SeriesInstanceUID),
    spacings AS (
        SELECT SeriesInstanceUID, min(PixelSpacing_0) AS spacing,
            max(TotalPixelMatrixColumns) FILTER ({_IS_VOLUME}) AS base_columns,
            max(TotalPixelMatrixRows) FILTER ({_IS_VOLUME}) AS base_rows
        FROM sm_instance_index WHERE {among}
        GROUP BY SeriesInstanceUID),
    joined AS (
        SELECT idc.SeriesInstanceUID AS SeriesInstanceUID, idc.StudyInstanceUID AS StudyInstanceUID,
            idc.collection_id AS collection_id, idc.PatientID AS PatientID,
            sm.ContainerIdentifier AS ContainerIdentifier, StudyDescription, SeriesDescription, Manufacturer,
            ManufacturerModelName, license_short_name, source_DOI AS source_doi, crdc_series_uuid,
            series_revised_idc_version AS series_revised_version, instanceCount AS instance_count,
            "series_size_MB" AS size_mb,
            coalesce(preparations.stain, []) AS stains, coalesce(preparations.fixative, []) AS fixatives,
            coalesce(preparations.embedding, []) AS embeddings, coalesce(specimens.anatomy, []) AS anatomies,
            coalesce(specimens.tissue, []) AS tissues, coalesce(specimens.specimen_type, []) AS types,
            coalesce(diagnoses.pairs, list_transform(diagnosis_texts.texts,
                lambda _t: struct_pack(meaning := _t, code := CAST(NULL AS VARCHAR))), []) AS diagnoses,
            coalesce(channels.illumination, []) AS illuminations, coalesce(channels.channels, []) AS channels,
            coalesce(channels.objective, sm.ObjectiveLensPower) AS objective,
            round(coalesce(spacing, "min_PixelSpacing_2sf") * 1000, 6) AS spacing_um,
            coalesce(base_columns, "max_TotalPixelMatrixColumns") AS matrix_columns,
            coalesce(base_rows, "max_TotalPixelMatrixRows") AS matrix_rows,
            CASE validation_passed WHEN true THEN 'passed' WHEN false THEN 'failed' ELSE 'none' END AS validation,
            list_concat([StudyDescription, SeriesDescription], specimens.texts, preparations.texts, channels.texts,
                diagnosis_texts.texts) AS texts
        FROM ({_series(among)}) AS idc
        LEFT JOIN sm_index AS sm ON sm.SeriesInstanceUID = idc.SeriesInstanceUID
        LEFT JOIN specimens ON specimens.SeriesInstanceUID = idc.SeriesInstanceUID
        LEFT JOIN preparations ON preparations.SeriesInstanceUID = idc.SeriesInstanceUID
        LEFT JOIN channels ON channels.SeriesInstanceUID = idc.SeriesInstanceUID
        LEFT JOIN diagnoses ON diagnoses.SeriesInstanceUID = idc.SeriesInstanceUID
        LEFT JOIN diagnosis_texts ON diagnosis_texts.SeriesInstanceUID = idc.SeriesInstanceUID
        LEFT JOIN spacings ON spacings.SeriesInstanceUID = idc.SeriesInstanceUID
        LEFT JOIN conversions ON conversions.SeriesInstanceUID = idc.SeriesInstanceUID)
    SELECT * EXCLUDE (stains, fixatives, embeddings, anatomies, tissues, types, diagnoses, illuminations, texts),
        false AS published, 'all' AS known, {words("[Manufacturer, ManufacturerModelName]")} AS scanner_words,
        {words("[license_short_name]")} AS license_words,
        {_lists("stains", "stain")}, {_lists("fixatives", "fixative")}, {_lists("embeddings", "embedding")},
        {_lists("anatomies", "anatomy")}, {_lists("tissues", "tissue")}, {_lists("types", "specimen_type")},
        {_lists("diagnoses", "diagnosis")}, {_lists("illuminations", "illumination")},
        {of_channels},
        {words("list_concat(texts, " + _MEANINGS + ")")} AS text_words
    FROM joined ORDER BY collection_id, PatientID, ContainerIdentifier, SeriesInstanceUID"""


_CODE_TYPE = "STRUCT(CodeValue VARCHAR, CodingSchemeDesignator VARCHAR, CodeMeaning VARCHAR, LongCodeValue VARCHAR)"
_NO_CODES = f"CAST([] AS {_CODE_TYPE}[])"


def _series(among: str) -> str:
    """Return the query of the series of slides as `idc_index` has them."""
    if among == "true":
        return "SELECT * FROM idc_index WHERE Modality = 'SM'"
    return f"""
        SELECT idc.*, collection_id, source_doi AS source_DOI, license_short_name, series_uuid AS crdc_series_uuid,
            theirs.revised_version AS series_revised_idc_version
        FROM (SELECT * FROM history.idc_index WHERE final_version = 0 AND Modality = 'SM' AND {among}) AS idc
        LEFT JOIN (SELECT * EXCLUDE (StudyInstanceUID, PatientID) FROM history.series
            WHERE final_version = 0 AND {among}) AS theirs ON theirs.SeriesInstanceUID = idc.SeriesInstanceUID"""


# Identifiers, and how a specimen was processed and sampled: of every slide the same.
_NO_DESCRIPTION = "('DCM:121041', 'DCM:111701', 'DCM:111704', 'DCM:111705', 'DCM:111706', 'DCM:111707')"
_CONCEPT = "item.concept_code_designator_value_str"
_IS_VOLUME = "ImageType[3] = 'VOLUME'"
"""Label and overview have sizes of their own."""
_DIAGNOSIS_CODE = "code.CodingSchemeDesignator || ':' || coalesce(code.CodeValue, code.LongCodeValue)"
_MEANINGS = (
    "list_transform(flatten([stains, fixatives, embeddings, anatomies, tissues, diagnoses]), lambda _p: _p.meaning)"
)
_AFFECTED = "SeriesInstanceUID IN (SELECT SeriesInstanceUID FROM affected)"

_PATIENT_COLUMNS = "collection_id VARCHAR, PatientID VARCHAR, Modality VARCHAR, series BIGINT, size_mb DOUBLE"


def exact_sum(column: str) -> str:
    """Return the sum of megabytes, the same in whatever order they are added."""
    return f"coalesce(CAST(sum(CAST(round({column} * 1000000) AS HUGEINT)) AS DOUBLE), 0) / 1000000"


_PATIENTS = f"""
    SELECT collection_id, PatientID, Modality, count(*) AS series, {exact_sum('"series_size_MB"')} AS size_mb
    FROM idc_index GROUP BY collection_id, PatientID, Modality ORDER BY ALL"""


def create_slide_table(name: str, *, temporary: bool = False) -> str:
    """Return the statement that makes an empty table of slides in place of what has the name."""
    columns = ", ".join(f'"{column}" {kind}' for column, kind in SLIDE_COLUMNS.items())
    return f"CREATE OR REPLACE {'TEMP ' if temporary else ''}TABLE {name} ({columns})"


def refresh_search(connection: DuckDBPyConnection) -> None:
    """Bring the tables that searches read up to date with the current version; to be called by what changes it.

    Where there is a table `affected` of SeriesInstanceUIDs, only these and their patients are made anew. Part of the
    transaction that it is called in.
    """
    connection.execute("RESET VARIABLE as_of")
    names = _tables(connection)
    if SLIDE_TABLE in names and PATIENT_TABLE in names and "affected" in names:
        _refresh_affected(connection, "history.series")
        return
    _create_tables(connection)
    connection.execute(f"INSERT INTO history.{SLIDE_TABLE} BY NAME {_slides(connection)}")
    connection.execute(f"INSERT INTO history.{PATIENT_TABLE} {_PATIENTS}")


def carry_search(connection: DuckDBPyConnection, source: str, series_instance_uid: str) -> None:
    """Take over the tables of another database, but for one series, when a catalog is written anew."""
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = ?"
    have = {row[0] for row in connection.execute(query, [source.strip('"')]).fetchall()}
    if SLIDE_TABLE not in have or PATIENT_TABLE not in have:
        return
    _create_tables(connection)
    for table in (SLIDE_TABLE, PATIENT_TABLE):
        connection.execute(f"INSERT INTO history.{table} BY NAME SELECT * FROM {source}.history.{table}")
    connection.execute("CREATE OR REPLACE TEMP TABLE affected AS SELECT ? AS SeriesInstanceUID", [series_instance_uid])
    _refresh_affected(connection, f"{source}.history.series")
    connection.execute("DROP TABLE temp.affected")


def _create_tables(connection: DuckDBPyConnection) -> None:
    connection.execute("CREATE SCHEMA IF NOT EXISTS history")
    connection.execute(create_slide_table(f"history.{SLIDE_TABLE}"))
    connection.execute(f"CREATE OR REPLACE TABLE history.{PATIENT_TABLE} ({_PATIENT_COLUMNS})")


def _refresh_affected(connection: DuckDBPyConnection, series: str) -> None:
    """Make the rows of the series in `affected` and of their patients anew.

    Parameters
    ----------
    series : str
        Table that tells whose series they are, or were.
    """
    # Their patients are looked for first, and small tables joined: two of all series would cost seconds.
    connection.execute(
        "CREATE OR REPLACE TEMP TABLE touched AS "
        f"SELECT DISTINCT collection_id, PatientID FROM {series} WHERE {_AFFECTED}"
    )
    same = (
        "EXISTS (SELECT 1 FROM touched WHERE touched.PatientID IS NOT DISTINCT FROM {0}.PatientID "
        "AND touched.collection_id IS NOT DISTINCT FROM {0}.collection_id)"
    )
    connection.execute(f"DELETE FROM history.{SLIDE_TABLE} WHERE {_AFFECTED}")
    connection.execute(f"DELETE FROM history.{PATIENT_TABLE} AS old WHERE {same.format('old')}")
    connection.execute(f"INSERT INTO history.{SLIDE_TABLE} BY NAME {_slides(connection, _AFFECTED)}")
    connection.execute(
        f"""INSERT INTO history.{PATIENT_TABLE}
        SELECT collection_id, PatientID, Modality, count(*) AS series, {exact_sum('"series_size_MB"')} AS size_mb
        FROM (SELECT SeriesInstanceUID, collection_id, PatientID FROM history.series AS theirs
            WHERE final_version = 0 AND {same.format("theirs")})
        JOIN (SELECT SeriesInstanceUID, Modality, "series_size_MB" FROM history.idc_index WHERE final_version = 0)
            USING (SeriesInstanceUID)
        GROUP BY collection_id, PatientID, Modality ORDER BY ALL"""
    )
    connection.execute("DROP TABLE temp.touched")


def _tables(connection: DuckDBPyConnection) -> set[str]:
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name IN (current_database(), 'temp')"
    return {row[0] for row in connection.execute(query).fetchall()}


def prepare_search(connection: DuckDBPyConnection, *, as_of: bool = False) -> None:
    """Make sure that a connection, which may be for reading only, has the tables `search_slide` and `search_patient`.

    Parameters
    ----------
    as_of : bool
        Make them for the version that the views show, in place of the current one.
    """
    names = _tables(connection)
    if not as_of and SLIDE_TABLE in names and PATIENT_TABLE in names:
        connection.execute(f"CREATE OR REPLACE TEMP VIEW local_slide AS SELECT * FROM history.{SLIDE_TABLE}")
        connection.execute(f"CREATE OR REPLACE TEMP VIEW local_patient AS SELECT * FROM history.{PATIENT_TABLE}")
        return
    connection.execute(create_slide_table("local_slide", temporary=True))
    connection.execute(f"INSERT INTO local_slide BY NAME {_slides(connection)}")
    connection.execute(f"CREATE OR REPLACE TEMP TABLE local_patient AS {_PATIENTS}")
