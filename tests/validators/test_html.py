"""The HTML report, as a parser and a reader of data URIs find it."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pydicom
import pytest
from click.testing import CliRunner
from PIL import Image
from pydicom import Dataset

from coverslip.cli import cli
from coverslip.errors import StoreError
from coverslip.validators.html import write_html_report
from coverslip.validators.report import Checked, Finding, Severity, ValidationReport
from coverslip.validators.rules import finding

_VOID = {"meta", "link", "img", "br", "rect", "path", "image"}


@dataclass(slots=True)
class Table:
    caption: str = ""
    rows: list[list[str]] = field(default_factory=list)
    scopes: list[str | None] = field(default_factory=list)


class Page(HTMLParser):
    """Collects tables, text and what is referred to; complains of elements that are not closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.text: list[str] = []
        self.references: list[str] = []
        self.marks: list[str] = []
        self.images_without_text = 0
        self._open: list[str] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.references += [str(given[name]) for name in ("src", "href") if name in given]
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "table":
            self.tables.append(Table())
        elif tag == "tr":
            self.tables[-1].rows.append([])
        elif tag in ("th", "td"):
            self.tables[-1].rows[-1].append("")
            if tag == "th":
                self.tables[-1].scopes.append(given.get("scope"))
        elif tag == "rect":
            self.marks.append(str(given["class"]))
        elif tag == "img":
            self.images_without_text += not given.get("alt")

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text.append(data)
        if "caption" in self._open:
            self.tables[-1].caption += data
        elif {"th", "td"} & set(self._open):
            self.tables[-1].rows[-1][-1] += data

    def table(self, caption: str) -> list[list[str]]:
        """Return the rows below the headings."""
        return next(table.rows[1:] for table in self.tables if table.caption == caption)


@pytest.fixture
def series(good: Path) -> Path:
    return next(good.rglob("*.dcm")).parent


def base_of(series: Path) -> Path:
    return max(series.glob("*.dcm"), key=lambda path: pydicom.dcmread(path, stop_before_pixels=True).NumberOfFrames)


def report_of(series: Path, *findings: Finding) -> ValidationReport:
    uid = pydicom.dcmread(base_of(series), stop_before_pixels=True).SeriesInstanceUID
    return ValidationReport(str(uid), str(series), "dicom", findings, Checked(5, 19, 12, 1000, 0.25))


def page_of(tmp_path: Path, *reports: ValidationReport) -> Page:
    write_html_report(reports, tmp_path / "report.html")
    return Page(tmp_path / "report.html")


def test_page_needs_nothing_from_elsewhere(series: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, report_of(series))
    assert [each for each in page.references if not each.startswith(("data:image/", "#"))] == []
    assert "<script" not in page.source
    assert "default-src 'none'" in page.source


def test_series_without_findings_says_so_and_shows_its_levels(series: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, report_of(series))
    assert "No findings." in page.text
    assert "Validation report: passed" in page.text
    assert [row[:5] for row in page.table("Images")] == [
        ["level 0", "900 × 700", "0.2527", "12", "256 × 256"],
        ["level 1", "450 × 350", "0.5054", "4", "256 × 256"],
        ["level 2", "225 × 175", "1.011", "1", "256 × 256"],
        ["overview", "1,280 × 431", "–", "1", "1280 × 431"],
        ["label", "387 × 463", "–", "1", "387 × 463"],
    ]


def test_thumbnail_is_the_coarsest_level(series: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, report_of(series))
    pictures = [each for each in page.references if each.startswith("data:image/jpeg;base64,")]
    assert len(pictures) == 1
    with Image.open(io.BytesIO(base64.b64decode(pictures[0].partition(",")[2]))) as picture:
        shown = np.asarray(picture.convert("RGB"), float)
    assert shown.shape == (175, 225, 3)
    by_width = {
        pydicom.dcmread(path, stop_before_pixels=True).TotalPixelMatrixColumns: path
        for path in series.iterdir()
        if path.suffix == ".dcm"
    }
    level = pydicom.dcmread(by_width[225]).pixel_array[:175, :225]
    assert np.abs(shown - level).mean() < 8  # JPEG twice


def test_every_table_has_headings_and_every_picture_a_text(series: Path, tmp_path: Path) -> None:
    page = page_of(tmp_path, report_of(series, finding("part10.unreadable", "x")), report_of(series))
    assert len(page.tables) >= 4
    for table in page.tables:
        assert table.caption
        assert set(table.scopes) == {"row", "col"}
        assert len({len(row) for row in table.rows}) == 1
    assert page.images_without_text == 0


