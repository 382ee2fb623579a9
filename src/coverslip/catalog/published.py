"""IDC's index of everything it has published, searched beside the slides of a catalog.

It is one or two Parquet files: `idc_index`, a row per series, as the package ``idc-index-data`` has it, and `sm_index`,
a row per slide, which the package has not. A catalog keeps where they lie, and of the slides a row each as in
`search_table`, so that searching them costs no reading; everything else is read from the file when it is asked for.
Nothing of it becomes part of the tables that `coverslip index` writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coverslip.catalog.database import make_tables, open_catalog
from coverslip.catalog.search_table import CODED_FIELDS, SLIDE_COLUMNS, create_slide_table, words
from coverslip.errors import CatalogError, MissingDependencyError, UsageError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

__all__ = [
    "PublishedFiles",
    "PublishedIndex",
    "attach_published",
    "attach_to_catalog",
    "attached_published",
    "choose_published",
    "copy_published",
    "detach_published",
    "find_packaged_index",
    "prepare_published",
]

_TABLE = "attached_index"
_SLIDES = "published_slide"
_COLLECTIONS = "published_collection"

_INDEX_COLUMNS = (
    "collection_id PatientID StudyInstanceUID SeriesInstanceUID Modality SeriesDescription StudyDescription StudyDate "
    "Manufacturer ManufacturerModelName license_short_name source_DOI crdc_series_uuid series_revised_idc_version "
    "instanceCount series_size_MB series_aws_url"
).split()
_SM_COLUMNS = (
    "SeriesInstanceUID ContainerIdentifier min_PixelSpacing_2sf max_TotalPixelMatrixColumns max_TotalPixelMatrixRows "
    "ObjectiveLensPower"
).split()
_SM_PREFIXES = {
    "stain": "staining_usingSubstance",
    "fixative": "tissueFixative",
    "embedding": "embeddingMedium",
    "anatomy": "primaryAnatomicStructure",
    "tissue": "primaryAnatomicStructureModifier",
    "diagnosis": "admittingDiagnosis",
    "illumination": "illuminationType",
}
_LISTS = ("stain", "fixative", "embedding")
_COLLECTION_COLUMNS = "collection_id collection_name cancer_types tumor_locations".split()


@dataclass(frozen=True, slots=True)
class PublishedFiles:
    """The files of IDC's index.

    Parameters
    ----------
    idc_index : Path
    sm_index : Path or None
        Without it stain, anatomy and the like of published slides are not known.
    collections : Path or None
        IDC's `collections_index`, from which cancer types come.
    """

    idc_index: Path
    sm_index: Path | None = None
    collections: Path | None = None


@dataclass(frozen=True, slots=True)
class PublishedIndex:
    """What a catalog has of IDC's index.

    Parameters
    ----------
    files : PublishedFiles
    series, slides : int
        How many it tells of.
    """

    files: PublishedFiles
    series: int
    slides: int

    @property
    def summary(self) -> dict[str, Any]:
        """What a command tells of it as JSON."""
        return {"series": self.series, "slides": self.slides, "sm_index": self.files.sm_index is not None}

    @property
    def line(self) -> str:
        """What a command tells of it."""
        return f"IDC's index attached: {self.series} series, {self.slides} of them slides"


def find_packaged_index() -> PublishedFiles:
    """Return the files of the installed package ``idc-index-data``, without loading it.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    spec = find_spec("idc_index_data")
    if spec is None or spec.origin is None:
        raise MissingDependencyError(
            "IDC's index needs the package idc-index-data: pip install 'coverslip[idc]', or name a Parquet file"
        )
    folder = Path(spec.origin).parent
    collections = folder / "collections_index.parquet"
    return PublishedFiles(folder / "idc_index.parquet", None, collections if collections.is_file() else None)


def choose_published(
    idc_index: Path | None, sm_index: Path | None = None, collections: Path | None = None
) -> PublishedFiles:
    """Return the files that were named; what was not comes from the installed package, all of it or nothing.

    Raises
    ------
    MissingDependencyError
        If no index was named, and the package is not installed.
    UsageError
        If a file is not there.
    """
    if idc_index is not None:
        return _resolved(PublishedFiles(idc_index, sm_index, collections))
    packaged = find_packaged_index()
    return _resolved(PublishedFiles(packaged.idc_index, sm_index, collections or packaged.collections))


