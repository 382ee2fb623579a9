"""Findings: what is noteworthy or wrong, with a stable rule id; and the report of a series."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

__all__ = ["Checked", "Finding", "Severity", "ValidationReport", "count_rules", "first_of_each_rule"]


class Severity(StrEnum):
    """How grave a finding is."""

    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"

    @property
    def rank(self) -> int:
        """0 for INFO, 1 for WARNING, 2 for ERROR."""
        return list(Severity).index(self)


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


@dataclass(frozen=True, slots=True)
class Checked:
    """How much was looked at.

    Parameters
    ----------
    instances, frames : int
        Of the series.
    frames_decoded : int
        Decodings; a frame that two checks need may count twice.
    bytes_read : int
        Of pixel data.
    seconds : float
    """

    instances: int = 0
    frames: int = 0
    frames_decoded: int = 0
    bytes_read: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class ValidationReport:
    """What is wrong with a series.

    Parameters
    ----------
    series_instance_uid : str
        Empty for files that could not be read.
    place : str
        Folder of the series.
    profile : str
        Whose rules were asked for.
    findings : tuple of Finding
        Gravest first, otherwise in the order of the checks.
    checked : Checked
    """

    series_instance_uid: str
    place: str
    profile: str
    findings: tuple[Finding, ...]
    checked: Checked = Checked()

    @property
    def worst(self) -> Severity | None:
        """Severity of the gravest finding, None if there is none."""
        return max((finding.severity for finding in self.findings), key=lambda each: each.rank, default=None)

    @property
    def passed(self) -> bool:
        """Whether there is no ERROR."""
        return self.worst is not Severity.ERROR

    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each rule."""
        return count_rules(self.findings)

    def as_json(self) -> dict[str, Any]:
        """Return the report as plain values."""
        return {**asdict(self), "passed": self.passed, "counts": self.counts()}


def count_rules(findings: Iterable[Finding]) -> dict[str, int]:
    """Return how many findings there are of each rule, by rule id."""
    return dict(sorted(Counter(finding.rule for finding in findings).items()))


_MOST_TOLD = 10
"""Findings of one rule about frames of one instance; more tell nothing new."""


def first_of_each_rule(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield the first findings of each rule about frames of an instance, and say how many more frames have the same."""
    told: Counter[str] = Counter()
    last: dict[str, Finding] = {}
    for each in findings:
        told[each.rule] += 1
        last[each.rule] = each
        if told[each.rule] <= _MOST_TOLD:
            yield each
    for rule, count in told.items():
        if count > _MOST_TOLD:
            instance = last[rule].place.partition(": frame")[0]
            yield replace(last[rule], message=f"{count - _MOST_TOLD} more frames", place=instance)
