"""Pixel spacing as files state it: believed only where it can be a slide's."""

from __future__ import annotations

from coverslip.converter.sources.base import PixelSpacing

__all__ = ["plausible_spacing", "scaled_spacing"]

_LEAST_UM, _MOST_UM = 0.02, 20.0
"""Least and greatest distance between pixel centres of a base level that is believed: screens and printers state more,
and no light microscope resolves less."""


def plausible_spacing(row_um: float, column_um: float, origin: str) -> PixelSpacing | None:
    """Return a spacing given in micrometres; None if it cannot be that of a slide's base level."""
    if not (_LEAST_UM <= row_um <= _MOST_UM and _LEAST_UM <= column_um <= _MOST_UM):
        return None
    # Rounded, as 0.2527 / 1000 is 0.00025269999999999996.
    return PixelSpacing(round(row_um / 1000, 15), round(column_um / 1000, 15), origin)


def scaled_spacing(base: PixelSpacing | None, row_factor: float, column_factor: float) -> PixelSpacing | None:
    """Return the spacing of a level that shows the area of the base in so many times fewer pixels."""
    if base is None:
        return None
    return PixelSpacing(round(base.row_mm * row_factor, 15), round(base.column_mm * column_factor, 15), base.origin)
