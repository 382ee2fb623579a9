"""What became of series at their destinations. `uploaded`, `verified` and `rejected` mean what they say in `State`."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coverslip.errors import CoverslipError
from coverslip.pipeline.ledger import State

__all__ = ["DestinationOutcome", "Failure", "InstanceOutcome", "SeriesOutcome"]

_REFUSED = "refused"
_WORST_FIRST = (_REFUSED, State.FAILED, State.REJECTED, State.PENDING, State.UPLOADED, State.VERIFIED)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is told and written down: its class, and one line without the name of a file or person."""

    error_class: str
    message: str

    @classmethod
    def of(cls, error: Exception, names: Mapping[str, str] | None = None) -> Failure:
        """Return what is told of an error; an unforeseen one without its text, which may come from anywhere.

        Parameters
        ----------
        names : mapping
            What to say in place of texts that may identify, such as the name of a file.
        """
        if not isinstance(error, CoverslipError):
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(place.filename).name}, line {place.lineno}"
            return cls(type(error).__name__, f"unexpected in {where}: a fault of coverslip, please report it")
        message = str(error)
        for name, spoken in (names or {}).items():
            message = message.replace(name, spoken)
        return cls(type(error).__name__, " ".join(message.split())[:500])


@dataclass(frozen=True, slots=True)
class InstanceOutcome:
    """What became of one instance at one destination.

    Parameters
    ----------
    sop_instance_uid : str
    path : Path
    state : State
    location : str
        Where the store keeps it; empty if it does not.
    bytes_sent : int
        In this run.
    compared : tuple of str
        What was compared in this run; empty if it was verified before.
    failure : Failure, optional
    warnings : tuple of str
        Of the store.
    """

    sop_instance_uid: str
    path: Path
    state: State
    location: str = ""
    bytes_sent: int = 0
    compared: tuple[str, ...] = ()
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DestinationOutcome:
    """What became of a series at one destination.

    Parameters
    ----------
    url : str
    instances : tuple of InstanceOutcome
    missing, strangers : tuple of str
        Of the store's own listing of the series: SOP Instance UIDs that are not in it, and what is in it and not ours.
    refused : bool
        Whether the series must not be sent here; `failure` tells why.
    failure : Failure, optional
        Of the series as a whole: it is refused, or the store could not be asked.
    retired : int or None
        Instances of the replaced series that were removed in this run; None if none was to be replaced.
    """

    url: str
    instances: tuple[InstanceOutcome, ...]
    missing: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    refused: bool = False
    failure: Failure | None = None
    retired: int | None = None

    @property
    def state(self) -> State | str:
        """``refused``, failed if the series is not what it should be, else the worst of its instances."""
        if self.refused:
            return _REFUSED
        if self.failure is not None or self.missing or self.strangers:
            return State.FAILED
        return _worst(instance.state for instance in self.instances)

    def counts(self) -> dict[str, int]:
        """Return how many instances there are in each state."""
        counted = Counter(str(instance.state) for instance in self.instances)
        return {str(state): counted[state] for state in reversed(_WORST_FIRST) if counted[state]}


@dataclass(frozen=True, slots=True)
class SeriesOutcome:
    """What became of one series.

    Parameters
    ----------
    series_instance_uid, study_instance_uid : str
    folder : Path
    instances : int
    size_bytes : int
    proof : str
        Why its bytes may be delivered, in words; empty if it was refused.
    destinations : tuple of DestinationOutcome
    failure : Failure, optional
        Why nothing of it was sent anywhere.
    """

    series_instance_uid: str
    study_instance_uid: str
    folder: Path
    instances: int
    size_bytes: int
    proof: str = ""
    destinations: tuple[DestinationOutcome, ...] = ()
    failure: Failure | None = None

    @property
    def state(self) -> State | str:
        """``refused`` if nothing was sent, else the worst of its destinations."""
        return _REFUSED if self.failure is not None else _worst(each.state for each in self.destinations)

    @property
    def bytes_sent(self) -> int:
        """In this run, to all destinations."""
        return sum(instance.bytes_sent for each in self.destinations for instance in each.instances)

    def as_json(self) -> dict[str, Any]:
        """Return the outcome as plain values."""
        return {
            "series_instance_uid": self.series_instance_uid,
            "study_instance_uid": self.study_instance_uid,
            "folder": str(self.folder),
            "state": str(self.state),
            "instances": self.instances,
            "size_bytes": self.size_bytes,
            "bytes_sent": self.bytes_sent,
            "proof": self.proof,
            "failure": _failure_as_json(self.failure),
            "destinations": [_destination_as_json(each) for each in self.destinations],
        }


def _destination_as_json(outcome: DestinationOutcome) -> dict[str, Any]:
    return {
        "url": outcome.url,
        "state": str(outcome.state),
        "counts": outcome.counts(),
        "missing": list(outcome.missing),
        "strangers": list(outcome.strangers),
        "retired": outcome.retired,
        "failure": _failure_as_json(outcome.failure),
        "instances": [
            {
                "sop_instance_uid": instance.sop_instance_uid,
                "file_name": instance.path.name,
                "state": str(instance.state),
                "location": instance.location or None,
                "bytes_sent": instance.bytes_sent,
                "compared": list(instance.compared),
                "warnings": list(instance.warnings),
                "failure": _failure_as_json(instance.failure),
            }
            for instance in outcome.instances
        ],
    }


def _failure_as_json(failure: Failure | None) -> dict[str, str] | None:
    return None if failure is None else {"class": failure.error_class, "message": failure.message}


def _worst(states: Iterable[State | str]) -> State | str:
    found = set(states)
    return next((state for state in _WORST_FIRST if state in found), State.FAILED)
