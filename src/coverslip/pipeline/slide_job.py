"""The whole chain of one slide, read top to bottom: fetch, convert, validate, upload, verify, index, clean up."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from coverslip.errors import SourceError, ValidationFailedError
from coverslip.pipeline.failures import Problem
from coverslip.pipeline.fetch import Fetcher, is_remote
from coverslip.pipeline.ledger import Kind, Ledger, Stage, State, Task
from coverslip.pipeline.manifest import Slide
from coverslip.pipeline.run_plan import RunPlan, named_path, recipe_of, request_for, with_place

if TYPE_CHECKING:
    from types import TracebackType

    from coverslip.converter.request import ConversionRequest
    from coverslip.stores.base import Store

__all__ = ["SlideEnded", "SlideEvent", "SlideJob", "StageEnded", "StageStarted", "Workshop", "run_slide"]

_RECORD_FILE = "conversion.json"


@dataclass(frozen=True, slots=True)
class SlideJob:
    """One slide to be worked on.

    Parameters
    ----------
    slide : Slide
    threads : int
    converted : tuple of str
        Folders of its series below the output folder, if an earlier run has made them by the recipe `recipe`.
    recipe : str
        By which earlier runs have done what is in `done`.
    done : frozenset of Stage
        What need not be done again.
    in_place : bool
        Whether it is read where it lies and not brought here.
    """

    slide: Slide
    threads: int = 1
    converted: tuple[str, ...] = ()
    recipe: str = ""
    done: frozenset[Stage] = frozenset()
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class StageStarted:
    """A stage of a slide has begun."""

    key: str
    stage: Stage
    recipe: str = ""


@dataclass(frozen=True, slots=True)
class StageEnded:
    """A stage of a slide is done.

    Parameters
    ----------
    size_bytes : int or None
        Fetched, written or sent.
    digest : str
        Of the bytes that the stage was about.
    location : str
        Of the series, below the output folder; of the stage CONVERT.
    """

    key: str
    stage: Stage
    recipe: str
    seconds: float
    size_bytes: int | None = None
    digest: str = ""
    location: str = ""


@dataclass(frozen=True, slots=True)
class SlideEnded:
    """A slide is done or has failed; nothing of it is under way any more.

    Parameters
    ----------
    stage : Stage
        The one that failed, or the last.
    problem : Problem or None
    peak_bytes : int
        The most memory that the process had meanwhile; 0 if that is not known.
    """

    key: str
    stage: Stage
    recipe: str
    problem: Problem | None = None
    seconds: float = 0.0
    peak_bytes: int = 0


type SlideEvent = StageStarted | StageEnded | SlideEnded


class Workshop:
    """What a process needs to work on slides, opened when it is first used: requests, stores, ledger."""

    def __init__(self, plan: RunPlan) -> None:
        self.plan = plan
        self.fetcher = Fetcher(plan.fetching)
        self._stack = ExitStack()
        self._stack.callback(self.fetcher.close)
        self._make_request: Callable[[Path], ConversionRequest] | None = None
        self._stores: list[Store] | None = None
        self._ledger: Ledger | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def request_for(self, slide: Slide) -> ConversionRequest:
        """Return how a slide is to be converted."""
        if self._make_request is None:
            self._make_request = self.plan.make_requests()
        return request_for(slide, self._make_request)

    @property
    def stores(self) -> list[Store]:
        """The stores that series are delivered to."""
        if self._stores is None:
            assert self.plan.open_stores is not None
            self._stores = self._stack.enter_context(self.plan.open_stores())
        return self._stores

    @property
    def ledger(self) -> Ledger:
        """What is known of series and instances in stores."""
        if self._ledger is None:
            self._ledger = self._stack.enter_context(Ledger(self.plan.ledger_file))
        return self._ledger


@dataclass(slots=True)
class _Facts:
    """What a stage has to tell when it is done."""

    size_bytes: int | None = None
    digest: str = ""
    location: str = ""
    seconds: float | None = None


@dataclass(slots=True)
class _Chain:
    """One slide on its way."""

    job: SlideJob
    shop: Workshop
    tell: Callable[[SlideEvent], None]
    recipe: str = ""
    stage: Stage = Stage.FETCH
    folders: list[Path] = field(default_factory=list)

    @property
    def slide(self) -> Slide:
        return self.job.slide

    @contextlib.contextmanager
    def step(self, stage: Stage) -> Iterator[_Facts]:
        """Tell that a stage begins, and that it is done."""
        self.stage = stage
        self.tell(StageStarted(self.slide.key, stage, self.recipe))
        facts, start = _Facts(), time.perf_counter()
        yield facts
        seconds = facts.seconds if facts.seconds is not None else time.perf_counter() - start
        self.tell(
            StageEnded(
                self.slide.key, stage, self.recipe, round(seconds, 4), facts.size_bytes, facts.digest, facts.location
            )
        )


def run_slide(job: SlideJob, shop: Workshop, tell: Callable[[SlideEvent], None]) -> SlideEnded:
    """Work on one slide, from what is done already to the end; whatever happens to it is told and not raised.

    May be killed at any instant and called again: what is half done is done again, and gives the same bytes.
    """
    chain = _Chain(job, shop, tell)
    start = time.perf_counter()
    reset_peak_memory()
    problem = None
    try:
        _run_chain(chain)
    except Exception as error:  # noqa: BLE001 - no slide may stop the others
        problem = Problem.of(error, _names_of(chain))
        if isinstance(error, ValidationFailedError) and chain.stage is Stage.CONVERT:
            chain.stage = Stage.VALIDATE  # made within the conversion, before anything gets its name
        _keep_rejected(chain)
    finally:
        shutil.rmtree(shop.plan.scratch_of(job.slide) / "source", ignore_errors=True)
    ended = SlideEnded(
        job.slide.key,
        chain.stage,
        chain.recipe,
        problem,
        round(time.perf_counter() - start, 4),
        peak_memory(),
    )
    tell(ended)
    return ended


def _run_chain(chain: _Chain) -> None:
    plan, slide = chain.shop.plan, chain.slide
    request = chain.shop.request_for(slide)
    chain.recipe = recipe_of(slide, request)
    done = chain.job.done if chain.job.recipe == chain.recipe else frozenset()
    chain.folders = _folders_left(chain) if Stage.CONVERT in done else []
    if not chain.folders:
        done = frozenset()
        if Stage.CONVERT not in plan.stages:
            raise SourceError("has not been converted by these options, expected a run with the stage convert before")
        _convert(chain, request)
    if Stage.VALIDATE in plan.stages and Stage.VALIDATE not in done:
        _validate(chain)
    if Stage.UPLOAD in plan.stages and Stage.VERIFY not in done:
        _upload(chain)
    if Stage.INDEX in plan.stages:
        _index(chain)
    if plan.delivers:
        shutil.rmtree(plan.scratch_of(slide), ignore_errors=True)


def _folders_left(chain: _Chain) -> list[Path]:
    """Return the folders of the series that an earlier run has made, if all of them are still whole."""
    from coverslip.converter.result_file import is_complete

    plan = chain.shop.plan
    outputs = dict.fromkeys((plan.output_of(chain.slide), plan.kept_folder, plan.scratch_of(chain.slide) / "series"))
    for output in outputs:
        folders = [output / name for name in chain.job.converted]
        whole = [folder.is_dir() and is_complete(folder, _instances_told(folder)) for folder in folders]
        if folders and all(whole):
            return folders
        for folder, is_whole in zip(folders, whole, strict=True):
            if not is_whole:
                shutil.rmtree(folder, ignore_errors=True)  # else nothing could be written there
    return []


def _instances_told(folder: Path) -> list[str]:
    try:
        return [str(instance["file_name"]) for instance in _read_record(folder)["instances"]]
    except (OSError, ValueError, KeyError, TypeError):
        return [_RECORD_FILE]


def _convert(chain: _Chain, request: ConversionRequest) -> None:
    """Fetch a slide and convert it; with its validation, which compares it with the slide while that is open."""
    from coverslip.converter.convert import convert_slide

    plan, slide = chain.shop.plan, chain.slide
    scratch = plan.scratch_of(slide)
    ranges = None
    with chain.step(Stage.FETCH) as facts:
        if chain.job.in_place:
            ranges = chain.shop.fetcher.open_ranges(slide)
            path = scratch / "source" / named_path(slide).name  # its name; there is no such file
        else:
            path = chain.shop.fetcher.fetch(slide, scratch / "source")
        facts.size_bytes = slide.size_bytes
    output = plan.output_of(slide)
    wanted = with_place(request, path, output, chain.job.threads, validate=Stage.VALIDATE in plan.stages)
    wanted = replace(wanted, ranges=ranges)
    with chain.step(Stage.CONVERT) as facts:
        result = convert_slide(wanted)
        chain.folders = [series.folder for series in result.series]
        facts.location = " ".join(folder.relative_to(output).as_posix() for folder in chain.folders)
        facts.size_bytes, facts.digest = _written(chain.folders)
        facts.seconds = max(0.0, result.timings_s.get("total", 0.0) - result.timings_s.get("validate", 0.0))
    if is_remote(slide):
        shutil.rmtree(scratch / "source", ignore_errors=True)


def _written(folders: list[Path]) -> tuple[int, str]:
    """Return how many bytes series have, and one digest of them all."""
    from coverslip.uuids import merkle_md5

    instances = [instance for folder in folders for instance in _read_record(folder)["instances"]]
    return sum(int(each["size_bytes"]) for each in instances), merkle_md5(str(each["md5"]) for each in instances)


def _read_record(folder: Path) -> Mapping[str, Any]:
    record: Mapping[str, Any] = json.loads((folder / _RECORD_FILE).read_text(encoding="utf-8"))
    return record


def _validate(chain: _Chain) -> None:
    """Take over what conversion has found, or validate now; and have deliveries know of it."""
    with chain.step(Stage.VALIDATE) as facts:
        seconds = 0.0
        for folder in chain.folders:
            record = _read_record(folder)
            if record.get("validation"):  # a series that fails does not get its name
                seconds += float((record.get("timings_s") or {}).get("validate", 0.0))
            else:
                seconds += _validate_folder(folder, chain.job.threads)
            _note_validated(chain, folder)
        facts.seconds = seconds
        _, facts.digest = _written(chain.folders)


def _validate_folder(folder: Path, threads: int) -> float:
    """Validate a series that an earlier run has made without; its slide is not here to be compared with."""
    from coverslip.validators.report import Severity, count_rules
    from coverslip.validators.series import find_series, local_files
    from coverslip.validators.validate import ValidationOptions, validate_found

    start = time.perf_counter()
    found, unreadable = find_series(local_files([folder]))
    reports = validate_found(found, ValidationOptions(workers=threads))
    findings = [*unreadable, *(each for report in reports for each in report.findings)]
    errors = count_rules(each for each in findings if each.severity is Severity.ERROR)
    if errors:
        raise ValidationFailedError(f"the series fails its validation: {', '.join(list(errors)[:5])}")
    return time.perf_counter() - start


def _note_validated(chain: _Chain, folder: Path) -> None:
    """Write down that a series has passed, for these bytes, where a delivery looks for it."""
    if Stage.UPLOAD not in chain.shop.plan.stages:
        return
    size_bytes, digest = _written([folder])
    task = Task(Kind.SERIES, folder.name, Stage.VALIDATE, parent=chain.slide.key)
    chain.shop.ledger.start(task, digest=digest, size_bytes=size_bytes)
    chain.shop.ledger.finish(task, State.DONE)


def _upload(chain: _Chain) -> None:
    """Send what is not in the stores yet, and ask them what arrived."""
    from coverslip.pipeline.delivery import send_series, verify_series

    with chain.step(Stage.UPLOAD) as facts:
        facts.size_bytes = send_series(chain.shop, chain.folders)
        _, facts.digest = _written(chain.folders)
    with chain.step(Stage.VERIFY) as facts:
        facts.size_bytes = verify_series(chain.shop, chain.folders)
        _, facts.digest = _written(chain.folders)


def _index(chain: _Chain) -> None:
    """Write the rows for the catalog; the stage is done once they are merged, for many slides at once."""
    from coverslip.pipeline.catalog_parts import write_slide_part

    chain.stage = Stage.INDEX
    chain.tell(StageStarted(chain.slide.key, Stage.INDEX, chain.recipe))
    write_slide_part(chain.shop, chain.slide, chain.folders)


def _keep_rejected(chain: _Chain) -> None:
    """Keep a series that did not pass its validation, with its report, and nothing else."""
    from coverslip.converter.staging import QUARANTINE_FOLDER

    plan = chain.shop.plan
    output = plan.output_of(chain.slide)
    kept = plan.kept_folder / QUARANTINE_FOLDER
    if output == plan.kept_folder or not (output / QUARANTINE_FOLDER).is_dir():
        return
    kept.mkdir(parents=True, exist_ok=True)
    for folder in (output / QUARANTINE_FOLDER).iterdir():
        shutil.rmtree(kept / folder.name, ignore_errors=True)
        with contextlib.suppress(OSError):
            folder.rename(kept / folder.name)


def _names_of(chain: _Chain) -> dict[str, str]:
    """Return what may not be told of a slide, and what is told instead."""
    slide, plan = chain.slide, chain.shop.plan
    path = named_path(slide)
    names = {slide.location, slide.name, str(path), path.name, path.stem, str(plan.scratch_of(slide))}
    return {name: "slide" for name in names if len(name) > 1} | {str(plan.work): "work"}


def reset_peak_memory() -> None:
    """Let the most memory of this process count from now on, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def peak_memory() -> int:
    """Return the most bytes of memory that this process had."""
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0
