"""Whether OpenSlide 4 reads the series: by what it is known to read and, if asked for, by opening it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from coverslip.errors import MissingDependencyError
from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_JPEG_2000 = frozenset(("YBR_RCT", "YBR_ICT", "RGB"))
_READ = {
    "1.2.840.10008.1.2.1": frozenset(("RGB",)),
    "1.2.840.10008.1.2.4.50": frozenset(("YBR_FULL_422", "RGB")),
    "1.2.840.10008.1.2.4.90": _JPEG_2000,
    "1.2.840.10008.1.2.4.91": _JPEG_2000,
}


def check(series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    """Say what OpenSlide does not read; the profile ``openslide`` opens the series too."""
    if not series.levels:
        return
    for level in series.levels:
        for instance in level:
            reason = _reason(instance)
            if reason:
                yield finding("reader.openslide-limits", f"OpenSlide 4 does not read {reason}", instance.place())
    if options.profile == "openslide":
        yield from _open(series)


def _reason(instance: InstanceView) -> str:
    photometric = str(instance.header.get("PhotometricInterpretation", ""))
    if instance.number("SamplesPerPixel") != 3 or instance.number("BitsAllocated") != 8:
        return "anything but 8-bit colour"
    if instance.transfer_syntax_uid not in _READ:
        return f"transfer syntax {instance.transfer_syntax_uid}"
    if photometric not in _READ[instance.transfer_syntax_uid]:
        return f"{photometric} in transfer syntax {instance.transfer_syntax_uid}"
    return "concatenations" if "ConcatenationUID" in instance.header else ""


def _open(series: SeriesView) -> Iterator[Finding]:
    from openslide import OpenSlide, OpenSlideError

    base = series.levels[0][0]
    if base.file.local_path is None:
        raise MissingDependencyError("OpenSlide opens files only; validate a local copy of the series")
    try:
        with OpenSlide(base.file.local_path) as slide:
            found = sorted(slide.level_dimensions)
            for level in range(slide.level_count):
                slide.read_region((0, 0), level, (16, 16))
    except OpenSlideError as error:
        yield finding("reader.openslide", f"OpenSlide: {error}", base.place())
        return
    wanted = sorted((level[0].matrix_size[1], level[0].matrix_size[0]) for level in series.levels)
    if found != wanted:
        yield finding("reader.openslide", f"OpenSlide finds {len(found)} levels, expected {len(wanted)}", base.place())
