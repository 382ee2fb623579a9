"""Pages as HTML: what they say besides what a browser shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from html import escape
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from coverslip.catalog.search import SearchRequest
from coverslip.server import slide_page
from coverslip.server.archive import Archive, IndexedSeries
from coverslip.server.search_page import search_page
from coverslip.server.settings import ServerSettings
from tests.factories.part10 import write_part10
from tests.server.conftest import Slide
from tests.server.running import Running, serving


def write_scan(path: Path, slide: Slide) -> None:
    """Write a CT of the slide's patient."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "2.25.901"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = "2.25.902", "2.25.903", "CT"
    ds.PatientID, ds.SeriesDescription = "TCGA-05-4244", "chest <b>axial</b>"
    ds.ClinicalTrialProtocolID = slide.headers[slide.base].ClinicalTrialProtocolID
    pydicom.dcmwrite(path, ds, enforce_file_format=True)


@pytest.fixture(scope="module")
def mixed(slide: Slide, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The slide, a CT of its patient, and a slide whose frames are cut off."""
    folder = tmp_path_factory.mktemp("mixed")
    shutil.copytree(slide.folder, folder / "slide")
    write_scan(folder / "scan.dcm", slide)
    ds = pydicom.dcmread(slide.files[slide.base])
    ds.SeriesInstanceUID, ds.SOPInstanceUID = "2.25.904", "2.25.905"
    ds.save_as(folder / "cut.dcm")
    with serving(folder, ServerSettings(ohif="https://ohif.example/viewer?x=1")) as running:
        data = (folder / "cut.dcm").read_bytes()
        (folder / "cut.dcm").write_bytes(data[: len(data) // 2])
        yield running


def test_radiology_of_the_patient_stands_beside_the_slide(mixed: Running, slide: Slide) -> None:
    page = mixed.ask(f"/slides/{slide.series}").body.decode()
    assert "chest &lt;b&gt;axial" in page
    url = "https://ohif.example/viewer?x=1&amp;StudyInstanceUIDs=2.25.902&amp;initialSeriesInstanceUID=2.25.903"
    assert url in page
    results = mixed.ask("/?radiology=CT").body.decode()
    assert "CT 1" in results
    assert mixed.ask("/dicomweb/series?Modality=CT").json()[0]["0020000E"]["Value"] == ["2.25.903"]


def test_a_damaged_slide_is_told_on_its_page_and_hides_no_other(mixed: Running, slide: Slide) -> None:
    page = mixed.ask("/slides/2.25.904")
    assert page.status == 200
    assert "cannot be shown" in page.body.decode()
    place = f"/dicomweb/studies/{slide.study}/series/2.25.904"
    assert mixed.ask(f"{place}/thumbnail").status >= 400
    assert mixed.ask(f"{place}/instances/2.25.905/frames/1").status in (500, 502)
    assert mixed.ask(f"/dicomweb/studies/{slide.study}/series/{slide.series}/thumbnail").status == 200


def test_without_the_viewer_the_page_says_how_to_get_it(
    server: Running, slide: Slide, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slide_page, "has_viewer", lambda: False)
    page = server.ask(f"/slides/{slide.series}").body.decode()
    assert "make viewer" in page
    assert "/viewer/" not in page
    assert "thumbnail?viewport=1600,1200" in page


def test_what_is_searched_for_is_shown_as_text(server: Running) -> None:
    page = server.ask("/?q=%22%3E%3Cimg%20src=x%3E&collection=%3Cb%3E").body.decode()
    assert "<img src=x>" not in page
    assert "<b>" not in page
    assert "No slide fits" in page


def test_a_filter_that_is_none_is_told(server: Running) -> None:
    answer = server.ask("/?objective=large")
    assert answer.status == 400
    assert "cannot be understood" in answer.body.decode()


BAD_UID = '1.2"><script>x</script>'


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, when the wrong UIDs are written
@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_what_has_a_uid_that_no_path_can_name_is_not_served(tmp_path: Path, keyword: str) -> None:
    good = write_part10(tmp_path, seed=1).path
    ds = pydicom.dcmread(good)
    ds.SeriesInstanceUID, ds.SOPInstanceUID = "2.25.777", "2.25.778"
    setattr(ds, keyword, BAD_UID)
    ds.file_meta.MediaStorageSOPInstanceUID = "2.25.778"
    ds.save_as(tmp_path / "bad.dcm")
    with serving(tmp_path) as running:
        archive = running.service.archive
        assert [*archive.studies] == ["2.25.10"]
        assert [*archive.instances] == ["2.25.3011"]
        assert BAD_UID not in archive.series
        page = running.ask("/").body.decode()
        assert "of 1 patient" in page
        assert "<script>x" not in page


def test_uids_are_text_on_every_page(server: Running, slide: Slide) -> None:
    service = server.service
    assert service.search is not None
    known = service.archive.series[slide.series]
    instances = {
        uid: replace(each, study_instance_uid=BAD_UID, series_instance_uid=BAD_UID)
        for uid, each in known.instances.items()
    }
    label = slide.named("LABEL")
    instances[label] = replace(instances[label], sop_instance_uid=BAD_UID)
    series = IndexedSeries(BAD_UID, BAD_UID, known.attributes, instances)
    page = slide_page.slide_page(service, series)
    assert "data-study=" in page or "The viewer is not part" in page
    assert page.count(escape(BAD_UID)) > 3
    assert "<script>x" not in page


def test_uids_are_text_among_results(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    search = server.service.search
    assert search is not None
    found = search.search(SearchRequest())
    bad = replace(found.slides[0], StudyInstanceUID=BAD_UID, SeriesInstanceUID=BAD_UID)
    monkeypatch.setattr(search, "search", lambda _request: replace(found, slides=[bad]))
    archive = Archive()
    archive.series[BAD_UID] = IndexedSeries(BAD_UID, BAD_UID, {})
    page, status = search_page(search, archive, [])
    assert status == 200
    assert page.count(escape(BAD_UID)) > 2
    assert "<script>x" not in page