def test_frames_with_findings_are_marked_on_a_map(series: Path, tmp_path: Path) -> None:
    name = base_of(series).name
    error, warning = Severity.ERROR, Severity.WARNING
    page = page_of(
        tmp_path,
        report_of(
            series,
            Finding("frames.corrupt", error, "broken", f"{name}: frame 6"),
            Finding("frames.corrupt", error, "broken", f"{name}: frame 12"),
            Finding("viewer.colors", warning, "colours", f"{name}: frame 12"),
            Finding("viewer.colors", warning, "colours", f"{name}: frame 1"),
        ),
    )
    assert sorted(page.marks) == ["error", "error", "warning"]
    assert "3 of 12 frames have findings: level 0" in page.text
    assert [row[2] for row in page.table("Errors: 2")] == ["level 0: frame 6", "level 0: frame 12"]
    # frame 6 of four columns is tile (1, 1); 900 pixels are 520 wide
    assert f'x="{256 * 520 / 900:.1f}" y="{256 * 520 / 900:.1f}"' in page.source


def test_many_findings_of_one_rule_are_counted(series: Path, tmp_path: Path) -> None:
    findings = [Finding("frames.corrupt", Severity.ERROR, f"broken {number}") for number in range(50)]
    rows = page_of(tmp_path, report_of(series, *findings)).table("Errors: 50")
    assert len(rows) == 21
    assert rows[-1][1] == "and 30 more"


def test_texts_of_findings_and_headers_are_escaped(series: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in series.glob("*.dcm"):
        ds = pydicom.dcmread(path)
        ds.PatientID = '<script>"x"</script>'
        ds.save_as(copied / path.name)
    page = page_of(tmp_path, report_of(copied, Finding("a<b>", Severity.INFO, "<i>&", "'\"<p>", "<u>")))
    assert "<script" not in page.source
    assert '<script>"x"</script>' in page.text
    assert page.table("Remarks: 1") == [["a<b>", "<i>&", "'\"<p>", "<u>"]]


def test_identifying_texts_are_not_told(series: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    for path in series.glob("*.dcm"):
        ds = pydicom.dcmread(path)
        ds.PatientName, ds.LabelText, ds.OperatorsName, ds.PatientID = "Nobody^Known", "LABEL17", "Smith", "P17"
        ds.save_as(copied / path.name)
    page = page_of(tmp_path, report_of(copied))
    assert "P17" in page.text
    assert re.findall("Nobody|LABEL17|Smith", page.source) == []


def test_stain_specimen_and_scanner_are_told(series: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    name, code, item, step = Dataset(), Dataset(), Dataset(), Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "424361007", "SCT", "Using substance"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "12710003", "SCT", "hematoxylin stain"
    item.ValueType, item.ConceptNameCodeSequence, item.ConceptCodeSequence = "CODE", [name], [code]
    step.SpecimenPreparationStepContentItemSequence = [item]
    for path in series.glob("*.dcm"):
        ds = pydicom.dcmread(path)
        ds.SpecimenDescriptionSequence[0].SpecimenPreparationSequence = [step]
        ds.SpecimenDescriptionSequence[0].SpecimenIdentifier = "S-1"
        ds.Manufacturer, ds.ManufacturerModelName = "Maker", "Model 2"
        ds.save_as(copied / path.name)
    text = page_of(tmp_path, report_of(copied)).text
    assert {"hematoxylin stain", "S-1", "Maker Model 2"} <= set(text)


def test_batch_is_summed_up_by_rule(series: Path, tmp_path: Path) -> None:
    wrong = finding("part10.unreadable", "x")
    page = page_of(
        tmp_path, report_of(series, wrong, wrong), report_of(series), ValidationReport("", "", "dicom", (wrong,))
    )
    assert "3 series, 2 failed" in page.text
    assert [row[1:] for row in page.table("Series")] == [
        ["failed", "2", "0", "0"],
        ["failed", "1", "0", "0"],
        ["passed", "0", "0", "0"],
    ]
    assert [[row[0], row[1], *row[3:]] for row in page.table("Findings by rule")] == [
        ["part10.unreadable", "error", "3", "2"]
    ]
    assert {"#series-1", "#series-2", "#series-3"} <= set(page.references)


def test_series_that_is_gone_or_broken_is_told_without_a_picture(series: Path, tmp_path: Path) -> None:
    wrong = finding("part10.unreadable", "x")
    gone = ValidationReport("2.25.1", str(tmp_path / "gone"), "dicom", (wrong,))
    assert "2.25.1 " in page_of(tmp_path, gone).text
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in series.glob("*.dcm"):
        data = path.read_bytes()
        (broken / path.name).write_bytes(data[: len(data) - len(data) // 3])
    page = page_of(tmp_path, report_of(broken, wrong))
    assert len(page.table("Images")) == 5
    assert [each for each in page.references if each.startswith("data:")] == []


def test_page_that_cannot_be_written_is_a_store_error(series: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        write_html_report([report_of(series)], tmp_path / "no" / "report.html")


def test_command_writes_the_page_also_of_a_series_that_fails(series: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    copied.mkdir()
    (copied / "broken.dcm").write_bytes(base_of(series).read_bytes()[:-5000])
    result = CliRunner().invoke(cli, ["validate", str(copied), "--html", str(tmp_path / "report.html")])
    assert result.exit_code == 5
    assert "Validation report: failed" in Page(tmp_path / "report.html").text
