"""Attributes that follow from the slide's pixels, UID rules or the IOD, so that neither option nor map may set them."""

from __future__ import annotations

__all__ = ["is_computed"]

_GROUPS = (0x0000, 0x0002, 0x0004, 0x0028, 0x0048, 0x5200, 0x7FE0)
_KEYWORDS = frozenset(
    "ImageType SOPClassUID SOPInstanceUID SeriesInstanceUID SpecificCharacterSet Modality InstanceNumber "
    "PositionReferenceIndicator ConcatenationUID InConcatenationNumber InConcatenationTotalNumber "
    "ConcatenationFrameOffsetNumber SOPInstanceUIDOfConcatenationSource AcquisitionUID PyramidUID SpecimenUID "
    "DimensionOrganizationType DimensionOrganizationUID VolumetricProperties "
    "DerivationDescription DerivationCodeSequence SpecimenDescriptionSequence OpticalPathSequence "
    "SharedFunctionalGroupsSequence ContributingEquipmentSequence".split()
)


def is_computed(keyword: str, tag: int) -> bool:
    """Say whether an attribute of the top level of a data set cannot be set from outside."""
    return tag >> 16 in _GROUPS or keyword in _KEYWORDS
