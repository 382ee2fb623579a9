"""What is compared with what, and what was promised."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from benchmarks import CACHE, ROOT
from benchmarks.limits import measure_limit
from benchmarks.measure import Command, Limit, Series, measure_interleaved
from benchmarks.peer import check_frames, peer_command, peer_environment
from benchmarks.slides import aperio_slide, plain_slide, tiny_slide

__all__ = ["SCENARIOS", "Promise", "Report", "Scenario", "our_command", "run"]

WORKERS = 2
OURS, PEER, DECODE, COPY = "coverslip", "wsidicomizer", "decode limit", "cp"
FLOOR = "bare work"
MD5 = "md5sum"


@dataclass(frozen=True, slots=True)
class Promise:
    """A figure and its bound; without a bound the figure is reported and nothing more."""

    what: str
    measured: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def kept(self) -> bool:
        """Whether the figure is within its bound."""
        return (self.at_least is None or self.measured >= self.at_least) and (
            self.at_most is None or self.measured <= self.at_most
        )


@dataclass(frozen=True, slots=True)
class Report:
    """What one scenario came to at a size in gigapixels; `load` tells how busy the machine was before."""

    scenario: str
    size: str
    slide: Path
    load: float
    series: dict[str, Series]
    promises: tuple[Promise, ...]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A comparison, the sizes its promises were made for, and how to run it on a slide."""

    about: str
    sizes: tuple[str, ...]
    run: Callable[[Path, int], tuple[dict[str, Series], tuple[Promise, ...]]]
    slide: Callable[[str, str], Path] = aperio_slide


def our_command(slide: Path, *options: str, name: str = OURS, workers: int = WORKERS, reuses: bool = False) -> Command:
    """Return a conversion by this product; `reuses` checks that the base frames are the stored tiles."""

    def arguments(output: Path) -> list[str]:
        command = [sys.executable, "-m", "coverslip.cli", "convert", str(slide), "-o", str(output)]
        return [*command, "--workers", str(workers), *options]

    check = partial(check_frames, slide) if reuses else None
    return Command(name, arguments, {"PYTHONPATH": str(ROOT / "src")}, check)


def _peer(slide: Path, *options: str, name: str = PEER, reuses: bool = False) -> Command:
    check = partial(check_frames, slide) if reuses else None
    return Command(name, lambda output: peer_command(slide, output, *options), peer_environment(), check)


def _limit(kind: str, slide: Path, name: str, workers: int = WORKERS) -> Limit:
    return Limit(name, lambda: measure_limit(kind, slide, workers))


def _md5(file: Path) -> Command:
    return Command(MD5, lambda output: ["sh", "-c", 'mkdir "$1" && md5sum "$0"', str(file), str(output)], {})


def _at_floor(series: dict[str, Series], peer: str = PEER, floor: str = FLOOR) -> Promise:
    """Say what is out of reach on this machine: nothing is faster than the libraries' own share of the work."""
    return Promise("times as fast as the peer is the bare work", series[peer].wall_s / series[floor].wall_s)


def _copy(slide: Path) -> Command:
    return Command(COPY, lambda output: ["sh", "-c", 'mkdir "$1" && cp "$0" "$1"', str(slide), str(output)], {})


def _faster(series: dict[str, Series], bound: float | None) -> Promise:
    return Promise("times as fast as the peer", series[PEER].wall_s / series[OURS].wall_s, at_least=bound)


def _cpu(series: dict[str, Series], bound: float | None) -> Promise:
    return Promise("share of the peer's CPU seconds", series[OURS].cpu_s / series[PEER].cpu_s, at_most=bound)


def _near_limit(series: dict[str, Series], bound: float) -> Promise:
    return Promise("times the decode limit", series[OURS].wall_s / series[DECODE].wall_s, at_most=bound)


