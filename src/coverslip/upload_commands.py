"""The commands `coverslip upload`, `handover` and `retract`: series in stores."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.catalog_arguments import CatalogType
from coverslip.errors import UsageError
from coverslip.store_arguments import open_stores, store_arguments

if TYPE_CHECKING:
    from coverslip.upload.deliver import Meter
    from coverslip.upload.outcome import DestinationOutcome, SeriesOutcome
    from coverslip.upload.retract import RetractOutcome

__all__ = ["handover", "retract", "upload"]

_NOT_VERIFIED = 6
_LONGEST_REASON = 200
_MOST_SHOWN = 20
"""Instances that are printed for one series and store; `--json` tells all."""

UPLOAD_EXAMPLES = """
\b
Examples:
  coverslip upload out --to gs://bucket/prefix
  coverslip upload out --to healthcare://project/location/dataset/store
  coverslip upload out --to dicomweb+https://pacs.example/dicom-web \\
    --credentials token-command:'get-token --for pacs'
  coverslip upload out --to /archive --also gs://bucket/archive
  coverslip upload out --to gs://bucket/prefix --verify-only
  coverslip upload out/STUDY/NEW --to gs://bucket/prefix --replace OLD
"""

HANDOVER_EXAMPLES = """
\b
Examples:
  coverslip handover out --of gs://bucket/prefix -o handover
  coverslip handover out --of s3://bucket -o handover --collection my_collection --acl '*'
"""

RETRACT_EXAMPLES = """
\b
Examples:
  coverslip retract SERIES --from gs://bucket/prefix --reason "consent withdrawn"
  coverslip retract SERIES --from gs://bucket --also dicomweb+https://pacs.example/dicom-web \\
    --folder previews --handover handover --reason "label visible" --yes
