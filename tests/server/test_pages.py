"""Pages as HTML: what they say besides what a browser shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from coverslip.server import slide_page
from coverslip.server.settings import ServerSettings
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
