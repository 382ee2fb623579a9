"""The command line: parse, call one function, print, map errors to exit codes.

Nothing but click is loaded until a command runs, so that help and completion answer at once.
"""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from coverslip import __version__
from coverslip.cohort_commands import cohort_group
from coverslip.convert_arguments import convert_arguments, request_maker
from coverslip.deid_commands import deid_group
from coverslip.errors import CoverslipError
from coverslip.formats_commands import formats
from coverslip.index_commands import index
from coverslip.init_commands import init
from coverslip.map_commands import map_group
from coverslip.remap_commands import remap
from coverslip.run_commands import run
from coverslip.search_commands import attach, facets, search
from coverslip.serve_commands import serve
from coverslip.status_commands import collect, status
from coverslip.upload_commands import handover, retract, upload
from coverslip.validate_commands import validate

if TYPE_CHECKING:
    from coverslip.converter.request import ConversionRequest, ConversionResult, ValidationSummary

__all__ = ["main"]

INTERRUPTED = 130
TERMINATED = 143
SWITCH_INTERVAL_S = 0.0005

# A slide that cannot be read is an error of that slide, not of the command.
SLIDE_PATH = click.Path(readable=False, path_type=Path)

CONVERT_EXAMPLES = """
\b
Examples:
  coverslip convert slide.svs -o out
  coverslip convert *.svs -o out --json > results.jsonl
  coverslip convert slide.svs -o out --include label,overview,thumbnail
  coverslip convert slide.tif -o out --mpp 0.25 --codec jpeg:90:444
  coverslip convert slide.svs -o out --set PatientID=P1 --set StudyID=E7
  coverslip convert TCGA-*.svs -o out --metadata slides.csv --map tcga
  coverslip convert slide.svs -o out --dry-run
  coverslip convert -o out -- -odd-name.svs
"""

INFO_EXAMPLES = """
\b
Examples:
  coverslip info slide.svs
  coverslip info slide.svs --json
"""


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="coverslip")
def cli() -> None:
    """Convert whole slide images to multi-resolution DICOM, losslessly wherever their bytes allow.

    \b
    Exit codes: 0 all well, 1 unexpected, 2 usage, 3 a slide cannot be read,
    4 encoding, 5 validation, 6 output or store, 7 catalog, 130 interrupted.
    With several slides: that of the worst.
    """  # noqa: D301 - click reads the backspace character


cli.add_command(map_group)
cli.add_command(attach)
cli.add_command(cohort_group)
cli.add_command(facets)
cli.add_command(search)
cli.add_command(deid_group)
cli.add_command(formats)
cli.add_command(index)
cli.add_command(remap)
cli.add_command(validate)
cli.add_command(serve)
cli.add_command(upload)
cli.add_command(handover)
cli.add_command(retract)
cli.add_command(init)
cli.add_command(run)
cli.add_command(status)
cli.add_command(collect)


def main() -> NoReturn:
    """Run the command line and exit."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a name must not end a batch.
            stream.reconfigure(errors="backslashreplace")
    try:
        code = cli.main(prog_name="coverslip", standalone_mode=False)
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted: nothing half-written was left", err=True)
        code = INTERRUPTED
    except CoverslipError as error:
        click.echo(f"error: {_one_line(str(error))}", err=True)
        code = error.exit_code
    except OSError as error:
        # Every other one has been told already. Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            click.echo(f"error: standard output cannot be written: {error.strerror}", err=True)
        code = 1
    sys.exit(code or 0)


@cli.command(epilog=INFO_EXAMPLES, short_help="Say what a slide holds and what would become of it.")
@click.argument("slide", type=SLIDE_PATH)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
def info(slide: Path, as_json: bool) -> None:
    """Say what SLIDE holds, level by level, and what a conversion would copy bit for bit or encode, and why."""
    from coverslip.converter.describe import describe_slide, print_description

    try:
        description = describe_slide(slide)
    except Exception as caught:  # noqa: BLE001 - the last place to tell it in one line
        error = _as_coverslip_error(caught)
        _print_error(slide, error)
        raise click.exceptions.Exit(error.exit_code) from None
    if as_json:
        click.echo(json.dumps({"slide": os.fspath(slide), **description}, indent=2))
    else:
        click.echo(display_name(slide))
        print_description(description)


@cli.command(epilog=CONVERT_EXAMPLES, short_help="Convert slides to DICOM series.")
@click.argument("slides", metavar="SLIDE...", nargs=-1, required=True, type=SLIDE_PATH)
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for the series."
)
@convert_arguments
@click.option("--workers", type=click.IntRange(1, 256), help="Threads; default: the cores this process may use.")
@click.option("--overwrite", is_flag=True, help="Replace a series that is already there.")
@click.option("--replaces", metavar="UID", help="Series that this one corrects; noted in conversion.json.")
@click.option("--reason", metavar="TEXT", help="With --replaces: why; noted in conversion.json.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per slide and line on standard output.")
def convert(slides: tuple[Path, ...], dry_run: bool, as_json: bool, **options: Any) -> None:
    """Convert each SLIDE to OUT/<StudyInstanceUID>/<SeriesInstanceUID>/<SOPInstanceUID>.dcm.

    Stored frames are copied bit for bit where DICOM allows. A series appears only when it is complete and checked; one
    that is already there is left as it is. A slide that fails does not stop the others.
    """
    # Read when numpy is loaded: its linear algebra, which nothing here uses, would start threads that spin for a while.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Threads that need Python for some microseconds between decoding and encoding shall not wait 5 ms for it.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    from coverslip.converter.source_digest import DigestAhead

    # Of the first slide while the libraries load, which leaves a core idle; of the others while they are opened.
    ahead = DigestAhead(slides[0])
    from coverslip.converter.convert import convert_slide, plan_conversion

    make_request = request_maker(options)
    worst = 0
    for slide in slides:
        try:
            with ahead if slide is slides[0] else nullcontext() as begun, _progress_bar(slide) as on_pixels:
                request = make_request(slide)
                warnings = _metadata_warnings(request)
                if dry_run:
                    result = plan_conversion(request, ahead=begun)
                else:
                    result = convert_slide(request, on_pixels, ahead=begun)
        except Exception as caught:  # noqa: BLE001 - no slide may stop the others
            error = _as_coverslip_error(caught)
            worst = max(worst, error.exit_code)
            _print_error(slide, error)
            if as_json:
                failure = {"class": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
                click.echo(json.dumps({"slide": os.fspath(slide), "status": "failed", "error": failure}))
            continue
        for warning in warnings:
            click.echo(f"warning: {display_name(slide)}: {_one_line(warning)}", err=True)
        if as_json:
            found = {**_result_as_json(slide, result, dry_run), "metadata_warnings": len(warnings)}
            click.echo(json.dumps(found))
        else:
            _print_result(slide, result, dry_run)
    if worst:
        raise click.exceptions.Exit(worst)


def display_name(path: Path) -> str:
    """Return a path on one line, whatever characters it holds."""
    return _one_line(os.fsdecode(path))


def _one_line(text: str) -> str:
    """Return a text with line ends, control characters and undecodable bytes escaped."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )


