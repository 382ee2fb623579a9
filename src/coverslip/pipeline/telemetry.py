"""Metrics of a run for OpenTelemetry, when its standard variables say where to: else nothing of it is loaded.

``OTEL_EXPORTER_OTLP_ENDPOINT`` or ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`` turns them on; all other ``OTEL_`` variables
of the SDK and its OTLP exporter over HTTP hold too. Metrics carry stages, states and classes of errors, and name no
slide.

Reference: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from coverslip import __version__
from coverslip.errors import MissingDependencyError
from coverslip.pipeline.log_lines import JsonLines, PlainLines, wants_json
from coverslip.pipeline.progress import Reporter

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics import MeterProvider

    from coverslip.pipeline.engine import RunOutcome
    from coverslip.pipeline.failures import Problem
    from coverslip.pipeline.journal import Standing
    from coverslip.pipeline.ledger import Stage
    from coverslip.pipeline.manifest import Slide

__all__ = ["MeteredReporter", "Telemetry", "metrics_are_wanted", "open_telemetry"]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_CLOSING_S = 2.0
_SECONDS = (0.1, 0.3, 1, 3, 10, 30, 60, 120, 300, 600, 1200, 3600, 7200)


def metrics_are_wanted(environment: Mapping[str, str]) -> bool:
    """Whether variables say where metrics go, and none says that there shall be none."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if "otlp" not in environment.get("OTEL_METRICS_EXPORTER", "otlp").split(","):
        return False
    return any(environment.get(name) for name in _ENDPOINTS)


def open_telemetry(environment: Mapping[str, str] | None = None) -> Telemetry | None:
    """Return what sends metrics as the variables of the environment say; None if they say nothing.

    Raises
    ------
    MissingDependencyError
        If metrics are wanted and the extra is not installed.
    """
    if not metrics_are_wanted(os.environ if environment is None else environment):
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.resources import Resource
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "opentelemetry":
            raise
        raise MissingDependencyError(
            "OTEL_ variables ask for metrics, which need opentelemetry: pip install 'coverslip[telemetry]'"
        ) from error
    own = {"service.version": __version__}
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        own["service.name"] = "coverslip"
    logger = logging.getLogger("opentelemetry")
    logger.handlers, logger.propagate = [_TellOnce()], False
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    # No hook at exit: what is left is sent when the run ends, within a time that SIGTERM leaves.
    return Telemetry(MeterProvider([reader], resource=Resource.create(own), shutdown_on_exit=False))


class _TellOnce(logging.Handler):
    """Tells once that metrics do not arrive, in place of what the exporter says each time."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._told = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if not self._told:
            self._told = True
            lines = JsonLines(sys.stderr, {}) if wants_json("auto", sys.stderr) else PlainLines(sys.stderr)
            lines.write("WARNING", "metrics do not reach their receiver; the work goes on")


class Telemetry:
    """The instruments of this process.

    Parameters
    ----------
    provider : MeterProvider
        Owned: closed by `close`.
    """

    def __init__(self, provider: MeterProvider) -> None:
        self._provider = provider
        meter: Meter = provider.get_meter("coverslip", __version__)
        self.slides = meter.create_counter(
            "coverslip.slides", "{slide}", "Slides by state: begun, done, failed, again."
        )
        self.failures = meter.create_counter(
            "coverslip.failures", "{failure}", "Failures by stage and class, also those that were tried again."
        )
        self.bytes = meter.create_counter("coverslip.stage.bytes", "By", "Bytes fetched, written, sent and compared.")
        self.duration = meter.create_histogram(
            "coverslip.stage.duration", "s", "Of one slide.", explicit_bucket_boundaries_advisory=_SECONDS
        )
        self.running = meter.create_up_down_counter("coverslip.slides.running", "{slide}", "Slides under way.")

    def close(self) -> None:
        """Send what is left; a receiver that does not answer is not waited for long."""
        # The exporter goes on trying for longer than it is told to, and longer than SIGTERM leaves.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSING_S)


class MeteredReporter(Reporter):
    """Counts for OpenTelemetry what another reporter shows.

    Parameters
    ----------
    shown : Reporter
    telemetry : Telemetry
    owns : bool
        Whether `telemetry` is closed with this reporter.
    """

    def __init__(self, shown: Reporter, telemetry: Telemetry, *, owns: bool = True) -> None:
        super().__init__()
        self.tally = shown.tally
        self._shown = shown
        self._telemetry = telemetry
        self._owns = owns
        self._running: set[str] = set()

    def begin(self, outcome: RunOutcome, standings: Iterable[Standing]) -> None:
        """Tell that a run begins."""
        self._shown.begin(outcome, standings)
        self.tally = self._shown.tally

    def started(self, slide: Slide, attempt: int) -> None:
        """Count a slide that is begun."""
        self._shown.started(slide, attempt)
        self._running.add(slide.key)
        self._telemetry.running.add(1)
        self._telemetry.slides.add(1, {"state": "begun"})

    def stage(self, slide: Slide, stage: Stage) -> None:
        """Tell that a stage of a slide is begun."""
        self._shown.stage(slide, stage)

    def stage_done(self, slide: Slide, stage: Stage, seconds: float, size_bytes: int | None) -> None:
        """Count what a stage took."""
        self._shown.stage_done(slide, stage, seconds, size_bytes)
        self._telemetry.duration.record(seconds, {"stage": str(stage)})
        if size_bytes:
            self._telemetry.bytes.add(size_bytes, {"stage": str(stage)})

    def waits(self, slide: Slide) -> None:
        """Tell that a slide is done but for what is done for many at once."""
        self._shown.waits(slide)
        self._ended(slide)

    def done(self, slide: Slide, seconds: float) -> None:
        """Count a slide that is done."""
        self._shown.done(slide, seconds)
        self._ended(slide)
        self._telemetry.slides.add(1, {"state": "done"})

    def failed(self, slide: Slide, stage: Stage, problem: Problem, *, final: bool) -> None:
        """Count what failed."""
        self._shown.failed(slide, stage, problem, final=final)
        self._ended(slide)
        self._telemetry.slides.add(1, {"state": "failed" if final else "again"})
        self._telemetry.failures.add(1, {"stage": str(stage), "error.type": problem.error_class})

    def tick(self) -> None:
        """Be given the chance to show something."""
        self._shown.tick()

    def end(self, outcome: RunOutcome) -> None:
        """Tell that the run has ended."""
        self._shown.end(outcome)

    def close(self) -> None:
        """Send what is left, and let go of the terminal."""
        self._shown.close()
        for _ in self._running:
            self._telemetry.running.add(-1)
        self._running.clear()
        if self._owns:
            self._telemetry.close()

    def _ended(self, slide: Slide) -> None:
        if slide.key in self._running:
            self._running.discard(slide.key)
            self._telemetry.running.add(-1)
