"""The server against its own OpenAPI description: generated requests get answers that it tells of, and never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings

from tests.server.conftest import Slide
from tests.server.running import Running


def described(server: Running, slide: Slide) -> dict[str, Any]:
    """Return the description with the UIDs of the slide as examples, so that more than 404 is met."""
    found = server.ask("/openapi.json").json()
    uids = {"study": slide.study, "series": slide.series, "instance": slide.base}
    for path in found["paths"].values():
        for operation in path.values():
            for parameter in operation.get("parameters", ()):
                if parameter["name"] in uids:
                    parameter["schema"] = {"type": "string", "enum": [uids[parameter["name"]], "1.2.3"]}
    return found


def test_every_route_is_described_with_its_failures(server: Running, slide: Slide) -> None:
    found = server.ask("/openapi.json").json()
    assert len(found["paths"]) > 25
    for path, operations in found["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert path.startswith(("/healthz", "/readyz")) or "400" in operation["responses"]
    json.dumps(found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_generated_requests_are_answered_as_described(server: Running, slide: Slide) -> None:
    schema = schemathesis.openapi.from_dict(described(server, slide))
    schema.config.update(base_url=server.url)
    met = set()
    for result in schema.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=6, database=None, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
        )
        @given(case=operation.as_strategy())
        def ask(case: schemathesis.Case) -> None:
            response = case.call(timeout=30, allow_redirects=False)
            met.add(response.status_code)
            expected = case.operation.definition.raw["responses"]
            assert response.status_code < 500, f"{response.status_code} of {case.operation.label}"
            # What is no request of this route, such as a path with a slash in it, may be none of the server's at all.
            assert str(response.status_code) in {*expected, "404", "405"}, f"{response.status_code} of {case.path}"

        ask()
    assert {200, 400, 404} <= met