def _as_coverslip_error(error: Exception) -> CoverslipError:
    """Return an error as it is told: one that nobody foresaw without its text, which may come from the slide."""
    if isinstance(error, CoverslipError):
        return error
    if isinstance(error, MemoryError):
        return CoverslipError("the memory does not suffice; --workers 1 and a smaller --memory take less")
    import traceback

    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(place.filename).name}, line {place.lineno}"
    return CoverslipError(f"unexpected {type(error).__name__} in {where}: a fault of coverslip, please report it")


def _print_error(slide: Path, error: CoverslipError) -> None:
    click.echo(f"error: {display_name(slide)}: {_one_line(str(error))}", err=True)


def _metadata_warnings(request: ConversionRequest) -> tuple[str, ...]:
    if request.mapped is None:
        return ()
    from coverslip.metadata_maps.join import warning_texts

    return warning_texts(request.mapped)


@contextmanager
def _progress_bar(slide: Path) -> Iterator[Callable[[int, int], None] | None]:
    """Show progress on standard error where somebody is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(display_name(Path(slide.name)), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _result_as_json(slide: Path, result: ConversionResult, dry_run: bool) -> dict[str, Any]:
    from coverslip.converter.result_file import series_as_json

    return {
        "slide": os.fspath(slide),
        "status": _status(result, dry_run),
        "format": result.format_name,
        "source_sha256": result.source_sha256,
        "series": [{"folder": str(series.folder), **series_as_json(series)} for series in result.series],
        "timings_s": dict(result.timings_s),
    }


def _status(result: ConversionResult, dry_run: bool) -> str:
    if dry_run:
        return "planned"
    return "already there" if all(series.already_there for series in result.series) else "converted"


def _print_result(slide: Path, result: ConversionResult, dry_run: bool) -> None:
    """Print what was written, a line per instance, and the findings."""
    click.echo(f"{display_name(slide)}: {_status(result, dry_run)}")
    for series in result.series:
        click.echo(f"  {display_name(series.folder)}")
        for instance in series.instances:
            size = f", {instance.size_bytes / 1e6:.2f} MB" if instance.size_bytes is not None else ""
            click.echo(
                f"    {instance.image_flavor.lower():9} {instance.total_pixel_matrix_columns} x "
                f"{instance.total_pixel_matrix_rows}, {instance.number_of_frames} "
                f"{'frame' if instance.number_of_frames == 1 else 'frames'} of "
                f"{instance.columns} x {instance.rows}{size}: {instance.origin}"
            )
        for unused in series.unused_levels:
            click.echo(f"    unused: {unused}")
        for finding in series.findings:
            place = f" ({finding.place})" if finding.place else ""
            click.echo(f"    {finding.severity.lower()}: {finding.message}{place} [{finding.rule}]")
        if series.validation is not None:
            click.echo(f"    {_told(series.validation)}")
    if result.timings_s and _status(result, dry_run) == "converted":
        click.echo(f"  {result.timings_s['total']:.2f} s")


def _told(validation: ValidationSummary) -> str:
    """Say what came of the validation of a series that has passed it."""
    from coverslip.validators.report import Severity
    from coverslip.validators.rules import RULES

    warnings = [rule for rule in validation.counts if RULES[rule].severity is Severity.WARNING]
    how = "every frame decoded" if validation.mode == "thorough" else "a sample of frames decoded"
    return f"validated, {how}: {f'warnings of {", ".join(warnings)}' if warnings else 'no errors or warnings'}"


def _terminate(_number: int, _frame: object) -> NoReturn:
    """Leave as Ctrl-C does, through every context manager, so that nothing half-written stays."""
    sys.exit(TERMINATED)


if __name__ == "__main__":
    main()
