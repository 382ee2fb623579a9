"""Every mutation of a good series is found by its rule and by no other; good series have no errors."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.tiler.codecs import parse_codec
from coverslip.tiler.pyramid import PyramidOptions
from coverslip.validators.report import Finding, Severity
from coverslip.validators.validate import ValidationOptions, validate_paths
from tests.factories.aperio import write_aperio_svs
from tests.factories.generic import write_tiled_tiff
from tests.factories.tissue import tissue
from tests.validators.mutations import MUTATIONS, Broken, Mutation

PATIENT = {"PatientID": "P1", "PatientName": "Müller^", "StudyID": "S1", "StudyDate": "20210317"}

EVERY_IMAGE = ("label", "overview", "thumbnail")

type GoodSeries = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> GoodSeries:
    """Return what gives the folder of a series, made once, and the slide it was made from, by the series' name."""
    folder = tmp_path_factory.mktemp("good")

    @cache
    def slide(seed: int = 0, *, mirrored: bool = False) -> Path:
        path = folder / f"{seed}{mirrored}.svs"
        picture = tissue(700, 900, seed)
        write_aperio_svs(path, image=picture[:, ::-1].copy() if mirrored else picture, native_downsamples=(2, 4))
        return path

    @cache
    def series(name: str) -> tuple[Path, Path]:
        output, source = folder / name, slide()
        request = ConversionRequest(source, output, attributes=PATIENT, include=("label", "overview"))
        if name == "study":
            for seed in (1, 2):
                one = replace(request, path=slide(seed), attributes={**PATIENT, "ContainerIdentifier": f"C{seed}"})
                convert_slide(one)
        else:
            lossless = PyramidOptions(codec=parse_codec("jpeg2000:lossless"), reencode=True)
            options = {
                "lossless": {"pyramid": lossless},
                "one level": {"pyramid": PyramidOptions(levels=1)},
                "one lossless level": {"pyramid": replace(lossless, levels=1)},
                "mirrored": {"path": slide(mirrored=True)},
                "htj2k": {"pyramid": replace(lossless, codec=parse_codec("htj2k"))},
            }
            convert_slide(replace(request, **options.get(name, {})))
        return output, source

    return series


def problems(
    paths: Path, source: Path | None = None, profile: str = "dicom", *, thorough: bool = False
) -> list[Finding]:
    """Return errors and warnings."""
    reports = validate_paths([paths], ValidationOptions(profile, thorough, source))
    return [finding for report in reports for finding in report.findings if finding.severity is not Severity.INFO]


def errors(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.severity is Severity.ERROR]


@pytest.mark.filterwarnings("ignore:The value length:UserWarning")  # of what is too long on purpose
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_mutation_is_found_by_its_rule_and_no_other(mutation: Mutation, good: GoodSeries, tmp_path: Path) -> None:
    folder, slide = good(mutation.series)
    copy = tmp_path / "series"
    shutil.copytree(folder, copy)
    mutation.apply(Broken(copy))
    found = problems(copy, slide if mutation.with_source else None, mutation.profile)
    assert mutation.rule in {finding.rule for finding in found}, found
    assert {finding.rule for finding in errors(found)} <= {mutation.rule}, found


@pytest.mark.parametrize("name", ["jpeg", "lossless", "study", "one level"])
@pytest.mark.parametrize("thorough", [False, True])
def test_good_series_have_neither_errors_nor_warnings(name: str, thorough: bool, good: GoodSeries) -> None:
    folder, slide = good(name)
    assert not problems(folder, None if name == "study" else slide, thorough=thorough)


@pytest.mark.parametrize(
    "options",
    [
        {"codec": "jpeg:80:420", "reencode": True},
        {"codec": "jpeg:80:444", "reencode": True, "tile_size": 240},
        {"codec": "jpeg2000", "reencode": True},
        {"codec": "jpegls", "reencode": True},
        {"codec": "none", "reencode": True},
        {"regenerate": True, "fast": True},
        {"levels": "native"},
    ],
    ids=str,
)
def test_options_give_series_with_neither_errors_nor_warnings(
    options: dict[str, Any], good: GoodSeries, tmp_path: Path
) -> None:
    _folder, slide = good("jpeg")
    codec = {"codec": parse_codec(options["codec"])} if "codec" in options else {}
    convert_slide(ConversionRequest(slide, tmp_path, PyramidOptions(**{**options, **codec}), EVERY_IMAGE))
    assert not problems(tmp_path, slide)


@pytest.mark.parametrize(
    "slide",
    [
        {"compression": "jpeg-ycbcr"},
        {"compression": "j2k-33005"},
        {"compression": "j2k-33003"},
        {"missing_tiles": [(0, 1, 1)], "native_downsamples": ()},
        {"compression": "deflate"},
    ],
    ids=str,
)
def test_formats_give_series_with_neither_errors_nor_warnings(slide: dict[str, Any], tmp_path: Path) -> None:
    path, output = tmp_path / "S17-0042.tiff", tmp_path / "out"
    write = write_tiled_tiff if slide.get("compression") == "deflate" else write_aperio_svs
    write(path, **slide)
    convert_slide(ConversionRequest(path, output))
    assert not problems(output, path)


def test_there_are_more_than_sixty_mutations_with_different_names() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS) >= 60
