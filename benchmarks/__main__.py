"""``python -m benchmarks``: measure, print figures beside what was promised, exit 1 if a promise is broken."""

from __future__ import annotations

import argparse
import compileall
import json
import os
import sys
from dataclasses import asdict

from benchmarks import CACHE, ROOT
from benchmarks.peer import set_up_peer
from benchmarks.scenarios import SCENARIOS, Report, run
from benchmarks.slides import CODINGS, SIZES


def main() -> int:
    """Return the exit code."""
    options = _parse()
    CACHE.mkdir(exist_ok=True)
    peer = set_up_peer()
    # As installing does, whose work the peer's files have behind them.
    compileall.compile_dir(ROOT / "src", quiet=1)
    if not options.json:
        print(f"{os.cpu_count()} cores; peer {peer}; medians of {options.rounds} rounds, interleaved\n")
    reports = []
    for report in run(options.scenario or SCENARIOS, options.size, options.slide, options.rounds):
        reports.append(report)
        if not options.json:
            print(_format(report), flush=True)
    if options.json:
        print(
            json.dumps(
                {"peer": peer, "cores": os.cpu_count(), "reports": [_as_json(each) for each in reports]}, indent=1
            )
        )
    return int(not all(promise.kept for report in reports for promise in report.promises))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition(": ")[2])
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="one of them; may be repeated")
    parser.add_argument("--size", choices=SIZES, help="Gpix of the slide, in place of what was promised for")
    parser.add_argument("--slide", choices=CODINGS, default="ycbcr420", help="how its JPEG tiles are coded")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print all measurements as JSON")
    return parser.parse_args()


def _format(report: Report) -> str:
    busy = f"; figures doubtful, load {report.load:.1f} before the first round" if report.load > 1 else ""
    lines = [
        f"{report.scenario}: {SCENARIOS[report.scenario].about}",
        f"  {report.size} Gpix, {report.slide.stat().st_size / 1e6:.0f} MB{busy}",
        f"  {'':30}{'wall s':>8}{'min':>8}{'CPU s':>8}{'peak MB':>9}{'output MB':>11}",
    ]
    lines += [
        f"  {name:30}{series.wall_s:8.2f}{series.wall_min_s:8.2f}{series.cpu_s:8.2f}"
        f"{series.peak_mb:9.0f}{series.output_mb:11.1f}"
        for name, series in report.series.items()
    ]
    for promise in report.promises:
        bound, verdict = "", ""
        if promise.at_least is not None or promise.at_most is not None:
            verdict = "PASS" if promise.kept else "FAIL"
            bound = f"at least {promise.at_least}" if promise.at_least is not None else f"at most {promise.at_most}"
        lines.append(f"  {promise.measured:8.2f} {promise.what:44}{bound:16}{verdict}")
    return "\n".join(lines) + "\n"


def _as_json(report: Report) -> dict[str, object]:
    return {
        "scenario": report.scenario,
        "gigapixels": float(report.size),
        "load_before": report.load,
        "slide": report.slide.name,
        "runs": {name: [asdict(each) for each in series.runs] for name, series in report.series.items()},
        "promises": [{**asdict(promise), "kept": promise.kept} for promise in report.promises],
    }


if __name__ == "__main__":
    sys.exit(main())
