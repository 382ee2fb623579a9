"""The fake refuses what BigQuery refuses: otherwise tests with it would prove little."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import google.auth.credentials
import pytest
from google.api_core.exceptions import BadRequest, GoogleAPICallError, NotFound, PreconditionFailed
from google.cloud import bigquery

from tests.catalog.bigquery.fake.rest import StrictBigQuery


@pytest.fixture(scope="module")
def client() -> Iterator[bigquery.Client]:
    with StrictBigQuery() as fake:
        options = {"api_endpoint": fake.url}
        credentials = google.auth.credentials.AnonymousCredentials()
        found = bigquery.Client("some-project", credentials=credentials, client_options=options)
        found.create_dataset("d")
        schema = [
            bigquery.SchemaField("name", "STRING", "REQUIRED"),
            bigquery.SchemaField("number", "INTEGER"),
            bigquery.SchemaField("words", "STRING", "REPEATED"),
            bigquery.SchemaField("day", "DATE"),
            bigquery.SchemaField("inner", "RECORD", fields=[bigquery.SchemaField("x", "FLOAT")]),
        ]
        found.create_table(bigquery.Table("some-project.d.t", schema))
        yield found
        found.close()


def load(client: bigquery.Client, *rows: dict, **options) -> None:
    config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", **options)
    data = io.BytesIO("".join(f"{json.dumps(row)}\n" for row in rows).encode())
    client.load_table_from_file(data, "some-project.d.t", job_config=config, num_retries=0).result()


def query(client: bigquery.Client, sql: str, **options) -> list[tuple]:
    config = bigquery.QueryJobConfig(default_dataset="some-project.d", **options)
    return [row.values() for row in client.query(sql, job_config=config).result(retry=None)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"number": 1}, "Missing required field: name"),
        ({"name": "a", "number": "40.0"}, "Could not convert value '40.0' to INTEGER"),
        ({"name": "a", "number": 40.0}, "Could not convert value"),
        ({"name": 7}, "Could not convert value 7 to STRING"),
        ({"name": "a", "stray": 1}, "No such field: stray"),
        ({"name": "a", "inner": {"y": 1}}, "No such field: inner.y"),
        ({"name": "a", "words": ["x", None]}, "Only optional fields can be set to NULL"),
        ({"name": "a", "words": "x"}, "no array"),
        ({"name": "a", "day": "20240102x"}, "Could not parse"),
    ],
)
def test_rows_that_do_not_fit_are_not_loaded(client, row, message) -> None:
    with pytest.raises(BadRequest, match=message):
        load(client, {"name": "fits"}, row)
    assert query(client, "SELECT COUNT(*) AS n FROM t") == [(0,)]


def test_a_load_may_add_fields_only_if_it_says_so(client) -> None:
    client.create_table(bigquery.Table("some-project.d.u", [bigquery.SchemaField("a", "STRING")]))
    more = [bigquery.SchemaField("a", "STRING"), bigquery.SchemaField("b", "INTEGER")]
    config = bigquery.LoadJobConfig(source_format="NEWLINE_DELIMITED_JSON", schema=more)
    rows = b'{"a": "x", "b": 1}\n'
    with pytest.raises(BadRequest, match="Cannot add fields"):
        client.load_table_from_file(io.BytesIO(rows), "some-project.d.u", job_config=config).result()
    config.schema_update_options = ["ALLOW_FIELD_ADDITION"]
    client.load_table_from_file(io.BytesIO(rows), "some-project.d.u", job_config=config).result()
    assert query(client, "SELECT a, b FROM u") == [("x", 1)]
    assert [tuple(row.values()) for row in client.list_rows("some-project.d.u")] == [("x", 1)]


def test_fields_are_only_added_and_by_who_saw_the_newest_schema(client) -> None:
    client.create_table(bigquery.Table("some-project.d.v", [bigquery.SchemaField("a", "STRING")]))
    first, second = client.get_table("some-project.d.v"), client.get_table("some-project.d.v")
    for schema, message in (
        ([bigquery.SchemaField("b", "STRING")], "is missing in new schema"),
        ([bigquery.SchemaField("a", "INTEGER")], "has changed type"),
        ([bigquery.SchemaField("a", "STRING", "REPEATED")], "has changed mode"),
        ([*first.schema, bigquery.SchemaField("b", "STRING", "REQUIRED")], "Cannot add required fields"),
        ([*first.schema, bigquery.SchemaField("a b", "STRING")], "Invalid field name"),
        ([*first.schema, bigquery.SchemaField("A", "STRING")], "Duplicate field name"),
    ):
        first.schema = schema
        with pytest.raises(BadRequest, match=message):
            client.update_table(first, ["schema"])
    first.schema = [*second.schema, bigquery.SchemaField("b", "STRING")]
    client.update_table(first, ["schema"])
    second.schema = [*second.schema, bigquery.SchemaField("c", "STRING")]
    with pytest.raises(PreconditionFailed):
        client.update_table(second, ["schema"])


ON_NAME = "MERGE t USING (SELECT 'a' AS name) AS s ON t.name = s.name WHEN NOT MATCHED THEN"
ON_NUMBER = "MERGE t USING (SELECT 1 AS number) AS s ON t.number = s.number WHEN NOT MATCHED THEN"


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT name = 1 AS x FROM t", "No matching signature"),
        ("SELECT 1 AS x FROM t WHERE number = '1'", "No matching signature"),
        ("SELECT COALESCE(name, number) AS x FROM t", "No matching signature"),
        ("SELECT CASE WHEN number > 1 THEN 'a' ELSE 2 END AS x FROM t", "No matching signature"),
        ("SELECT LOWER(number) AS x FROM t", "No matching signature"),
        ("SELECT name || number AS x FROM t", "No matching signature"),
        ("SELECT list_sort(words) AS x FROM t", "Function not found"),
        ("SELECT regexp_full_match(name, 'a') AS x FROM t", "Function not found"),
        ("SELECT nobody FROM t", "could not be resolved"),
        ("SELECT [name, CAST(NULL AS STRING)] AS x FROM (SELECT 'a' AS name)", "Array cannot have a null element"),
        ("UPDATE t SET number = name WHERE TRUE", "cannot be inserted into column number"),
        ("UPDATE t SET number = 1", "must have a WHERE clause"),
        (f"{ON_NAME} INSERT (name, number) VALUES (s.name, s.name)", "cannot be inserted into column number"),
        (f"{ON_NUMBER} INSERT (number) VALUES (s.number)", "Required column name"),
        ("SELECT @missing AS x", "Query parameter 'missing' not found"),
        ("SELECT 1 AS a, 2 AS a", "Duplicate column names"),
        ("SELEC 1", "Syntax error"),
    ],
)  # fmt: skip
def test_sql_that_bigquery_refuses_is_refused(client, sql, message) -> None:
    with pytest.raises(BadRequest, match=message):
        query(client, sql)


def test_a_script_that_fails_leaves_nothing(client) -> None:
    client.create_table(bigquery.Table("some-project.d.w", [bigquery.SchemaField("a", "STRING")]))
    merge = "MERGE w USING (SELECT 'x' AS a) AS s ON w.a = s.a WHEN NOT MATCHED THEN INSERT (a) VALUES (s.a)"
    asserted = "ASSERT EXISTS(SELECT 1 FROM w WHERE a = 'y') AS 'nobody was there'"
    with pytest.raises(BadRequest, match="nobody was there"):
        query(client, f"BEGIN TRANSACTION; {merge}; {asserted}; COMMIT TRANSACTION;")
    assert query(client, "SELECT a FROM w") == []
    query(client, f"BEGIN TRANSACTION; {merge}; COMMIT TRANSACTION;")
    assert query(client, "SELECT a FROM w") == [("x",)]


def test_text_is_cast_to_numbers_as_bigquery_does(client) -> None:
    sql = "SELECT SAFE_CAST(text AS INT64) AS n FROM UNNEST(['40', '40.0', 'x']) AS text"
    assert query(client, sql) == [(40,), (None,), (None,)]


def test_wrong_requests_are_refused(client) -> None:
    with pytest.raises(NotFound):
        query(client, "SELECT 1 AS x FROM nothing")
    schema = client.get_table("some-project.d.t").schema
    load(client, {"name": "a"}, write_disposition="WRITE_TRUNCATE", schema=schema)
    with pytest.raises(GoogleAPICallError, match="bytes billed"):
        query(client, "SELECT * FROM t", maximum_bytes_billed=1)
    dry = client.query(
        "SELECT name FROM `some-project.d.t`", job_config=bigquery.QueryJobConfig(dry_run=True, use_query_cache=False)
    )
    assert (dry.total_bytes_processed, dry.statement_type) == (8, "SELECT")
    table = bigquery.Table("some-project.d.x", [bigquery.SchemaField(each, "STRING") for each in "abcde"])
    table.clustering_fields = list("abcde")
    with pytest.raises(BadRequest, match="From 1 to 4 clustering fields"):
        client.create_table(table)
    with pytest.raises(BadRequest, match="Unknown name"):
        client._connection.api_request("POST", "/projects/some-project/datasets/d/tables", data={"tableReferenc": {}})
