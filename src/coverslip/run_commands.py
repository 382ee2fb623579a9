"""The command `coverslip run`: a collection through all stages."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.convert_arguments import convert_arguments, parse_size, request_maker
from coverslip.errors import MissingDependencyError, UsageError
from coverslip.store_arguments import open_stores, store_arguments

if TYPE_CHECKING:
    from coverslip.pipeline.budget import Estimator
    from coverslip.pipeline.engine import RunOutcome, Stop
    from coverslip.pipeline.ledger import Stage
    from coverslip.pipeline.manifest import Slide
    from coverslip.pipeline.run_plan import RunPlan
    from coverslip.pipeline.shards import ShardPlace

__all__ = [
    "estimator_of",
    "fetching_options",
    "plan_run",
    "read_slides",
    "require_object_store",
    "run",
    "settle_options",
    "stages_of",
]

EXAMPLES = """
\b
Examples:
  coverslip run slides --work work --stages convert,validate
  coverslip run slides.csv --map tcga --to gs://bucket/prefix --catalog catalog.duckdb --work work
  coverslip run run.toml
  coverslip run run.toml --retry failed:StoreError
  coverslip run run.toml --engine dask --scheduler tcp://head:8786
  coverslip run slides.csv --map htan --slides gs://bucket/slides --engine shard \\
    --to gs://bucket/dicom --state gs://bucket/run --catalog catalog --work /tmp/work
