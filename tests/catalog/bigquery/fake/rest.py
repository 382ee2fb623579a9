"""The endpoints of BigQuery's REST API that are used, with their checks.

https://cloud.google.com/bigquery/docs/reference/rest
"""

from __future__ import annotations

import email.parser
import email.policy
import gzip
import json
import re
import secrets
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import duckdb
import pyarrow as pa

from tests.catalog.bigquery.fake import sql
from tests.catalog.bigquery.fake.failures import Refused, invalid, invalid_query
from tests.catalog.bigquery.fake.schemas import (
    as_cell,
    check_row,
    check_schema,
    duckdb_columns,
    duckdb_type,
    fields_of_duckdb,
    widened,
)
from tests.stores.fakes.http_server import FakeServer, Request, Response, as_json

__all__ = ["StrictBigQuery"]

PAGE = 700
QUANTUM = 256 << 10
MAX_VIEW = 256 * 1024

_TABLE_KEYS = {
    "kind", "etag", "id", "selfLink", "tableReference", "schema", "description", "friendlyName", "labels", "view",
    "clustering", "rangePartitioning", "timePartitioning", "expirationTime", "type", "numRows", "numBytes",
    "creationTime", "lastModifiedTime", "location",
}  # fmt: skip
_DATASET_KEYS = {
    "datasetReference", "location", "description", "labels", "maxTimeTravelHours", "access", "friendlyName",
}  # fmt: skip
_QUERY_KEYS = {
    "query", "useLegacySql", "useQueryCache", "maximumBytesBilled", "defaultDataset", "queryParameters",
    "parameterMode",
}  # fmt: skip
_LOAD_KEYS = {
    "destinationTable", "schema", "sourceFormat", "writeDisposition", "createDisposition", "ignoreUnknownValues",
    "maxBadRecords", "schemaUpdateOptions", "parquetOptions",
}  # fmt: skip
_CLUSTERED = {"STRING", "INTEGER", "DATE", "BOOLEAN", "TIMESTAMP", "DATETIME"}


@dataclass
class Table:
    resource: dict[str, Any]
    fields: list[dict]
    revision: int = 1
    is_view: bool = False
    statement: sql.Statement | None = None

    @property
    def etag(self) -> str:
        return f"etag{self.revision}"


@dataclass
class Job:
    resource: dict[str, Any]
    fields: list[dict] = field(default_factory=list)
    rows: list[tuple] = field(default_factory=list)
    failure: Refused | None = None


