"""Slides that IDC has published beside those of a catalog: what is not known of them is said to be unknown."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest

from coverslip.catalog.database import open_catalog
from coverslip.catalog.published import (
    PublishedFiles,
    attach_published,
    attached_published,
    detach_published,
    find_packaged_index,
)
from coverslip.catalog.retract import retract_series
from coverslip.catalog.search import SearchRequest, SearchResult, Unknown, open_search
from coverslip.errors import CatalogError, UsageError

PUBLISHED = 166 + 557 + 16 + 61
"""Slides in the slice."""
KNOWN = 166 + 557
"""Of them those that the table `sm_index` of these tests tells of."""

OWN_STAINED = 7


def search(path: Path, files: PublishedFiles | None, request: SearchRequest) -> SearchResult:
    with open_search(path, published=files) as catalog:
        return catalog.search(request)


@pytest.fixture
def ask(collection: Path, published: PublishedFiles) -> Callable[..., SearchResult]:
    """Search with the slice, and without `sm_index` unless it is given."""

    def run(sm_index: Path | None = None, **options: object) -> SearchResult:
        files = replace(published, sm_index=sm_index)
        return search(collection / "catalog.duckdb", files, SearchRequest(limit=0, **options))  # type: ignore[arg-type]

    return run


def test_published_slides_are_found_beside_those_of_the_catalog(ask: Callable[..., SearchResult]) -> None:
    found = ask()
    assert (found.total, found.unknown) == (9 + PUBLISHED, 0)
    assert ask(filters={"collection": ("htan_ohsu",)}).total == 2 + 61
    assert ask(filters={"source": ("idc",)}).total == PUBLISHED


def test_without_sm_index_a_stain_is_unknown_of_published_slides_and_never_absent(
    ask: Callable[..., SearchResult],
) -> None:
    stain = {"stain": ("hematoxylin",)}
    excluded = ask(filters=stain)
    assert (excluded.total, excluded.unknown, excluded.unknown_filters) == (OWN_STAINED, PUBLISHED, ("stain",))
    included = ask(filters=stain, unknown=Unknown.INCLUDE)
    assert (included.total, included.unknown) == (OWN_STAINED + PUBLISHED, PUBLISHED)
    only = ask(filters=stain, unknown=Unknown.ONLY)
    assert (only.total, only.unknown) == (PUBLISHED, PUBLISHED)


@pytest.mark.parametrize("value", ["none", "NOT hematoxylin", "xyzzy"])
def test_nothing_that_is_asked_of_a_stain_is_answered_for_a_slide_whose_stain_is_unknown(
    ask: Callable[..., SearchResult], value: str
) -> None:
    assert ask(filters={"stain": (value,), "source": ("idc",)}).unknown == PUBLISHED


def test_a_slide_that_another_filter_rules_out_is_no_match_and_not_unknown(ask: Callable[..., SearchResult]) -> None:
    found = ask(filters={"stain": ("hematoxylin",), "collection": ("cmb_crc",)})
    assert (found.total, found.unknown) == (1, 166)
    found = ask(filters={"stain": ("hematoxylin",), "megabytes": ("..0",)})
    assert (found.total, found.unknown) == (0, 0)


def test_with_sm_index_what_it_tells_is_known_and_channels_are_not(
    ask: Callable[..., SearchResult], sm_index: Path
) -> None:
    found = ask(sm_index, filters={"stain": ("SCT:12710003",), "anatomy": ("colon",)})
    assert (found.total, found.unknown) == (1 + 166, 16 + 61)
    assert ask(sm_index, filters={"stain": ("giemsa",)}).unknown == 16 + 61
    assert ask(sm_index, filters={"spacing": ("0.25",)}).total == 2 + KNOWN
    assert ask(sm_index, filters={"target": ("CD3",)}).unknown == PUBLISHED
    assert ask(sm_index, filters={"validation": ("passed",)}).unknown == PUBLISHED
    assert ask(sm_index, text="pancreas eosin").total == 557


def test_facets_count_unknown_slides_apart_from_those_that_state_nothing(
    ask: Callable[..., SearchResult], sm_index: Path
) -> None:
    (stain,) = ask(facets=("stain",)).facets
    assert (stain.values[0].count, stain.not_stated, stain.unknown) == (7, 1, PUBLISHED)
    (anatomy,) = ask(sm_index, facets=("anatomy",)).facets
    assert {each.value: each.count for each in anatomy.values}["Pancreas"] == 557
    assert (anatomy.not_stated, anatomy.unknown) == (2, 16 + 61)


def test_a_found_slide_says_how_much_is_known_of_it(collection: Path, published: PublishedFiles) -> None:
    request = SearchRequest(filters={"stain": ("eosin",), "collection": ("cmb_crc",)}, unknown=Unknown.INCLUDE)
    slides = search(collection / "catalog.duckdb", published, request).slides
    own = [slide for slide in slides if not slide.published]
    theirs = [slide for slide in slides if slide.published]
    assert [(each.match, each.known) for each in own] == [("yes", "all")]
    assert {(each.match, each.known, each.stain, each.channels) for each in theirs} == {
        ("unknown", "series", None, None)
    }


def test_words_may_stand_in_what_is_not_known_of_a_published_slide(ask: Callable[..., SearchResult]) -> None:
    assert ask(text="histopathology", filters={"source": ("idc",)}).total > 0
    assert ask(text="xyzzy").unknown == PUBLISHED


def test_new_slides_have_the_radiology_that_idc_has_of_their_patient(
    collection: Path, published: PublishedFiles
) -> None:
    request = SearchRequest(filters={"source": ("catalog",)}, radiology="CT", radiology_series=True)
    found = search(collection / "catalog.duckdb", published, request)
    by_patient = {slide.PatientID: slide.radiology for slide in found.slides}
    rows = duckdb.execute(
        "SELECT Modality, count(*) FROM read_parquet(?) WHERE collection_id = 'cmb_crc' AND PatientID = 'MSB-00643' "
        "AND Modality <> 'SM' GROUP BY 1",
        [str(published.idc_index)],
    ).fetchall()
    assert by_patient == {"MSB-00643": dict(rows), "TCGA-05-4244": {"CT": 2, "PT": 1}}
    assert len(found.radiology_series) == 3 + sum(count for _, count in rows)


def test_slides_and_radiology_of_the_slice_are_counted_exactly(
    ask: Callable[..., SearchResult], published: PublishedFiles
) -> None:
    rows = duckdb.execute(
        """WITH series AS (SELECT * FROM read_parquet($1)),
        scanned AS (SELECT DISTINCT collection_id, PatientID FROM series WHERE Modality IN ('CT', 'MR', 'PT'))
        SELECT count(*), count(DISTINCT (collection_id, PatientID)) FROM series
        SEMI JOIN scanned USING (collection_id, PatientID) WHERE Modality = 'SM'""",
        [str(published.idc_index)],
    ).fetchone()
    found = ask(radiology="CT,MR,PT", filters={"source": ("idc",)})
    assert rows is not None
    assert (found.total, found.patients) == rows
    assert found.total > 100


def test_a_slide_that_is_in_the_catalog_and_published_is_found_once_with_all_that_the_catalog_knows(
    collection: Path, published: PublishedFiles, tmp_path: Path
) -> None:
    path = collection / "catalog.duckdb"
    own = search(path, None, SearchRequest(filters={"container": ("HTA9_1_93",)})).slides[0]
    both = tmp_path / "both.parquet"
    duckdb.execute(
        f"COPY (SELECT * REPLACE (CASE WHEN Modality = 'SM' AND PatientID = 'HTA9_1' AND row_number() OVER () = "
        f"(SELECT min(n) FROM (SELECT row_number() OVER () AS n, * FROM read_parquet('{published.idc_index}')) "
        f"WHERE Modality = 'SM' AND PatientID = 'HTA9_1') THEN '{own.SeriesInstanceUID}' ELSE SeriesInstanceUID END "
        f"AS SeriesInstanceUID) FROM read_parquet('{published.idc_index}')) TO '{both}'"
    )
    found = search(path, PublishedFiles(both), SearchRequest(filters={"patient": ("HTA9_1",)}))
    assert found.total == 2 + 60
    assert [slide.known for slide in found.slides if slide.SeriesInstanceUID == own.SeriesInstanceUID] == ["all"]


def test_an_attached_index_is_searched_until_it_is_detached(catalog_file: Path, published: PublishedFiles) -> None:
    with open_catalog(catalog_file) as connection:
        index = attach_published(connection, published)
        assert (index.series, index.slides) == (4513, PUBLISHED)
        assert attached_published(connection) == index
    assert search(catalog_file, None, SearchRequest(limit=0)).total == 9 + PUBLISHED
    with open_catalog(catalog_file) as connection:
        assert detach_published(connection)
        assert not detach_published(connection)
    assert search(catalog_file, None, SearchRequest(limit=0)).total == 9


def test_what_is_attached_outlives_a_retraction_and_the_retracted_slide_is_found_no_more(
    catalog_file: Path, published: PublishedFiles
) -> None:
    with open_catalog(catalog_file) as connection:
        attach_published(connection, published)
    slide = search(catalog_file, None, SearchRequest(filters={"container": ("HTA9_1_94",)})).slides[0]
    retract_series(catalog_file, slide.SeriesInstanceUID, "withdrawn")
    found = search(catalog_file, None, SearchRequest(limit=0))
    assert found.total == 8 + PUBLISHED
    with open_catalog(catalog_file, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM history.search_slide").fetchone() == (8,)


def test_an_attached_file_that_is_gone_or_another_is_told(
    catalog_file: Path, published: PublishedFiles, tmp_path: Path
) -> None:
    copy = tmp_path / "index.parquet"
    copy.write_bytes(published.idc_index.read_bytes())
    with open_catalog(catalog_file) as connection:
        attach_published(connection, PublishedFiles(copy))
    with copy.open("ab") as file:
        file.write(b"more")
    with pytest.raises(CatalogError, match="has changed since it was attached"):
        search(catalog_file, None, SearchRequest())
    copy.unlink()
    with pytest.raises(CatalogError, match="which is gone: attach it again, or detach it"):
        search(catalog_file, None, SearchRequest())


def test_a_file_that_is_no_index_is_refused_and_nothing_is_attached(catalog_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.parquet"
    duckdb.execute(f"COPY (SELECT 1 AS one) TO '{other}'")
    text = tmp_path / "text.parquet"
    text.write_text("no parquet")
    with open_catalog(catalog_file) as connection:
        for path, message in (
            (other, "no column Manufacturer; expected a table of IDC's index"),
            (text, "no Parquet file"),
            (tmp_path / "none.parquet", "no such file"),
        ):
            with pytest.raises(UsageError, match=message):
                attach_published(connection, PublishedFiles(path))
        assert attached_published(connection) is None


@pytest.mark.serial
def test_the_whole_index_is_attached_and_joined_as_counted_by_idc_itself(catalog_file: Path) -> None:
    if find_spec("idc_index_data") is None:
        pytest.skip("the package idc-index-data is not installed")
    files = find_packaged_index()
    start = time.process_time()
    with open_catalog(catalog_file) as connection:
        connection.execute("DELETE FROM history.search_patient")  # scans of the catalog itself
        index = attach_published(connection, files)
    assert time.process_time() - start < 8  # CPU of two cores that others use too; about 1.2 s by themselves
    with open_search(catalog_file) as catalog:
        found = catalog.search(SearchRequest(filters={"source": ("idc",)}, radiology="CT,MR,PT", limit=0))
        lung = catalog.search(SearchRequest(filters={"source": ("idc",), "cancer-type": ("lung",)}, limit=0))
    assert lung.total > 1000
    assert lung.unknown < index.slides / 2
    assert (found.collections, found.unknown) == (37, 0)
    if version("idc-index-data") == "25.0.5":
        assert (index.series, index.slides) == (1_044_191, 76_300)
        assert (found.patients, found.total) == (2181, 6124)
        assert sum(each.series for each in found.radiology if each.modality in ("CT", "MR", "PT")) == 26_353
    else:
        assert found.patients == pytest.approx(2181, rel=0.2)


def test_no_code_of_idc_is_loaded_for_its_index() -> None:
    program = (
        "import sys; from coverslip.catalog.published import find_packaged_index; find_packaged_index(); "
        "print([name for name in sys.modules if name.startswith('idc_index')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
