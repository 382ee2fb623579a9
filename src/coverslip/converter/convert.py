"""The whole job of one slide, read top to bottom."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from coverslip.converter.request import ConversionRequest, ConversionResult, InstanceResult, SeriesResult
from coverslip.converter.result_file import is_complete, source_as_json, write_result_file
from coverslip.converter.series_plan import (
    InstancePlan,
    PixelPlan,
    SeriesPlan,
    associated_encoder,
    plan_pixels,
    plan_series,
)
from coverslip.converter.source_digest import DigestAhead, FileIdentity, digest_files, file_identity
from coverslip.converter.sources import open_slide
from coverslip.converter.staging import io_errors, publish_folder, remove_abandoned_work, staged_folder
from coverslip.converter.validation import leave_quarantine, quarantine, summarize, validate_conversion
from coverslip.errors import CorruptSourceError, SourceError, StoreError, ValidationFailedError
from coverslip.tiler.budget import DEFAULT_MEMORY
from coverslip.tiler.encode import FrameRun, Workload, encode_pyramid
from coverslip.tiler.run_ahead import RunAhead

if TYPE_CHECKING:
    from coverslip.converter.instance_writer import InstanceWriter
    from coverslip.converter.sources.base import SlideSource

__all__ = ["convert_slide", "plan_conversion"]


def convert_slide(
    request: ConversionRequest,
    on_pixels: Callable[[int, int], None] | None = None,
    *,
    ahead: DigestAhead | None = None,
) -> ConversionResult:
    """Convert one slide to one DICOM series for each region it holds.

    Parameters
    ----------
    request : ConversionRequest
    on_pixels : callable, optional
        Told (pixels done, pixels in all) now and then.
    ahead : DigestAhead, optional
        The slide's digest, where it was begun before this was called.

    Returns
    -------
    ConversionResult
        Everything is in place and checked when this returns. A series that is already there, whole, is left as it is.

    Raises
    ------
    SourceError, EncodingError, StoreError, ValidationFailedError
        Nothing is left behind under a final name; a series that fails its validation is in quarantine.
    """
    clock = _Clock()
    with io_errors(SourceError, "slide cannot be read"), open_slide(request.path) as source, ExitStack() as work:
        ahead = ahead or work.enter_context(DigestAhead(source.files[0]))
        before = _fingerprint(source)
        pixels = plan_pixels(source, request)
        progress = _Progress(sum(plan.work_pixels() for plan in pixels), on_pixels)
        clock.lap("open")
        # Frames depend on no name, so they are made while the digest, which names everything, is still computed.
        first = work.enter_context(_Pass(pixels[0], request, progress))
        digest = _digest_while_loading(source.files, ahead)
        clock.lap("digest")
        plans = [plan_series(source, each, request, digest) for each in pixels]
        series = []
        with io_errors(StoreError, "series cannot be written"):
            remove_abandoned_work(request.output)
            for index, plan in enumerate(plans):
                if plan.folder.exists() and not request.overwrite:
                    series.append(_accept_existing(plan))
                    continue
                with staged_folder(request.output) as staged, ExitStack() as own:
                    frames = own.enter_context(_Pass(pixels[index], request, progress)) if index else first
                    try:
                        result = _write_series(staged, plan, request, frames)
                    except CorruptSourceError:
                        _require_unchanged(source, before)  # the better explanation
                        raise
                    _require_unchanged(source, before)
                    clock.lap("write")
                    report = validate_conversion(staged, plan, request, source)
                    if report is not None:
                        clock.lap("validate")
                        result = replace(result, validation=summarize(report, request.validate))
                    write_result_file(staged, result, source_as_json(source, digest), clock.laps)
                    if report is not None and not report.passed:
                        raise quarantine(staged, request.output, report)
                    leave_quarantine(request.output, result)
                    if not publish_folder(staged, plan.folder, overwrite=request.overwrite):
                        result = _accept_existing(plan)  # made by another run meanwhile
                    series.append(result)
        return ConversionResult(source.format_name, digest, tuple(series), clock.laps)


def plan_conversion(request: ConversionRequest, *, ahead: DigestAhead | None = None) -> ConversionResult:
    """Say what `convert_slide` would write, without writing anything."""
    with io_errors(SourceError, "slide cannot be read"), open_slide(request.path) as source:
        digest = digest_files(source.files, ahead)
        plans = [plan_series(source, each, request, digest) for each in plan_pixels(source, request)]
        series = tuple(plan.result([instance.result() for instance in plan.instances]) for plan in plans)
        return ConversionResult(source.format_name, digest, series)


def _accept_existing(plan: SeriesPlan) -> SeriesResult:
    """Return the result for a series that an earlier run has made of the same slide with the same options.

    Raises
    ------
    StoreError
        If what is there is not whole.
    """
    if not is_complete(plan.folder, [instance.result().file_name for instance in plan.instances]):
        raise StoreError(f"{plan.folder} is there but not whole, expected a complete series; --overwrite replaces it")
    return plan.result([instance.result() for instance in plan.instances], already_there=True)


def _write_series(staged: Path, plan: SeriesPlan, request: ConversionRequest, work: _Pass) -> SeriesResult:
    """Write all instances of a series into the staging folder; each is checked as soon as it is complete."""
    from coverslip.converter.headers import open_writers

    with ExitStack() as stack, ThreadPoolExecutor(request.workers) as executor:
        writers = open_writers(stack, staged, plan, request)
        checks: dict[int, Future[InstanceResult]] = {}
        # Associated images first: one that cannot be read ends the work before the long part of it.
        for index, frames in chain(_associated_frames(plan), work):
            writers[index].write_frames(frames)
            if writers[index].complete:
                checks[index] = executor.submit(_finish, writers[index], plan.instances[index])
        results = [checks[index].result() for index in sorted(checks)]
    if len(results) != len(plan.instances):
        raise ValidationFailedError(f"{len(results)} instances complete, expected {len(plan.instances)}")
    missing = work.workload.missing_tiles
    results = [
        replace(result, missing_tiles=max(0, missing.get(index, 0) - result.bad_tiles))
        for index, result in enumerate(results)
    ]
    return replace(plan.result(results), replaces=request.replaces)


def _associated_frames(plan: SeriesPlan) -> Iterator[FrameRun]:
    """Yield the one frame of each associated image."""
    for index, instance in enumerate(plan.instances):
        if instance.associated is not None:
            image = instance.associated
            yield FrameRun(index, [associated_encoder(image).encode(image.read())])


def _finish(writer: InstanceWriter, instance: InstancePlan) -> InstanceResult:
    """Close a file, read it back, and return what was written."""
    from coverslip.validators.structure import StructureExpectation, check_structure

    file = writer.finish()
    expected = StructureExpectation(
        instance.sop_instance_uid,
        instance.frame_format.transfer_syntax_uid,
        instance.grid.number_of_frames,
        file.size_bytes,
        file.offset_table,
    )
    check_structure(file.path, expected)
    return replace(
        instance.result(),
        size_bytes=file.size_bytes,
        frame_bytes=file.frame_bytes,
        offset_table=file.offset_table,
        md5=file.md5,
    )


class _Pass(RunAhead[FrameRun]):
    """The pass over one region: under way from the start, closed at the end of its context."""

    def __init__(self, pixels: PixelPlan, request: ConversionRequest, progress: _Progress) -> None:
        self.workload = Workload(request.workers, request.memory_bytes, on_pixels=progress.add)
        runs = encode_pyramid(pixels.source_pyramid.levels, pixels.pyramid, pixels.encoder, self.workload)
        super().__init__(runs, lambda run: sum(map(len, run.frames)), (request.memory_bytes or DEFAULT_MEMORY) // 4)


class _Clock:
    """Seconds between steps."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Add the time since the last lap to `name`."""
        now = time.perf_counter()
        self.laps[name] = round(self.laps.get(name, 0.0) + now - self._last, 4)
        self.laps["total"] = round(now - self._start, 4)
        self._last = now


class _Progress:
    """Pixels done, over all series of a slide."""

    def __init__(self, total: int, on_pixels: Callable[[int, int], None] | None) -> None:
        self._total = total
        self._done = 0
        self._on_pixels = on_pixels

    def add(self, pixels: int) -> None:
        """Count pixels as done and tell."""
        self._done += pixels
        if self._on_pixels is not None:
            self._on_pixels(min(self._done, self._total), self._total)


def _digest_while_loading(paths: Sequence[Path], ahead: DigestAhead) -> str:
    """Return the slide's SHA-256; pydicom, which takes longer to load, is loaded meanwhile."""
    with ThreadPoolExecutor(1) as executor:
        digest = executor.submit(digest_files, paths, ahead)
        import coverslip.converter.headers  # noqa: F401

        return digest.result()


def _fingerprint(source: SlideSource) -> list[FileIdentity]:
    try:
        return [file_identity(path.stat()) for path in source.files]
    except OSError as error:
        raise SourceError(f"the slide's files can no longer be read: {error.strerror}") from error


def _require_unchanged(source: SlideSource, before: list[FileIdentity]) -> None:
    if _fingerprint(source) != before:
        raise SourceError("the slide was changed while it was being converted, expected a file at rest")