def attach_published(connection: DuckDBPyConnection, files: PublishedFiles) -> PublishedIndex:
    """Keep in a catalog, open for writing, where IDC's index lies, and its slides.

    Raises
    ------
    UsageError
        If a file is not there or not what it should be; the catalog is then as it was.
    """
    files = _resolved(files)
    connection.execute("BEGIN")
    try:
        connection.execute("CREATE SCHEMA IF NOT EXISTS history")
        _load(connection, files, f"history.{_SLIDES}", f"history.{_COLLECTIONS}", temporary=False)
        counts = _count(connection, files, f"history.{_SLIDES}")
        connection.execute(
            f"CREATE OR REPLACE TABLE history.{_TABLE} (file VARCHAR, path VARCHAR, bytes BIGINT, rows BIGINT)"
        )
        for name, path, rows in (
            ("idc_index", files.idc_index, counts[0]),
            ("sm_index", files.sm_index, counts[1]),
            ("collections_index", files.collections, None),
        ):
            if path is not None:
                connection.execute(
                    f"INSERT INTO history.{_TABLE} VALUES (?, ?, ?, ?)", [name, str(path), path.stat().st_size, rows]
                )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return PublishedIndex(files, *counts)


def attach_to_catalog(path: Path, files: PublishedFiles, *, wait_s: float = 60.0) -> PublishedIndex:
    """Do the same for the file of a catalog, which is made if it is not there."""
    with open_catalog(path, wait_s=wait_s) as connection:
        connection.execute("BEGIN")
        make_tables(connection)
        connection.execute("COMMIT")
        return attach_published(connection, files)


def detach_published(connection: DuckDBPyConnection) -> bool:
    """Forget IDC's index, and say whether there was one."""
    found = attached_published(connection) is not None
    connection.execute("BEGIN")
    for table in (_TABLE, _SLIDES, _COLLECTIONS):
        connection.execute(f"DROP TABLE IF EXISTS history.{table}")
    connection.execute("COMMIT")
    return found


def copy_published(connection: DuckDBPyConnection, source: str) -> None:
    """Take over what is attached to another database of the connection, when a catalog is written anew."""
    have = {
        row[0]
        for row in connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = ?", [source.strip('"')]
        ).fetchall()
    }
    for table in (_TABLE, _SLIDES, _COLLECTIONS):
        if table in have:
            connection.execute(f"CREATE OR REPLACE TABLE history.{table} AS SELECT * FROM {source}.history.{table}")


def attached_published(connection: DuckDBPyConnection) -> PublishedIndex | None:
    """Return what is attached to a catalog, None if nothing is."""
    if not _has(connection, _TABLE):
        return None
    rows = connection.execute(f"SELECT file, path, rows FROM history.{_TABLE}").fetchall()
    paths = {name: Path(path) for name, path, _ in rows}
    slides = connection.execute(f"SELECT count(*) FROM history.{_SLIDES}").fetchone()
    files = PublishedFiles(paths["idc_index"], paths.get("sm_index"), paths.get("collections_index"))
    series = next(count for name, _, count in rows if name == "idc_index")
    return PublishedIndex(files, series, slides[0] if slides else 0)


def prepare_published(connection: DuckDBPyConnection, files: PublishedFiles | None = None) -> PublishedIndex | None:
    """Make `published_slide`, `published_series` and `published_collection` for a connection that may only read.

    Parameters
    ----------
    files : PublishedFiles, optional
        Take these, in place of what is attached to the catalog.

    Returns
    -------
    PublishedIndex or None
        None if nothing is attached; the three are then empty.

    Raises
    ------
    UsageError
        If a file that was named is not what it should be.
    CatalogError
        If a file that was attached has gone or changed.
    """
    if files is not None:
        files = _resolved(files)
        _load(connection, files, f"temp.{_SLIDES}", f"temp.{_COLLECTIONS}", temporary=True)
        found = PublishedIndex(files, *_count(connection, files, f"temp.{_SLIDES}"))
    else:
        attached = attached_published(connection)
        if attached is None:
            _prepare_nothing(connection)
            return None
        found = attached
        _check_unchanged(connection)
        for table in (_SLIDES, _COLLECTIONS):
            connection.execute(f"CREATE OR REPLACE TEMP VIEW {table} AS SELECT * FROM history.{table}")
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW published_series AS SELECT * FROM read_parquet({_text(found.files.idc_index)})"
    )
    return found


