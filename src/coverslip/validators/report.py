"""Findings: what is noteworthy or wrong, with a stable rule id."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["Finding", "Severity"]


class Severity(StrEnum):
    """How grave a finding is."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


@dataclass(frozen=True, slots=True)
class Finding:
    """One defect or remark about a slide or series.

    Parameters
    ----------
    rule : str
        Stable id, e.g. ``"source.missing-tile"``.
    severity : Severity
    message : str
        One line: what was found and what it means. No label or patient text.
    place : str
        Where, e.g. ``"level 2, frame 17"``; empty for the whole slide.
    reference : str
        Section of the standard or document the rule rests on, if any.
    """

    rule: str
    severity: Severity
    message: str
    place: str = ""
    reference: str = ""
