"""Files of other converters: what is found in them is what the documentation explains."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from coverslip.validators.report import Severity
from coverslip.validators.validate import ValidationOptions, validate_paths

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "validation-of-others.md"


def test_findings_in_files_of_other_converters_are_those_explained(shared: Path) -> None:
    rows = re.findall(r"^\| `(\S+)` \| `(\S+)` \| (\d+) \|", DOCUMENT.read_text(), re.MULTILINE)
    explained = {(files, rule): int(number) for files, rule, number in rows}
    found: Counter[tuple[str, str]] = Counter()
    for files in dict.fromkeys(files for files, _rule, _number in rows):
        for report in validate_paths(sorted((shared / "slides" / "dicom").glob(files)), ValidationOptions()):
            told = [finding for finding in report.findings if finding.severity is not Severity.INFO]
            found.update((files, finding.rule) for finding in told if not finding.rule.startswith("privacy."))
    assert found == explained


def test_every_file_of_another_converter_is_explained(shared: Path) -> None:
    patterns = set(re.findall(r"^\| `(\S+)` \|", DOCUMENT.read_text(), re.MULTILINE))
    files = {path for pattern in patterns for path in (shared / "slides" / "dicom").glob(pattern)}
    assert files == set((shared / "slides" / "dicom").iterdir())
