"""What is converted or remapped is validated before it is delivered; what fails goes into quarantine."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import dcmread
from tests.factories.aperio import write_aperio_svs
from tests.factories.generic import write_tiled_tiff

from coverslip.cli import cli
from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest, SeriesResult
from coverslip.errors import StoreError, ValidationFailedError
from coverslip.tiler.pyramid import PyramidOptions
from coverslip.validators.report import Severity
from coverslip.validators.rules import RULES

CONTRADICTION = {"PatientIdentityRemoved": "YES", "DeidentificationMethod": "by hand"}
"""Of a series with its label: refused."""

FORMATS = [
    "synthetic/aperio_bigtiff.svs",
    "synthetic/aperio_icc.svs",
    "synthetic/aperio_j2k33005.svs",
    "synthetic/aperio_jpeg.svs",
    "synthetic/generic_deflate.tif",
    "synthetic/hamamatsu.ndpi",
    "synthetic/hamamatsu_norst.ndpi",
    "synthetic/huron.tif",
    "synthetic/leica.scn",
    "synthetic/mirax.mrxs",
    "synthetic/philips.tiff",
    "synthetic/trestle.tif",
    "synthetic/ventana.bif",
    "synthetic/ventana_nobif.tif",
    "synthetic/vms/slide.vms",
    "dicom/wsi2dcm-jpeg.dcm",
    "real/CMU-1-Small-Region.svs",
    "real/OS-2-ndpi.ome.tif",
]


def convert(slide: Path, output: Path, **options: object) -> SeriesResult:
    (series,) = convert_slide(replace(ConversionRequest(slide, output), **options)).series
    return series


def remarks(series: SeriesResult) -> set[str]:
    """Return the rules of errors and warnings that the validation found."""
    assert series.validation is not None
    return {rule for rule in series.validation.counts if RULES[rule].severity is not Severity.INFO}


@pytest.mark.parametrize("name", FORMATS)
def test_the_output_of_every_format_is_clean(name: str, shared: Path, tmp_path: Path) -> None:
    # Its resolution is a number without a unit, so nothing is known of its spacing.
    given = {"spacing_mm": (0.0005, 0.0005)} if name == "synthetic/trestle.tif" else {}
    assert remarks(convert(shared / "slides" / name, tmp_path, **given)) == set()


@pytest.mark.parametrize("name", ["tissue", "level_1", "slide", "volume", "brightfield", "sRGB", "coverslip", "image"])
def test_a_slide_named_by_a_common_word_is_not_taken_for_a_leak(name: str, tmp_path: Path) -> None:
    slide = tmp_path / f"{name}.svs"
    write_aperio_svs(slide, rows=300, columns=300)
    series = convert(slide, tmp_path / "out", attributes={"ContainerIdentifier": "C1"})
    assert remarks(series) == set()
    checked = CliRunner().invoke(cli, ["deid", "check", str(series.folder), "--source", str(slide)])
    assert checked.exit_code == 0, checked.output


def test_a_slide_named_by_a_word_leaks_where_no_vocabulary_stands(tmp_path: Path) -> None:
    slide = tmp_path / "quimby.svs"
    write_aperio_svs(slide, rows=300, columns=300)
    series = convert(slide, tmp_path / "out", attributes={"ContainerIdentifier": "C1"})
    path = next(series.folder.glob("*.dcm"))
    ds = dcmread(path)
    ds.ImageComments = "of Quimby"
    ds.save_as(path)
    checked = CliRunner().invoke(cli, ["deid", "check", str(series.folder), "--source", str(slide)])
    assert checked.exit_code == 5


def test_a_missing_tile_below_a_level_that_has_content_is_a_warning(tmp_path: Path) -> None:
    slide = tmp_path / "C3L-00017.svs"
    write_aperio_svs(slide, missing_tiles=[(0, 1, 1)], native_downsamples=(2,))
    series = convert(slide, tmp_path / "out")
    assert series.instances[0].missing_tiles == 1
    assert remarks(series) == {"pyramid.missing-tile"}
    told = json.loads(CliRunner().invoke(cli, ["validate", str(series.folder), "--json"]).stdout)
    assert told["counts"] == {"pyramid.missing-tile": 1}, "conversion.json accounts for it too"
    (series.folder / "conversion.json").unlink()
    told = json.loads(CliRunner().invoke(cli, ["validate", str(series.folder), "--json"]).stdout)
    assert set(told["counts"]) == {"pyramid.content"}, "nothing accounts for it"


def test_conversion_json_says_how_it_was_validated_and_what_came_of_it(aperio_slide: Path, tmp_path: Path) -> None:
    stated = []
    for workers in (1, 2):
        series = convert(aperio_slide, tmp_path / str(workers), workers=workers)
        stated.append(json.loads((series.folder / "conversion.json").read_text())["validation"])
    assert stated[0] == stated[1]
    counts = stated[0].pop("counts")
    assert stated[0] == {"mode": "fast", "profile": "dicom", "worst": "INFO"}
    assert counts["fidelity.compared"] >= 3
    series = convert(aperio_slide, tmp_path / "off", validate="off")
    assert json.loads((series.folder / "conversion.json").read_text())["validation"] is None


def test_a_thorough_validation_compares_every_frame(tmp_path: Path) -> None:
    slide, output = tmp_path / "slide.tif", tmp_path / "out"
    write_tiled_tiff(slide, rows=1500, columns=1400, tile=256, compression="deflate")
    done = CliRunner().invoke(
        cli, ["convert", str(slide), "-o", str(output), "--mpp", "0.25", "--validate", "thorough"]
    )
    assert done.exit_code == 0, done.output
    assert "every frame decoded" in done.stdout
    command = ["validate", str(output), "--source", str(slide), "--json"]
    messages = {}
    for how in ((), ("--thorough",)):
        (series,) = json.loads(CliRunner().invoke(cli, [*command, *how]).stdout)["series"]
        messages[how] = [each["message"] for each in series["findings"] if each["rule"] == "fidelity.compared"]
    assert "pixels of 8 of 36 frames" in messages[()][0]
    assert "pixels of 36 of 36 frames" in messages[("--thorough",)][0]


def test_a_series_that_fails_is_quarantined_with_its_report_and_nothing_else_appears(
    aperio_slide: Path, tmp_path: Path
) -> None:
    options = ["--include", "label", *(f"--set={keyword}={value}" for keyword, value in CONTRADICTION.items())]
    command = ["convert", str(aperio_slide), "-o", str(tmp_path), *options]
    done = CliRunner().invoke(cli, [*command, "--json"])
    assert done.exit_code == 5
    assert json.loads(done.stdout)["error"]["exit_code"] == 5
    (place,) = (tmp_path / ".coverslip-quarantine").iterdir()
    assert list(tmp_path.iterdir()) == [place.parent]
    assert f"privacy.claim; nothing was delivered, it is in {place} " in done.stderr
    stated = json.loads((place / "conversion.json").read_text())
    assert stated["series_instance_uid"] == place.name
    assert stated["validation"]["worst"] == "ERROR"
    assert {path.name for path in place.glob("*.dcm")} == {each["file_name"] for each in stated["instances"]}
    report = json.loads((place / "report.json").read_text())
    assert (report["place"], report["passed"], report["counts"]["privacy.claim"]) == (str(place), False, 1)
    page = (place / "report.html").read_text()
    assert "privacy.claim" in page
    assert "data:image/jpeg" in page

    (place / "left-behind").touch()
    assert CliRunner().invoke(cli, command).exit_code == 5
    assert not (place / "left-behind").exists(), "the next run replaces it"
    searched = CliRunner().invoke(cli, ["validate", str(tmp_path)])
    assert isinstance(searched.exception, StoreError), "it is no part of the output"
    assert CliRunner().invoke(cli, ["validate", str(place)]).exit_code == 5

    assert CliRunner().invoke(cli, [*command, "--validate", "off"]).exit_code == 0
    (study,) = tmp_path.glob("2.25.*")
    assert [path.name for path in study.iterdir()] == [place.name]


def test_a_series_that_is_good_leaves_the_quarantine(aperio_slide: Path, tmp_path: Path) -> None:
    series = convert(aperio_slide, tmp_path)
    stale = tmp_path / ".coverslip-quarantine" / series.series_instance_uid
    stale.mkdir(parents=True)
    (stale / "report.json").touch()
    convert(aperio_slide, tmp_path, overwrite=True)
    assert not stale.parent.exists()


def test_an_existing_series_stays_when_its_replacement_fails(aperio_slide: Path, tmp_path: Path) -> None:
    request = ConversionRequest(aperio_slide, tmp_path, include=("label",), attributes=CONTRADICTION)
    (series,) = convert_slide(replace(request, validate="off")).series
    before = {path.name: path.read_bytes() for path in series.folder.iterdir()}
    with pytest.raises(ValidationFailedError):
        convert_slide(replace(request, overwrite=True))
    assert {path.name: path.read_bytes() for path in series.folder.iterdir()} == before


def test_a_copied_tile_that_does_not_decode_is_found_before_it_is_delivered(tmp_path: Path) -> None:
    slide = tmp_path / "slide.svs"
    write_aperio_svs(slide, native_downsamples=())
    data = bytearray(slide.read_bytes())
    at = data.index(b"\xff\xda") + 400
    # Zeros are no marker, at which the conversion itself would have stopped.
    data[at : at + 4000] = bytes(4000)
    slide.write_bytes(data)
    with pytest.raises(ValidationFailedError, match=r"frames\.corrupt"):
        convert_slide(ConversionRequest(slide, tmp_path / "out", PyramidOptions(levels=1)))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".coverslip-quarantine"]


def test_without_dicom3tools_a_conversion_goes_on_and_says_so(
    aperio_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dicom3tools", None)
    assert remarks(convert(aperio_slide, tmp_path)) == {"validator.dependency"}


def test_a_spacing_that_was_given_is_no_finding(aperio_slide: Path, tmp_path: Path) -> None:
    assert remarks(convert(aperio_slide, tmp_path, spacing_mm=(0.0005, 0.0005))) == set()


def test_remapped_headers_are_validated(aperio_slide: Path, tmp_path: Path) -> None:
    series = convert(aperio_slide, tmp_path / "old", attributes={"ContainerIdentifier": "S1"})
    table, metadata_map = tmp_path / "slides.csv", tmp_path / "map.toml"
    table.write_text("slide,patient\nS1,P1\n")
    metadata_map.write_text(
        '[map]\nname = "m"\ntitle = "M"\nkey = { column = "slide", equals = "{stem}" }\n'
        '[attributes]\nPatientID = "{patient}"\nContainerIdentifier = "{slide}"\n'
    )
    command = ["remap", str(series.folder), "--metadata", str(table), "--map", str(metadata_map), "--json"]
    done = CliRunner().invoke(cli, [*command, "-o", str(tmp_path / "new")])
    assert json.loads(done.stdout)["validation"]["mode"] == "headers"
    bad = [*command, "-o", str(tmp_path / "bad"), "--set", "PatientBirthDate=20991231", "--set", "StudyDate=20200101"]
    done = CliRunner().invoke(cli, bad)
    assert isinstance(done.exception, ValidationFailedError)
    assert [path.name for path in (tmp_path / "bad").iterdir()] == [".coverslip-quarantine"]
    assert CliRunner().invoke(cli, [*bad, "--validate", "off"]).exit_code == 0
