"""Where a catalog in BigQuery is: ``bigquery://project.dataset`` and how it is talked to."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from coverslip.errors import UsageError

__all__ = ["DEFAULT_MAX_BYTES", "BigQueryPlace", "is_bigquery", "parse_bytes", "parse_place", "with_limit"]

SCHEME = "bigquery://"

DEFAULT_MAX_BYTES = 100 * 10**9
"""What one query may bill unless it is told otherwise."""

LIMIT_VARIABLE = "COVERSLIP_MAX_BYTES_BILLED"
ENDPOINT_VARIABLE = "BIGQUERY_EMULATOR_HOST"

_PROJECT = re.compile(r"(?:[a-z0-9][a-z0-9.-]*:)?[a-z][a-z0-9-]{4,61}[a-z0-9]")
_DATASET = re.compile(r"[A-Za-z0-9_]{1,1024}")
_BYTES = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGTP]?)(i?)B?", re.IGNORECASE)
_OPTIONS = ("location", "max_bytes_billed", "endpoint")


@dataclass(frozen=True, slots=True)
class BigQueryPlace:
    """A data set.

    Parameters
    ----------
    project, dataset : str
    location : str or None
        Where it is made if it is not there, such as ``EU``.
    max_bytes_billed : int
        A query that would bill more is refused by BigQuery before it runs.
    endpoint : str or None
        In place of Google's, such as that of an emulator. Over plain HTTP no credentials are sent.
    """

    project: str
    dataset: str
    location: str | None = None
    max_bytes_billed: int = DEFAULT_MAX_BYTES
    endpoint: str | None = None

    def __str__(self) -> str:
        return f"{SCHEME}{self.project}.{self.dataset}"


def is_bigquery(catalog: object) -> bool:
    """Return whether a catalog is one in BigQuery."""
    return str(catalog).lower().startswith("bigquery:")


def parse_place(text: str, environment: Mapping[str, str] | None = None) -> BigQueryPlace:
    """Read ``bigquery://project.dataset``, with ``?location=EU&max_bytes_billed=10GB&endpoint=URL`` as one wishes.

    Raises
    ------
    UsageError
        If it is something else.
    """
    environment = os.environ if environment is None else environment
    address, _, query = text.partition("?")
    scheme, _, rest = address.partition("://")
    project, _, dataset = rest.rpartition(".")
    if scheme.lower() != "bigquery" or not _PROJECT.fullmatch(project) or not _DATASET.fullmatch(dataset):
        raise UsageError(f"{address}: expected {SCHEME}project.dataset")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - set(_OPTIONS))
    if unknown:
        raise UsageError(f"{address}: no option {unknown[0]}; there are {', '.join(_OPTIONS)}")
    limit = options.get("max_bytes_billed") or environment.get(LIMIT_VARIABLE)
    endpoint = options.get("endpoint") or environment.get(ENDPOINT_VARIABLE) or None
    if endpoint is not None and not re.match(r"https?://[^/]", endpoint):
        raise UsageError(f"{endpoint}: expected the address of an endpoint, such as http://localhost:9050")
    return BigQueryPlace(
        project,
        dataset,
        options.get("location") or None,
        parse_bytes(limit) if limit else DEFAULT_MAX_BYTES,
        endpoint,
    )


def parse_bytes(text: str) -> int:
    """Read a number of bytes such as ``500MB``, ``10GB`` or ``2TiB``.

    Raises
    ------
    UsageError
        If it is none.
    """
    found = _BYTES.fullmatch(text.strip())
    if not found:
        raise UsageError(f"{text}: expected a number of bytes such as 10GB")
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** " KMGTP".index(prefix.upper() or " "))


def with_limit(place: BigQueryPlace, limit: str | None) -> BigQueryPlace:
    """Return the place with another limit of what one query may bill, None for its own."""
    return place if limit is None else replace(place, max_bytes_billed=parse_bytes(limit))
