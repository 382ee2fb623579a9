"""Instances that are parts of one image (PS3.3 C.7.6.16.2.2.4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_SHARED = (
    "SOPInstanceUIDOfConcatenationSource",
    "InConcatenationTotalNumber",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
    "Rows",
    "Columns",
    "PhotometricInterpretation",
    "ImageType",
)


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Check that the parts of each concatenation are all there, and follow each other."""
    concatenations: dict[str, list[InstanceView]] = defaultdict(list)
    for instance in series.slide_images:
        if "ConcatenationUID" in instance.header:
            concatenations[str(instance.header.ConcatenationUID)].append(instance)
    for parts in concatenations.values():
        yield from _check_parts(sorted(parts, key=lambda each: each.number("InConcatenationNumber")))


def _check_parts(parts: list[InstanceView]) -> Iterator[Finding]:
    first = parts[0]
    numbers = [part.number("InConcatenationNumber") for part in parts]
    total = first.number("InConcatenationTotalNumber", len(parts))
    if numbers != list(range(1, total + 1)):
        yield finding("concatenation.parts", f"parts {numbers} of {total}, expected each once", first.place())
    for part in parts[1:]:
        for keyword in _SHARED:
            if part.header.get(keyword) != first.header.get(keyword):
                yield finding("concatenation.differs", f"{keyword} differs from that in {first.name}", part.place())
    offset = 0
    for part in parts:
        stated = part.number("ConcatenationFrameOffsetNumber", -1)
        if stated != offset:
            message = f"frame offset number {stated}, {offset} frames come before"
            yield finding("concatenation.offset", message, part.place())
        offset += part.number_of_frames
    grid = first.grid()
    if grid is not None and grid.number_of_frames != offset:
        message = f"the parts have {offset} frames, the matrix {grid.number_of_frames} tiles"
        yield finding("concatenation.frames", message, first.place())
