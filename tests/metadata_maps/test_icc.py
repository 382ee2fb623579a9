"""ICC profiles of input class."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from coverslip.metadata_maps.icc import as_input_profile, srgb_input_profile


def display_profile() -> bytes:
    """Return sRGB as lcms makes it: of class display."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def changed(profile: bytes, at: int, data: bytes) -> bytes:
    return profile[:at] + data + profile[at + len(data) :]


def test_input_profile_is_kept_bit_for_bit():
    own = changed(display_profile(), 12, b"scnr")
    assert as_input_profile(own) == (own, None)


@pytest.mark.parametrize("device_class", [b"mntr", b"spac"])
def test_display_profile_gets_the_input_class_and_nothing_else(device_class: bytes):
    own = changed(changed(display_profile(), 12, device_class), 84, bytes(range(16)))
    profile, remark = as_input_profile(own)
    assert profile == changed(changed(own, 12, b"scnr"), 84, bytes(16))
    assert remark == f"class {device_class.decode()} set to input class"
    assert ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile.device_class == "scnr"


@pytest.mark.parametrize(
    ("at", "data", "words"),
    [
        (36, b"xxxx", "not an ICC profile"),
        (16, b"CMYK", "a profile from CMYK to XYZ"),
        (16, b"GRAY", "a profile from GRAY to XYZ"),
        (20, b"RGB ", "a profile from RGB to RGB"),
        (12, b"prtr", "a profile of class prtr"),
        (12, b"link", "a profile of class link"),
        (0, b"\x7f\0\0\0", "an ICC profile cut short"),
    ],
)
def test_profile_that_cannot_describe_the_pixels_is_refused_in_words(at: int, data: bytes, words: str):
    assert as_input_profile(changed(display_profile(), at, data)) == (None, words)


@pytest.mark.parametrize("profile", [b"", b"garbage", bytes(127), bytes(200)])
def test_garbage_is_no_profile(profile: bytes):
    assert as_input_profile(profile) == (None, "not an ICC profile")


def test_own_srgb_is_an_input_profile_the_same_always():
    profile = srgb_input_profile()
    assert profile == srgb_input_profile()
    assert as_input_profile(profile) == (profile, None)
    assert len(profile) == int.from_bytes(profile[:4])
    read = ImageCms.ImageCmsProfile(io.BytesIO(profile)).profile
    assert (read.device_class, read.xcolor_space.strip(), read.connection_space.strip()) == ("scnr", "RGB", "XYZ")
    assert read.profile_description == "sRGB, input class"


def test_own_srgb_agrees_with_srgb_within_one_level():
    steps = np.linspace(0, 255, 18).round().astype(np.uint8)
    colors = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 18, 3)
    own = ImageCms.ImageCmsProfile(io.BytesIO(srgb_input_profile()))
    target = ImageCms.createProfile("sRGB")
    intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
    transform = ImageCms.buildTransform(own, target, "RGB", "RGB", intent)
    converted = np.asarray(ImageCms.applyTransform(Image.fromarray(colors), transform))
    assert np.abs(converted.astype(int) - colors).max() <= 1