"""

_MOST_SHOWN = 20
_PATHS = ("manifest", "to", "also", "catalog", "slides", "state")
"""Options that may be a path or a URL."""


@click.command(epilog=EXAMPLES, short_help="Take a collection of slides through all stages.")
@click.argument("manifest", metavar="MANIFEST|FOLDER|RUN.toml")
@click.option("--work", type=click.Path(path_type=Path, file_okay=False), metavar="DIR", help="Folder of the run: "
              "scratch, ledger, and series that are not delivered.")  # fmt: skip
@click.option("--stages", metavar="NAMES", help="Some of convert,validate,upload,index; default: convert and validate, "
              "upload with --to, index with --catalog.")  # fmt: skip
@click.option("--slides", metavar="DIR|URL", help="What names in the manifest are relative to; default: its folder.")
@click.option("--to", metavar="URL", help="Store to deliver to, as for coverslip upload.")
@click.option("--also", multiple=True, metavar="URL", help="A further store; may be repeated.")
@click.option(
    "--catalog", metavar="FILE|parquet:DIR|bigquery://...", help="Catalog to index into, as for coverslip index."
)
@click.option("--engine", type=click.Choice(["local", "dask", "shard"]), default="local", show_default=True,
              help="local: all slides, here; dask: all, on a cluster's workers; shard: those of this task, as its "
              "environment tells.")  # fmt: skip
@click.option("--scheduler", metavar="ADDRESS|FILE", help="With --engine dask: address of the scheduler, or its file.")
@click.option("--shard", metavar="I/N", help="With --engine shard: this task's place, where no environment tells it.")
@click.option("--state", metavar="URL", help="With --engine shard: bucket or folder for what all tasks know.")
@click.option("--name", help="Of the run, in logs; default: made from what is run.")
@click.option("--workers", type=click.IntRange(1, 256), help="Threads in all; default: the cores this process may use.")
@click.option("--memory-limit", metavar="SIZE", help="For all slides together; default: 80 % of what is free.")
@click.option("--scratch-limit", metavar="SIZE", help="Disk for all slides together; default: 90 % of what is free.")
@click.option("--attempts", type=click.IntRange(1, 100), default=3, show_default=True, help="Of a slide in one run, as "
              "long as another may help.")  # fmt: skip
@click.option("--retry", metavar="failed[:CLASS]", help="Try slides again that earlier runs have given up.")
@click.option("--max-failures", type=click.IntRange(1), metavar="N", help="Begin no more slides after N have failed.")
@click.option("--keep", is_flag=True, help="Keep series in the folder of the run though they were delivered.")
@click.option("--naming", type=click.Choice(["uuid", "uids"]), default="uuid", show_default=True, help="Of objects in "
              "buckets and folders.")  # fmt: skip
@click.option("--frames", default="8", show_default=True, metavar="N|all", help="Frames of an instance to read back.")
@click.option("--source-credentials", default="default", metavar="HOW", help="For buckets that slides come from, "
              "as --credentials for stores.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["auto", "plain", "json"]), default="auto", show_default=True,
              help="auto: a live view on a terminal, else plain lines.")  # fmt: skip
@convert_arguments
@store_arguments
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output at the end.")
@click.pass_context
def run(context: click.Context, /, **options: Any) -> None:
    """Take the slides of MANIFEST, or of a folder or bucket, through all stages, and account for every one.

    May be killed at any moment and run again: what is done is not done again, what is half done is, and gives the same
    bytes. A slide that fails does not stop the others. Ends with 0 only if every slide is done.
    """
    from coverslip.pipeline.engine import Limits
    from coverslip.pipeline.progress import make_reporter
    from coverslip.pipeline.run import RunSetup, run_dask, run_local, run_shard
    from coverslip.pipeline.telemetry import MeteredReporter, open_telemetry

    options = settle_options(context, options)
    if options["work"] is None:
        raise UsageError("--work: wanted a folder for the run")
    stages = stages_of(options)
    place = _shard_place(options)
    slides = read_slides(options)
    plan = plan_run(options, stages, sharded=place is not None)
    name = options["name"] or _run_name(options, slides)
    reporter = make_reporter(
        options["log_format"],
        name,
        {"shard": place.label, "attempt": str(place.attempt)} if place else {},
        (lambda slide: f"slide {slide.number}") if place else (lambda slide: slide.name),
    )
    telemetry = open_telemetry()
    if telemetry is not None:
        reporter = MeteredReporter(reporter, telemetry)
    limits = Limits(options["attempts"], options["max_failures"], _parse_retry(options["retry"]))
    setup = RunSetup(plan, name, estimator_of(options), limits, reporter, _stop_on_signals())
    if options["engine"] == "dask":
        scratch = options["scratch_limit"]
        limit = parse_size("--scratch-limit", scratch) if scratch else None
        outcome = run_dask(setup, slides, options["scheduler"], limit)
    elif place is None:
        outcome = run_local(setup, slides)
    else:
        assert plan.open_state is not None
        with plan.open_state() as (state,):
            outcome = run_shard(setup, slides, place, require_object_store(state))
    click.echo(json.dumps(_as_json(outcome)) if options["as_json"] else _text(outcome, options["work"], place))
    if outcome.exit_code:
        raise click.exceptions.Exit(outcome.exit_code)


def settle_options(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with those of a run file, and paths that mean the same everywhere.

    Raises
    ------
    UsageError
        If a run file cannot be read, or names an option that there is not.
    """
    if options["manifest"].lower().endswith(".toml"):
        options = _with_run_file(context, options)
    return _with_absolute_paths(context, options)


def _stop_on_signals() -> Stop:
    """Let a run end in order when it is asked to; asked twice, it ends at once."""
    from coverslip.pipeline.engine import Stop

    stop = Stop()

    def note(number: int, _frame: object) -> None:
        if stop:
            sys.exit(128 + number)
        stop.exit_code = 128 + number

    signal.signal(signal.SIGTERM, note)
    signal.signal(signal.SIGINT, note)
    return stop


