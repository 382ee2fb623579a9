"""A good series, and ways to break a copy of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import Dataset, dcmread

from coverslip.validators.report import ValidationReport
from coverslip.validators.validate import ValidationOptions, validate_paths

__all__ = ["errors", "good_series", "level_files", "rewrite", "validate"]


def level_files(folder: Path) -> list[Path]:
    """Return the files of the VOLUME levels, the base first."""
    headers = [(dcmread(path, stop_before_pixels=True), path) for path in folder.rglob("*.dcm")]
    volumes = [(ds.TotalPixelMatrixColumns, path) for ds, path in headers if ds.ImageType[2] == "VOLUME"]
    return [path for _, path in sorted(volumes, reverse=True)]


def good_series(good: Path, tmp_path: Path) -> Path:
    """Copy the series and return the file of its base."""
    for path in good.rglob("*.dcm"):
        shutil.copy(path, tmp_path / path.name)
    return level_files(tmp_path)[0]


def rewrite(path: Path, change: Callable[[Dataset], Any]) -> None:
    """Change the header of a file."""
    ds = dcmread(path)
    change(ds)
    ds.save_as(path, enforce_file_format=False)


def validate(path: Path, options: ValidationOptions | None = None) -> ValidationReport:
    """Validate the one series of a folder."""
    (report,) = validate_paths([path], options or ValidationOptions())
    return report


def errors(report: ValidationReport) -> set[str]:
    """Return the rules of the findings that are errors."""
    return {finding.rule for finding in report.findings if finding.severity == "ERROR"}
