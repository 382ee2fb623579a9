"""What a run tells while it goes on: a live view on a terminal, plain lines elsewhere, JSON lines in containers."""

from __future__ import annotations

import hashlib
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TextIO

from coverslip.pipeline.log_lines import JsonLines, one_line, wants_json

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

    from coverslip.pipeline.engine import RunOutcome
    from coverslip.pipeline.failures import Problem
    from coverslip.pipeline.journal import Standing
    from coverslip.pipeline.ledger import Stage
    from coverslip.pipeline.manifest import Slide

__all__ = ["JsonReporter", "LiveReporter", "PlainReporter", "Reporter", "make_reporter"]

_PLAIN_EVERY_S = 30.0
_LIVE_EVERY_S = 0.25
_MOST_RUNNING = 16


@dataclass(slots=True)
class _Tally:
    """Counts of a run, for whoever shows them."""

    slides: int = 0
    done: int = 0
    done_before: int = 0
    failed: int = 0
    bytes_wanted: int = 0
    bytes_done: int = 0
    start: float = field(default_factory=time.monotonic)
    running: dict[str, tuple[Slide, Stage | None, float]] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    classes: Counter[str] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.start

    @property
    def left_s(self) -> float | None:
        """How long it will take by the bytes of the slides that are done, if that can be said."""
        wanted, done = self.bytes_wanted, self.bytes_done
        if not done or self.seconds < 1:
            return None
        return self.seconds * max(0, wanted - done) / done


class Reporter:
    """Counts what a run tells; subclasses show it. What is shown in logs names slides by key and number only."""

    def __init__(self) -> None:
        self.tally = _Tally()

    def begin(self, outcome: RunOutcome, standings: Iterable[Standing]) -> None:
        """Tell that a run begins."""
        given_up = outcome.failures.keys()
        self.tally = _Tally(
            slides=outcome.slides, done=outcome.done, done_before=outcome.done_before, failed=len(given_up)
        )
        all_bytes = sum(each.slide.size_bytes or 0 for each in standings)
        gone = sum(slide.size_bytes or 0 for slide, _, _ in outcome.failures.values())
        share = outcome.done / outcome.slides if outcome.slides else 0.0
        self.tally.bytes_wanted = max(0, int((all_bytes - gone) * (1 - share)))

    def started(self, slide: Slide, attempt: int) -> None:
        """Tell that a slide is begun."""
        self.tally.running[slide.key] = slide, None, time.monotonic()

    def stage(self, slide: Slide, stage: Stage) -> None:
        """Tell that a stage of a slide is begun."""
        if slide.key in self.tally.running:
            self.tally.running[slide.key] = slide, stage, self.tally.running[slide.key][2]

    def stage_done(self, slide: Slide, stage: Stage, seconds: float, size_bytes: int | None) -> None:
        """Tell what a stage of a slide took."""

    def waits(self, slide: Slide) -> None:
        """Tell that a slide is done but for what is done for many at once."""
        self.tally.running.pop(slide.key, None)
        self.tally.waiting.add(slide.key)
        self.tally.bytes_done += slide.size_bytes or 0

    def done(self, slide: Slide, seconds: float) -> None:
        """Tell that a slide is done."""
        self.tally.running.pop(slide.key, None)
        if slide.key not in self.tally.waiting:
            self.tally.bytes_done += slide.size_bytes or 0
        self.tally.waiting.discard(slide.key)
        self.tally.done += 1

    def failed(self, slide: Slide, stage: Stage, problem: Problem, *, final: bool) -> None:
        """Tell that a stage failed; `final`: the slide is given up."""
        self.tally.running.pop(slide.key, None)
        self.tally.waiting.discard(slide.key)
        if final:
            self.tally.failed += 1
            self.tally.classes[problem.error_class] += 1
            self.tally.bytes_done += slide.size_bytes or 0

    def tick(self) -> None:
        """Be given the chance to show something; called several times a second."""

    def end(self, outcome: RunOutcome) -> None:
        """Tell that the run has ended."""

    def close(self) -> None:
        """Let go of the terminal."""


class PlainReporter(Reporter):
    """Writes a line for each slide that fails, and now and then one for all.

    Parameters
    ----------
    file : TextIO
    name_of : callable
        How a slide is called here.
    """

    def __init__(self, file: TextIO, name_of: Callable[[Slide], str]) -> None:
        super().__init__()
        self._file = file
        self._name_of = name_of
        self._last = time.monotonic()

    def failed(self, slide: Slide, stage: Stage, problem: Problem, *, final: bool) -> None:
        """Write what failed."""
        super().failed(slide, stage, problem, final=final)
        again = "" if final else " (will be tried again)"
        self._print(f"{self._name_of(slide)}: {stage} failed: {problem.error_class}: {problem.message}{again}")

    def tick(self) -> None:
        """Write counts every half minute."""
        if time.monotonic() - self._last >= _PLAIN_EVERY_S:
            self._last = time.monotonic()
            self._print(_counts(self.tally))

    def _print(self, text: str) -> None:
        print(one_line(text), file=self._file, flush=True)