def _prepare_nothing(connection: DuckDBPyConnection) -> None:
    connection.execute(create_slide_table(_SLIDES, temporary=True))
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {_COLLECTIONS} ({', '.join(f'{c} VARCHAR' for c in _COLLECTION_COLUMNS)})"
    )
    connection.execute("CREATE OR REPLACE TEMP VIEW published_series AS SELECT * FROM idc_index WHERE false")


def _check_unchanged(connection: DuckDBPyConnection) -> None:
    for name, path, size in connection.execute(f"SELECT file, path, bytes FROM history.{_TABLE}").fetchall():
        if name != "idc_index":
            continue
        if not Path(path).is_file():
            raise CatalogError(f"IDC's index was attached as {path}, which is gone: attach it again, or detach it")
        if Path(path).stat().st_size != size:
            raise CatalogError(f"IDC's index {path} has changed since it was attached: attach it again")


def _resolved(files: PublishedFiles) -> PublishedFiles:
    for path in (files.idc_index, files.sm_index, files.collections):
        if path is not None and not path.is_file():
            raise UsageError(f"{path}: no such file, expected a Parquet file of IDC's index")
    return PublishedFiles(
        Path(os.path.realpath(files.idc_index)),
        files.sm_index and Path(os.path.realpath(files.sm_index)),
        files.collections and Path(os.path.realpath(files.collections)),
    )


def _load(
    connection: DuckDBPyConnection, files: PublishedFiles, slides: str, collections: str, *, temporary: bool
) -> None:
    _check_columns(connection, files.idc_index, _INDEX_COLUMNS)
    if files.sm_index is not None:
        prefixed = (f"{prefix}_{part}" for prefix in _SM_PREFIXES.values() for part in _CODE)
        _check_columns(connection, files.sm_index, [*_SM_COLUMNS, *prefixed])
    connection.execute(create_slide_table(slides, temporary=temporary))
    connection.execute(f"INSERT INTO {slides} BY NAME {_slides(files)}")
    kind = "TEMP TABLE" if temporary else "TABLE"
    if files.collections is None:
        columns = ", ".join(f"CAST(NULL AS VARCHAR) AS {column}" for column in _COLLECTION_COLUMNS)
        connection.execute(f"CREATE OR REPLACE {kind} {collections} AS SELECT {columns} WHERE false")
        return
    _check_columns(connection, files.collections, _COLLECTION_COLUMNS)
    connection.execute(
        f"CREATE OR REPLACE {kind} {collections} AS SELECT {', '.join(_COLLECTION_COLUMNS)} "
        f"FROM read_parquet({_text(files.collections)}) ORDER BY collection_id"
    )


_CODE = "CodeMeaning code_designator_value_str".split()


