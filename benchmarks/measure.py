"""Measure commands that write into a folder, one after the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks import CACHE, ROOT

__all__ = ["Command", "Limit", "Measurement", "Series", "measure_interleaved"]


@dataclass(frozen=True, slots=True)
class Command:
    """A command that writes into a folder, which does not exist before.

    Parameters
    ----------
    name : str
        How the report calls it.
    arguments : callable
        Gives the command line for an output folder.
    environment : mapping
        Replaces variables of the environment.
    check : callable, optional
        Called with the output folder of the first round; raises if the command did not do its job.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    environment: Mapping[str, str]
    check: Callable[[Path], None] | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One run: seconds by the clock, seconds of all cores, peak resident memory, bytes written.

    The peak is that of the largest process of the tree.
    """

    wall_s: float
    cpu_s: float
    peak_mb: float
    output_mb: float


@dataclass(frozen=True, slots=True)
class Limit:
    """Something that measures itself, and how the report calls it."""

    name: str
    measure: Callable[[], Measurement]


@dataclass(frozen=True, slots=True)
class Series:
    """All rounds of one command."""

    runs: tuple[Measurement, ...]

    @property
    def wall_s(self) -> float:
        """Median over the rounds."""
        return median(run.wall_s for run in self.runs)

    @property
    def wall_min_s(self) -> float:
        """Fastest round."""
        return min(run.wall_s for run in self.runs)

    @property
    def cpu_s(self) -> float:
        """Median over the rounds."""
        return median(run.cpu_s for run in self.runs)

    @property
    def peak_mb(self) -> float:
        """Highest of the rounds."""
        return max(run.peak_mb for run in self.runs)

    @property
    def output_mb(self) -> float:
        """Of the last round."""
        return self.runs[-1].output_mb


def _measure(command: Command, *, check: bool) -> Measurement:
    """Run a command in a fresh folder of the cache, which is removed afterwards.

    Raises
    ------
    RuntimeError
        If the command fails; the end of what it printed is part of the message.
    """
    output, log = CACHE / "output", CACHE / "output.log"
    shutil.rmtree(output, ignore_errors=True)
    os.sync()  # what earlier runs wrote goes to disk now, not during this run
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("child.py"))]
    environment = {**os.environ, **command.environment}
    try:
        run = subprocess.run(
            [*launcher, str(log), *command.arguments(output)],
            check=True,
            capture_output=True,
            text=True,
            env=environment,
            cwd=ROOT,
        )
        used = json.loads(run.stdout)
        if used.pop("exit_code"):
            raise RuntimeError(f"{command.name} failed: {log.read_text()[-2000:]}")
        if check and command.check:
            command.check(output)
        size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
        return Measurement(**used, output_mb=size / 1e6)
    finally:
        shutil.rmtree(output, ignore_errors=True)
        log.unlink(missing_ok=True)


def measure_interleaved(commands: Sequence[Command | Limit], rounds: int) -> dict[str, Series]:
    """Run all commands in turn, `rounds` times, so that a slower or faster time of the machine hits all alike."""
    runs: dict[str, list[Measurement]] = {command.name: [] for command in commands}
    for round_index in range(rounds):
        for command in commands:
            measured = command.measure() if isinstance(command, Limit) else _measure(command, check=round_index == 0)
            runs[command.name].append(measured)
    return {name: Series(tuple(measurements)) for name, measurements in runs.items()}
