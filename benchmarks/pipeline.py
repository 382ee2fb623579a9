"""``python -m benchmarks.pipeline soak|kills|overhead``: what runs over many slides promise; exit 1 if one is broken.

soak: at least 300 small slides of many formats, some of them bad, through all stages into Orthanc and DuckDB.
kills: a run over 24 slides, killed at 25 moments, each time from the start, ends as an undisturbed one.
overhead: `coverslip run --stages convert` against one `coverslip convert` with the same slides and workers.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import psutil
from tests.factories.aperio import write_aperio_svs
from tests.factories.big import write_big_svs
from tests.factories.damage import truncate_half, write_empty, write_text
from tests.factories.generic import write_tiled_tiff
from tests.orthanc import start_orthanc

from benchmarks import CACHE, ROOT
from coverslip.pipeline.ledger import Kind, Ledger

_MOST_SOAK_S = 15 * 60
_MOST_OVERHEAD = 1.10
_MEMORY_LIMIT, _SCRATCH_LIMIT = 1500 << 20, 60 << 20
_BAD = 6
"""Every so many slides one is bad."""

_SHARED = Path(os.environ.get("COVERSLIP_SHARED", ROOT.parent / "shared")) / "slides"
_COPIED = ("synthetic/leica.scn", "synthetic/philips.tiff", "synthetic/trestle.tif", "synthetic/huron.tif",
           "synthetic/ventana.bif", "synthetic/hamamatsu.ndpi", "synthetic/aperio_j2k33005.svs",
           "real/CMU-1-Small-Region.svs")  # fmt: skip


def command(*arguments: object, module: str = "coverslip") -> list[str]:
    """Return a command line of coverslip."""
    return [sys.executable, "-m", *module.split(), *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return the variables that coverslip is run with."""
    return {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "XDG_STATE_HOME": "/nonexistent/state"}


def write_mixed_slides(folder: Path, count: int) -> tuple[list[Path], set[str]]:
    """Write slides of many kinds, and return them and the names of those that are bad."""
    folder.mkdir(parents=True)
    copied = [path for name in _COPIED if (path := _SHARED / name).is_file()]
    slides, bad = [], set()
    for number in range(count):
        path = folder / f"slide-{number:04}.svs"
        kind = number % (8 + len(copied))
        if kind >= 8:
            source = copied[kind - 8]
            path = path.with_suffix(source.suffix)
            shutil.copyfile(source, path)
        elif kind < 4:
            compression = ("jpeg-rgb", "jpeg-ycbcr", "j2k-33005", "j2k-33003")[kind]
            write_aperio_svs(path, rows=600 + number, columns=700, seed=number, compression=compression)
        else:
            path = path.with_suffix(".tif")
            compression = ("jpeg", "deflate", "lzw", "none")[kind - 4]
            write_tiled_tiff(path, rows=400 + number, columns=500, seed=number, compression=compression)
        if number % _BAD == _BAD - 1:
            bad.add(path.name)
            (truncate_half, write_empty, write_text)[number // _BAD % 3](path)
        slides.append(path)
    return slides, bad


def write_collection(folder: Path, count: int) -> set[str]:
    """Lay out a manifest, a map and a run file for many slides, and return the names of the bad ones."""
    slides, bad = write_mixed_slides(folder / "slides", count)
    subprocess.run(command("init", folder / "slides", "-o", folder), check=True, env=environment(), capture_output=True)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "patient_id", "slide_id"])
        writer.writerows([path.name, f"P{number // 3}", f"S{number}"] for number, path in enumerate(slides))
    return bad


