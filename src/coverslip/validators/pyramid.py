"""The pyramid: levels that fit each other in size, spacing and content (PS3.3 C.8.12.4, C.7.4.2, C.7.6.28)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_ROUNDING = 1.02
"""Of a pixel: spacings are written with few digits."""


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Check the levels of a series against each other."""
    levels = series.levels
    if not levels:
        yield finding("pyramid.no-volume", "the series has no VOLUME image")
        return
    spacings = list(_check_spacings(levels))
    yield from spacings
    misfits = {each.place for each in spacings}  # the imaged volume does not fit a wrong spacing either
    for level in levels:
        yield from _check_unique(level)
        for instance in level:
            if instance.place() not in misfits:
                yield from _check_volume_size(instance)
    for larger, smaller in pairwise(levels):
        if any(low > high for low, high in zip(smaller[0].matrix_size, larger[0].matrix_size, strict=True)):
            message = f"{_size(smaller[0])} is not smaller than {_size(larger[0])} on both sides"
            yield finding("pyramid.order", message, smaller[0].place())
    yield from _check_originals(levels)


def _size(instance: InstanceView) -> str:
    return "{} x {}".format(*instance.matrix_size)


def _check_unique(level: list[InstanceView]) -> Iterator[Finding]:
    """Check that instances of one size are of different channels or planes, or parts of a concatenation."""
    seen: dict[tuple[object, ...], str] = {}
    for instance in level:
        ds = instance.header
        part = (ds.ConcatenationUID, ds.get("InConcatenationNumber")) if "ConcatenationUID" in ds else ()
        origin = ds.get("TotalPixelMatrixOriginSequence")
        depth = str(origin[0].get("ZOffsetInSlideCoordinateSystem", "")) if origin else ""
        key = (instance.optical_path_identifiers, depth, part)
        if key in seen:
            message = f"{_size(instance)} like {seen[key]}, with the same optical paths"
            yield finding("pyramid.duplicate-level", message, instance.place())
        seen[key] = instance.name


def _check_volume_size(instance: InstanceView) -> Iterator[Finding]:
    """Check Imaged Volume Width and Height, in mm, against size and spacing."""
    spacing = instance.pixel_spacing_mm
    if spacing is None:
        yield finding("pyramid.no-spacing", "the level has no Pixel Spacing", instance.place())
        return
    if min(spacing) <= 0:
        yield finding("pyramid.no-spacing", "Pixel Spacing is not above 0", instance.place())
        return
    keywords = ("ImagedVolumeHeight", "ImagedVolumeWidth")
    for keyword, size, each in zip(keywords, instance.matrix_size, spacing, strict=True):
        stated = instance.header.get(keyword)
        if isinstance(stated, int | float) and abs(stated - size * each) > each * _ROUNDING:
            message = f"{keyword} is {stated:.6g} mm, {size} pixels of {each:.6g} mm take {size * each:.6g} mm"
            yield finding("pyramid.imaged-volume", message, instance.place())


def _check_spacings(levels: list[list[InstanceView]]) -> Iterator[Finding]:
    """Check that all levels take what the base takes, to within a pixel of theirs."""
    base = _extent_mm(levels[0][0])
    for instance in chain.from_iterable(levels):
        extent, spacings = _extent_mm(instance), instance.pixel_spacing_mm
        if base is None or extent is None or spacings is None:
            continue
        for side, of_base, found, spacing in zip(("high", "wide"), base, extent, spacings, strict=True):
            if abs(found - of_base) > spacing * _ROUNDING:
                message = f"the level is {found:.6g} mm {side}, the base {of_base:.6g} mm"
                yield finding("pyramid.spacing", message, instance.place())


def _extent_mm(instance: InstanceView) -> tuple[float, float] | None:
    if instance.pixel_spacing_mm is None:
        return None
    (rows, columns), (row, column) = instance.matrix_size, instance.pixel_spacing_mm
    return rows * row, columns * column


def _check_originals(levels: list[list[InstanceView]]) -> Iterator[Finding]:
    """Check that the base, and no other level, is not resampled."""
    for index, level in enumerate(levels):
        for instance in level:
            image_type = [str(value) for value in instance.header.get("ImageType", [])]
            resampled = "RESAMPLED" in image_type[3:]
            if index == 0 and resampled:
                yield finding("pyramid.image-type", "the base is said to be resampled", instance.place())
            elif index and image_type[:1] == ["ORIGINAL"]:
                yield finding("pyramid.image-type", "a lower level is said to be original", instance.place())
            elif index and not resampled:
                yield finding("pyramid.image-type", "a lower level is not said to be resampled", instance.place())
