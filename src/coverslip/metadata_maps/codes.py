"""Coded concepts, with their meanings exactly as the Imaging Data Commons publishes them.

IDC's queries filter on the meaning as well as the code, so a synonym is a miss.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Code"]


class Code(NamedTuple):
    """A coded concept (PS3.3 8): value, designator of its scheme, meaning."""

    value: str
    scheme_designator: str
    meaning: str


MICROSCOPE_SLIDE = Code("433466003", "SCT", "Microscope slide")
SLIDE = Code("1179252003", "SCT", "Slide")
BRIGHTFIELD_ILLUMINATION = Code("111744", "DCM", "Brightfield illumination")
EPIFLUORESCENCE_ILLUMINATION = Code("111743", "DCM", "Epifluorescence illumination")
FULL_SPECTRUM = Code("414298005", "SCT", "Full Spectrum")
NARROW_SPECTRUM = Code("134223000", "SCT", "Narrow")
LOSSY_COMPRESSION = Code("113040", "DCM", "Lossy Compression")
SPATIAL_RESAMPLING = Code("113085", "DCM", "Spatial resampling")
IMAGE_STITCHING = Code("113090", "DCM", "Image stitching")
MODIFYING_EQUIPMENT = Code("109103", "DCM", "Modifying Equipment")
