"""Series against the slides they were made from, and against other slides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.tiler.codecs import parse_codec
from coverslip.tiler.pyramid import PyramidOptions
from coverslip.validators.image_difference import delta_e, psnr, ssim
from coverslip.validators.report import Finding, Severity
from coverslip.validators.validate import ValidationOptions, validate_paths
from tests.factories.aperio import write_aperio_svs
from tests.factories.generic import write_tiled_tiff
from tests.factories.tissue import tissue

type Picture = NDArray[np.uint8]


@pytest.fixture(scope="module")
def picture() -> Picture:
    return tissue(600, 600, 5)


@pytest.fixture(scope="module")
def slide(picture: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("slides") / "slide.svs"
    write_aperio_svs(path, image=picture, native_downsamples=(4,))
    return path


def convert(slide: Path, output: Path, spacing: float | None = None, **options: object) -> Path:
    pyramid = replace(PyramidOptions(), **options)  # type: ignore[arg-type]
    request = ConversionRequest(slide, output, pyramid, spacing_mm=spacing and (spacing, spacing))
    return convert_slide(request).series[0].folder


def compare(folder: Path, source: Path, *, thorough: bool = False) -> list[Finding]:
    (report,) = validate_paths([folder], ValidationOptions(source=source, thorough=thorough))
    return [finding for finding in report.findings if finding.rule.startswith("fidelity.")]


def errors(findings: list[Finding]) -> set[str]:
    return {finding.rule for finding in findings if finding.severity is Severity.ERROR}


def messages(findings: list[Finding], rule: str) -> list[str]:
    return [finding.message for finding in findings if finding.rule == rule]


def level(folder: Path, columns: int) -> Path:
    headers = ((path, dcmread(path, stop_before_pixels=True)) for path in folder.glob("*.dcm"))
    return next(path for path, header in headers if columns == header.TotalPixelMatrixColumns)


@pytest.mark.parametrize("thorough", [False, True])
def test_copied_frames_are_all_found_to_be_those_of_the_slide(slide: Path, tmp_path: Path, thorough: bool) -> None:
    findings = compare(convert(slide, tmp_path), slide, thorough=thorough)
    assert {finding.rule for finding in findings} == {"fidelity.compared"}
    told = messages(findings, "fidelity.compared")
    assert "9 of 9 frames are bit for bit those of stored level 0" in told
    assert "1 of 1 frames are bit for bit those of stored level 1" in told
    assert any("4 of 4 frames compared with stored level 0 reduced by 2" in message for message in told)
    assert "mean colour difference from OpenSlide's reading is 0.0" in told


@pytest.mark.parametrize(
    "options",
    [
        {"reencode": True, "codec": parse_codec("jpeg:80:420")},
        {"reencode": True, "codec": parse_codec("jpeg2000:lossless"), "tile_size": 96},
        {"reencode": True, "codec": parse_codec("none"), "regenerate": True},
        {"regenerate": True, "fast": True},
    ],
    ids=str,
)
def test_encoded_levels_come_near_the_slide(slide: Path, tmp_path: Path, options: dict[str, object]) -> None:
    findings = compare(convert(slide, tmp_path, **options), slide, thorough=True)
    assert {finding.rule for finding in findings} == {"fidelity.compared"}


def test_lossless_levels_of_a_lossless_slide_are_equal_to_it(tmp_path: Path) -> None:
    slide = tmp_path / "plain.tiff"
    write_tiled_tiff(slide, compression="deflate")
    told = messages(compare(convert(slide, tmp_path / "out", 0.0005), slide), "fidelity.compared")
    assert sum(message.endswith(": equal") for message in told) == len(told) - 1  # the other is OpenSlide's


def test_a_changed_byte_of_a_copied_frame_is_found_wherever_it_is(slide: Path, tmp_path: Path) -> None:
    folder = convert(slide, tmp_path)
    path = level(folder, 600)
    data = bytearray(path.read_bytes())
    data[-2000] ^= 1
    path.write_bytes(data)
    findings = compare(folder, slide)
    assert errors(findings) == {"fidelity.frame-differs"}
    assert [finding.place for finding in findings if finding.severity is Severity.ERROR] == [f"{path.name}: frame 9"]


def test_exchanged_frames_are_named(slide: Path, tmp_path: Path) -> None:
    from pydicom.encaps import encapsulate, generate_frames

    folder = convert(slide, tmp_path)
    ds = dcmread(level(folder, 600))
    frames = list(generate_frames(ds.PixelData, number_of_frames=9))
    frames[1], frames[4] = frames[4], frames[1]
    ds.PixelData = encapsulate(frames)
    ds.save_as(level(folder, 600))
    assert messages(compare(folder, slide), "fidelity.frame-differs") == [
        "holds the slide's tile of frame 5, expected a copy bit for bit",
        "holds the slide's tile of frame 2, expected a copy bit for bit",
    ]


@pytest.mark.parametrize(
    ("words", "turn"),
    [
        ("mirrored left to right", lambda picture: picture[:, ::-1]),
        ("mirrored top to bottom", lambda picture: picture[::-1]),
        ("rotated by 180 degrees", lambda picture: picture[::-1, ::-1]),
        ("mirrored along its diagonal", lambda picture: picture.transpose(1, 0, 2)),
        ("rotated by 90 degrees clockwise", lambda picture: np.rot90(picture, -1)),
        ("rotated by 90 degrees counterclockwise", np.rot90),
        ("mirrored along its other diagonal", lambda picture: np.rot90(picture, 2).transpose(1, 0, 2)),
    ],
)
def test_turned_levels_are_named(
    slide: Path, picture: Picture, tmp_path: Path, words: str, turn: Callable[[Picture], Picture]
) -> None:
    other = tmp_path / "turned.svs"
    write_aperio_svs(other, image=np.ascontiguousarray(turn(picture)), native_downsamples=(4,))
    findings = compare(convert(other, tmp_path / "out"), slide)
    assert "fidelity.orientation" in errors(findings)
    assert {message.partition(words)[1:] for message in messages(findings, "fidelity.orientation")} == {(words, "")}


def test_a_picture_of_exchanged_sides_is_said_to_be_turned(tmp_path: Path) -> None:
    tall, wide = tmp_path / "tall.svs", tmp_path / "wide.svs"
    write_aperio_svs(tall, rows=512, columns=300)
    write_aperio_svs(wide, rows=300, columns=512)
    (message,) = messages(compare(convert(wide, tmp_path / "out"), tall), "fidelity.size")
    assert message.startswith("the base has 300 x 512 pixels, the slide 512 x 300: rotated by 90 degrees")


@pytest.mark.parametrize("options", [{}, {"reencode": True}])
def test_another_slide_of_the_same_size_is_found_out(slide: Path, tmp_path: Path, options: dict[str, bool]) -> None:
    other = tmp_path / "other.svs"
    write_aperio_svs(other, rows=600, columns=600, seed=77)
    rule = "fidelity.pixels-differ" if options else "fidelity.frame-differs"
    assert rule in errors(compare(convert(other, tmp_path / "out", **options), slide))


def test_copied_frames_that_are_called_of_another_colour_space_are_found_by_their_colours(tmp_path: Path) -> None:
    slide = tmp_path / "j2k.svs"
    write_aperio_svs(slide, compression="j2k-33003", native_downsamples=())
    folder = convert(slide, tmp_path / "out", levels=1)
    ds = dcmread(level(folder, 900))
    assert ds.PhotometricInterpretation == "YBR_FULL_422"
    ds.PhotometricInterpretation = "RGB"
    ds.save_as(level(folder, 900))
    assert errors(compare(folder, slide)) == {"fidelity.colour"}


def test_a_spacing_given_at_the_conversion_is_told(slide: Path, tmp_path: Path) -> None:
    findings = compare(convert(slide, tmp_path, 0.0005), slide)
    assert not errors(findings)
    assert messages(findings, "fidelity.spacing") == [
        "spacing is 0.0005 x 0.0005 mm, the slide states 0.0002527 x 0.0002527 mm"
    ]


def test_missing_tiles_are_told_and_must_be_background(tmp_path: Path) -> None:
    slide, whole = tmp_path / "missing.svs", tmp_path / "whole.svs"
    write_aperio_svs(slide, missing_tiles=[(0, 1, 1), (0, 2, 3)])
    write_aperio_svs(whole)
    findings = compare(convert(slide, tmp_path / "out"), slide)
    assert not errors(findings)
    assert messages(findings, "fidelity.missing-tiles") == [
        "the slide holds no tile for frames 6, 12: they are background"
    ]
    filled = compare(convert(whole, tmp_path / "whole"), slide)
    places = [finding.place for finding in filled if finding.rule == "fidelity.missing-tile-filled"]
    assert [place.partition(": ")[2] for place in places] == ["frame 6", "frame 12"]


def test_a_source_that_is_no_slide_is_an_error(slide: Path, tmp_path: Path) -> None:
    text = tmp_path / "text.svs"
    text.write_text("no slide")
    assert errors(compare(convert(slide, tmp_path / "out"), text)) == {"fidelity.source-unreadable"}


def test_differences_of_pictures_are_as_computed_by_hand() -> None:
    black = np.zeros((16, 16, 3), np.uint8)
    white = np.full((16, 16, 3), 255, np.uint8)
    assert psnr(black, black) == float("inf")
    assert psnr(black, white) == 0
    assert psnr(black, black + np.uint8(1)) == pytest.approx(48.13, abs=0.01)  # 20 log10 255
    assert ssim(white, white) == 1
    assert ssim(black, white) == pytest.approx(6.5025 / (255**2 + 6.5025))
    assert delta_e(black, white) == pytest.approx(100, abs=0.01)
    red = np.zeros((16, 16, 3), np.uint8)
    red[..., 0] = 255  # L* 53.24, a* 80.09, b* 67.20
    assert delta_e(black, red) == pytest.approx((53.24**2 + 80.09**2 + 67.20**2) ** 0.5, abs=0.1)
