"""Every rule that `coverslip validate` knows: the ids, what they mean and what they rest on (docs/rules.md)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from coverslip.validators.report import Finding, Severity

__all__ = ["RULES", "Rule", "finding", "rules_page"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Parameters
    ----------
    id : str
        Stable; the part before the dot is the subject.
    severity : Severity
    title : str
        What is wrong, in a few words.
    reference : str
        Section of the standard or document the rule rests on.
    explanation : str
        Why it matters, and what to do.
    """

    id: str
    severity: Severity
    title: str
    reference: str
    explanation: str = ""


_ERROR, _WARNING, _INFO = Severity.ERROR, Severity.WARNING, Severity.INFO

_ALL = (
    Rule("validator.failed", _ERROR, "A check could not be made", "", "The file is damaged in a way no rule foresees."),
    Rule(
        "validator.dependency",
        _WARNING,
        "A check was left out because a library is missing",
        "",
        "`pip install coverslip[validate]`",
    ),
    Rule("part10.unreadable", _ERROR, "The file is no DICOM file, or its header breaks off", "PS3.10 7.1"),
)

RULES: Mapping[str, Rule] = {rule.id: rule for rule in _ALL}


def finding(rule_id: str, message: str, place: str = "") -> Finding:
    """Return a finding of a registered rule.

    Raises
    ------
    KeyError
        If there is no such rule: a programming mistake.
    """
    rule = RULES[rule_id]
    return Finding(rule.id, rule.severity, message, place, rule.reference)


def rules_page() -> str:
    """Return the text of docs/rules.md."""
    lines = [
        "# Rules of `coverslip validate`",
        "",
        "Each finding names its rule by an id that stays the same when the wording changes. An error means that the",
        "series is not what it says, or that what it is for cannot be done with it; the command then ends with 5. The",
        "findings of conversions and those about privacy are in [findings.md](findings.md).",
    ]
    for subject in dict.fromkeys(rule_id.partition(".")[0] for rule_id in RULES):
        lines += ["", f"## `{subject}`", "", "| rule | severity | what is wrong | reference | why, and what to do |"]
        lines += ["|---|---|---|---|---|"]
        for rule in RULES.values():
            if rule.id.startswith(f"{subject}."):
                cells = (f"`{rule.id}`", rule.severity.lower(), rule.title, rule.reference, rule.explanation)
                lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines) + "\n"
