"""How `make` finds its Python, on machines that have none, an old one or a broken one."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FAILS = "echo broken >&2; exit 127"
IS_OLD = "exit 1"  # what the question for 3.12 and venv ends in
IS_NEW = "exit 0"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """Return a folder with what `make setup` starts from, and an empty `bin`."""
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "bin").mkdir()
    return tmp_path


def give(folder: Path, command: str, script: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / command).write_text(f"#!/bin/bash\n{script}\n")
    (folder / command).chmod(0o755)


def dry_setup(clone: Path) -> subprocess.CompletedProcess[str]:
    """Run `make --dry-run setup` where PATH holds the clone's `bin` and no other Python."""
    for tool in ("bash", "cat", "rm"):
        (clone / "bin" / tool).symlink_to(str(shutil.which(tool)))
    environment = {"PATH": str(clone / "bin"), "HOME": str(clone), "PYENV_ROOT": str(clone / "pyenv")}
    command = [str(shutil.which("make")), "--dry-run", "setup"]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False, timeout=120)


def chosen_python(clone: Path) -> str:
    run = dry_setup(clone)
    assert run.returncode == 0, run.stderr
    (line,) = (line for line in run.stdout.splitlines() if line.endswith("-m venv .venv"))
    return line.split('"')[1]


def test_without_python_make_stops_with_one_line_that_says_what_to_install(clone: Path) -> None:
    run = dry_setup(clone)
    assert run.returncode != 0
    assert run.stdout == ""
    assert len(run.stderr.splitlines()) == 1
    assert "Python 3.12 or newer" in run.stderr
    assert "install" in run.stderr


def test_an_old_python_is_as_good_as_none(clone: Path) -> None:
    give(clone / "bin", "python3", IS_OLD)
    run = dry_setup(clone)
    assert run.returncode != 0
    assert len(run.stderr.splitlines()) == 1


def test_a_shim_that_fails_is_passed_over(clone: Path) -> None:
    give(clone / "bin", "python3.12", FAILS)
    give(clone / "bin", "python3", IS_OLD)
    give(clone / "bin", "python", IS_NEW)
    assert chosen_python(clone) == "python"


def test_python_3_12_goes_before_newer_ones(clone: Path) -> None:
    give(clone / "bin", "python3", IS_NEW)
    give(clone / "bin", "python3.13", IS_NEW)
    give(clone / "bin", "python3.12", IS_NEW)
    assert chosen_python(clone) == "python3.12"


def test_a_version_that_pyenv_holds_but_does_not_select_is_found(clone: Path) -> None:
    give(clone / "pyenv" / "versions" / "3.13.0" / "bin", "python", IS_NEW)
    assert chosen_python(clone) == str(clone / "pyenv" / "versions" / "3.13.0" / "bin" / "python")


def test_help_lists_every_target_meant_for_people() -> None:
    run = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    for target in ("setup", "demo", "test", "lint", "format", "bench", "lock", "clean"):
        assert f"make {target} " in run.stdout
