"""The command `coverslip plan`: what a run will take, before it is begun."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.errors import StoreError, UsageError
from coverslip.run_commands import estimator_of, read_slides, run, settle_options, stages_of

if TYPE_CHECKING:
    from coverslip.pipeline.cost_model import Estimate, StageRate, TaskShape
    from coverslip.pipeline.ledger import Stage
    from coverslip.pipeline.manifest import Slide
    from coverslip.pipeline.simulation import Simulation

__all__ = ["plan"]

EXAMPLES = """
\b
Examples:
  coverslip plan run.toml
  coverslip plan slides.csv --work work --to gs://bucket/dicom --deadline 8 --measured-by earlier/work
  coverslip plan idc:20000 --to gs://bucket/dicom --catalog c --workers 2 --memory-limit 4G \\
    --scratch-limit 200G --simulate --tasks 1,10,100,1000,10000
"""

_SIMULATED = (
    "simulated  tasks   ends after   median task   fullest/mean   late   busy   task hours   again   lost   failed"
)
_OTHER_OPTIONS = frozenset({"as_json"})


@click.command(
    params=[each for each in run.params if each.name not in _OTHER_OPTIONS],
    epilog=EXAMPLES,
    short_help="Estimate what a run takes: time, memory, disk, tasks.",
)
@click.option("--deadline", type=click.FloatRange(0, min_open=True), default=8.0, show_default=True, metavar="HOURS",
              help="By when all is to be done, for the number of tasks.")  # fmt: skip
@click.option(
    "--tasks", metavar="N[,N...]", help="Numbers of tasks to estimate for; default: the fewest that end in time."
)
@click.option("--measured-by", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of an "
              "earlier run whose times are gone by, in place of those of docs/pipeline.md.")  # fmt: skip
@click.option("--price", type=click.FloatRange(0), default=0.0, show_default=True, metavar="N", help="Of an "
              "hour of one task.")  # fmt: skip
@click.option("--simulate", is_flag=True, help="Also play the run through, with machines that are slow and attempts "
              "that fail.")  # fmt: skip
@click.option("--failing", type=click.FloatRange(0, 0.9), default=0.01, show_default=True, metavar="SHARE",
              help="Of attempts that fail and may be made again.")  # fmt: skip
@click.option("--losing", type=click.FloatRange(0, 5), default=0.02, show_default=True, metavar="N",
              help="How often a task is lost in an hour.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of the simulation; the same one gives the same.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.pass_context
def plan(context: click.Context, /, *, deadline: float, price: float, **options: Any) -> None:
    """Estimate time, memory, disk, bytes sent and tasks of a run from the sizes of its slides, which are not read.

    Takes the options of `coverslip run`; --workers, --memory-limit and --scratch-limit are those of one task. MANIFEST
    may also be idc:N: as many slides with the sizes of those that the Imaging Data Commons has published. Ends with 6
    if a slide does not fit: source, outputs and a tenth on the scratch disk.
    """
    from coverslip.pipeline.cost_model import TaskShape, estimate_run
    from coverslip.pipeline.run_plan import steps_of

    counts = _parse_tasks(options["tasks"])
    options = settle_options(context, options)
    stages = stages_of(options)
    slides = _slides(options)
    estimator = estimator_of({**options, "work": options["work"] or Path.cwd()})
    budget = estimator.budget
    shape = TaskShape(budget.threads, budget.memory_bytes, budget.scratch_bytes)
    steps = steps_of(stages)
    rates = _rates(options["measured_by"])
    estimates = [
        estimate_run(
            slides,
            steps,
            estimator,
            shape,
            deadline_s=deadline * 3600,
            stores=1 + len(options["also"]),
            keep=options["keep"],
            rates=rates,
            tasks=count,
        )
        for count in (counts or [None])
    ]
    problem = _why_not(estimator, slides)
    simulations = _simulations(slides, estimates, shape, options) if options["simulate"] else []
    if options["as_json"]:
        click.echo(json.dumps(_as_json(estimates, simulations, shape, price, problem), indent=2))
    else:
        click.echo(_text(estimates, simulations, shape, deadline, price))
    if problem:
        raise StoreError(problem)


def _parse_tasks(text: str | None) -> list[int | None]:
    if text is None:
        return []
    counts = [int(part) for part in text.split(",") if re.fullmatch(r"[0-9]{1,5}", part.strip())]
    if len(counts) != len(text.split(",")) or not all(1 <= count <= 10_000 for count in counts):
        raise UsageError(f"--tasks {text}: wanted numbers from 1 to 10000, joined by commas")
    return list(counts)


def _slides(options: Mapping[str, Any]) -> list[Slide]:
    from coverslip.pipeline.cost_model import published_sizes

    match = re.search(r"(?:^|/)idc:([0-9]{1,6})$", options["manifest"])
    if match is None:
        return read_slides(options)
    if not 2 <= int(match[1]) <= 200_000:
        raise UsageError(f"idc:{match[1]}: wanted from 2 to 200000 slides")
    return published_sizes(int(match[1]))


def _rates(measured_by: Path | None) -> Mapping[Stage, StageRate]:
    from coverslip.pipeline.cost_model import DEFAULT_RATES, measure_rates
    from coverslip.pipeline.status import read_folder

    if measured_by is None:
        return DEFAULT_RATES
    told, records = read_folder(measured_by)
    measured = measure_rates({key: size for key, _, size in told.slides}, records)
    if not measured:
        raise UsageError(f"--measured-by {measured_by}: wanted a run with at least three slides that are done")
    return {**DEFAULT_RATES, **measured}


def _why_not(estimator: Any, slides: Sequence[Slide]) -> str:
    try:
        estimator.require_disk(slides)
    except StoreError as error:
        return str(error)
    return ""


def _simulations(
    slides: Sequence[Slide],
    estimates: Sequence[Estimate],
    shape: TaskShape,
    options: Mapping[str, Any],
) -> list[Simulation]:
    from coverslip.pipeline.simulation import Faults, simulate_run

    faults = Faults(options["failing"], options["losing"], attempts=options["attempts"])
    seed = options["seed"]
    sizes = [(slide.key, slide.size_bytes) for slide in slides]
    return [simulate_run(sizes, each, shape, each.tasks, faults, seed) for each in estimates]


def _as_json(
    estimates: Sequence[Estimate], simulations: Sequence[Simulation], shape: TaskShape, price: float, problem: str
) -> dict[str, Any]:
    told = estimates[0].as_json()
    told |= {"fits": not problem, "problem": problem or None}
    told |= {
        "task": {"threads": shape.threads, "memory_bytes": shape.memory_bytes, "scratch_bytes": shape.scratch_bytes}
    }
    told["cost"] = round(_cost(estimates[0], price), 4)
    if len(estimates) > 1:
        told["by_tasks"] = [{"tasks": each.tasks, "wall_s": round(each.wall_s, 1)} for each in estimates]
    if simulations:
        told["simulations"] = [
            {"asked_for": estimate.tasks, **each.as_json()}
            for estimate, each in zip(estimates, simulations, strict=True)
        ]
    return told


def _cost(estimate: Estimate, price: float) -> float:
    return estimate.wall_s * estimate.tasks / 3600 * price


def _text(
    estimates: Sequence[Estimate],
    simulations: Sequence[Simulation],
    shape: TaskShape,
    deadline: float,
    price: float,
) -> str:
    first = estimates[0]
    unknown = f", {first.unknown_sizes} of unknown size taken for 0.37 GB each" if first.unknown_sizes else ""
    memory, scratch = f"{first.memory_bytes / 1e9:.2f} GB", f"{first.scratch_bytes / 1e9:.2f} GB"
    lines = [
        f"slides     {first.slides}, {first.source_bytes / 1e9:.2f} GB{unknown}",
        f"DICOM      {first.output_bytes / 1e9:.2f} GB at the most",
        f"network    {first.fetched_bytes / 1e9:.2f} GB in, {first.sent_bytes / 1e9:.2f} GB out to stores",
        f"memory     {memory} for the slide that needs most, {shape.memory_bytes / 1e9:.2f} GB are there",
        f"scratch    {scratch} for the slide that needs most, {shape.scratch_bytes / 1e9:.2f} GB are there",
    ]
    if first.kept_bytes:
        lines.append(f"kept       {first.kept_bytes / 1e9:.2f} GB stay in the folder of the run")
    longest = _time(max(first.slide_s.values(), default=0.0))
    lines.append(f"work       {sum(first.slide_s.values()) / 3600:.2f} h of slides one by one, the longest {longest}")
    lines += [f"  {stage:9}{seconds / 3600:9.2f} h" for stage, seconds in first.stage_s.items()]
    for each in estimates:
        late = "" if each.wall_s <= deadline * 3600 else f", later than {deadline:g} h"
        cost = f", cost {_cost(each, price):.2f}" if price else ""
        threads = f"{shape.threads} {'thread' if shape.threads == 1 else 'threads'}"
        tasks = f"{each.tasks} {'task' if each.tasks == 1 else 'tasks'} of {threads}"
        lines.append(f"time       {_time(each.wall_s)} in {tasks}{late}{cost}")
    if simulations:
        lines += ["", _SIMULATED]
        lines += [
            f"        {each.tasks:>8}{_time(each.wall_s):>13}{_time(each.median_task_s):>14}{each.balance:>15.3f}"
            f"{each.late_tasks:>7}{each.busy_share:>7.0%}{each.task_hours:>13.1f}{each.retries:>8}{each.lost_tasks:>7}"
            f"{each.given_up:>9}"
            for each in simulations
        ]
    return "\n".join(lines)


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
