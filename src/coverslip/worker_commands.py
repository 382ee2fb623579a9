"""The command `coverslip worker`: slides as they arrive in a bucket."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.convert_arguments import convert_arguments
from coverslip.errors import ConflictError, MissingDependencyError, UsageError
from coverslip.run_commands import (
    estimator_of,
    fetching_options,
    plan_run,
    require_object_store,
    stages_of,
)
from coverslip.store_arguments import store_arguments

if TYPE_CHECKING:
    from coverslip.pipeline.log_lines import LogLines
    from coverslip.pipeline.progress import Reporter
    from coverslip.pipeline.run_plan import RunPlan
    from coverslip.pipeline.telemetry import Telemetry
    from coverslip.stores.base import ObjectStore
    from coverslip.worker.tokens import TokenCheck
    from coverslip.worker.traces import Trace

__all__ = ["worker"]

EXAMPLES = """
\b
Examples:
  coverslip worker --slides gs://arriving --to gs://dicom --state gs://state/worker --work /tmp/work
  coverslip worker --slides gs://arriving/slides --to healthcare://project/location/dataset/store \\
    --state gs://state/worker --catalog catalog --work /tmp/work --push-audience https://worker.example.org \\
    --push-account push@project.iam.gserviceaccount.com
"""


@click.command(epilog=EXAMPLES, short_help="Convert slides as they arrive in a bucket, told of by messages over HTTP.")
@click.option("--slides", required=True, metavar="gs://BUCKET|DIR", help="Where slides arrive; messages about other "
              "buckets and folders are acknowledged and left.")  # fmt: skip
@click.option("--to", required=True, metavar="URL", help="Store to deliver to, as for coverslip upload.")
@click.option("--also", multiple=True, metavar="URL", help="A further store; may be repeated.")
@click.option("--state", required=True, metavar="URL", help="Bucket or folder for what all workers know: leases, "
              "ledgers, dead letters.")  # fmt: skip
@click.option("--work", required=True, type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Folder of this worker alone: scratch.")  # fmt: skip
@click.option("--stages", metavar="NAMES", help="Some of convert,validate,upload,index; default: convert, validate "
              "and upload, index with --catalog.")  # fmt: skip
@click.option("--catalog", metavar="NAME", help="Put rows for a catalog into --state, for coverslip collect.")
@click.option("--name", default="worker", show_default=True, help="Of the collection, in logs and status.")
@click.option("--host", metavar="ADDRESS", help="To listen at; default: 127.0.0.1, on Cloud Run 0.0.0.0.")
@click.option("--port", type=click.IntRange(0, 65535), envvar="PORT", default=8080, show_default=True,
              help="To listen at; also from PORT.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1, 256), help="Threads; default: the cores this process may use.")
@click.option("--memory-limit", metavar="SIZE", help="Default: 80 % of what is free.")
@click.option("--scratch-limit", metavar="SIZE", help="Disk for a slide; default: 90 % of what is free.")
@click.option("--attempts", type=click.IntRange(1, 100), default=5, show_default=True, help="Of a slide, of all "
              "workers together, as long as another may help.")  # fmt: skip
@click.option("--max-deliveries", type=click.IntRange(0), default=0, show_default=True, help="Give a slide that fails "
              "up when its message was delivered so often; 0: go by --attempts alone.")  # fmt: skip
@click.option("--lease", type=click.FloatRange(1, 3600), default=120, show_default=True, metavar="SECONDS",
              help="After so long without a sign of life another worker takes a slide.")  # fmt: skip
@click.option("--wait", type=click.FloatRange(0, 3600), default=540, show_default=True, metavar="SECONDS",
              help="How long a message waits for its turn before it must come again.")  # fmt: skip
@click.option("--push-audience", default="", metavar="TEXT", help="Take only requests with a token of Google's for "
              "this audience.")  # fmt: skip
@click.option("--push-account", default="", metavar="EMAIL", help="With --push-audience: of this service account.")
@click.option("--push-issuer", multiple=True, metavar="URL", help="In place of Google; with --push-certificates.")
@click.option("--push-certificates", default="", metavar="URL", help="Of the issuer, as Google gives its own.")
@click.option("--naming", type=click.Choice(["uuid", "uids"]), default="uuid", show_default=True, help="Of objects in "
              "buckets and folders.")  # fmt: skip
@click.option("--frames", default="8", show_default=True, metavar="N|all", help="Frames of an instance to read back.")
@click.option("--source-credentials", default="default", metavar="HOW", help="For --slides, as --credentials for "
              "stores.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["auto", "plain", "json"]), default="auto", show_default=True,
              help="auto: json in containers, else plain lines.")  # fmt: skip
@convert_arguments
@store_arguments
def worker(**options: Any) -> None:
    """Take slides through all stages as they arrive, one at a time.

    Messages come by POST to /: Pub/Sub push, wrapped or not, and CloudEvents of Eventarc, structured or binary. One is
    acknowledged only when its slide is in the stores and that is proven and written down. GET /live and /ready tell how
    the service is.
    """
    try:
        import fastapi as _fastapi  # noqa: F401
        import uvicorn as _uvicorn  # noqa: F401
    except ImportError:
        raise MissingDependencyError("coverslip worker needs fastapi: pip install 'coverslip[serve]'") from None
    from coverslip.pipeline.log_lines import JsonLines, PlainLines, wants_json
    from coverslip.pipeline.telemetry import open_telemetry

    options = {**options, "manifest": options["slides"], "keep": False}
    tokens = _token_check(options)
    stages = stages_of(options)
    plan = plan_run(options, stages, sharded=True)
    if not plan.delivers:
        raise UsageError("--stages: wanted with upload, for nothing stays here")
    labels = {"run": options["name"]}
    log: LogLines = JsonLines(sys.stderr, labels) if wants_json(options["log_format"], sys.stderr) else PlainLines(
        sys.stderr
    )  # fmt: skip
    assert plan.open_state is not None
    telemetry = open_telemetry()
    try:
        with plan.open_state() as (state,):
            code = _serve(options, plan, require_object_store(state), log, tokens, telemetry)
    finally:
        if telemetry is not None:
            telemetry.close()
    if code:
        raise click.exceptions.Exit(code)


def _serve(
    options: dict[str, Any],
    plan: RunPlan,
    state: ObjectStore,
    log: LogLines,
    tokens: TokenCheck | None,
    telemetry: Telemetry | None,
) -> int:
    from coverslip.metadata_maps.deid.keys import load_key
    from coverslip.pipeline.ledger import Ledger
    from coverslip.pipeline.run import own_folder, remove_stale, take_tombstones
    from coverslip.stores.registry import open_store
    from coverslip.worker.intake import Intake, IntakeLimits, SlideSourceFolder
    from coverslip.worker.leases import LeaseBook
    from coverslip.worker.one_slide import RecipeBook, SlideWork
    from coverslip.worker.service import Address, serve

    host = options["host"] or ("0.0.0.0" if os.environ.get("K_SERVICE") else "127.0.0.1")  # noqa: S104 - Cloud Run
    secret = load_key(options["deid_key_file"]).fingerprint() if options["deid_key_file"] else ""
    with own_folder(plan.work), Ledger(plan.ledger_file) as ledger, open_store(
        options["slides"], fetching_options(options)
    ) as slides:  # fmt: skip
        take_tombstones(ledger)
        remove_stale(plan, [])
        source = SlideSourceFolder(require_object_store(slides), secret)
        _tell_status(options["name"], plan, state)
        if tokens is None:
            log.write("WARNING", "requests are not checked here: only what may reach this port may send messages")
        work = SlideWork(plan, state, estimator_of(options), _reporters(options, telemetry))
        leases = LeaseBook(state, options["lease"], options["attempts"])
        limits = IntakeLimits(options["wait"], options["max_deliveries"])
        intake = Intake(source, leases, RecipeBook(plan), work, limits)
        return serve(intake, log, Address(host, options["port"]), tokens)


def _tell_status(name: str, plan: RunPlan, state: ObjectStore) -> None:
    """Say what is done with slides, for `coverslip status`; which slides there are is told as they arrive."""
    from coverslip.pipeline.manifest import Slide
    from coverslip.pipeline.run_file import RUN_FILE, RunFile

    places = [(task.stage, task.store) for task in plan.tasks_of(Slide("", 0, "", ""))]
    told = RunFile.of(name, places, [])
    found = state.read_versioned(RUN_FILE)
    if found is not None and RunFile.read(found.data).slides:
        raise UsageError("--state: is that of a coverslip run; wanted one of its own")
    if found is None or found.data != told.as_bytes():
        with contextlib.suppress(ConflictError):  # another worker tells the same
            state.swap_bytes(RUN_FILE, told.as_bytes(), found.version if found else None)


def _reporters(options: dict[str, Any], telemetry: Telemetry | None) -> Any:
    from coverslip.pipeline.log_lines import wants_json
    from coverslip.pipeline.progress import JsonReporter, PlainReporter
    from coverslip.pipeline.telemetry import MeteredReporter

    def reporter_for(trace: Trace) -> Reporter:
        shown: Reporter
        if wants_json(options["log_format"], sys.stderr):
            shown = JsonReporter(sys.stderr, options["name"], {}, trace.trace_id, trace.span_id)
        else:
            shown = PlainReporter(sys.stderr, lambda slide: f"slide {slide.key[:12]}")
        return MeteredReporter(shown, telemetry, owns=False) if telemetry is not None else shown

    return reporter_for


def _token_check(options: dict[str, Any]) -> TokenCheck | None:
    """Return what checks requests, if that is asked for."""
    if not options["push_audience"]:
        if options["push_account"] or options["push_issuer"] or options["push_certificates"]:
            raise UsageError("--push-account, --push-issuer and --push-certificates: wanted with --push-audience")
        return None
    try:
        import google.auth as _auth  # noqa: F401
    except ImportError:
        raise MissingDependencyError("--push-audience needs google-auth: pip install 'coverslip[cloud]'") from None
    from coverslip.stores.options import StoreOptions
    from coverslip.stores.transport import require_safe_url
    from coverslip.worker.tokens import GOOGLE_CERTIFICATES, GOOGLE_ISSUERS, TokenCheck, TokenRules

    if bool(options["push_issuer"]) != bool(options["push_certificates"]):
        raise UsageError("--push-issuer and --push-certificates: wanted both or none")
    url = options["push_certificates"] or GOOGLE_CERTIFICATES
    require_safe_url(url, StoreOptions(allow_plain_http=options["allow_plain_http"]))
    issuers = options["push_issuer"] or GOOGLE_ISSUERS
    return TokenCheck(TokenRules(options["push_audience"], options["push_account"], tuple(issuers), url))