class StrictBigQuery(FakeServer):
    """Datasets, tables, views, uploads with their load jobs, query jobs with dry runs, and pages of their rows.

    Attributes
    ----------
    queries : list of dict
        Configuration of every query job, dry runs too.
    loads : list of dict
    refused : list of str
        What was said of everything that was refused; a product that says less can be looked at here.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.datasets: dict[tuple[str, str], dict[str, Any]] = {}
        self.tables: dict[tuple[str, str, str], Table] = {}
        self.jobs: dict[str, Job] = {}
        self.queries: list[dict[str, Any]] = []
        self.loads: list[dict[str, Any]] = []
        self.refused: list[str] = []
        self.uploads: dict[str, tuple[str, dict[str, Any], bytearray]] = {}
        self.before_script: Callable[[], None] = lambda: None
        self.db = duckdb.connect(config={"memory_limit": "1GB"})
        super().__init__(tls)

    def close(self) -> None:
        super().close()
        self.db.close()

    # Requests.

    def answer(self, request: Request) -> Response:
        try:
            with self.lock:
                return self._route(request)
        except Refused as refused:
            self.refused.append(refused.message)
            return as_json(refused.status, refused.as_json())

    def _route(self, request: Request) -> Response:
        routes: list[tuple[str, str, Callable[..., Response]]] = [
            ("POST", r"/bigquery/v2/projects/([^/]+)/datasets", self._insert_dataset),
            ("GET", r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)", self._get_dataset),
            ("POST", r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables", self._insert_table),
            ("GET", r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)", self._get_table),
            ("PATCH", r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)", self._patch_table),
            ("DELETE", r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)", self._delete_table),
            ("GET", r"/bigquery/v2/projects/([^/]+)/datasets/([^/]+)/tables/([^/]+)/data", self._list_rows),
            ("POST", r"/bigquery/v2/projects/([^/]+)/jobs", self._insert_job),
            ("GET", r"/bigquery/v2/projects/([^/]+)/jobs/([^/]+)", self._get_job),
            ("GET", r"/bigquery/v2/projects/([^/]+)/queries/([^/]+)", self._get_results),
            ("POST", r"/upload/bigquery/v2/projects/([^/]+)/jobs", self._upload),
            ("PUT", r"/upload/bigquery/v2/projects/([^/]+)/jobs", self._continue_upload),
        ]
        for method, pattern, function in routes:
            found = re.fullmatch(pattern, request.path)
            if found and method == request.method:
                return function(request, *found.groups())
        raise Refused(404, "notFound", f"no endpoint {request.method} {request.path}")

    @staticmethod
    def _body(request: Request) -> dict[str, Any]:
        data = request.read_all()
        if request.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        try:
            body = json.loads(data)
        except ValueError:
            raise Refused(400, "parseError", "Parse Error") from None
        if not isinstance(body, dict):
            raise Refused(400, "parseError", "Parse Error")
        return body

    @staticmethod
    def _only(given: Mapping[str, Any], known: set[str], what: str) -> None:
        unknown = sorted(set(given) - known)
        if unknown:
            raise invalid(f'Invalid JSON payload received. Unknown name "{unknown[0]}" at "{what}"')

    # Datasets and tables.

    def _insert_dataset(self, request: Request, project: str) -> Response:
        body = self._body(request)
        self._only(body, _DATASET_KEYS, "dataset")
        name = body["datasetReference"]["datasetId"]
        if not re.fullmatch(r"\w{1,1024}", name, re.ASCII):
            raise invalid(f'Invalid dataset ID "{name}"')
        hours = body.get("maxTimeTravelHours")
        if hours is not None and not 48 <= int(hours) <= 168:
            raise invalid("maxTimeTravelHours: from 48 to 168")
        if (project, name) in self.datasets:
            raise Refused(409, "duplicate", f"Already Exists: Dataset {project}:{name}")
        self.datasets[project, name] = {**body, "location": body.get("location") or "US"}
        self.db.execute(f'CREATE SCHEMA "{project}.{name}"')
        return as_json(200, self._dataset(project, name))

    def _dataset(self, project: str, name: str) -> dict[str, Any]:
        if (project, name) not in self.datasets:
            raise Refused(404, "notFound", f"Not found: Dataset {project}:{name}")
        return {"kind": "bigquery#dataset", "id": f"{project}:{name}", **self.datasets[project, name]}

    def _get_dataset(self, request: Request, project: str, name: str) -> Response:
        return as_json(200, self._dataset(project, name))

    def _insert_table(self, request: Request, project: str, dataset: str) -> Response:
        self._dataset(project, dataset)
        body = self._body(request)
        self._only(body, _TABLE_KEYS, "table")
        name = body["tableReference"]["tableId"]
        if not re.fullmatch(r"[\w-]{1,1024}", name, re.ASCII):
            raise invalid(f'Invalid table ID "{name}"')
        if (project, dataset, name) in self.tables:
            raise Refused(409, "duplicate", f"Already Exists: Table {project}:{dataset}.{name}")
        if body.get("view") is not None:
            table = self._make_view((project, dataset, name), body)
        else:
            fields = check_schema((body.get("schema") or {}).get("fields"))
            self._check_layout(body, fields)
            self.db.execute(f'CREATE TABLE "{project}.{dataset}"."{name}" ({duckdb_columns(fields)})')
            table = Table(body, fields)
        self.tables[project, dataset, name] = table
        return as_json(200, self._told(project, dataset, name))

    @staticmethod
    def _check_layout(body: Mapping[str, Any], fields: list[dict]) -> None:
        by_name = {each["name"]: each for each in fields}
        partition = body.get("rangePartitioning")
        if partition:
            column = by_name.get(partition["field"])
            if column is None or column["type"] != "INTEGER" or column["mode"] == "REPEATED":
                raise invalid("The field of a range partition is a top-level INTEGER")
            bounds = [int(partition["range"][each]) for each in ("start", "end", "interval")]
            if not 0 < (bounds[1] - bounds[0]) / bounds[2] <= 10_000:
                raise invalid("From 1 to 10000 partitions")
        cluster = body.get("clustering")
        if cluster is not None:
            names = cluster["fields"]
            if not 1 <= len(names) <= 4:
                raise invalid("From 1 to 4 clustering fields")
            for name in names:
                column = by_name.get(name)
                if column is None or column["mode"] == "REPEATED" or column["type"] not in _CLUSTERED:
                    raise invalid(f"Cannot cluster by {name}")

    def _make_view(self, whole: tuple[str, str, str], body: Mapping[str, Any]) -> Table:
        view = body["view"]
        self._only(view, {"query", "useLegacySql"}, "view")
        if view.get("useLegacySql") is not False:
            raise invalid("a view of legacy SQL is not in this fake")
        if len(view["query"]) > MAX_VIEW:
            raise invalid("The view query is too long")
        if body.get("schema"):
            raise invalid("Schema field shouldn't be used as input with a view")
        for each in re.findall(r"FROM\s+`?(\w+)`?\s", view["query"]):
            raise invalid(f'Table "{each}" must be qualified with a dataset (e.g. dataset.table).')
        (statement,) = sql.parse_script(view["query"], self._known(None, whole[0]), [])
        if statement.kind != "SELECT":
            raise invalid_query("A view is one query")
        name = f'"{whole[0]}.{whole[1]}"."{whole[2]}"'
        sql.run(self.db, f"CREATE OR REPLACE VIEW {name} AS {statement.sql}")
        described = sql.run(self.db, f"SELECT * FROM {name} LIMIT 0").description or ()
        fields = fields_of_duckdb([(each[0], each[1]) for each in described])
        return Table({**body, "type": "VIEW"}, fields, is_view=True, statement=statement)

    def _told(self, project: str, dataset: str, name: str) -> dict[str, Any]:
        table = self.tables.get((project, dataset, name))
        if table is None:
            raise Refused(404, "notFound", f"Not found: Table {project}:{dataset}.{name}")
        return {
            "kind": "bigquery#table",
            "type": "VIEW" if table.is_view else "TABLE",
            **table.resource,
            "etag": table.etag,
            "schema": {"fields": table.fields},
            "location": self.datasets[project, dataset]["location"],
        }

    def _get_table(self, request: Request, *whole: str) -> Response:
        return as_json(200, self._told(*whole))

    def _patch_table(self, request: Request, project: str, dataset: str, name: str) -> Response:
        self._told(project, dataset, name)
        table = self.tables[project, dataset, name]
        wanted = request.headers.get("If-Match")
        if wanted is not None and wanted != table.etag:
            raise Refused(412, "conditionNotMet", "Precondition Failed")
        body = self._body(request)
        self._only(body, {"schema", "view", "tableReference"}, "table")
        if body.get("view") is not None:
            if not table.is_view:
                raise invalid("Cannot add a view to a table")
            made = self._make_view((project, dataset, name), {**table.resource, "view": body["view"]})
            table.resource, table.fields, table.statement = made.resource, made.fields, made.statement
        if body.get("schema") is not None:
            self._widen((project, dataset, name), body["schema"].get("fields"))
        table.revision += 1
        return as_json(200, self._told(project, dataset, name))

    def _widen(self, whole: tuple[str, str, str], wanted: Any) -> None:
        table = self.tables[whole]
        fields = check_schema(wanted)
        widened(table.fields, fields)
        name = f'"{whole[0]}.{whole[1]}"."{whole[2]}"'
        have = {each["name"].lower(): each for each in table.fields}
        for each in fields:
            old = have.get(each["name"].lower())
            if old is None:
                self.db.execute(f'ALTER TABLE {name} ADD COLUMN "{each["name"]}" {duckdb_type(each)}')
            elif duckdb_type(old) != duckdb_type(each):
                self.db.execute(f'ALTER TABLE {name} ALTER COLUMN "{each["name"]}" TYPE {duckdb_type(each)}')
        table.fields = fields

    def _delete_table(self, request: Request, *whole: str) -> Response:
        self._told(*whole)
        table = self.tables.pop(tuple(whole))  # type: ignore[arg-type]
        kind = "VIEW" if table.is_view else "TABLE"
        self.db.execute(f'DROP {kind} "{whole[0]}.{whole[1]}"."{whole[2]}"')
        return Response(204)

    def _list_rows(self, request: Request, project: str, dataset: str, name: str) -> Response:
        self._told(project, dataset, name)
        table = self.tables[project, dataset, name]
        rows = self.db.execute(f'SELECT * FROM "{project}.{dataset}"."{name}"').fetchall()
        return self._page(request, Job({}, table.fields, rows), {"kind": "bigquery#tableDataList"})

    @staticmethod
    def _page(request: Request, job: Job, told: dict[str, Any]) -> Response:
        start = int(request.query.get("pageToken") or request.query.get("startIndex") or 0)
        most = min(int(request.query.get("maxResults", PAGE)), PAGE)
        rows = job.rows[start : start + most]
        cells = [
            {"f": [{"v": as_cell(value, each)} for value, each in zip(row, job.fields, strict=True)]} for row in rows
        ]
        told = {**told, "totalRows": str(len(job.rows)), **({"rows": cells} if cells else {})}
        if start + len(rows) < len(job.rows) and most:
            told["pageToken"] = str(start + len(rows))
        return as_json(200, told)

    # Jobs.

    def _insert_job(self, request: Request, project: str) -> Response:
        body = self._body(request)
        self._only(body, {"configuration", "jobReference"}, "job")
        configuration = body["configuration"]
        self._only(configuration, {"query", "load", "dryRun", "labels", "jobTimeoutMs"}, "configuration")
        if "query" not in configuration:
            raise invalid("a load job is uploaded here")
        return as_json(200, self._start(project, body, lambda job: self._query(project, configuration, job)))

    def _start(self, project: str, body: Mapping[str, Any], run: Callable[[Job], None]) -> dict[str, Any]:
        name = (body.get("jobReference") or {}).get("jobId") or f"job_{secrets.token_hex(12)}"
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,1024}", name):
            raise invalid("Invalid job ID")
        if name in self.jobs:
            raise Refused(409, "duplicate", f"Already Exists: Job {project}:{name}")
        reference = {"projectId": project, "jobId": name, "location": "US"}
        job = Job(
            {
                "kind": "bigquery#job",
                "id": f"{project}:US.{name}",
                "jobReference": reference,
                "configuration": body["configuration"],
                "status": {"state": "DONE"},
                "statistics": {"creationTime": "1", "startTime": "1", "endTime": "1"},
            }
        )
        try:
            run(job)
        except Refused as refused:
            if body["configuration"].get("dryRun"):
                raise
            job.failure = refused
            self.refused.append(refused.message)
            job.resource["status"] |= {"errorResult": refused.as_result(), "errors": [refused.as_result()]}
        if not body["configuration"].get("dryRun"):
            self.jobs[name] = job
        return job.resource

    def _get_job(self, request: Request, project: str, name: str) -> Response:
        if name not in self.jobs:
            raise Refused(404, "notFound", f"Not found: Job {project}:{name}")
        return as_json(200, self.jobs[name].resource)

    def _get_results(self, request: Request, project: str, name: str) -> Response:
        if name not in self.jobs:
            raise Refused(404, "notFound", f"Not found: Job {project}:{name}")
        job = self.jobs[name]
        if job.failure is not None:
            raise Refused(job.failure.status, job.failure.reason, job.failure.message)
        told = {
            "kind": "bigquery#getQueryResultsResponse",
            "jobReference": job.resource["jobReference"],
            "jobComplete": True,
            "schema": {"fields": job.fields},
            "totalBytesProcessed": job.resource["statistics"]["query"]["totalBytesProcessed"],
            "cacheHit": False,
        }
        return self._page(request, job, told)

    def _known(self, default: tuple[str, str] | None, project: str) -> sql.Tables:
        def fields(whole: tuple[str, str, str]) -> list[dict] | None:
            table = self.tables.get(whole)
            return table.fields if table else None

        return sql.Tables(fields, default, project)

    def _query(self, project: str, configuration: Mapping[str, Any], job: Job) -> None:
        query = configuration["query"]
        self.queries.append(dict(configuration))
        self._only(query, _QUERY_KEYS, "query")
        if query.get("useLegacySql") is not False:
            raise invalid("useLegacySql: this fake knows GoogleSQL only")
        default = query.get("defaultDataset")
        place = (default["projectId"], default["datasetId"]) if default else None
        tables = self._known(place, project)
        parameters = query.get("queryParameters", [])
        statements = list(sql.parse_script(query["query"], tables, parameters))
        if not statements:
            raise invalid_query("Syntax error: Unexpected end of script")
        bytes_processed = sum(self._bytes(each) for each in statements)
        kind = statements[0].kind if len(statements) == 1 else "SCRIPT"
        job.resource["statistics"] |= {
            "totalBytesProcessed": str(bytes_processed),
            "query": {
                "totalBytesProcessed": str(bytes_processed),
                "totalBytesBilled": str(bytes_processed),
                "statementType": kind,
                "cacheHit": False,
            },
        }
        most = query.get("maximumBytesBilled")
        if most is not None and not isinstance(most, str):
            raise invalid("maximumBytesBilled is a text")
        if configuration.get("dryRun"):
            return
        if most is not None and bytes_processed > int(most):
            raise Refused(
                400, "bytesBilledLimitExceeded",
                f"Query exceeded limit for bytes billed: {most}. {bytes_processed} or higher required.",
            )  # fmt: skip
        if kind == "SCRIPT":
            self.before_script()
        self._run(statements, job)

    def _bytes(self, statement: sql.Statement) -> int:
        """Count what a statement reads: eight bytes for every value of a column that it names."""
        found = 0
        for whole in statement.tables:
            found += self._bytes_of(whole, statement)
        return found

    def _bytes_of(self, whole: tuple[str, str, str], statement: sql.Statement) -> int:
        table = self.tables[whole]
        name = f'"{whole[0]}.{whole[1]}"."{whole[2]}"'
        if table.is_view:
            assert table.statement is not None
            return self._bytes(table.statement)
        where = ""
        names = {each["name"].lower() for each in table.fields}
        if statement.buckets is not None and "series_bucket" in names:
            where = f" WHERE series_bucket IN ({', '.join(map(str, statement.buckets)) or 'NULL'})"
        every = "*" in statement.columns or (whole == statement.target and re.search("UPDATE|DELETE", statement.sql))
        columns = len(names) if every else len(names & statement.columns)
        counted = self.db.execute(f"SELECT count(*) FROM {name}{where}").fetchone()
        return 8 * columns * (counted[0] if counted else 0)

    def _run(self, statements: list[sql.Statement], job: Job) -> None:
        is_open = False
        try:
            for statement in statements:
                if statement.kind == "BEGIN_TRANSACTION":
                    is_open = True
                if statement.kind == "COMMIT_TRANSACTION":
                    is_open = False
                cursor = sql.run(self.db, statement.sql)
                if statement.kind == "ASSERT":
                    row = cursor.fetchone()
                    if not row or row[0] is not True:
                        raise invalid_query(f"{statement.assertion} at [1:1]")
                if statement.kind == "SELECT":
                    described = [(each[0], each[1]) for each in cursor.description or ()]
                    names = [name.lower() for name, _ in described]
                    if len(set(names)) < len(names):
                        raise invalid_query("Duplicate column names in the result are not supported")
                    job.fields = fields_of_duckdb(described)
                    job.rows = cursor.fetchall()
                    for row in job.rows:  # what cannot be told is no result
                        for value, each in zip(row, job.fields, strict=True):
                            as_cell(value, each)
        finally:
            if is_open:
                self.db.execute("ROLLBACK")

    # Uploads.

    def _upload(self, request: Request, project: str) -> Response:
        kind = request.query.get("uploadType")
        if kind == "resumable":
            if not request.headers.get("X-Upload-Content-Type"):
                raise invalid("X-Upload-Content-Type is missing")
            session = secrets.token_hex(16)
            self.uploads[session] = (project, self._body(request), bytearray())
            return Response(
                200, b"", {"Location": f"{self.url}{request.path}?uploadType=resumable&upload_id={session}"}
            )
        if kind != "multipart":
            raise invalid(f"uploadType {kind}")
        header = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
        message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(header + request.read_all())
        parts = list(message.iter_parts())
        if len(parts) != 2:
            raise invalid("a multipart upload has two parts")
        body = json.loads(parts[0].get_payload(decode=True))
        return as_json(200, self._load(project, body, parts[1].get_payload(decode=True)))

    def _continue_upload(self, request: Request, project: str) -> Response:
        session = request.query.get("upload_id", "")
        if session not in self.uploads:
            raise Refused(404, "notFound", "no such upload")
        project, body, held = self.uploads[session]
        found = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", request.headers.get("Content-Range", ""))
        if not found:
            raise invalid("Content-Range is missing")
        start, end, total = found.groups()
        data = request.read_all()
        if start is not None:
            if int(start) != len(held) or int(end) - int(start) + 1 != len(data):
                raise invalid(f"expected bytes from {len(held)}")
            if (total == "*" or int(end) + 1 < int(total)) and len(data) % QUANTUM:
                raise invalid("chunks are multiples of 256 KiB")
            held += data
        if total == "*" or len(held) < int(total):
            told = {"Range": f"bytes=0-{len(held) - 1}"} if held else {}
            return Response(308, b"", told)
        del self.uploads[session]
        return as_json(200, self._load(project, body, bytes(held)))

    def _load(self, project: str, body: Mapping[str, Any], data: bytes) -> dict[str, Any]:
        self._only(body, {"configuration", "jobReference"}, "job")
        load = body["configuration"]["load"]
        self._only(load, _LOAD_KEYS, "load")
        self.loads.append(dict(load))
        return self._start(project, body, lambda job: self._load_rows(load, data, job))

    def _load_rows(self, load: Mapping[str, Any], data: bytes, job: Job) -> None:
        place = load["destinationTable"]
        whole = (place["projectId"], place["datasetId"], place["tableId"])
        if load.get("sourceFormat") != "NEWLINE_DELIMITED_JSON":
            raise invalid("this fake loads NEWLINE_DELIMITED_JSON only")
        if whole not in self.tables:
            if load.get("createDisposition") == "CREATE_NEVER":
                raise Refused(404, "notFound", f"Not found: Table {whole[0]}:{whole[1]}.{whole[2]}")
            raise invalid("tables are made before they are loaded here")
        table = self.tables[whole]
        if table.is_view:
            raise invalid("Cannot load into a view")
        fields = check_schema(load["schema"]["fields"]) if load.get("schema") else table.fields
        disposition, options = load.get("writeDisposition", "WRITE_APPEND"), load.get("schemaUpdateOptions") or []
        self._only(dict.fromkeys(options), {"ALLOW_FIELD_ADDITION", "ALLOW_FIELD_RELAXATION"}, "schemaUpdateOptions")
        name = f'"{whole[0]}.{whole[1]}"."{whole[2]}"'
        added = {each["name"].lower() for each in fields} - {each["name"].lower() for each in table.fields}
        if disposition == "WRITE_APPEND" and added and "ALLOW_FIELD_ADDITION" not in options:
            raise invalid(f"Provided Schema does not match Table. Cannot add fields (field: {sorted(added)[0]})")
        if disposition not in ("WRITE_APPEND", "WRITE_TRUNCATE", "WRITE_EMPTY"):
            raise invalid(f"writeDisposition {disposition}")
        held = self.db.execute(f"SELECT count(*) FROM {name}").fetchone()
        if disposition == "WRITE_EMPTY" and held and held[0]:
            raise Refused(409, "duplicate", f"Already Exists: Table {whole[0]}:{whole[1]}.{whole[2]}")
        rows = [check_row(row, fields) for row in _lines(data)]
        if disposition == "WRITE_TRUNCATE":
            self.db.execute(f"CREATE OR REPLACE TABLE {name} ({duckdb_columns(fields)})")
            table.fields = fields
        elif added:
            self._widen(whole, [*table.fields, *(each for each in fields if each["name"].lower() in added)])
        if rows:
            self.db.execute("CREATE OR REPLACE TEMP TABLE typed (" + duckdb_columns(fields) + ")")
            self.db.register("given", _arrow(self.db, rows))
            self.db.execute(f"INSERT INTO {name} BY NAME SELECT * FROM given")
            self.db.unregister("given")
            self.db.execute("DROP TABLE temp.typed")
        table.revision += 1
        job.resource["statistics"]["load"] = {
            "outputRows": str(len(rows)),
            "outputBytes": str(len(data)),
            "inputFiles": "1",
            "inputFileBytes": str(len(data)),
            "badRecords": "0",
        }


def _lines(data: bytes) -> Iterator[Any]:
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    for number, line in enumerate(data.decode().split("\n"), 1):
        if not line:
            continue
        try:
            yield json.loads(line)
        except ValueError:
            raise invalid(f"Error while reading data; line {number}: no JSON") from None


def _arrow(db: duckdb.DuckDBPyConnection, rows: list[dict]) -> pa.Table:
    db.execute("SELECT 1").fetchall()
    schema = db.sql("SELECT * FROM temp.typed LIMIT 0").to_arrow_table().schema
    return pa.Table.from_pylist(rows, schema=schema)
