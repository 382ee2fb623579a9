"""Metrics that a run sends, and that it neither sends nor loads anything unless it is asked to."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from tests.pipeline.conftest import ENVIRONMENT, Collection
from tests.stores.fakes.http_server import FakeServer, Request, Response

from coverslip.pipeline.telemetry import metrics_are_wanted, open_telemetry

LOADED = (
    "import json, sys\n"
    "from coverslip.cli import cli\n"
    "assert cli.main(sys.argv[1:], standalone_mode=False) == 3\n"
    "print(json.dumps([name for name in sys.modules if name.startswith('opentelemetry')]))\n"
)


class Receiver(FakeServer):
    """Takes metrics over OTLP/HTTP."""

    def __init__(self) -> None:
        self.taken: list[ExportMetricsServiceRequest] = []
        self.headers: list[str | None] = []
        super().__init__()

    def answer(self, request: Request) -> Response:
        assert (request.method, request.path) == ("POST", "/v1/metrics")
        body = request.read_all()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.headers.append(request.headers.get("X-Key"))
        self.taken.append(ExportMetricsServiceRequest.FromString(body))
        return Response(200, b"", {"Content-Type": "application/x-protobuf"})

    def values(self) -> dict[str, dict[str, float]]:
        """Return the last value of each metric by its attributes; of a histogram how many it has counted."""
        found: dict[str, dict[str, float]] = {}
        for resource in self.taken[-1].resource_metrics:
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points = getattr(metric, metric.WhichOneof("data")).data_points
                    for point in points:
                        name = " ".join(each.value.string_value for each in point.attributes)
                        value = point.count if hasattr(point, "count") else point.as_int or point.as_double
                        found.setdefault(metric.name, {})[name] = value
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def test_run_tells_slides_stages_bytes_and_failures(mixed: Collection, receiver: Receiver) -> None:
    done = mixed.run("--json", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, OTEL_EXPORTER_OTLP_HEADERS="x-key=k1",
                     OTEL_RESOURCE_ATTRIBUTES="deployment.environment=test",
                     OTEL_EXPORTER_OTLP_COMPRESSION="gzip")  # fmt: skip
    assert done.told["done"] == 3
    values = receiver.values()
    assert values["coverslip.slides"] == {"begun": 5, "done": 3, "failed": 2}
    assert values["coverslip.failures"] == {
        "convert CorruptSourceError": 1,
        "convert UnsupportedSourceError": 1,
    }
    assert values["coverslip.stage.duration"] == {
        "fetch": 5,
        "convert": 3,
        "upload": 3,
        "verify": 3,
        "index": 3,
    }
    stored = sum(path.stat().st_size for path in mixed.store.rglob("*.dcm"))
    assert values["coverslip.stage.bytes"]["convert"] == values["coverslip.stage.bytes"]["upload"] == stored
    assert values["coverslip.slides.running"] == {"": 0}
    resource = {
        each.key: each.value.string_value for each in receiver.taken[-1].resource_metrics[0].resource.attributes
    }
    assert resource["service.name"] == "coverslip"
    assert resource["deployment.environment"] == "test"
    assert set(receiver.headers) == {"k1"}
    sent = b"".join(each.SerializeToString() for each in receiver.taken)
    assert not any(name in sent for name in (b"good-", b"cut-off", str(mixed.place).encode()))


def test_nothing_is_loaded_or_sent_unless_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "none.svs").write_bytes(b"")
    arguments = ["run", tmp_path, "--work", tmp_path / "work", "--stages", "convert", "--log-format", "plain"]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *map(str, arguments)],
        env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "0 of 1 slides done, 1 failed" in done.stdout
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_receiver_that_does_not_answer_is_not_waited_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        telemetry = open_telemetry()
        assert telemetry is not None
        telemetry.slides.add(1, {"state": "done"})
        start = time.monotonic()
        telemetry.close()
        assert time.monotonic() - start < 6


def test_receiver_that_is_not_there_is_told_of_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    telemetry = open_telemetry()
    assert telemetry is not None
    telemetry.slides.add(1, {"state": "done"})
    telemetry.close()
    assert capsys.readouterr().err == "warning: metrics do not reach their receiver; the work goes on\n"


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://localhost:4318/v1/metrics"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_METRICS_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_METRICS_EXPORTER": "console,otlp"}, True),
    ],
)
def test_standard_variables_turn_metrics_on_and_off(environment: dict[str, str], wanted: bool) -> None:
    assert metrics_are_wanted(environment) is wanted