def soak(count: int) -> bool:
    """Take many slides through all stages, and account for every one."""
    with (
        tempfile.TemporaryDirectory(prefix="coverslip-soak-") as place,
        start_orthanc(Path(place) / "orthanc") as orthanc,
    ):
        folder = Path(place)
        bad = write_collection(folder / "collection", count)
        catalog = folder / "catalog.duckdb"
        arguments = ("run", folder / "collection" / "run.toml", "--map", folder / "collection" / "map.toml", "--to",
                     f"dicomweb+{orthanc.dicomweb_url}", "--catalog", catalog, "--json", "--memory-limit",
                     _MEMORY_LIMIT, "--scratch-limit", _SCRATCH_LIMIT)  # fmt: skip
        start = time.perf_counter()
        with subprocess.Popen(command(*arguments), env=environment(), stdout=subprocess.PIPE, text=True) as process:
            peaks = _watch(process, folder / "collection" / "work" / "scratch")
            assert process.stdout is not None
            told = json.loads(process.stdout.read())
        seconds = time.perf_counter() - start
        with (folder / "collection" / "work" / "quarantine.csv").open() as file:
            listed = {Path(row["file"]).name: row["error_class"] for row in csv.DictReader(file)}
        with duckdb.connect(str(catalog), read_only=True) as connection:
            row = connection.execute("SELECT count(DISTINCT SeriesInstanceUID), count(*) FROM dicom_all").fetchone()
        assert row is not None
        stored = orthanc.ask("/statistics")
        again = subprocess.run(command(*arguments), env=environment(), stdout=subprocess.PIPE, text=True, check=False)
        status = subprocess.run(
            command("status", folder / "collection" / "work", "--json"),
            env=environment(),
            capture_output=True,
            check=True,
        )
    print(f"{told['slides']} slides, {told['done']} done, {told['failed']} failed in {seconds:.0f} s")
    for stage in json.loads(status.stdout)["stages"]:
        print(
            f"  {stage['stage']:9}{stage['done']:5} done {stage['seconds']:9.1f} s {stage['size_bytes'] / 1e6:9.1f} MB"
        )
    print(
        f"  Orthanc: {stored['CountSeries']} series, {stored['CountInstances']} instances; catalog: {row[0]}, {row[1]}"
    )
    print(f"  peaks: {peaks[0] / 1e6:.0f} MB of memory, {peaks[1] / 1e6:.1f} MB of scratch")
    checks = {
        f"memory below {_MEMORY_LIMIT / 1e6:.0f} MB": peaks[0] < _MEMORY_LIMIT,
        f"scratch below {_SCRATCH_LIMIT / 1e6:.0f} MB": peaks[1] < _SCRATCH_LIMIT,
        "every good slide is done": told["done"] == count - len(bad),
        "every bad slide is in quarantine with a reason, and no other": set(listed) == bad and all(listed.values()),
        "store and catalog hold the same": (stored["CountSeries"], stored["CountInstances"]) == row,
        "a second run does nothing": json.loads(again.stdout)["done_before"] == told["done"],
        f"under {_MOST_SOAK_S // 60} minutes": seconds < _MOST_SOAK_S,
    }
    return _tell(checks)


def _watch(process: subprocess.Popen[str], scratch: Path) -> tuple[int, int]:
    """Return the most memory that the processes of slides had together, and the most that lay in scratch."""
    memory = disk = 0
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            workers = psutil.Process(process.pid).children(recursive=True)
            memory = max(memory, sum(each.memory_info().rss for each in workers))
        disk = max(disk, sum(_size_of(path) for path in scratch.rglob("*")))
        time.sleep(0.1)
    return memory, disk


