"""Colour profiles: input class, RGB to XYZ or Lab, on all colour levels or none (PS3.3 C.8.12.5, C.11.15)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import TYPE_CHECKING

from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_HEADER_BYTES = 128


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Check every colour profile, and that colour levels agree about having one."""
    color = [instance for instance in series.slide_images if instance.number("SamplesPerPixel") == 3]
    for instance in color:
        for profile in _profiles(instance):
            yield from _check_profile(profile, instance.place())
    levels = [instance for instance in color if instance.flavor in ("VOLUME", "THUMBNAIL")]
    without = [instance for instance in levels if not _profiles(instance)]
    if len(without) not in (0, len(levels)):
        for instance in without:
            yield finding("color.icc-levels", "no ICC profile, but other levels have one", instance.place())
    elif len({tuple(_profiles(instance)) for instance in levels}) > 1:
        yield finding("color.icc-differs", "the levels have different ICC profiles")


def _profiles(instance: InstanceView) -> list[bytes]:
    """Return the profiles of all optical paths."""
    items = instance.header.get("OpticalPathSequence") or ()
    return [bytes(item.ICCProfile) for item in items if item.get("ICCProfile")]


def _check_profile(profile: bytes, place: str) -> Iterator[Finding]:
    if len(profile) < _HEADER_BYTES or profile[36:40] != b"acsp":
        yield finding("color.icc-damaged", "is no ICC profile", place)
        return
    (size,) = struct.unpack_from(">I", profile)
    if not size <= len(profile) <= size + 1:  # a byte of padding
        yield finding("color.icc-damaged", f"{len(profile)} bytes, the profile says {size}", place)
    device_class, space, connection = (profile[at : at + 4].decode("latin-1").strip() for at in (12, 16, 20))
    if device_class != "scnr":
        yield finding("color.icc-class", f"class {device_class!r}, expected 'scnr'", place)
    if space != "RGB":
        yield finding("color.icc-space", f"colour space {space!r}, expected 'RGB'", place)
    if connection not in ("XYZ", "Lab"):
        yield finding("color.icc-connection", f"connection space {connection!r}, expected 'XYZ' or 'Lab'", place)