def _with_run_file(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a run file, and before them those that were given on the command line.

    Raises
    ------
    UsageError
        If it cannot be read, or names an option that there is not.
    """
    import tomllib

    path = Path(options["manifest"])
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"run file {path.name!r}: cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"run file {path.name!r}: {error}") from None
    parameters = {_spelling(parameter): parameter for parameter in context.command.params}
    merged = {**options, "manifest": None}
    for name, value in told.items():
        parameter = parameters.get(name)
        if parameter is None or parameter.name is None:
            raise UsageError(f"run file {path.name!r}: {name!r} is no option of coverslip run")
        given = context.get_parameter_source(parameter.name)
        if parameter.name != "manifest" and given is click.core.ParameterSource.COMMANDLINE:
            continue
        value = _beside(parameter, value, path.absolute().parent)
        try:
            merged[parameter.name] = parameter.type_cast_value(context, value)
        except click.BadParameter as error:
            raise UsageError(f"run file {path.name!r}: {name}: {error.message}") from None
    if not merged["manifest"]:
        raise UsageError(f"run file {path.name!r}: wanted manifest = ...")
    return merged


def _with_absolute_paths(context: click.Context, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options with paths that mean the same in every process and by every engine."""
    merged = dict(options)
    for parameter in context.command.params:
        value = options.get(parameter.name or "")
        is_path = isinstance(parameter.type, click.Path) or parameter.name in (*_PATHS, "map_name", "pairs")
        # Tasks on many machines agree on a catalog by its name alone.
        if not value or not is_path or (parameter.name == "catalog" and options["engine"] == "shard"):
            continue
        given = list(value) if isinstance(value, tuple) else value
        merged[parameter.name or ""] = parameter.type_cast_value(context, _beside(parameter, given, Path.cwd()))
    return merged


def _spelling(parameter: click.Parameter) -> str:
    longest = max(parameter.opts, key=len)
    return longest.lstrip("-")


def _beside(parameter: click.Parameter, value: Any, folder: Path) -> Any:
    """Return a value of a run file with paths as they are seen from its folder."""
    if isinstance(value, list):
        return [_beside(parameter, each, folder) for each in value]
    is_path = isinstance(parameter.type, click.Path) or parameter.name in _PATHS
    if parameter.name == "map_name":
        is_path = str(value).lower().endswith(".toml")
    if parameter.name == "pairs":
        name, _, file = str(value).partition("=")
        return f"{name}={folder / file}"
    if not is_path or "://" in str(value):
        return value if isinstance(value, bool) else str(value)
    scheme, colon, rest = str(value).partition(":")
    if parameter.name == "catalog" and colon and scheme in ("parquet", "duckdb", "ndjson"):
        return f"{scheme}:{folder / rest}"
    if parameter.name == "catalog" and colon:
        return value
    return str(folder / str(value))


def stages_of(options: Mapping[str, Any]) -> tuple[Stage, ...]:
    """Return what is done with each slide."""
    from coverslip.pipeline.ledger import Stage
    from coverslip.pipeline.run_plan import CHOOSABLE_STAGES, parse_stages

    wanted = {Stage.UPLOAD: "to", Stage.INDEX: "catalog"}
    if options["stages"]:
        stages = parse_stages(options["stages"])
        for stage, option in wanted.items():
            if stage in stages and not options[option]:
                raise UsageError(f"--stages {stage}: wanted with --{option}")
        if Stage.VALIDATE in stages and options["validate"] == "off":
            raise UsageError("--stages validate and --validate off: wanted one of them")
        return stages
    left_out = {stage for stage, option in wanted.items() if not options[option]}
    if options["validate"] == "off":
        left_out.add(Stage.VALIDATE)
    return tuple(stage for stage in CHOOSABLE_STAGES if stage not in left_out)


def _parse_retry(text: str | None) -> str | None:
    if text is None:
        return None
    word, _, kind = text.partition(":")
    if word != "failed" or (kind and not kind.isidentifier()):
        raise UsageError(f"--retry {text}: wanted failed, or failed: and an error class")
    return kind


def _shard_place(options: Mapping[str, Any]) -> ShardPlace | None:
    from coverslip.pipeline.shards import parse_shard, shard_of_environment

    if (options["engine"] == "dask") != bool(options["scheduler"]):
        raise UsageError("--engine dask and --scheduler: wanted both, or none of them")
    if options["engine"] == "dask":
        _require_dask()
    if options["engine"] != "shard":
        if options["shard"] or options["state"]:
            raise UsageError("--shard and --state: wanted with --engine shard")
        return None
    if not options["state"]:
        raise UsageError("--engine shard: wanted --state, a bucket or folder that all tasks reach")
    return parse_shard(options["shard"]) if options["shard"] else shard_of_environment(os.environ)


def _require_dask() -> None:
    from importlib.util import find_spec

    if find_spec("distributed") is None:
        raise MissingDependencyError("--engine dask needs distributed: pip install 'coverslip[dask]'")


def read_slides(options: Mapping[str, Any]) -> list[Slide]:
    """Return the slides of the manifest, folder or bucket.

    Raises
    ------
    UsageError
        If there are none.
    """
    from coverslip.metadata_maps.check import is_slide_name
    from coverslip.metadata_maps.deid.keys import load_key
    from coverslip.metadata_maps.language import load_map
    from coverslip.metadata_maps.tables import read_table
    from coverslip.pipeline.manifest import is_url, list_bucket, list_folder, read_manifest
    from coverslip.stores.base import ObjectStore
    from coverslip.stores.registry import open_store

    source = options["manifest"]
    secret = load_key(options["deid_key_file"]).fingerprint() if options["deid_key_file"] else ""
    if is_url(source):
        with open_store(source, fetching_options(options)) as store:
            if not isinstance(store, ObjectStore):
                raise UsageError(f"{source}: wanted a bucket, whose objects have names")
            slides = list_bucket(store.url, store.iter_objects(), is_slide_name, secret)
    elif Path(source).is_dir():
        slides = list_folder(Path(source), secret)
    else:
        columns = [key.column for key in load_map(options["map_name"]).keys] if options["map_name"] else []
        slides = read_manifest(read_table(Path(source)), options["slides"] or "", columns, secret)
    if not slides:
        raise UsageError(f"{source}: no slides there, by the endings of their names")
    return slides


def fetching_options(options: Mapping[str, Any]) -> Any:
    """Return how slides are fetched, as `StoreOptions`."""
    from coverslip.stores.options import StoreOptions, parse_credentials

    return StoreOptions(
        credentials=parse_credentials(options["source_credentials"]),
        ca_file=options["ca_file"],
        allow_plain_http=options["allow_plain_http"],
    )


def plan_run(options: dict[str, Any], stages: tuple[Stage, ...], *, sharded: bool) -> RunPlan:
    """Return what every slide goes through, as the options say.

    Parameters
    ----------
    sharded : bool
        Whether what is known of slides is kept in a store that others share.

    Raises
    ------
    UsageError
    """
    from coverslip.pipeline.catalog_parts import require_known_catalog
    from coverslip.pipeline.ledger import Stage
    from coverslip.pipeline.run_plan import RunPlan
    from coverslip.stores.options import Naming

    options = _with_table(options)
    make_requests: Callable[[], Any] = partial(request_maker, _converting(options))
    make_requests()  # what is wrong with options, tables and maps is told now, once
    urls = [options["to"], *options["also"]] if options["to"] else []
    reached = {name: options[name] for name in _reach()}
    deliver_to, store_urls = None, []
    if Stage.UPLOAD in stages:
        deliver_to = partial(open_stores, urls, reached, naming=options["naming"], workers=4)
        with deliver_to() as stores:
            store_urls = [store.url for store in stores]
    open_state = None
    if sharded:
        open_state = partial(open_stores, [options["state"]], {**reached, "credentials": reached["credentials"][:1]},
                             naming=options["naming"], workers=4)  # fmt: skip
    if Stage.INDEX in stages and not sharded:
        require_known_catalog(options["catalog"])
    return RunPlan(
        work=options["work"].absolute(),
        stages=stages,
        make_requests=make_requests,
        open_stores=deliver_to,
        store_urls=tuple(store_urls),
        fetching=fetching_options(options),
        naming=Naming.UUIDS if options["naming"] == "uuid" else Naming.UIDS,
        frames=_parse_frames(options["frames"]),
        catalog=(options["catalog"] or "") if Stage.INDEX in stages else "",
        open_state=open_state,
        keep=options["keep"],
    )


def _parse_frames(text: str) -> int | None:
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"--frames {text}: wanted a number above 0, or all")


