from __future__ import annotations

import pytest

from coverslip.catalog.bigquery.place import BigQueryPlace, parse_bytes, parse_place, with_limit
from coverslip.errors import UsageError


def test_a_place_names_project_and_data_set_and_how_they_are_talked_to() -> None:
    assert parse_place("bigquery://my-project.slides", {}) == BigQueryPlace("my-project", "slides")
    place = parse_place("bigquery://example.com:my-project.slides?location=EU&max_bytes_billed=2GB", {})
    assert (place.project, place.location, place.max_bytes_billed) == ("example.com:my-project", "EU", 2 * 10**9)
    assert str(place) == "bigquery://example.com:my-project.slides"
    environment = {"BIGQUERY_EMULATOR_HOST": "http://localhost:9050", "COVERSLIP_MAX_BYTES_BILLED": "1KiB"}
    place = parse_place("bigquery://my-project.slides", environment)
    assert (place.endpoint, place.max_bytes_billed) == ("http://localhost:9050", 1024)
    assert with_limit(place, "5MB").max_bytes_billed == 5_000_000
    assert with_limit(place, None) is place


@pytest.mark.parametrize(
    "text",
    [
        "bigquery://slides", "bigquery:my-project.slides", "bigquery://my-project.a-b", "bigquery://my-project.",
        "bigquery://My_Project.slides", "bigquery://my-project.slides`; DROP", "gs://my-project.slides",
    ],
)  # fmt: skip
def test_what_is_no_data_set_is_told(text: str) -> None:
    with pytest.raises(UsageError, match=r"expected bigquery://project\.dataset"):
        parse_place(text, {})


def test_wrong_options_are_told() -> None:
    with pytest.raises(UsageError, match="no option place; there are location, max_bytes_billed, endpoint"):
        parse_place("bigquery://my-project.slides?place=EU", {})
    with pytest.raises(UsageError, match="expected the address of an endpoint"):
        parse_place("bigquery://my-project.slides?endpoint=localhost:9050", {})
    with pytest.raises(UsageError, match="expected a number of bytes such as 10GB"):
        parse_bytes("lots")
