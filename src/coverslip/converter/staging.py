"""Files appear under their final names only when the whole series is complete."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coverslip.errors import StoreError

__all__ = ["STAGING_FOLDER", "publish_folder", "remove_abandoned_work", "staged_folder"]

STAGING_FOLDER = ".coverslip-partial"
"""Lies inside the output folder, so that publishing is a rename within one file system."""

_LOCK = "lock"


@contextmanager
def staged_folder(output: Path) -> Iterator[Path]:
    """Give an empty folder to write a series into; what is left of it afterwards is removed.

    The folder is locked as long as its writer lives, so that another run can tell abandoned work from work under way.

    Raises
    ------
    StoreError
        If the output folder cannot be written.
    """
    staging = output / STAGING_FOLDER
    try:
        staging.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=staging))
        lock = os.open(work / _LOCK, os.O_CREAT | os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX)
        series = work / "series"
        series.mkdir()
    except OSError as error:
        raise StoreError(f"output folder cannot be written: {error.strerror}") from error
    try:
        yield series
    finally:
        shutil.rmtree(work, ignore_errors=True)
        os.close(lock)
        _remove_if_empty(staging)


def publish_folder(staged: Path, final: Path, *, overwrite: bool) -> None:
    """Give a complete folder its final name in one step.

    With `overwrite` the folder that is there is moved into the staging area first and removed with it.

    Raises
    ------
    StoreError
        If there is a folder of that name and `overwrite` is not set, or it cannot be written.
    """
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        if overwrite and final.exists():
            final.rename(staged.parent / "replaced")
        staged.rename(final)
    except OSError as error:
        _remove_if_empty(final.parent)
        raise StoreError(f"series cannot be put in its final folder: {error.strerror}") from error


def remove_abandoned_work(output: Path) -> int:
    """Remove what runs that were killed have left in the staging area, and return how many there were."""
    removed = 0
    staging = output / STAGING_FOLDER
    for work in staging.iterdir() if staging.is_dir() else ():
        try:
            lock = os.open(work / _LOCK, os.O_RDWR)
        except OSError:
            # Just being made by another run, or killed before it could lock: removed only if it is empty.
            _remove_if_empty(work)
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(work, ignore_errors=True)
            removed += 1
        finally:
            os.close(lock)
    _remove_if_empty(staging)
    return removed


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return
