"""Cohorts: what is saved, what has changed since, and the manifests that are made of it."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pytest

from coverslip.catalog.cohorts import (
    Cohort,
    cohort_folder,
    compare_cohort,
    freeze_search,
    freeze_sql,
    list_cohorts,
    read_cohort,
    write_cohort,
)
from coverslip.catalog.database import open_catalog
from coverslip.catalog.manifests import ViewerBases, make_manifest, viewer_url
from coverslip.catalog.published import PublishedFiles
from coverslip.catalog.search import SearchableCatalog, SearchRequest, open_search
from coverslip.errors import CatalogError, UsageError

FFPE_CT = SearchRequest(filters={"embedding": ("FFPE",)}, radiology="CT")


@pytest.fixture
def cohort(collection: Path, published: PublishedFiles) -> Cohort:
    """FFPE slides with a CT: two slides of the catalog, and CT series of the catalog and of IDC."""
    with open_search(collection / "catalog.duckdb", published=published) as catalog:
        return freeze_search(catalog, "ffpe-ct", FFPE_CT)


def test_a_cohort_has_slides_and_the_radiology_that_was_asked_for(cohort: Cohort) -> None:
    assert [each.PatientID for each in cohort.slides] == ["MSB-00643", "TCGA-05-4244"]
    others = [each for each in cohort.series if each.Modality != "SM"]
    assert {each.Modality for each in others} == {"CT"}
    assert {each.published for each in others if each.collection_id == "cmb_crc"} == {True}
    assert {each.published for each in others if each.collection_id == "tcga_luad"} == {False}
    assert {each.version for each in cohort.slides} == {1}
    assert all(each.series_hash and each.crdc_series_uuid for each in cohort.slides)
    assert (cohort.catalog_version, cohort.published_series) == (1, 4513)
    assert cohort.query["radiology"] == "CT"


def test_a_cohort_is_read_as_it_was_written_and_is_the_same_whenever_it_is_saved(
    cohort: Cohort, tmp_path: Path
) -> None:
    folder = tmp_path / "cohorts"
    path = write_cohort(folder, cohort)
    assert read_cohort(folder, "ffpe-ct") == cohort
    first = path.read_bytes()
    write_cohort(folder, cohort, overwrite=True)
    assert path.read_bytes() == first
    assert list_cohorts(folder) == ["ffpe-ct"]
    assert sorted(each.name for each in folder.iterdir()) == ["ffpe-ct.json"]


def test_a_cohort_is_not_overwritten_unasked(cohort: Cohort, tmp_path: Path) -> None:
    write_cohort(tmp_path, cohort)
    with pytest.raises(UsageError, match="--overwrite replaces it"):
        write_cohort(tmp_path, cohort)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101, "a b"])
def test_a_name_is_no_path(catalog: SearchableCatalog, name: str) -> None:
    with pytest.raises(UsageError, match="expected a name of letters"):
        freeze_search(catalog, name, SearchRequest())
    with pytest.raises(UsageError, match="expected a name of letters"):
        read_cohort(Path(), name)


def test_a_file_that_is_no_cohort_or_of_a_newer_coverslip_is_told(cohort: Cohort, tmp_path: Path) -> None:
    path = write_cohort(tmp_path, cohort)
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(CatalogError, match="no cohort of coverslip, or damaged"):
        read_cohort(tmp_path, "ffpe-ct")
    path.write_text(json.dumps({**json.loads(text), "format": 9}))
    with pytest.raises(CatalogError, match="format 9, this coverslip knows 1"):
        read_cohort(tmp_path, "ffpe-ct")
    with pytest.raises(UsageError, match=r"cohort other: not in .*; there are: ffpe-ct"):
        read_cohort(tmp_path, "other")


def test_a_cohort_of_a_query_has_the_series_that_it_gives(catalog: SearchableCatalog) -> None:
    cohort = freeze_sql(catalog, "ct", "SELECT `SeriesInstanceUID` FROM idc_index WHERE Modality = 'CT'")
    assert (len(cohort.series), cohort.query["dialect"]) == (3, "bigquery")
    with pytest.raises(UsageError, match="gives Modality, expected a column SeriesInstanceUID"):
        freeze_sql(catalog, "ct", "SELECT Modality FROM idc_index")
    with pytest.raises(UsageError, match=r"gives 1 series that are not there, such as 1\.2\.3"):
        freeze_sql(catalog, "ct", "SELECT '1.2.3' AS SeriesInstanceUID")


def test_nothing_has_changed_of_a_cohort_just_saved(
    cohort: Cohort, collection: Path, published: PublishedFiles
) -> None:
    with open_search(collection / "catalog.duckdb", published=published) as catalog:
        changes = compare_cohort(catalog, cohort)
    assert (changes.changed, changes.gone, changes.more) == ([], [], 0)


def test_what_changed_went_or_came_since_a_cohort_was_saved_is_told(collection: Path, tmp_path: Path) -> None:
    from coverslip.catalog.index import IndexRequest, index_paths

    dicom = Path(shutil.copytree(collection / "dicom", tmp_path / "dicom"))
    path = tmp_path / "catalog.duckdb"
    late = tmp_path / "late"
    request = SearchRequest(filters={"collection": ("tcga_*",)})
    with open_search(collection / "catalog.duckdb") as catalog:
        changed, gone, came, _ = sorted(slide.SeriesInstanceUID for slide in catalog.search(request).slides)
    folders = {file.parent.name: file.parent for file in dicom.rglob("*.dcm")}
    folders[came].rename(late)
    index_paths(IndexRequest((str(dicom),), str(path)))
    with open_search(path) as catalog:
        cohort = freeze_search(catalog, "tcga", request)
    late.rename(folders[came])
    sorted(folders[changed].glob("*.dcm"))[0].unlink()
    shutil.rmtree(folders[gone])
    index_paths(IndexRequest((str(dicom),), str(path), prune=True))
    with open_search(path) as catalog:
        changes = compare_cohort(catalog, cohort)
    assert (changes.changed, changes.gone, changes.more) == ([changed], [gone], 1)


def test_s5cmd_fetches_what_lies_in_a_bucket_and_names_licenses_and_what_to_cite(cohort: Cohort) -> None:
    manifest = make_manifest(cohort, "s5cmd")
    comments = [line for line in manifest.text.splitlines() if line.startswith("#")]
    lines = [line for line in manifest.text.splitlines() if not line.startswith("#")]
    published = [each for each in cohort.series if each.published]
    assert lines == [f"cp s3://idc-open-data/{each.crdc_series_uuid}/* ." for each in published]
    assert manifest.listed == len(published)
    assert set(manifest.left_out) == {each.SeriesInstanceUID for each in cohort.series if not each.published}
    assert any("CC BY 4.0" in line for line in comments)
    assert any("10.5281/zenodo.13993769" in line for line in comments)


def test_gsutil_finds_the_bucket_at_google_that_holds_the_same(cohort: Cohort) -> None:
    manifest = make_manifest(cohort, "gsutil")
    assert all(line.startswith("gs://idc-open-data/") and line.endswith("/*") for line in manifest.text.splitlines())
    assert not manifest.text.startswith("#")


@pytest.mark.parametrize(
    ("aws", "gcs"),
    [
        ("idc-open-data", "gs://idc-open-data/"),
        ("idc-open-data-two", "gs://idc-open-idc1/"),
        ("idc-open-data-cr", "gs://idc-open-cr/"),
    ],
)
def test_each_of_idcs_buckets_has_its_mirror(
    catalog_file: Path, published: PublishedFiles, tmp_path: Path, aws: str, gcs: str
) -> None:
    import duckdb

    moved = tmp_path / "moved.parquet"
    duckdb.execute(
        f"COPY (SELECT * REPLACE (replace(series_aws_url, 'idc-open-data', '{aws}') AS series_aws_url) "
        f"FROM read_parquet('{published.idc_index}')) TO '{moved}'"
    )
    request = SearchRequest(filters={"source": ("idc",), "collection": ("htan_hms",)})
    with open_search(catalog_file, published=PublishedFiles(moved)) as catalog:
        cohort = freeze_search(catalog, "hms", request)
    lines = make_manifest(cohort, "gsutil").text.splitlines()
    assert len(lines) == 16
    assert all(line.startswith(gcs) for line in lines)


def test_slides_in_a_bucket_of_ones_own_are_in_the_manifest(catalog_file: Path) -> None:
    with open_catalog(catalog_file) as connection:
        connection.execute("UPDATE history.series SET series_aws_url = 's3://mine/' || series_uuid || '/'")
    with open_search(catalog_file) as catalog:
        manifest = make_manifest(freeze_search(catalog, "all", SearchRequest()), "s5cmd")
    assert manifest.text.count("\ncp s3://mine/") == 9
    assert manifest.left_out == ()


def test_slides_that_share_a_folder_of_a_bucket_are_left_out_for_it_would_fetch_others(catalog_file: Path) -> None:
    with open_catalog(catalog_file) as connection:
        connection.execute("UPDATE history.series SET series_aws_url = 's3://mine/' || series_uuid || '/'")
        connection.execute(
            "UPDATE history.series SET series_aws_url = 's3://mine/heap/' WHERE collection_id = 'tcga_luad'"
        )
        connection.execute(
            """UPDATE history.instances AS instances SET aws_url = series.series_aws_url || SOPInstanceUID || '.dcm'
            FROM history.series AS series WHERE series.SeriesInstanceUID = instances.SeriesInstanceUID"""
        )
    with open_search(catalog_file) as catalog:
        manifest = make_manifest(freeze_search(catalog, "all", SearchRequest()), "s5cmd")
    assert manifest.text.count("\ncp s3://mine/") == 6
    assert "heap" not in manifest.text
    assert len(manifest.left_out) == 3


def test_drs_has_the_instances_of_the_catalog_and_published_series_as_bundles(cohort: Cohort, collection: Path) -> None:
    with open_search(collection / "catalog.duckdb") as catalog:
        manifest = make_manifest(cohort, "drs", catalog=catalog)
    rows = list(csv.DictReader(io.StringIO(manifest.text), delimiter="\t"))
    instances = [row for row in rows if row["kind"] == "instance"]
    bundles = [row for row in rows if row["kind"] == "series"]
    assert len(bundles) == sum(each.published for each in cohort.series)
    assert len(instances) == sum(each.instances or 0 for each in cohort.series if not each.published)
    assert all(row["drs_uri"].startswith("drs://dg.4DFC/") and len(row["md5"]) == 32 for row in instances)
    by_uid = {path.stem: path for path in (collection / "dicom").rglob("*.dcm")}
    assert all(by_uid[row["SOPInstanceUID"]].stat().st_size == int(row["size"]) for row in instances)


def test_a_table_and_json_have_all_of_every_series(cohort: Cohort) -> None:
    rows = list(csv.DictReader(io.StringIO(make_manifest(cohort, "csv").text)))
    told = json.loads(make_manifest(cohort, "json").text)
    assert [row["SeriesInstanceUID"] for row in rows] == [each.SeriesInstanceUID for each in cohort.series]
    assert [row["viewer_url"] for row in rows] == [each["viewer_url"] for each in told]


def test_slides_open_in_slim_and_scans_in_ohif_wherever_these_are(cohort: Cohort) -> None:
    slide, scan = cohort.slides[0], cohort.series[-1]
    assert viewer_url(slide) == (
        "https://viewer.imaging.datacommons.cancer.gov/slim/studies/"
        f"{slide.StudyInstanceUID}/series/{slide.SeriesInstanceUID}"
    )
    assert viewer_url(scan, ViewerBases(ohif="https://ohif.example.org/viewer?x=1")) == (
        f"https://ohif.example.org/viewer?x=1&StudyInstanceUIDs={scan.StudyInstanceUID}"
        f"&initialSeriesInstanceUID={scan.SeriesInstanceUID}"
    )
    text = make_manifest(cohort, "urls", ViewerBases(slim="https://slides.example.org/slim/")).text
    assert text.startswith("https://slides.example.org/slim/studies/")


def test_cohorts_lie_beside_their_catalog() -> None:
    assert cohort_folder(Path("data/catalog.duckdb")) == Path("data/catalog.cohorts")


def test_an_unknown_form_is_told(cohort: Cohort) -> None:
    with pytest.raises(UsageError, match="--format zip: expected one of s5cmd, gsutil, drs, csv, json, urls"):
        make_manifest(cohort, "zip")