class LiveReporter(Reporter):
    """Shows counts and what is under way, on a terminal."""

    def __init__(self, file: TextIO, name_of: Callable[[Slide], str]) -> None:
        super().__init__()
        self._file = file
        self._name_of = name_of
        self._live: Live | None = None
        self._last = 0.0

    def begin(self, outcome: RunOutcome, standings: Iterable[Standing]) -> None:
        """Open the view."""
        from rich.console import Console
        from rich.live import Live

        super().begin(outcome, standings)
        self._live = Live(self._view(), console=Console(file=self._file), auto_refresh=False, transient=True)
        self._live.start()

    def failed(self, slide: Slide, stage: Stage, problem: Problem, *, final: bool) -> None:
        """Write what failed, above the view."""
        super().failed(slide, stage, problem, final=final)
        if self._live is not None and final:
            line = f"{self._name_of(slide)}: {stage} failed: {problem.error_class}: {problem.message}"
            self._live.console.print(one_line(line), markup=False, highlight=False)

    def tick(self) -> None:
        """Show how things are now."""
        if self._live is not None and time.monotonic() - self._last >= _LIVE_EVERY_S:
            self._last = time.monotonic()
            self._live.update(self._view(), refresh=True)

    def close(self) -> None:
        """Close the view."""
        if self._live is not None:
            self._live.stop()

    def _view(self) -> RenderableType:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        tally = self.tally
        grid = Table.grid(padding=(0, 2))
        now = time.monotonic()
        for slide, stage, since in list(tally.running.values())[:_MOST_RUNNING]:
            grid.add_row(Text(one_line(self._name_of(slide))), Text(stage or "..."), Text(f"{now - since:.0f} s"))
        bar = ProgressBar(total=max(1, tally.slides), completed=tally.done + tally.failed, width=60)
        classes = ", ".join(f"{name} {count}" for name, count in tally.classes.most_common())
        lines: list[RenderableType] = [grid, bar, Text(_counts(tally))]
        if classes:
            lines.append(Text(f"failures: {classes}"))
        return Group(*lines)


class JsonReporter(Reporter):
    """Writes a JSON object per event, as Google Cloud Logging takes them; names slides by key and number.

    Parameters
    ----------
    file : TextIO
    run : str
        Name of the run: with it and the key of a slide, lines of one slide are found over all its attempts.
    labels : dict
        Added to each line, such as the number of a shard.
    trace_id, span_id : str
        That all lines belong to, in hexadecimal; by default the trace is the run's, and each slide a span.
    """

    def __init__(self, file: TextIO, run: str, labels: dict[str, str], trace_id: str = "", span_id: str = "") -> None:
        super().__init__()
        self._lines = JsonLines(file, {"run": run, **labels})
        self._trace_id = trace_id or hashlib.sha256(run.encode()).hexdigest()[:32]
        self._span_id = span_id

    def begin(self, outcome: RunOutcome, standings: Iterable[Standing]) -> None:
        """Write how much there is to do."""
        super().begin(outcome, standings)
        self._write("INFO", f"{outcome.slides} slides, {outcome.done_before} done before", slides=outcome.slides)

    def started(self, slide: Slide, attempt: int) -> None:
        """Write that a slide is begun."""
        super().started(slide, attempt)
        self._write("INFO", "slide begun", slide, attempt=attempt, size_bytes=slide.size_bytes)

    def stage(self, slide: Slide, stage: Stage) -> None:
        """Write that a stage is begun."""
        super().stage(slide, stage)
        self._write("DEBUG", f"{stage} begun", slide, stage=stage)

    def done(self, slide: Slide, seconds: float) -> None:
        """Write that a slide is done."""
        super().done(slide, seconds)
        self._write("INFO", "slide done", slide, seconds=seconds, done=self.tally.done)

    def failed(self, slide: Slide, stage: Stage, problem: Problem, *, final: bool) -> None:
        """Write what failed."""
        super().failed(slide, stage, problem, final=final)
        self._write(
            "ERROR" if final else "WARNING",
            f"{stage} failed: {problem.error_class}: {problem.message}",
            slide,
            stage=stage,
            error_class=problem.error_class,
            final=final,
        )

    def end(self, outcome: RunOutcome) -> None:
        """Write what became of the run."""
        self._write(
            "INFO" if not outcome.exit_code else "ERROR",
            f"{outcome.done} of {outcome.slides} slides done, {len(outcome.failures)} failed, {outcome.left} left",
            exit_code=outcome.exit_code,
        )

    def _write(self, severity: str, message: str, slide: Slide | None = None, **facts: Any) -> None:
        span_id = self._span_id
        if slide is not None:
            span_id = span_id or slide.key[:16]
            facts = {"slide": slide.key, "row": slide.number or None, **facts}
        self._lines.write(severity, message, trace_id=self._trace_id, span_id=span_id, **facts)


def make_reporter(
    log_format: str, run: str, labels: dict[str, str], name_of: Callable[[Slide], str], file: TextIO | None = None
) -> Reporter:
    """Return what shows a run: JSON lines, also by itself in containers, a live view on a terminal, or plain lines."""
    file = file or sys.stderr
    if wants_json(log_format, file):
        return JsonReporter(file, run, labels)
    if log_format == "auto" and file.isatty():
        return LiveReporter(file, name_of)
    return PlainReporter(file, name_of)


def _counts(tally: _Tally) -> str:
    minutes = tally.seconds / 60
    done = tally.done - tally.done_before
    left = tally.left_s
    parts = [
        f"{tally.done} of {tally.slides} slides done",
        *([f"{tally.failed} failed"] if tally.failed else []),
        f"{len(tally.running)} under way",
        *([f"{len(tally.waiting)} wait for the catalog"] if tally.waiting else []),
    ]
    if done and minutes:
        parts.append(f"{done / minutes:.1f} slides a minute, {tally.bytes_done / 1e6 / tally.seconds:.1f} MB/s")
    if left is not None:
        parts.append(f"{_duration(left)} left")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours} h {rest // 60:02} min" if hours else f"{rest // 60} min {rest % 60:02} s"