def _slides(files: PublishedFiles) -> str:
    """Return the query of the rows of all published slides.

    Slides have few different texts between them, so words are made of each only once.
    """
    scanner, texts = "[Manufacturer, ManufacturerModelName]", "[StudyDescription, SeriesDescription]"
    scanned = _spoken("idc", "scanners", ("Manufacturer", "ManufacturerModelName"), words(scanner))
    licensed = _spoken("idc", "licenses", ("license_short_name", "source_DOI"), words("[license_short_name]"))
    described = _spoken("idc", "descriptions", ("StudyDescription", "SeriesDescription"), words(texts))
    columns = """
        SELECT idc.SeriesInstanceUID AS SeriesInstanceUID, StudyInstanceUID, collection_id, PatientID,
            true AS published, idc.StudyDescription AS StudyDescription, idc.SeriesDescription AS SeriesDescription,
            idc.Manufacturer AS Manufacturer, idc.ManufacturerModelName AS ManufacturerModelName,
            scanners.words AS scanner_words, idc.license_short_name AS license_short_name,
            licenses.words AS license_words, idc.source_DOI AS source_doi, crdc_series_uuid,
            series_revised_idc_version AS series_revised_version, instanceCount AS instance_count,
            "series_size_MB" AS size_mb"""
    with_idc = f"WITH idc AS MATERIALIZED (SELECT * FROM read_parquet({_text(files.idc_index)}) WHERE Modality = 'SM')"
    source = f"FROM idc {scanned} {licensed} {described}"
    if files.sm_index is None:
        return f"{with_idc} {columns}, 'series' AS known, descriptions.words AS text_words {source}"
    lists, coded, joins = [], [], []
    for field, prefix in _SM_PREFIXES.items():
        meaning, code = (f"{prefix}_{part}" for part in _CODE)
        if field not in _LISTS:
            meaning, code = (f"CASE WHEN {meaning} IS NOT NULL THEN [{each}] ELSE [] END" for each in (meaning, code))
        lists.append(f"coalesce({meaning}, []) AS {field}, coalesce({code}, []) AS {field}_codes")
        coded.append(f"sm.{field} AS {field}, sm.{field}_codes AS {field}_codes, of_{field}.words AS {field}_words")
        joins.append(_spoken("sm", f"of_{field}", (field, f"{field}_codes"), words(field, f"{field}_codes")))
    spoken = " || ".join(f"coalesce({name}.words, '')" for name in ("descriptions", *(f"of_{f}" for f in _SM_PREFIXES)))
    return f"""{with_idc}, sm AS MATERIALIZED (
            SELECT {", ".join(_SM_COLUMNS)}, {", ".join(lists)} FROM read_parquet({_text(files.sm_index)}))
        {columns}, {", ".join(coded)},
            CASE WHEN sm.SeriesInstanceUID IS NULL THEN 'series' ELSE 'sm_index' END AS known,
            sm.ContainerIdentifier AS ContainerIdentifier, CAST(sm.ObjectiveLensPower AS DOUBLE) AS objective,
            round(sm."min_PixelSpacing_2sf" * 1000, 6) AS spacing_um,
            sm."max_TotalPixelMatrixColumns" AS matrix_columns, sm."max_TotalPixelMatrixRows" AS matrix_rows,
            {spoken} AS text_words
        {source} LEFT JOIN sm ON sm.SeriesInstanceUID = idc.SeriesInstanceUID {" ".join(joins)}"""


def _spoken(table: str, name: str, columns: tuple[str, str], expression: str) -> str:
    """Return the join with the words of each pair of values that a table has."""
    same = " AND ".join(f"{name}.{column} IS NOT DISTINCT FROM {table}.{column}" for column in columns)
    return (
        f"LEFT JOIN (SELECT *, {expression} AS words FROM (SELECT DISTINCT {', '.join(columns)} FROM {table})) "
        f"AS {name} ON {same}"
    )


assert set(_SM_PREFIXES) < set(CODED_FIELDS)
assert "known" in SLIDE_COLUMNS


def _count(connection: DuckDBPyConnection, files: PublishedFiles, slides: str) -> tuple[int, int]:
    found = connection.execute(
        f"SELECT (SELECT count(*) FROM read_parquet({_text(files.idc_index)})), (SELECT count(*) FROM {slides})"
    ).fetchone()
    assert found is not None
    return found[0], found[1]


def _check_columns(connection: DuckDBPyConnection, path: Path, wanted: Iterable[str]) -> None:
    import duckdb

    try:
        rows = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({_text(path)})").fetchall()
    except duckdb.Error as error:
        raise UsageError(f"{path}: no Parquet file: {str(error).splitlines()[0]}") from None
    missing = sorted(set(wanted) - {row[0] for row in rows})
    if missing:
        raise UsageError(f"{path}: no column {missing[0]}; expected a table of IDC's index")


def _has(connection: DuckDBPyConnection, table: str) -> bool:
    found = connection.execute(
        "SELECT count(*) FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = 'history' AND table_name = ?",
        [table],
    ).fetchone()
    return bool(found and found[0])


def _text(path: Path) -> str:
    return "'" + str(path).replace("'", "''") + "'"
