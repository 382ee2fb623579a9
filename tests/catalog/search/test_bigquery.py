"""Searches of a catalog in BigQuery give what those of the same catalog in DuckDB give."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from coverslip.catalog import columns, database
from coverslip.catalog.bigquery import client
from coverslip.catalog.bigquery.place import parse_place
from coverslip.catalog.bigquery.search import open_bigquery_search
from coverslip.catalog.cohorts import compare_cohort, freeze_search, freeze_sql
from coverslip.catalog.index import IndexRequest, index_paths
from coverslip.catalog.manifests import make_manifest
from coverslip.catalog.merge import NewVersion
from coverslip.catalog.search import SearchRequest, Unknown
from coverslip.catalog.search_filters import FIELDS
from coverslip.cli import cli
from coverslip.errors import CatalogError, UsageError
from tests.catalog.bigquery.conftest import PLACE
from tests.catalog.bigquery.fake.rest import StrictBigQuery
from tests.catalog.conftest import NARROW

FACETS = tuple(name for name, field in FIELDS.items() if field.facet)

REQUESTS = [
    SearchRequest(facets=FACETS, radiology_series=True),
    SearchRequest({"stain": ("H&E",)}, facets=("stain", "anatomy"), facet_values=1, limit=2, offset=1),
    SearchRequest({"stain": ("none", "=hematoxylin stain")}, text="lung tissue*"),
    SearchRequest({"stain": ("NOT eosin",), "collection": ("htan-*", "TCGA_LUAD")}),
    SearchRequest({"cancer-type": ("lung", "=Breast cancer"), "scanner": ("Aperio",)}, limit=0),
    SearchRequest({"target": ("CD3 AND CD45",)}),
    SearchRequest({"target": ("CD3",), "channel": ("ki67", "=CD3")}),
    SearchRequest({"antibody": ("none",), "fluorophore": ("NOT alexa",)}),
    SearchRequest({"embedding": ("FFPE",), "fixative": ("formalin",)}, radiology="CT+PT,MR", radiology_series=True),
    SearchRequest({"objective": ("20..40",), "spacing": ("0.25", "..0.1"), "size": ("..450",)}),
    SearchRequest({"megabytes": ("0.001..",), "validation": ("passed", "none"), "source": ("catalog",)}),
    SearchRequest({"patient": ("TCGA*",), "container": ("*DX1", "b_%"), "license": ("CC BY 3.0",)}),
    SearchRequest({"diagnosis": ("none",), "specimen-type": ("SCT:119376003", "tissue"), "illumination": ("bright*",)}),
    SearchRequest(
        {"stain": ("hematoxylin",), "collection": ("tcga_luad",)}, facets=("stain", "collection"), disjunctive=True
    ),
    SearchRequest({"tissue": ("=neoplasm, primary",)}, text="SCT:12710003 TCGA'; DROP TABLE x; --"),
    SearchRequest(unknown=Unknown.ONLY),
]


@pytest.fixture(scope="module")
def server(collection: Path) -> Iterator[StrictBigQuery]:
    """The fake with the collection in its catalog."""
    fields = tuple(field for field in columns.baseline_fields() if field.name in NARROW)
    with StrictBigQuery() as fake, pytest.MonkeyPatch.context() as patch:
        for module in (columns, database):
            patch.setattr(module, "baseline_fields", lambda: fields)
        patch.setattr(client, "RETRY_FIRST_S", 0.01)
        patch.setenv("BIGQUERY_EMULATOR_HOST", fake.url)
        report = index_paths(
            IndexRequest((str(collection / "dicom"),), PLACE, version=NewVersion(label="first delivery"))
        )
        assert report.outcome is not None
        assert report.exit_code == 0
        yield fake


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def test_every_filter_and_facet_gives_what_duckdb_gives(server, catalog) -> None:
    with open_bigquery_search(parse_place(PLACE)) as theirs:
        assert theirs.version == catalog.version
        for request in REQUESTS:
            found, wanted = asdict(theirs.search(request)), asdict(catalog.search(request))
            for name, value in wanted.items():
                assert found[name] == value, f"{name} of {request}"
    # No text of a user stands in a query.
    texts = [each["query"]["query"] for each in server.queries]
    assert not [text for text in texts if "DROP TABLE" in text or "hematoxylin" in text]
    with open_bigquery_search(parse_place(PLACE)) as theirs, pytest.raises(UsageError, match="facet patient: there is"):
        theirs.search(SearchRequest(facets=("patient",)))


def test_cohorts_and_manifests_are_those_of_duckdb(server, catalog) -> None:
    request = SearchRequest({"embedding": ("FFPE",)}, radiology="CT")
    with open_bigquery_search(parse_place(PLACE)) as theirs:
        cohort = freeze_search(theirs, "ffpe", request)
        assert asdict(cohort) == asdict(freeze_search(catalog, "ffpe", request))
        assert compare_cohort(theirs, cohort).more == 0
        for form in ("drs", "json"):
            assert make_manifest(cohort, form, catalog=theirs) == make_manifest(cohort, form, catalog=catalog)
        by_sql = freeze_sql(theirs, "luad", "SELECT SeriesInstanceUID FROM sm_index WHERE ObjectiveLensPower = 40")
        assert by_sql.slides


def test_commands_take_a_catalog_in_bigquery(server, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    told = json.loads(invoke("search", "--stain", "hematoxylin", "--catalog", PLACE, "--json").stdout)
    assert told["total"] == 7
    assert "hematoxylin stain" in invoke("facets", "stain", "--catalog", PLACE).stdout
    saved = invoke("cohort", "save", "he", "--stain", "H&E", "--catalog", PLACE)
    assert saved.stdout.startswith("slide-project.slides.cohorts/he.json: 7 slides")
    assert "nothing has changed" in invoke("cohort", "show", "he", "--catalog", PLACE).stdout
    cost = invoke("search", "--stain", "hematoxylin", "--catalog", PLACE, "--dry-run")
    assert cost.exit_code == 0
    assert cost.stdout.endswith(" bytes would be processed by 3 queries\n")
    refused = invoke("search", "--catalog", PLACE, "--max-bytes-billed", "10")
    assert isinstance(refused.exception, CatalogError)
    assert "more than 10 bytes" in str(refused.exception)
    wrong = invoke("search", "--catalog", "catalog.duckdb", "--dry-run")
    assert isinstance(wrong.exception, UsageError)


def test_sql_is_bigquery_s_own_and_only_reads(server) -> None:
    sql = "SELECT collection_id, COUNT(*) AS slides FROM idc_index WHERE Modality = 'SM' GROUP BY 1 ORDER BY 1"
    told = json.loads(invoke("search", "--sql", sql, "--catalog", PLACE, "--json").stdout)
    assert told["columns"] == {"collection_id": "STRING", "slides": "INTEGER"}
    assert sum(row["slides"] for row in told["rows"]) == 9
    limited = json.loads(invoke("search", "--sql", sql, "--catalog", PLACE, "--json", "--limit", "1").stdout)
    assert (len(limited["rows"]), limited["more"]) == (1, True)
    for text in ("DELETE FROM versions WHERE TRUE", "SELECT 1 AS a; SELECT 2 AS b"):
        refused = invoke("search", "--sql", text, "--catalog", PLACE)
        assert "expected one query" in str(refused.exception)
    # What DuckDB forgives: text beside a number, text with a decimal point as an integer.
    text = "SELECT ObjectiveLensPower FROM sm_channel_index WHERE ObjectiveLensPower = 40"
    assert "No matching signature" in str(invoke("search", "--sql", text, "--catalog", PLACE).exception)


def test_earlier_versions_are_searched(server, collection, catalog) -> None:
    slide = catalog.search(SearchRequest({"collection": ("tcga_gbm",)})).slides[0]
    folder = next(path.parent for path in collection.glob("dicom/**/conversion.json")
                  if slide.SeriesInstanceUID in path.read_text())  # fmt: skip
    gone = collection / "gone"
    folder.rename(gone)
    try:
        index_paths(IndexRequest((str(collection / "dicom"),), PLACE, prune=True))
    finally:
        gone.rename(folder)
    request = SearchRequest({"series": (slide.SeriesInstanceUID,)}, facets=("stain",))
    sql = "SELECT COUNT(*) AS series FROM `slide-project.slides.idc_index`"
    counts = {}
    for version in ("1", "2"):
        with open_bigquery_search(parse_place(PLACE), as_of=version) as theirs:
            counts[version] = theirs.search(request).total, theirs.run_sql(sql).rows[0][0]
    assert counts == {"1": (1, counts["2"][1] + 1), "2": (0, counts["2"][1])}
    with pytest.raises(UsageError, match="no version so early"), open_bigquery_search(parse_place(PLACE), as_of="0"):
        pass
