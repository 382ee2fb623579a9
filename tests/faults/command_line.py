"""Run the real command line, and look at what it left behind."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.in_process import run_in_process

ROOT = Path(__file__).resolve().parents[2]
STAGING = ".coverslip-partial"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
COMMAND = (sys.executable, "-m", "coverslip")

Argument = str | bytes | Path


def run(*arguments: Argument, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``coverslip ARGUMENTS`` to its end: within this process, or with `options` of a process in one of its own."""
    if options:
        return run_process(*arguments, cwd=cwd, **options)
    done = run_in_process(arguments, cwd, COLUMNS="80")
    assert b"Traceback" not in done.stderr, done.stderr
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def run_process(*arguments: Argument, timeout: float = 120, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run ``coverslip ARGUMENTS`` as a process to its end; it must not hang, nor show a traceback."""
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True,
        timeout=timeout,
        env=ENVIRONMENT,
        encoding="utf-8",
        stdin=subprocess.DEVNULL,
        check=False,
        **options,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def start(*arguments: Argument) -> subprocess.Popen[str]:
    """Start ``coverslip ARGUMENTS`` and return at once."""
    return subprocess.Popen(
        [*COMMAND, *arguments], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    )


def json_lines(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """Return the objects on standard output, one per line and nothing else."""
    return [json.loads(line) for line in done.stdout.splitlines()]


def wait_for(happened: Callable[[], object], process: subprocess.Popen[str]) -> None:
    """Wait until something is so, or the process has ended."""
    limit = time.monotonic() + 120  # many times what it takes, for machines that do other things too
    while not happened() and process.poll() is None:
        assert time.monotonic() < limit
        time.sleep(0.002)


def staged_files(output: Path) -> list[Path]:
    """Return the instances in the staging area."""
    return sorted((output / STAGING).glob("*/series/*.dcm"))


def digests(output: Path) -> dict[str, str]:
    """Return the digest of every finished instance by its path within the output folder."""
    return {
        str(path.relative_to(output)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.glob("[!.]*/*/*.dcm")
    }


def series_folders(output: Path) -> set[Path]:
    """Return the folders of the finished series; nothing else may lie in the output folder."""
    folders = set(output.glob("*/*"))
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        stated = json.loads((folder / "conversion.json").read_text(encoding="utf-8"))["instances"]
        assert names == {"conversion.json", *(instance["file_name"] for instance in stated)}
    assert {path.parent for path in folders} == set(output.iterdir())
    return folders
