"""Frames looked at without decoding: what is whole passes, what breaks off or was overwritten does not."""

from __future__ import annotations

import random

import imagecodecs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.factories.jpeg_tiles import encode_jpeg
from tests.factories.tissue import tissue

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.tiler.codecs.frame_check import FrameCheck

JPEG = FrameFormat("1.2.840.10008.1.2.4.50", "YBR_FULL_422", 3)
JPEG_2000 = FrameFormat("1.2.840.10008.1.2.4.90", "YBR_RCT", 3)
PICTURE = tissue(128, 128, row=8192, column=4096)
FRAMES = {
    "420": (JPEG, encode_jpeg(PICTURE, 85, subsampling="420")),
    "444": (JPEG, encode_jpeg(PICTURE, 95, subsampling="444")),
    "rgb": (JPEG, encode_jpeg(PICTURE, 85, rgb=True)),
    "j2k": (JPEG_2000, imagecodecs.jpeg2k_encode(PICTURE, 0, codecformat="j2k", reversible=True)),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_that_is_whole_passes(name: str):
    frame_format, frame = FRAMES[name]
    check = FrameCheck(frame_format)
    check.check(frame)
    check.check(frame)


@pytest.mark.parametrize("name", FRAMES)
@given(share=st.floats(0.3, 0.98))
def test_a_frame_that_breaks_off_does_not_pass(name: str, share: float):
    frame_format, frame = FRAMES[name]
    with pytest.raises(CorruptSourceError):
        FrameCheck(frame_format).check(frame[: int(len(frame) * share)])


@pytest.mark.parametrize("name", ["420", "444", "rgb"])
def test_bytes_overwritten_at_random_are_found_nearly_always(name: str):
    frame_format, frame = FRAMES[name]
    found = 0
    for seed in range(50):
        chance = random.Random(seed)
        start = chance.randrange(len(frame) // 2, len(frame) - 1200)
        damaged = frame[:start] + chance.randbytes(1000) + frame[start + 1000 :]
        try:
            FrameCheck(frame_format).check(damaged)
        except CorruptSourceError:
            found += 1
    assert found >= 45


def test_restart_markers_are_counted():
    frame = _with_restarts()
    FrameCheck(JPEG).check(frame)
    at = frame.find(b"\xff\xd1")
    with pytest.raises(CorruptSourceError, match="6 restart markers, expected 7"):
        FrameCheck(JPEG).check(frame[:at] + frame[at + 2 :])


def test_another_header_than_that_of_the_frame_before_is_looked_at_anew():
    check = FrameCheck(JPEG)
    for frame in (_with_restarts(), FRAMES["420"][1], _with_restarts(), FRAMES["444"][1]):
        check.check(frame)


def test_uncompressed_frames_have_nothing_to_be_looked_at():
    FrameCheck(FrameFormat("1.2.840.10008.1.2.1", "RGB", 3)).check(b"\xff\xd8 anything")


def _with_restarts() -> bytes:
    """Return a frame with a restart marker after every row of its eight by eight units."""
    from tests.factories.hamamatsu import encode_with_restarts

    return encode_with_restarts(PICTURE, 128, "420", 85)