def _with_table(options: dict[str, Any]) -> dict[str, Any]:
    """Let the manifest be the table that the map reads, if no other is given."""
    manifest = options["manifest"]
    if options["map_name"] and not options["metadata"]:
        if "://" in manifest or Path(manifest).is_dir():
            raise UsageError("--map: wanted with --metadata, as a folder or bucket has no table")
        return {**options, "metadata": Path(manifest)}
    return options


def _converting(options: Mapping[str, Any]) -> dict[str, Any]:
    names = [parameter.name for parameter in convert_arguments(click.Command("convert")).params]
    return {**{name: options[name] for name in names if name}, "output": options["work"], "workers": 1}


def _reach() -> Sequence[str]:
    return [parameter.name for parameter in store_arguments(click.Command("upload")).params if parameter.name]


def require_object_store(store: Any) -> Any:
    """Return the store for ``--state`` if it is one of named bytes."""
    from coverslip.stores.base import ObjectStore

    if not isinstance(store, ObjectStore):
        raise UsageError("--state: wanted a bucket or folder, whose objects have names")
    return store


def estimator_of(options: Mapping[str, Any]) -> Estimator:
    """Return what says what slides need, within the limits of the options or what is free here."""
    from coverslip.pipeline.budget import Budget, Estimator, available_memory, free_disk, output_ratio_of

    memory, scratch = options["memory_limit"], options["scratch_limit"]
    budget = Budget(
        options["workers"] or len(os.sched_getaffinity(0)),
        parse_size("--memory-limit", memory) if memory else available_memory(),
        parse_size("--scratch-limit", scratch) if scratch else free_disk(options["work"]),
    )
    frames = parse_size("--memory", options["memory"]) if options["memory"] else 64 << 20
    return Estimator(budget, frames, output_ratio=output_ratio_of(options["codec"]))


