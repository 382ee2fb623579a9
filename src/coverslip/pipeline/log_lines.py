"""Lines of a log: objects of JSON where Google Cloud Logging reads them, plain text elsewhere.

Reference: https://cloud.google.com/logging/docs/structured-logging
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import Any, Protocol, TextIO

__all__ = ["JsonLines", "LogLines", "PlainLines", "one_line", "trace_name", "wants_json"]

_CONTAINERS = ("K_SERVICE", "CLOUD_RUN_JOB", "BATCH_JOB_UID", "KUBERNETES_SERVICE_HOST")
"""Variables that Cloud Run services and jobs, Google Batch and Kubernetes set."""

_LOCK = threading.Lock()
_HIDDEN = ("DEBUG",)
"""Severities that plain lines leave out."""


def wants_json(log_format: str, file: TextIO) -> bool:
    """Whether a log is to be objects of JSON: when that is asked for, and by itself in containers."""
    if log_format == "auto":
        return not file.isatty() and any(os.environ.get(name) for name in _CONTAINERS)
    return log_format == "json"


def trace_name(trace_id: str) -> str:
    """Return how Cloud Logging calls a trace: with its project, where the environment names one."""
    project = os.environ.get("GOOGLE_CLOUD_PROJECT", "")
    return f"projects/{project}/traces/{trace_id}" if project and trace_id else trace_id


class LogLines(Protocol):
    """Writes lines; safe to use from several threads. None may hold the name of a slide or person."""

    def write(self, severity: str, message: str, *, trace_id: str = "", span_id: str = "", **facts: Any) -> None:
        """Write a line.

        Parameters
        ----------
        severity : str
            Of Cloud Logging: DEBUG, INFO, NOTICE, WARNING, ERROR, CRITICAL.
        message : str
        trace_id, span_id : str
            In hexadecimal; empty for none.
        facts
            Fields to search by; None is left out.
        """
        ...


class JsonLines:
    """An object for each line.

    Parameters
    ----------
    file : TextIO
    labels : mapping
        Of every line.
    """

    def __init__(self, file: TextIO, labels: Mapping[str, str]) -> None:
        self._file = file
        self._labels = dict(labels)

    def write(self, severity: str, message: str, *, trace_id: str = "", span_id: str = "", **facts: Any) -> None:
        """Write a line."""
        line: dict[str, Any] = {"severity": severity, "message": message}
        if trace_id:
            line["logging.googleapis.com/trace"] = trace_name(trace_id)
        if span_id:
            line["logging.googleapis.com/spanId"] = span_id
        if "trace_sampled" in facts:
            line["logging.googleapis.com/trace_sampled"] = facts.pop("trace_sampled")
        if self._labels:
            line["logging.googleapis.com/labels"] = self._labels
        line |= {name: value for name, value in facts.items() if value is not None}
        _write(self._file, json.dumps(line))


class PlainLines:
    """Text, for whoever looks on.

    Parameters
    ----------
    file : TextIO
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, severity: str, message: str, *, trace_id: str = "", span_id: str = "", **facts: Any) -> None:
        """Write a line, unless it is for who looks for a fault."""
        if severity in _HIDDEN:
            return
        slide = f"slide {facts['slide'][:12]}: " if facts.get("slide") else ""
        text = f"{severity.lower()}: {slide}{message}"
        _write(self._file, one_line(text))


def _write(file: TextIO, line: str) -> None:
    with _LOCK:  # several write to one file, each through an object of its own
        file.write(f"{line}\n")
        file.flush()


def one_line(text: str) -> str:
    """Return a text with line ends and control characters escaped."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)