def _size_of(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0


def kills(count: int) -> bool:
    """Kill a run at many moments, each time one from the start, and compare how it ends."""
    draw = random.Random(20)
    with tempfile.TemporaryDirectory(prefix="coverslip-kills-") as place:
        folder = Path(place)
        slides = folder / "slides"
        slides.mkdir()
        for seed in range(24):
            write_aperio_svs(
                slides / f"{seed:02}.svs", rows=300 + 8 * seed, columns=300, seed=seed, native_downsamples=()
            )
        start = time.perf_counter()
        wanted = _end_of(slides, folder / "undisturbed", None)
        seconds = time.perf_counter() - start
        checks = {}
        for number in range(count):
            after = draw.uniform(0.1, 1.0) * seconds
            kept = _end_of(slides, folder / f"{number}", after) == wanted
            told = f"{number + 1}: killed after {after:.2f} of {seconds:.2f} s"
            print(f"  {told}: {'the same' if kept else 'DIFFERENT'}", flush=True)
            checks[told] = kept
            shutil.rmtree(folder / f"{number}")
    return _tell(checks)


def _end_of(slides: Path, place: Path, kill_after_s: float | None) -> tuple[dict[str, str], list[tuple[str, ...]]]:
    """Run, killed with all its processes after some time or not, and again; return bytes and states at the end."""
    arguments = command("run", slides, "--work", place / "work", "--to", place / "store", "--catalog",
                        place / "catalog.duckdb", "--validate", "off", "--set", "PatientID=P1")  # fmt: skip
    place.mkdir()
    if kill_after_s is not None:
        with subprocess.Popen(
            arguments, env=environment(), start_new_session=True, stdout=subprocess.DEVNULL
        ) as process:
            try:
                process.wait(kill_after_s)
                print("  was over before it could be killed", flush=True)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    subprocess.run(arguments, env=environment(), check=True, stdout=subprocess.DEVNULL)
    digests = {
        path.relative_to(place).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (place / "store").rglob("*")
        if path.is_file()
    }
    with Ledger(place / "work" / "ledger.sqlite") as ledger:
        records = [
            (each.task.subject, str(each.task.stage), str(each.state), each.digest or "")
            for each in ledger.records_of_kind(Kind.SLIDE)
        ]
    with duckdb.connect(str(place / "catalog.duckdb"), read_only=True) as connection:
        records += connection.execute(
            "SELECT SOPInstanceUID, instance_hash FROM auxiliary_metadata ORDER BY 1"
        ).fetchall()
    return digests, records


def overhead(count: int, rounds: int) -> bool:
    """Compare a run with one process that converts the same slides one after the other with as many threads."""
    workers = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(dir=CACHE, prefix="run-") as place:
        folder = Path(place)
        slides = folder / "slides"
        slides.mkdir()
        for path in _large_slides(count):
            (slides / path.name).hardlink_to(path)
        ratios = []
        for _ in range(rounds):
            convert = _seconds(folder, "convert", *sorted(slides.iterdir()), "-o", folder / "out", "--workers", workers,
                               "--validate", "off")  # fmt: skip
            run = _seconds(folder, "run", slides, "--work", folder / "out", "--stages", "convert", "--workers", workers)
            ratios.append(run / convert)
            print(f"{count} slides, {workers} workers: convert {convert:.2f} s, run {run:.2f} s: {run / convert:.3f}")
    median = statistics.median(ratios)
    return _tell({f"median ratio {median:.3f}, at most {_MOST_OVERHEAD}": median <= _MOST_OVERHEAD})


def _large_slides(count: int) -> list[Path]:
    """Return slides of 48 million pixels, kept from earlier measurements."""
    CACHE.mkdir(exist_ok=True)
    paths = [CACHE / f"pipeline-{seed:02}.svs" for seed in range(count)]
    for seed, path in enumerate(paths):
        if not path.is_file():
            write_big_svs(path.with_suffix(".new"), 6000, 8000, native_downsamples=(4,), seed=seed)
            path.with_suffix(".new").rename(path)
    return paths


def _seconds(folder: Path, *arguments: object) -> float:
    shutil.rmtree(folder / "out", ignore_errors=True)
    start = time.perf_counter()
    subprocess.run(command(*arguments), env=environment(), check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def _tell(checks: dict[str, bool]) -> bool:
    for what, kept in checks.items():
        print(f"  {'kept' if kept else 'BROKEN'}: {what}")
    return all(checks.values())


def _main(arguments: Iterator[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["soak", "kills", "overhead"])
    parser.add_argument("--slides", type=int, help="default: 300 for soak, 12 for overhead")
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(list(arguments) if arguments is not None else None)
    if options.what == "soak":
        kept = soak(options.slides or 300)
    elif options.what == "kills":
        kept = kills(options.kills)
    else:
        kept = overhead(options.slides or 12, options.rounds)
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(_main())
