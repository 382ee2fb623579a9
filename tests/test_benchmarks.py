"""The benchmarks measure what they say, and notice a peer that does not do its job."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from benchmarks import ROOT, measure
from benchmarks.limits import measure_limit
from benchmarks.measure import Command, Limit, measure_interleaved
from benchmarks.peer import check_frames
from benchmarks.scenarios import Promise, our_command

from tests.factories.aperio import write_aperio_svs
from tests.factories.big import write_big_svs


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(measure, "CACHE", tmp_path)
    return tmp_path


def python(name: str, code: str) -> Command:
    program = f"import pathlib, sys, time\nout = pathlib.Path(sys.argv[1])\nout.mkdir()\n{code}"
    return Command(name, lambda output: [sys.executable, "-I", "-S", "-c", program, str(output)], {})


@pytest.mark.serial
def test_time_memory_and_output_of_a_command_are_its_own(cache: Path) -> None:
    ballast = bytes(200_000_000)  # memory of the measuring process, which must not count
    sleeper = python("sleep", "time.sleep(0.3)\n(out / 'frames').write_bytes(bytes(5_000_000))")
    eater = python("eat", "eaten = b'x' * 100_000_000\nwhile time.process_time() < 0.3: pass")
    series = measure_interleaved([sleeper, eater], rounds=2)
    assert len(series["sleep"].runs) == 2
    assert series["sleep"].wall_min_s >= 0.3
    assert series["sleep"].cpu_s < 0.2
    assert series["sleep"].output_mb == 5
    assert series["sleep"].peak_mb < 60 < len(ballast) / 1e6
    assert 0.3 <= series["eat"].cpu_s < 1
    assert 95 < series["eat"].peak_mb < 160
    assert list(cache.iterdir()) == []


def test_a_command_that_fails_is_not_a_measurement(cache: Path) -> None:
    with pytest.raises(RuntimeError, match=r"broken failed: .*no such thing"):
        measure_interleaved([python("broken", "sys.exit('no such thing')")], rounds=1)
    assert list(cache.iterdir()) == []


def test_a_frame_encoded_anew_is_noticed(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("two", 2)):
        write_aperio_svs(tmp_path / f"{name}.svs", rows=300, columns=400, seed=seed, macro=False)
        convert = our_command(tmp_path / f"{name}.svs").arguments(tmp_path / name)
        subprocess.run(convert, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        check_frames(tmp_path / f"{name}.svs", tmp_path / name)
    with pytest.raises(RuntimeError, match=r"frame 0 of .* is not the stored tile"):
        check_frames(tmp_path / "two.svs", tmp_path / "one")


@pytest.mark.parametrize("kind", ["decode", "pyramid", "fast", "reencode"])
def test_a_limit_is_measured_in_a_process_of_its_own(kind: str, tmp_path: Path) -> None:
    write_big_svs(tmp_path / "slide.svs", 600, 2400, field_side=2112, workers=1)
    limit = measure_interleaved([Limit("limit", lambda: measure_limit(kind, tmp_path / "slide.svs", 2))], rounds=1)
    assert 0 < limit["limit"].wall_s < 1
    assert limit["limit"].peak_mb > 10


def test_promises_without_a_bound_are_kept() -> None:
    assert Promise("MB more per worker", 5).kept
    assert Promise("times as fast", 3.5, at_least=3.5).kept
    assert not Promise("times as fast", 3.49, at_least=3.5).kept
    assert not Promise("MB", 201, at_most=200).kept