def _run_name(options: Mapping[str, Any], slides: Sequence[Slide]) -> str:
    """Return a name that all tasks and attempts of a run make alike, and that tells nothing."""
    execution = os.environ.get("CLOUD_RUN_EXECUTION") or os.environ.get("BATCH_JOB_UID")
    if execution:
        return execution
    text = "\n".join([*(slide.key for slide in slides), options["to"] or "", options["catalog"] or ""])
    return f"run-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _as_json(outcome: RunOutcome) -> dict[str, Any]:
    return {
        "slides": outcome.slides,
        "done": outcome.done,
        "done_before": outcome.done_before,
        "failed": len(outcome.failures),
        "left": outcome.left,
        "exit_code": outcome.exit_code,
        "failures": [
            {
                "slide": slide.key,
                "row": slide.number,
                "stage": str(stage),
                "error_class": problem.error_class,
                "error_message": problem.message,
            }
            for slide, stage, problem in sorted(outcome.failures.values(), key=lambda each: each[0].number)
        ],
    }


def _text(outcome: RunOutcome, work: Path, place: ShardPlace | None) -> str:
    before = f" ({outcome.done_before} before)" if outcome.done_before else ""
    counts = f"{outcome.done} of {outcome.slides} slides done{before}"
    lines = [f"{counts}, {len(outcome.failures)} failed, {outcome.left} left"]
    classes: dict[str, int] = {}
    for slide, stage, problem in sorted(outcome.failures.values(), key=lambda each: each[0].number):
        classes[problem.error_class] = classes.get(problem.error_class, 0) + 1
        if sum(classes.values()) <= _MOST_SHOWN:
            called = f"slide {slide.number}" if place else f"row {slide.number}, {slide.name}"
            lines.append(_one_line(f"  {called}: {stage}: {problem.error_class}: {problem.message}"))
    if sum(classes.values()) > _MOST_SHOWN:
        lines.append(f"  and {sum(classes.values()) - _MOST_SHOWN} more")
    if classes and place is None:
        lines.append(_one_line(f"  all of them are in {work / 'quarantine.csv'}; --retry failed tries them again"))
    return "\n".join(lines)


def _one_line(text: str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
