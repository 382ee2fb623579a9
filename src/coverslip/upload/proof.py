"""Why a series may be delivered: its bytes are those that were described, and it has passed a validation."""

from __future__ import annotations

from concurrent.futures import Executor
from enum import StrEnum

from coverslip.errors import ValidationFailedError
from coverslip.pipeline.ledger import Kind, Ledger, Stage, State, Task
from coverslip.upload.deliverables import CONVERSION_FILE, Deliverable, digest_file
from coverslip.uuids import merkle_md5
from coverslip.validators.report import Severity

__all__ = ["ValidateMode", "check_bytes", "prove_series"]

_MOST_RULES = 5
_SUFFICIENT = ("fast", "thorough")
"""Modes of a conversion's validation that looked at frames too."""


class ValidateMode(StrEnum):
    """When a series is validated before it is sent."""

    AUTO = "auto"
    """Unless its conversion or an earlier run has done so for the same bytes."""

    ALWAYS = "always"
    OFF = "off"


def check_bytes(series: Deliverable, executor: Executor) -> None:
    """Compare the files with the MD5s that `conversion.json` states.

    Raises
    ------
    ValidationFailedError
        If one has other bytes.
    """
    if not series.stated_md5:
        return  # they were just computed from the files
    paths = [instance.path for instance in series.instances]
    for instance, md5 in zip(series.instances, executor.map(digest_file, paths), strict=True):
        if md5 != instance.md5:
            raise ValidationFailedError(
                f"instance {instance.uids.sop_instance_uid} was changed after its conversion: MD5 {md5}, "
                f"{CONVERSION_FILE} says {instance.md5}"
            )


def prove_series(series: Deliverable, mode: ValidateMode, ledger: Ledger) -> str:
    """Say in words why a series, whose bytes are as stated, may be delivered.

    Raises
    ------
    ValidationFailedError
        If it has not passed.
    """
    if mode is ValidateMode.OFF:
        return "not validated, as asked"
    digest = merkle_md5(instance.md5 for instance in series.instances)
    task = Task(Kind.SERIES, series.series_instance_uid, Stage.VALIDATE)
    if mode is ValidateMode.AUTO:
        worst = _worst_recorded(series)
        if worst == Severity.ERROR:
            raise ValidationFailedError(f"the validation that {CONVERSION_FILE} records has failed")
        if worst is not None:
            return "validated by its conversion"
        known = ledger.record(task)
        if known is not None and known.digest == digest and known.state is State.DONE:
            return "validated before"
    ledger.start(task, digest=digest, size_bytes=series.size_bytes)
    errors = _rules_broken(series)
    if errors:
        message = f"validation failed: {', '.join(errors[:_MOST_RULES])}{' ...' if len(errors) > _MOST_RULES else ''}"
        ledger.finish(task, State.FAILED, error=(ValidationFailedError.__name__, message))
        raise ValidationFailedError(f"{message}; coverslip validate tells more")
    ledger.finish(task, State.DONE)
    return "validated"


def _worst_recorded(series: Deliverable) -> str | None:
    """Return the severity of the gravest finding of the conversion's own validation, or None if there was none."""
    recorded = series.conversion.get("validation")
    if not isinstance(recorded, dict) or recorded.get("mode") not in _SUFFICIENT or "worst" not in recorded:
        return None
    return str(recorded["worst"])


def _rules_broken(series: Deliverable) -> list[str]:
    """Validate the files and return the rules of ERROR findings, with how many there are of each."""
    from coverslip.validators.report import count_rules
    from coverslip.validators.validate import ValidationOptions, validate_paths

    reports = validate_paths([instance.path for instance in series.instances], ValidationOptions())
    findings = (found for report in reports for found in report.findings)
    counts = count_rules(found for found in findings if found.severity is Severity.ERROR)
    return [f"{rule} ({count})" if count > 1 else rule for rule, count in counts.items()]
