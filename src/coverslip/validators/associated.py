"""Label, overview and thumbnail (PS3.3 C.8.12.4.1.1, C.8.12.8)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_SHAPE_TOLERANCE = 0.05


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Check the images that are not levels."""
    for flavor in ("LABEL", "OVERVIEW"):
        images = [instance for instance in series.slide_images if instance.flavor == flavor]
        if len(images) > 1:
            yield finding("label.several", f"{len(images)} images are the {flavor.lower()}")
        for image in images:
            yield from _check_beside_the_pyramid(image)
    for instance in series.slide_images:
        if instance.flavor == "THUMBNAIL":
            yield from _check_thumbnail(instance, series)
        if instance.flavor in ("LABEL", "OVERVIEW", "THUMBNAIL") and instance.number_of_frames > 1:
            message = f"the {instance.flavor.lower()} has {instance.number_of_frames} frames, viewers expect one"
            yield finding("label.frames", message, instance.place())


def _check_beside_the_pyramid(image: InstanceView) -> Iterator[Finding]:
    flavor = image.flavor.lower()
    if "PyramidUID" in image.header:
        yield finding("label.pyramid-uid", f"the {flavor} has a Pyramid UID", image.place())
    if image.header.get("SpecimenLabelInImage") == "NO":
        yield finding("label.not-in-image", f"Specimen Label in Image is NO in the {flavor}", image.place())
    if image.flavor == "LABEL" and image.header.get("BurnedInAnnotation") == "NO":
        yield finding("label.burned-in", "Burned In Annotation is NO in the label", image.place())


def _check_thumbnail(thumbnail: InstanceView, series: SeriesView) -> Iterator[Finding]:
    if not series.levels or not all(thumbnail.matrix_size):
        return
    base, coarsest = series.levels[0][0], series.levels[-1][0]
    if any(own >= level for own, level in zip(thumbnail.matrix_size, coarsest.matrix_size, strict=True)):
        message = "the thumbnail is not smaller than the smallest level, and viewers drop levels not larger than it"
        yield finding("label.thumbnail-size", message, thumbnail.place())
    rows, columns = (own / level for own, level in zip(thumbnail.matrix_size, base.matrix_size, strict=True) if level)
    if abs(rows / columns - 1) > _SHAPE_TOLERANCE:
        yield finding("label.thumbnail-shape", "the thumbnail has other proportions than the base", thumbnail.place())