def _pyramid(
    slide: Path, rounds: int, *, options: tuple[str, ...], work: str, bounds: tuple[float, float, float]
) -> tuple[dict[str, Series], tuple[Promise, ...]]:
    ours = our_command(slide, *options, reuses=True)
    peer = _peer(slide, "--add-missing-levels", "-w", str(WORKERS), reuses=True)
    limits = [_limit("decode", slide, DECODE), _limit(work, slide, FLOOR)]
    series = measure_interleaved([ours, peer, *limits], rounds)
    return series, (
        _faster(series, bounds[0]),
        _at_floor(series),
        _cpu(series, bounds[1]),
        _near_limit(series, bounds[2]),
        Promise("times the decode limit is the bare work", series[FLOOR].wall_s / series[DECODE].wall_s),
        Promise("times the bare work", series[OURS].wall_s / series[FLOOR].wall_s),
    )


def _native(slide: Path, rounds: int) -> tuple[dict[str, Series], tuple[Promise, ...]]:
    ours, peer = our_command(slide, "--levels", "native", reuses=True), _peer(slide, "-w", str(WORKERS), reuses=True)
    series = measure_interleaved([ours, peer, _copy(slide), _md5(slide)], rounds)
    allowed = 5 * series[COPY].wall_s + 1
    return series, (
        _faster(series, 3.5),
        Promise("times as fast as the peer is md5sum alone", series[PEER].wall_s / series[MD5].wall_s),
        Promise("of the time of 5 x cp + 1 s", series[OURS].wall_s / allowed, at_most=1),
    )


def _reencode(slide: Path, rounds: int) -> tuple[dict[str, Series], tuple[Promise, ...]]:
    """Compare twice: forced by its own reader the peer keeps tiles of 256 and the stored levels, which is less work."""
    stored, full = "stored levels", "full pyramid"
    encoding = ("--tile-size", "512", "--codec", "jpeg:80")
    forced = ("--force-transcoding", "--tile-size", "512", "-w", str(WORKERS))
    same_output = (*forced, "--add-missing-levels", "--source", "tiffslide")
    commands = [
        our_command(slide, *encoding, "--levels", "native", name=f"{OURS}, {stored}"),
        _peer(slide, *forced, name=f"{PEER}, {stored}"),
        our_command(slide, *encoding, name=f"{OURS}, {full}"),
        _peer(slide, *same_output, name=f"{PEER}, {full}"),
        _limit("reencode", slide, FLOOR),
    ]
    series = measure_interleaved(commands, rounds)
    promises = [
        Promise(
            f"times as fast as the peer, {levels}",
            series[f"{PEER}, {levels}"].wall_s / series[f"{OURS}, {levels}"].wall_s,
            at_least=2.5,
        )
        for levels in (stored, full)
    ]
    return series, (promises[0], _at_floor(series, f"{PEER}, {stored}"), promises[1])


def _not_jpeg(slide: Path, rounds: int) -> tuple[dict[str, Series], tuple[Promise, ...]]:
    ours = our_command(slide, "--codec", "jpeg:80")
    alone = our_command(slide, "--codec", "jpeg:80", name="one worker", workers=1)
    peer = _peer(slide, "--add-missing-levels", "-w", str(WORKERS))
    series = measure_interleaved([ours, alone, peer], rounds)
    twice = series[alone.name].wall_s / series[OURS].wall_s
    return series, (
        _faster(series, None),
        _cpu(series, None),
        Promise("times as fast with two workers as with one", twice),
    )


def _memory(slide: Path, rounds: int) -> tuple[dict[str, Series], tuple[Promise, ...]]:
    names = {workers: f"{OURS}, {workers} workers" for workers in (1, 2, 4)}
    commands = [our_command(slide, name=name, workers=workers) for workers, name in names.items()]
    series = measure_interleaved(commands, rounds)
    peaks = {workers: series[name].peak_mb for workers, name in names.items()}
    bound = 230 if slide.stat().st_size > 4e8 else 200
    return series, (
        Promise("MB at its peak with two workers", peaks[2], at_most=bound),
        Promise("MB more per worker", (peaks[4] - peaks[1]) / 3),
    )


