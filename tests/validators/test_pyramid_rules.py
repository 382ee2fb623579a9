"""Rules about levels: each shown by a good series broken in one way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.encaps import encapsulate

from coverslip.tiler.codecs import encoder_like
from coverslip.validators.instance import InstanceView
from tests.validators.broken import errors, good_series, level_files, rewrite, validate


@pytest.fixture
def lower(good: Path, tmp_path: Path) -> Path:
    """File of the second level of a copy that may be broken."""
    good_series(good, tmp_path)
    return level_files(tmp_path)[1]


def measures(ds: Any) -> Any:
    return ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda ds: setattr(measures(ds), "PixelSpacing", [2 * each for each in measures(ds).PixelSpacing]), "spacing"),
        (lambda ds: setattr(ds, "ImagedVolumeWidth", ds.ImagedVolumeWidth * 1.02), "imaged-volume"),
        (lambda ds: delattr(measures(ds), "PixelSpacing"), "no-spacing"),
        (lambda ds: setattr(ds, "TotalPixelMatrixRows", ds.TotalPixelMatrixRows * 3), "order"),
    ],
)
def test_geometry_that_is_wrong_is_caught(lower: Path, change: Callable[[Any], Any], rule: str):
    rewrite(lower, change)
    assert f"pyramid.{rule}" in errors(validate(lower.parent))


def test_second_level_of_one_size_is_caught(lower: Path):
    copy = lower.with_name("copy.dcm")
    copy.write_bytes(lower.read_bytes())

    def rename(ds: Any) -> None:
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.99"

    rewrite(copy, rename)
    assert errors(validate(lower.parent)) == {"pyramid.duplicate-level"}


def change_frames(path: Path, change: Callable[[list[np.ndarray[Any, Any]]], list[np.ndarray[Any, Any]]]) -> None:
    """Decode the frames of a level, change them, and write them in the same format."""
    view = InstanceView(path)
    frames = change([view.decode(index) for index in range(view.number_of_frames)])
    encoder = encoder_like(view.frame_format, view.read_frame(0))
    ds = dcmread(path)
    ds.PixelData = encapsulate([encoder.encode(np.ascontiguousarray(frame)) for frame in frames])
    ds.save_as(path, enforce_file_format=False)


@pytest.mark.parametrize(
    "change",
    [
        lambda frames: [frames[1], frames[0], *frames[2:]],
        lambda frames: [cv2.flip(frame, 1) for frame in frames],
        lambda frames: [np.full_like(frames[0], 255), *frames[1:]],
    ],
    ids=["swapped", "mirrored", "blank"],
)
def test_level_that_shows_something_else_is_caught(lower: Path, change: Any):
    change_frames(lower, lambda frames: frames)
    assert "pyramid.content" not in errors(validate(lower.parent))
    change_frames(lower, change)
    assert "pyramid.content" in errors(validate(lower.parent))


def test_wrong_image_type_is_a_warning(lower: Path):
    rewrite(lower, lambda ds: setattr(ds, "ImageType", ["DERIVED", "PRIMARY", "VOLUME", "NONE"]))
    assert "pyramid.image-type" in validate(lower.parent).counts()
