"""Whether the history of lossy compression is told truthfully (PS3.3 C.7.6.1.1.5)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

from pydicom.multival import MultiValue

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.jpeg2000_stream import parse_jpeg2000
from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding
from coverslip.validators.rules import finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check"]

_METHODS = {
    "1.2.840.10008.1.2.4.50": "ISO_10918_1",
    "1.2.840.10008.1.2.4.51": "ISO_10918_1",
    "1.2.840.10008.1.2.4.81": "ISO_14495_1",
    "1.2.840.10008.1.2.4.91": "ISO_15444_1",
    "1.2.840.10008.1.2.4.203": "ISO_15444_15",
}
_MAY_BE_LOSSLESS = ("1.2.840.10008.1.2.4.91", "1.2.840.10008.1.2.4.203")
_RATIO_TOLERANCE = 0.1
_HEADER_BYTES = 65536


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Check flag, methods and ratios of every slide image, and that no level forgets the losses of the larger ones."""
    for instance in series.slide_images:
        yield from _check_instance(instance)
    for larger, smaller in pairwise(series.levels):
        if any(_flag(instance) == "01" for instance in larger):
            for instance in smaller:
                if _flag(instance) == "00":
                    message = f"said to be without loss, but {larger[0].name}, which is larger, is lossy"
                    yield finding("lossy.history", message, instance.place())


def _flag(instance: InstanceView) -> str:
    return str(instance.header.get("LossyImageCompression", ""))


def _values(instance: InstanceView, keyword: str) -> list[str]:
    value = instance.header.get(keyword)
    if value in (None, ""):
        return []
    return [str(each) for each in value] if isinstance(value, MultiValue) else [str(value)]


def _check_instance(instance: InstanceView) -> Iterator[Finding]:
    place = instance.place()
    methods, ratios = _values(instance, "LossyImageCompressionMethod"), _values(instance, "LossyImageCompressionRatio")
    method = _METHODS.get(instance.transfer_syntax_uid)
    if method is not None and instance.transfer_syntax_uid in _MAY_BE_LOSSLESS and _is_reversible(instance):
        method = None
    if _flag(instance) == "00":
        if method is not None:
            yield finding("lossy.flag", f"said to be without loss, but the frames are compressed by {method}", place)
        if methods or ratios:
            yield finding("lossy.values", "said to be without loss, but with a method or ratio", place)
        return
    if len(methods) != len(ratios):
        yield finding("lossy.values", f"{len(methods)} methods and {len(ratios)} ratios", place)
    if method is None:
        return
    if methods and methods[-1] != method:
        message = f"the last method is {methods[-1]}, the frames are compressed by {method}"
        yield finding("lossy.method", message, place)
    elif ratios:
        yield from _check_ratio(instance, ratios[-1])


def _check_ratio(instance: InstanceView, stated: str) -> Iterator[Finding]:
    stored = sum(instance.items.lengths)
    if not stored or instance.items.problem:
        return
    found = instance.decoded_frame_bytes * instance.number_of_frames / stored
    try:
        off = abs(float(stated) / found - 1)
    except (ValueError, ZeroDivisionError):
        return  # told by the rules of attributes
    if off > _RATIO_TOLERANCE:
        yield finding("lossy.ratio", f"the ratio is said to be {stated}, the bytes say {found:.2f}", instance.place())


def _is_reversible(instance: InstanceView) -> bool:
    try:
        return parse_jpeg2000(instance.read_frame(0, min(_HEADER_BYTES, instance.frame_span(0)[1]))).reversible
    except (CorruptSourceError, IndexError):
        return True  # told by the rules of frames