def _workers(slide: Path, rounds: int) -> tuple[dict[str, Series], tuple[Promise, ...]]:
    one, two = our_command(slide, name="one worker", workers=1), our_command(slide, name="two workers", workers=2)
    start = our_command(tiny_slide(), name="one tile")
    decode = [_limit("decode", slide, f"{DECODE}, {workers} workers", workers) for workers in (1, 2)]
    series = measure_interleaved([one, two, start, *decode], rounds)
    single, double, idle = (series[command.name].wall_s for command in (one, two, start))
    decoding = series[decode[0].name].wall_s / series[decode[1].name].wall_s
    return series, (
        Promise("times as fast with two workers as with one", single / double, at_least=1.5),
        Promise("times as fast less the time of one tile", (single - idle) / (double - idle), at_least=1.75),
        Promise("times as fast is decoding alone on two threads", decoding),
    )


def _remap(slide: Path, rounds: int) -> tuple[dict[str, Series], tuple[Promise, ...]]:
    """Compare with cp of the series from the page cache, and with md5sum: each new file's MD5 has to be known."""
    work = CACHE / "remap"
    shutil.rmtree(work, ignore_errors=True)
    made = our_command(slide, "--levels", "native", "--set", "ContainerIdentifier=S1")
    subprocess.run(made.arguments(work), check=True, capture_output=True, env={**os.environ, **made.environment})
    series = next(work.glob("2.25.*/2.25.*"))
    table, metadata_map = work / "slides.csv", work / "map.toml"
    table.write_text("slide,patient\nS1,P1\n")
    metadata_map.write_text(
        '[map]\nname = "benchmark"\ntitle = "Benchmark"\nkey = { column = "slide", equals = "{stem}" }\n'
        '[attributes]\nPatientID = "{patient}"\nContainerIdentifier = "{slide}"\n'
    )
    metadata = ["--metadata", str(table), "--map", str(metadata_map)]

    def arguments(output: Path) -> list[str]:
        return [sys.executable, "-m", "coverslip.cli", "remap", str(series), "-o", str(output), *metadata]

    commands = [
        Command(OURS, arguments, {"PYTHONPATH": str(ROOT / "src")}),
        Command(COPY, lambda output: ["cp", "-r", str(series), str(output)], {}),
        Command(MD5, lambda output: ["sh", "-c", 'mkdir "$1" && md5sum "$0"/*', str(series), str(output)], {}),
    ]
    try:
        measured = measure_interleaved(commands, rounds)
    finally:
        shutil.rmtree(work)
    ours = measured[OURS].wall_s
    return measured, (
        Promise("of the speed of cp from the page cache", measured[COPY].wall_s / ours),
        Promise("of the time of 2 x md5sum + 1 s", ours / (2 * measured[MD5].wall_s + 1), at_most=1),
        Promise("MB at its peak", measured[OURS].peak_mb, at_most=120),
    )


SCENARIOS = {
    "passthrough": Scenario(
        "base passed through, exact pyramid to one frame",
        ("1.2",),
        partial(_pyramid, options=(), work="pyramid", bounds=(3.5, 0.45, 1.8)),
    ),
    "fast": Scenario(
        "the same, first derived level decoded at half scale",
        ("1.2",),
        partial(_pyramid, options=("--fast-pyramid",), work="fast", bounds=(4.5, 0.35, 1.5)),
    ),
    "native": Scenario("stored levels passed through and nothing else", ("4.8",), _native),
    "reencode": Scenario("every level encoded anew in tiles of 512", ("1.2",), _reencode),
    "notjpeg": Scenario("a deflate TIFF encoded as JPEG", ("0.19",), _not_jpeg, lambda _size, _coding: plain_slide()),
    "remap": Scenario("other metadata for a series of stored levels", ("4.8",), _remap),
    "memory": Scenario("peak memory of base passed through, exact pyramid", ("1.2", "4.8"), _memory),
    "workers": Scenario("base passed through, exact pyramid, by number of workers", ("1.2",), _workers),
}


def run(names: Iterable[str], size: str | None, coding: str, rounds: int) -> Iterable[Report]:
    """Run scenarios at their own sizes, or all at `size`; yield each report when it is there."""
    for name in names:
        scenario = SCENARIOS[name]
        for each in [size] if size and scenario.slide is aperio_slide else scenario.sizes:
            slide = scenario.slide(each, coding)
            load = os.getloadavg()[0]
            series, promises = scenario.run(slide, rounds)
            yield Report(name, each, slide, load, series, promises)