"""

_ledger = click.option(
    "--ledger",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="COVERSLIP_LEDGER",
    metavar="FILE",
    help="What was sent and verified, for later runs; default: coverslip/ledger.sqlite in $XDG_STATE_HOME or "
    "~/.local/state.",
)
_naming = click.option(
    "--naming",
    type=click.Choice(["uuid", "uids"]),
    default="uuid",
    show_default=True,
    help="Of objects in buckets and folders: SERIES_UUID/INSTANCE_UUID.dcm, or STUDY/SERIES/SOP.dcm.",
)


@click.command(epilog=UPLOAD_EXAMPLES, short_help="Deliver series to stores, and prove what arrived.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--to", required=True, metavar="URL", help="Store: a folder, file:///, gs://, dicomweb+https://, "
              "healthcare:// or s3://.")  # fmt: skip
@click.option("--also", multiple=True, metavar="URL", help="A further store; may be repeated.")
@_naming
@click.option("--workers", type=click.IntRange(1, 64), default=4, show_default=True, help="Instances sent at once.")
@_ledger
@click.option(
    "--validate",
    "mode",
    type=click.Choice(["auto", "always", "off"]),
    default="auto",
    show_default=True,
    help="What has errors is not sent. auto: as conversion.json records for the same bytes, else checked now.",
)
@click.option("--frames", default="8", show_default=True, metavar="N|all", help="Frames of an instance to compare.")
@click.option("--verify-only", is_flag=True, help="Send nothing; compare what the stores hold.")
@click.option("--no-verify", is_flag=True, help="Leave the proof to a later run with --verify-only.")
@click.option("--replace", "replaces", default="", metavar="OLD_SERIES", help="Series Instance UID of a series to "
              "remove from each store once the new one is verified there.")  # fmt: skip
@click.option("--again", is_flag=True, help="Also send what was retracted or replaced.")
@store_arguments
@click.option("--json", "as_json", is_flag=True, help="One JSON object per series and line on standard output.")
def upload(
    paths: tuple[Path, ...], to: str, also: tuple[str, ...], mode: str, frames: str, as_json: bool, **options: Any
) -> None:
    """Deliver the DICOM series in PATH, files and folders at any depth, to stores, and prove what arrived.

    May be killed at any moment and run again: what is verified is not sent twice. Ends with 6 unless everything is
    verified at every store.
    """
    from coverslip.pipeline.ledger import Ledger, default_ledger
    from coverslip.stores.options import Naming
    from coverslip.upload.deliver import DeliveryOptions, Meter, deliver
    from coverslip.upload.deliverables import find_series
    from coverslip.upload.destination import Destination
    from coverslip.upload.proof import ValidateMode

    _require_together(options)
    wanted = DeliveryOptions(
        naming=Naming.UUIDS if options["naming"] == "uuid" else Naming.UIDS,
        workers=options["workers"],
        validate=ValidateMode(mode),
        send=not options["verify_only"],
        verify=not options["no_verify"],
        replaces=options["replaces"],
        again=options["again"],
    )
    most_frames = _parse_frames(frames)
    outcomes = []
    with (
        warnings.catch_warnings(action="ignore"),  # libraries' remarks about odd values, which validation tells
        open_stores([to, *also], options, naming=options["naming"], workers=options["workers"]) as stores,
        Ledger(options["ledger"] or default_ledger()) as book,
    ):
        found, unreadable = find_series(paths)
        for path, problem in unreadable:
            click.echo(f"error: {_one_line(path)}: {problem}", err=True)
            if as_json:
                failure = {"class": "StoreError", "message": problem}
                click.echo(json.dumps({"path": os.fspath(path), "state": "refused", "failure": failure}))
        destinations = [Destination(store, book, most_frames) for store in stores]
        with (
            _progress() as (on_change, pause),
            # On an interrupt its threads end before the ledger and the stores are closed.
            closing(deliver(found, destinations, book, wanted, Meter(on_change))) as delivered,
        ):
            for outcome in delivered:
                outcomes.append(outcome)
                with pause():
                    click.echo(json.dumps(outcome.as_json()) if as_json else _outcome_text(outcome))
    if not as_json and len(outcomes) > 1:
        click.echo(_summary_text(outcomes))
    good = {"verified", *(["uploaded"] if options["no_verify"] else [])}
    if unreadable or any(str(outcome.state) not in good for outcome in outcomes):
        raise click.exceptions.Exit(_NOT_VERIFIED)


@click.command(epilog=HANDOVER_EXAMPLES, short_help="Write manifests and hashes of verified series.")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--of", "url", required=True, metavar="URL", help="Bucket or folder where they are verified.")
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the files."
)
@click.option("--collection", default="", metavar="ID", help="collection_id of series that do not tell theirs.")
@click.option("--acl", default="", help="Column of the indexd manifest.")
@click.option("--authz", default="", help="Column of the indexd manifest.")
@_naming
@_ledger
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def handover(paths: tuple[Path, ...], url: str, output: Path, **options: Any) -> None:
    """Write what the Imaging Data Commons takes up series in PATH by, once upload has verified them at a bucket.

    The folder gets an ingestion manifest, an indexd manifest, an s5cmd manifest, and the hashes of series, studies and
    patients: all of them, in place of older ones, or none. Nothing is sent.
    """
    from coverslip.pipeline.ledger import Ledger, default_ledger
    from coverslip.stores.base import ObjectStore
    from coverslip.stores.options import Anonymous, Naming, StoreOptions
    from coverslip.stores.registry import open_store
    from coverslip.upload.deliverables import describe_series, find_series
    from coverslip.upload.destination import Destination
    from coverslip.upload.handover import FILES, handover_rows, write_handover

    naming = Naming.UUIDS if options["naming"] == "uuid" else Naming.UIDS
    with (
        open_store(url, StoreOptions(naming=naming, credentials=Anonymous())) as store,
        Ledger(options["ledger"] or default_ledger()) as book,
    ):
        if not isinstance(store, ObjectStore):
            raise UsageError(f"--of {url}: wanted a bucket or folder, whose objects have names")
        found, unreadable = find_series(paths)
        for path, problem in unreadable:
            click.echo(f"error: {_one_line(path)}: {problem}", err=True)
        series = [describe_series(each, naming) for each in found]
        destination = Destination(store, book, None)
        rows = handover_rows(series, destination, options["collection"], options["acl"], options["authz"])
    if unreadable:
        raise click.exceptions.Exit(_NOT_VERIFIED)
    write_handover(rows, output)
    if options["as_json"]:
        files = [str(output / name) for name in FILES]
        click.echo(json.dumps({"files": files, "series": len(series), "instances": len(rows)}))
    else:
        click.echo(f"{_one_line(output)}: {len(series)} series, {_count(len(rows), 'instance')}")
        for name in FILES:
            click.echo(f"  {name}")


@click.command(epilog=RETRACT_EXAMPLES, short_help="Take a series back from everywhere.")
@click.argument("series")
@click.option("--from", "url", required=True, metavar="URL", help="Store to remove it from.")
@click.option("--also", multiple=True, metavar="URL", help="A further store; may be repeated.")
@click.option("--reason", required=True, metavar="TEXT", help="Stays in the tombstone: must not tell of a person.")
@click.option(
    "--folder",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Also remove what is named after the series here, such as previews or a quarantine; may be repeated.",
)
@click.option(
    "--handover",
    "handovers",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Also remove it from the hand-over files here; may be repeated.",
)
@click.option(
    "--catalog",
    "catalogs",
    multiple=True,
    type=CatalogType(exists=True),
    metavar="FILE|bigquery://PROJECT.DATASET",
    help="Also remove it from every version of a catalog; may be repeated.",
)
@_naming
@_ledger
@click.option("--yes", is_flag=True, help="Do not ask.")
@store_arguments
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def retract(series: str, url: str, also: tuple[str, ...], reason: str, **options: Any) -> None:
    """Remove the series with the Series Instance UID SERIES from stores, folders, hand-over files and the ledger.

    What remains is a tombstone, in the ledger and in buckets: the UID, the reason, the time and the number of
    instances. upload refuses the series from then on. May be repeated.
    """
    from coverslip.pipeline.ledger import Ledger, default_ledger
    from coverslip.upload.destination import Destination
    from coverslip.upload.retract import RetractRequest, count_stored, retract_series

    _require_uid("SERIES", series)
    if not reason.strip() or not reason.isprintable() or len(reason) > _LONGEST_REASON:
        raise UsageError(f"--reason: wanted one line of at most {_LONGEST_REASON} characters")
    if not options["yes"] and not sys.stdin.isatty():
        raise UsageError("retract asks before it removes anything; without a terminal, --yes says so")
    request = RetractRequest(series, reason.strip(), options["folders"], options["handovers"], _catalogs(options))
    with (
        open_stores([url, *also], options, naming=options["naming"], workers=1) as stores,
        Ledger(options["ledger"] or default_ledger()) as book,
    ):
        destinations = [Destination(store, book, None) for store in stores]
        if not options["yes"]:
            for destination in destinations:
                click.echo(f"{destination.url}: {_count(count_stored(series, destination), 'instance')}", err=True)
            if not click.confirm(f"Remove {series} for good?", err=True):
                click.echo("nothing was removed", err=True)
                raise click.exceptions.Exit(1)
        outcome = retract_series(request, destinations, book)
    if options["as_json"]:
        click.echo(json.dumps(_retract_as_json(outcome)))
    else:
        click.echo(_retract_text(outcome))
    if not outcome.tombstone.complete:
        raise click.exceptions.Exit(_NOT_VERIFIED)


def _catalogs(options: dict[str, Any]) -> tuple[Callable[[str, str], object], ...]:
    """Return what takes a series out of each catalog."""
    if not options["catalogs"]:
        return ()
    from functools import partial

    from coverslip.catalog.bigquery.place import BigQueryPlace, parse_place
    from coverslip.catalog.retract import retract_series

    def remover(place: BigQueryPlace) -> Callable[[str, str], object]:
        from coverslip.catalog.bigquery.retract import retract_from_bigquery

        return partial(retract_from_bigquery, place)

    # What is no address is told before anything is removed.
    places = [parse_place(each) if isinstance(each, str) else each for each in options["catalogs"]]
    return tuple(remover(each) if isinstance(each, BigQueryPlace) else partial(retract_series, each) for each in places)


def _retract_as_json(outcome: RetractOutcome) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        **asdict(outcome.tombstone),
        "stores": [asdict(removal) for removal in outcome.stores],
        "files": outcome.files,
        "handover_rows": outcome.handover_rows,
    }


def _retract_text(outcome: RetractOutcome) -> str:
    tombstone = outcome.tombstone
    lines = [f"{tombstone.series_instance_uid}: {'retracted' if tombstone.complete else 'NOT ALL REMOVED'}"]
    for removal in outcome.stores:
        told = removal.failure.message if removal.failure else f"{_count(removal.instances, 'instance')} removed"
        told += f", {_count(removal.objects, 'other object')}" if removal.objects else ""
        lines.append(f"  {removal.url}: {told}")
    if outcome.files:
        lines.append(f"  {_count(outcome.files, 'file')} removed from folders")
    if outcome.handover_rows:
        lines.append(f"  {_count(outcome.handover_rows, 'instance')} removed from hand-over files")
    lines.append(f"  tombstone: {tombstone.retracted_at[:10]}, {tombstone.reason}")
    return "\n".join(lines)


def _require_together(options: dict[str, Any]) -> None:
    if options["verify_only"] and options["no_verify"]:
        raise UsageError("--verify-only and --no-verify leave nothing to do")
    if options["replaces"] and (options["verify_only"] or options["no_verify"]):
        raise UsageError("--replace: the old series is removed after the new one was sent and verified in the same run")
    if options["replaces"]:
        _require_uid("--replace", options["replaces"])


def _require_uid(name: str, uid: str) -> None:
    import re

    if re.fullmatch(r"[0-9]+(\.[0-9]+)+", uid, re.ASCII) is None or len(uid) > 64:
        raise UsageError(f"{name} {uid}: wanted a Series Instance UID")


def _parse_frames(text: str) -> int | None:
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise UsageError(f"--frames {text}: wanted a number above 0, or all")


def _one_line(path: Path | str) -> str:
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in os.fsdecode(path))


def _outcome_text(outcome: SeriesOutcome) -> str:
    """Return what a curator wants to know of a series: little if all went well, all that did not."""
    state = str(outcome.state)
    lines = [f"{outcome.series_instance_uid}: {state if state in ('verified', 'uploaded') else state.upper()}"]
    proof = f", {outcome.proof}" if outcome.proof else ""
    lines.append(
        f"  {_one_line(outcome.folder)}: {_count(outcome.instances, 'instance')}, {_size(outcome.size_bytes)}{proof}"
    )
    if outcome.failure is not None:
        lines.append(f"  {outcome.failure.message}")
    for destination in outcome.destinations:
        lines += _destination_lines(destination)
    return "\n".join(lines)


def _destination_lines(outcome: DestinationOutcome) -> Iterator[str]:
    counts = ", ".join(f"{count} {state}" for state, count in outcome.counts().items())
    sent = sum(instance.bytes_sent for instance in outcome.instances)
    yield f"  {outcome.url}: {counts}, {_sent(sent)}"
    if outcome.failure is not None:
        yield f"    {outcome.failure.message}"
    failed = [instance for instance in outcome.instances if instance.failure is not None]
    for instance in failed[:_MOST_SHOWN]:
        message = instance.failure.message if instance.failure else ""
        yield f"    {instance.state}: {instance.sop_instance_uid}: {message}"
    if len(failed) > _MOST_SHOWN:
        yield f"    and {len(failed) - _MOST_SHOWN} more"
    for uid in outcome.missing[:_MOST_SHOWN]:
        yield f"    missing in the store's list of the series: {uid}"
    for name in outcome.strangers[:_MOST_SHOWN]:
        yield f"    in the store and not in the series delivered: {name}"
    for instance in outcome.instances:
        for warning in instance.warnings:
            yield f"    warning: {instance.sop_instance_uid}: {warning}"
    if outcome.retired is not None:
        yield f"    replaced series: {_count(outcome.retired, 'instance')} removed"


def _summary_text(outcomes: Sequence[SeriesOutcome]) -> str:
    states: dict[str, int] = {}
    for outcome in outcomes:
        states[str(outcome.state)] = states.get(str(outcome.state), 0) + 1
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    return f"{len(outcomes)} series: {counted}; {_sent(sum(outcome.bytes_sent for outcome in outcomes))}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _sent(size_bytes: int) -> str:
    return f"{_size(size_bytes)} sent" if size_bytes else "nothing sent"


def _size(size_bytes: int) -> str:
    if size_bytes >= 1e9:
        return f"{size_bytes / 1e9:.2f} GB"
    return f"{size_bytes / 1e6:.2f} MB" if size_bytes >= 1e5 else f"{size_bytes / 1e3:.1f} kB"


@contextmanager
def _progress() -> Iterator[tuple[Callable[[Meter], None] | None, Callable[[], Any]]]:
    """Show bytes, rate and instances on standard error where somebody is looking; paused while lines are printed."""
    from contextlib import nullcontext

    if not sys.stderr.isatty():
        yield None, nullcontext
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.fields[instances]}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False)
    task = bar.add_task("", total=None, instances="")

    def show(meter: Meter) -> None:
        done = f"{meter.instances_done} of {_count(meter.instances_wanted, 'instance')}"
        bar.update(task, total=meter.bytes_wanted or None, completed=meter.bytes_done, instances=done)

    @contextmanager
    def pause() -> Iterator[None]:
        bar.stop()
        try:
            yield
        finally:
            bar.start()

    with bar:
        yield show, pause
