"""Queries that users write: what they give, in both dialects, and what they cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coverslip.catalog.bigquery_sql import looks_like_bigquery, translate_bigquery
from coverslip.catalog.database import open_catalog
from coverslip.catalog.published import PublishedFiles, attach_published
from coverslip.catalog.search import SearchableCatalog, open_search
from coverslip.catalog.sql import run_sql
from coverslip.errors import CatalogError, UsageError


@pytest.fixture
def attached(catalog_file: Path, published: PublishedFiles) -> Iterator[SearchableCatalog]:
    with open_catalog(catalog_file) as connection:
        attach_published(connection, published)
    with open_search(catalog_file) as opened:
        yield opened


def test_a_query_reads_the_tables_of_the_catalog_and_of_searches(catalog: SearchableCatalog) -> None:
    found = run_sql(catalog, "SELECT Modality, count(*) AS n FROM idc_index GROUP BY 1 ORDER BY 1")
    assert found.columns == ("Modality", "n")
    assert found.rows == (("CT", 3), ("MR", 1), ("PT", 1), ("SM", 9))
    assert found.dialect == "duckdb"
    assert run_sql(catalog, "SELECT count(*) FROM search_slide").rows == ((9,),)


def test_no_more_rows_are_given_than_the_limit_and_it_says_so(catalog: SearchableCatalog) -> None:
    found = run_sql(catalog, "SELECT * FROM range(5)", limit=3)
    assert (found.rows, found.more) == (((0,), (1,), (2,)), True)
    assert not run_sql(catalog, "SELECT * FROM range(3)", limit=3).more


def test_a_query_reads_the_attached_index_and_no_other_file(
    attached: SearchableCatalog, published: PublishedFiles
) -> None:
    assert run_sql(attached, "SELECT count(*) FROM published_series").rows == ((4513,),)
    assert run_sql(attached, "SELECT count(*) FROM search_series").rows == ((4513 + 14,),)
    with pytest.raises(UsageError, match="disabled by configuration"):
        run_sql(attached, f"SELECT * FROM read_blob('{published.idc_index.parent / 'dicom_all.schema.json'}')")


HOSTILE = [
    "SELECT * FROM read_csv('{file}')",
    "SELECT * FROM '{file}'",
    "SELECT * FROM read_text('{file}')",
    "SELECT * FROM read_blob('{file}')",
    "SELECT * FROM read_json('{file}')",
    "SELECT * FROM read_parquet('{file}')",
    "SELECT * FROM parquet_metadata('{file}')",
    "SELECT * FROM sniff_csv('{file}')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM query('SELECT * FROM read_text(''{file}'')')",
    "SELECT * FROM 'http://127.0.0.1:9/x.csv'",
    "SELECT * FROM read_csv('https://127.0.0.1:9/x.csv')",
    "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
    "SELECT getenv('HOME')",
    "SELECT * FROM secret_rows",
    "SELECT * FROM duckdb_secrets()",
    "COPY (SELECT 1) TO '{folder}/out.csv'",
    "COPY versions FROM '{file}'",
    "EXPORT DATABASE '{folder}/export'",
    "ATTACH '{folder}/other.duckdb'",
    "ATTACH '{catalog}' AS again (READ_WRITE)",
    "DETACH coverslip_catalog",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "RESET enable_external_access",
    "PRAGMA enable_profiling",
    "SET VARIABLE as_of = 1",
    "CREATE TABLE mine AS SELECT 1",
    "CREATE TEMP TABLE mine AS SELECT 1",
    "CREATE TABLE memory.main.mine AS SELECT 1",
    "CREATE SECRET s (TYPE s3)",
    "CREATE MACRO f() AS 1",
    "DROP TABLE versions",
    "DROP VIEW search_slide",
    "DELETE FROM history.instances",
    "UPDATE history.series SET PatientID = 'x'",
    "INSERT INTO versions VALUES (9, 'x', NULL)",
    "WITH gone AS (DELETE FROM search_collection RETURNING *) SELECT * FROM gone",
    "WITH more AS (INSERT INTO search_collection BY NAME SELECT 'x' AS collection_id RETURNING *) SELECT * FROM more",
    "SELECT * FROM query('DELETE FROM search_collection RETURNING 1')",
    "ALTER TABLE history.series ADD COLUMN x INTEGER",
    "TRUNCATE history.series",
    "CHECKPOINT",
    "VACUUM",
    "CALL pragma_version()",
    "BEGIN",
    "USE memory",
    "EXPLAIN ANALYZE SELECT 1",
    "EXECUTE x",
    "SELECT 1; DROP TABLE versions",
    "SELECT 1; SELECT 2",
    "",
    ";",
    "-- nothing",
]


_TABLES = """
    SELECT database_name, table_name, estimated_size, (SELECT count(*) FROM search_collection) FROM duckdb_tables()
    ORDER BY ALL"""


@pytest.mark.parametrize("dialect", ["auto", "duckdb", "bigquery"])
def test_no_query_reaches_a_file_the_network_or_a_setting_or_changes_anything(
    catalog_file: Path, tmp_path: Path, dialect: str
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\nsecret,1\n")
    secret_rows = [("secret",)]
    before = catalog_file.read_bytes()
    files = sorted(tmp_path.iterdir())
    with open_search(catalog_file) as catalog:
        tables = catalog.connection.execute(_TABLES).fetchall()
        refusals: list[str] = []
        for query in HOSTILE:
            sql = query.format(file=secret, folder=tmp_path, catalog=catalog_file)
            try:
                found = run_sql(catalog, sql, dialect=dialect, timeout_s=20)
            except (UsageError, CatalogError) as error:
                refusals.append(str(error))
                continue
            assert "secret" not in str(found.rows), query
            assert query == "SELECT * FROM duckdb_secrets()", f"{query} gave {found.rows}"
        assert catalog.connection.execute(_TABLES).fetchall() == tables
    assert len(refusals) >= len(HOSTILE) - 1
    assert [each for each in refusals if "\n" in each] == []
    assert catalog_file.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == files
    assert secret_rows


@pytest.mark.parametrize("seconds", [0.5, 0])
def test_a_query_that_takes_too_long_is_ended_also_if_time_is_up_before_it_begins(
    catalog: SearchableCatalog, seconds: float
) -> None:
    with pytest.raises(CatalogError, match=rf"not done after {seconds:g} s"):
        run_sql(catalog, "SELECT count(*) FROM range(10000000000) AS a, range(1000000000) AS b", timeout_s=seconds)
    assert run_sql(catalog, "SELECT 1").rows == ((1,),)


def test_a_query_that_needs_too_much_memory_is_ended_and_writes_nothing_to_disk(
    catalog_file: Path, tmp_path: Path
) -> None:
    with open_search(catalog_file) as catalog, pytest.raises(CatalogError, match="needs more than 60MB of memory"):
        run_sql(catalog, "SELECT list(range ORDER BY hash(range)) FROM range(20000000)", memory="60MB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalog.duckdb"]


def test_a_wrong_name_is_told_in_one_line(catalog: SearchableCatalog) -> None:
    with pytest.raises(UsageError, match=r'^--sql: Binder Error: Referenced column "Stain" not found'):
        run_sql(catalog, "SELECT Stain FROM idc_index")
    with pytest.raises(UsageError, match="--dialect mysql: expected one of"):
        run_sql(catalog, "SELECT 1", dialect="mysql")


@pytest.mark.parametrize(
    ("sql", "rows"),
    [
        # Places count from 0, and an array without elements gives no row, in a join and below a SELECT.
        ("SELECT x, place FROM UNNEST(['a', 'b']) AS x WITH OFFSET AS place ORDER BY place", [("a", 0), ("b", 1)]),
        ("SELECT x, offset FROM UNNEST(['a', 'b']) AS x WITH OFFSET ORDER BY offset", [("a", 0), ("b", 1)]),
        (
            """SELECT n, x, place FROM (SELECT 1 AS n, ['a', 'b'] AS xs UNION ALL SELECT 2, ARRAY<STRING>[]) AS t
            LEFT JOIN UNNEST(t.xs) AS x WITH OFFSET AS place ON TRUE ORDER BY n, place""",
            [(1, "a", 0), (1, "b", 1), (2, None, None)],
        ),
        ("SELECT (SELECT MAX(place) FROM UNNEST(['a', 'b', 'c']) AS x WITH OFFSET AS place)", [(2,)]),
        ("SELECT ['a', 'b'][SAFE_OFFSET(1)], ['a'][SAFE_OFFSET(7)], ['a', 'b'][ORDINAL(1)]", [("b", None, "a")]),
        # A text with a decimal point is no integer.
        ("SELECT SAFE_CAST('40.0' AS INT64), SAFE_CAST('40' AS INT64), SAFE_CAST('x' AS INT64)", [(None, 40, None)]),
        ("SELECT SAFE_CAST('40.5' AS FLOAT64), CAST(3 AS INT64)", [(40.5, 3)]),
        ("SELECT STRING_AGG(DISTINCT x, ';' ORDER BY x) FROM UNNEST(['b', 'a', 'b']) AS x", [("a;b",)]),
        ("SELECT ARRAY_AGG(DISTINCT x IGNORE NULLS ORDER BY x) FROM UNNEST(['b', 'a', NULL]) AS x", [(["a", "b"],)]),
        ("SELECT ARRAY(SELECT x FROM UNNEST([2, 1]) AS x ORDER BY x)", [([1, 2],)]),
        ("SELECT EXISTS(SELECT 1 FROM UNNEST([1, 2]) AS x WHERE x = 2)", [(True,)]),
        ("SELECT * EXCEPT (b) FROM (SELECT 1 AS a, 2 AS b)", [(1,)]),
        ('SELECT COUNTIF(Modality = "SM") FROM idc_index', [(9,)]),
        ("SELECT COUNTIF(x), COUNTIF(x IS NULL) FROM UNNEST([CAST(NULL AS BOOL), NULL]) AS x", [(0, 2)]),
        ("SELECT COUNT(*) FROM `bigquery-public-data.idc_current.idc_index` WHERE Modality = 'SM'", [(9,)]),
        ("SELECT COUNT(*) FROM idc_v17.idc_index", [(14,)]),
        ("""SELECT COUNT(*) FROM `p.d.dicom_all`, UNNEST(OpticalPathSequence) AS path
            WHERE path.OpticalPathDescription = 'CD3'""", [(4,)]),
        ("SELECT DISTINCT code.CodeMeaning FROM dicom_all AS d, d.AdmittingDiagnosesCodeSequence AS code ORDER BY 1",
         [("Carcinoma of prostate",), ("Colorectal cancer",)]),
        ("SELECT FORMAT_DATE('%Y', DATE '2026-02-03'), DATE_DIFF(DATE '2026-02-03', DATE '2026-02-01', DAY)",
         [("2026", 2)]),
        ("SELECT REGEXP_CONTAINS('AB_1', r'^AB_\\d$'), SAFE_DIVIDE(1, 0), IF(TRUE, 1, 2)", [(True, None, 1)]),
    ],
)  # fmt: skip
def test_bigquery_sql_gives_what_bigquery_would(catalog: SearchableCatalog, sql: str, rows: list[tuple]) -> None:
    assert list(run_sql(catalog, sql, dialect="bigquery").rows) == rows


def test_a_cast_that_bigquery_refuses_is_refused(catalog: SearchableCatalog) -> None:
    with pytest.raises(UsageError, match=r"no integer: 40\.0"):
        run_sql(catalog, "SELECT CAST(x AS INT64) FROM UNNEST(['40.0']) AS x", dialect="bigquery")


@pytest.mark.parametrize(
    ("sql", "dialect"),
    [
        ("SELECT Modality FROM idc_index", "duckdb"),
        ("SELECT `Modality` FROM idc_index", "bigquery"),
        ('SELECT "Modality" FROM idc_index', "duckdb"),
        ('SELECT 1 FROM idc_index WHERE Modality = "SM"', "bigquery"),
        ("SELECT code FROM search_slide, UNNEST(stain_codes) AS code", "bigquery"),
        ("SELECT code FROM search_slide, UNNEST(stain_codes) AS _t(code)", "duckdb"),
        ("SELECT unnest(stain) AS one FROM search_slide", "duckdb"),
        ("SELECT '`', 1 -- `\n", "duckdb"),
        ("SELECT stain[1] FROM search_slide", "duckdb"),
        ("SELECT stain[OFFSET(0)] FROM search_slide", "bigquery"),
        ("SELECT SAFE_CAST(PatientAge AS INT64) FROM idc_index", "bigquery"),
        ("FROM idc_index SELECT count(*)", "duckdb"),
    ],
)
def test_the_dialect_of_a_query_is_seen(catalog: SearchableCatalog, sql: str, dialect: str) -> None:
    assert run_sql(catalog, sql).dialect == dialect
    if dialect == "duckdb":
        assert not looks_like_bigquery(sql)


@pytest.mark.parametrize(
    "sql", ["SELECT FROM", "SELECT 1; SELECT 2", "DELETE FROM t WHERE TRUE", "SELECT 1 FROM (", ""]
)
def test_what_is_no_single_query_of_bigquery_is_refused(sql: str) -> None:
    with pytest.raises(UsageError, match=r"^--sql: [^\n]+$"):
        translate_bigquery(sql)
