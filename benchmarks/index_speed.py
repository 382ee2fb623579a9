"""``python -m benchmarks.index_speed``: time indexing against reading the same headers with pydicom.

A slide is converted with the map of TCGA, and its headers are written again and again with other UIDs, patients and
containers. One process reads them all with ``pydicom.dcmread(stop_before_pixels=True)`` and does nothing with them;
`coverslip index`, with its start and as many processes as there are cores, reads, hashes and compares them and writes
a catalog. Both are run in turn; the ratio is that of the medians. Memory is the peak of the largest process, for a
quarter of the instances and for all. Exits with 1 if a promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.factories.aperio import write_aperio_svs

from benchmarks import ROOT

__all__ = ["Run", "make_instances", "measure"]

LARGEST_RATIO = 2.5
LARGEST_GROWTH = 1.25
FEW = 4
"""A part of so many of the instances is what memory is compared with."""

READ = """
import sys, time, pydicom
paths = sys.stdin.read().splitlines()
start = time.perf_counter()
for path in paths:
    pydicom.dcmread(path, stop_before_pixels=True)
print(time.perf_counter() - start)
"""


@dataclass(frozen=True, slots=True)
class Run:
    """What one command took: seconds by the clock, seconds of all cores, and the peak of its largest process."""

    wall_s: float
    cpu_s: float
    peak_mb: float


def make_instances(folder: Path, count: int) -> Path:
    """Write instances of slides that are all header, and return their folder."""
    import pydicom

    slide = folder / "TCGA-05-4244-01Z-00-DX1.svs"
    write_aperio_svs(slide)
    table = folder / "slides.csv"
    table.write_text(f"file,project\n{slide.name},TCGA-LUAD\n")
    arguments = ["convert", str(slide), "-o", str(folder / "out"), "--map", "tcga", "--metadata", str(table)]
    subprocess.run([sys.executable, "-m", "coverslip", *arguments], check=True, capture_output=True, cwd=ROOT)
    levels = [pydicom.dcmread(path) for path in sorted((folder / "out").glob("*/*/*.dcm"))]
    for ds in levels:
        # An empty offset table and one frame of two bytes.
        ds.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x02\0\0\0ab"
    for number in range(count):
        series, ds = number // len(levels), levels[number % len(levels)]
        ds.PatientID = ds.PatientName = f"P-{series // 3}"
        ds.ContainerIdentifier = f"P-{series // 3}-{series}"
        ds.StudyInstanceUID, ds.SeriesInstanceUID = f"1.2.3.{series // 3}", f"1.2.4.{series}"
        ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"1.2.5.{number}"
        path = folder / "in" / str(series) / f"{number}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        ds.save_as(path)
    return folder / "in"


def read_headers(paths: list[str]) -> float:
    """Return the seconds that pydicom takes for some headers, without those of its start."""
    command = [sys.executable, "-c", READ]
    ended = subprocess.run(command, input="\n".join(paths), capture_output=True, text=True, check=True)
    return float(ended.stdout)


def index(instances: Path, catalog: Path) -> Run:
    """Run `coverslip index` into a new catalog, and return what all of it took.

    Raises
    ------
    RuntimeError
        If it failed, or did not index everything.
    """
    catalog.unlink(missing_ok=True)
    log = catalog.with_suffix(".log")
    # A small process starts it, whose memory would otherwise count as its own.
    launcher = [sys.executable, "-I", "-S", str(Path(__file__).with_name("child.py")), str(log)]
    command = [sys.executable, "-m", "coverslip", "index", str(instances), "--to", str(catalog)]
    ended = subprocess.run([*launcher, *command], capture_output=True, text=True, check=True, cwd=ROOT)
    used = json.loads(ended.stdout)
    count = sum(1 for _ in instances.rglob("*.dcm"))
    if used["exit_code"] or f"{count} new, 0 changed" not in log.read_text():
        raise RuntimeError(f"coverslip index: {log.read_text()[-2000:]}")
    return Run(used["wall_s"], used["cpu_s"], used["peak_mb"])


def measure(count: int, rounds: int) -> bool:
    """Print what was measured; False if a promise is not kept."""
    with tempfile.TemporaryDirectory(prefix="coverslip-bench-") as temporary:
        folder = Path(temporary)
        instances = make_instances(folder, count)
        paths = sorted(str(path) for path in instances.rglob("*.dcm"))
        size = sum(map(os.path.getsize, paths)) / len(paths) / 1024
        print(f"{count} instances, {size:.1f} kB each, {rounds} rounds, load {os.getloadavg()[0]:.1f}", flush=True)
        reads, runs = [], []
        for _ in range(rounds):
            reads.append(read_headers(paths))
            runs.append(index(instances, folder / "catalog.duckdb"))
            print(f"  pydicom {reads[-1]:6.2f} s   coverslip index {_told(runs[-1])}", flush=True)
        few = _copy(paths[: count // FEW], instances, folder / "few")
        small = index(few, folder / "few.duckdb")
        print(f"  {count // FEW} instances: {_told(small)}")
    ratio = median(run.wall_s for run in runs) / median(reads)
    peak = max(run.peak_mb for run in runs)
    print(f"{ratio:.2f} of the time of pydicom (promised: at most {LARGEST_RATIO})")
    print(f"{peak / small.peak_mb:.2f} of the memory for a quarter of them (promised: at most {LARGEST_GROWTH})")
    return ratio <= LARGEST_RATIO and peak <= LARGEST_GROWTH * small.peak_mb


def _told(run: Run) -> str:
    return f"{run.wall_s:6.2f} s, {run.cpu_s:6.2f} s of CPU, {run.peak_mb:.0f} MB"


def _copy(paths: list[str], root: Path, folder: Path) -> Path:
    for path in paths:
        target = folder / Path(path).relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder


def main() -> int:
    """Return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.index_speed", description=__doc__.partition("\n")[0])
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    return int(not measure(options.instances, options.rounds))


if __name__ == "__main__":
    sys.exit(main())
