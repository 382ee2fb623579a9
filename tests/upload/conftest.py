"""Series to deliver, and what delivers them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.factories.aperio import write_aperio_svs

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.pipeline.ledger import Ledger
from coverslip.stores.base import Store
from coverslip.stores.local import LocalStore
from coverslip.stores.options import Naming
from coverslip.upload.deliver import DeliveryOptions, deliver
from coverslip.upload.deliverables import find_series
from coverslip.upload.destination import Destination
from coverslip.upload.outcome import SeriesOutcome
from coverslip.upload.proof import ValidateMode

UNPROVEN = DeliveryOptions(validate=ValidateMode.OFF)
"""For tests of something else than validation."""


@dataclass
class Delivery:
    """Delivers to stores with one ledger, as one run of the command does.

    Parameters
    ----------
    ledger_file : Path
    stores : list of Store
    most_frames : int or None
    """

    ledger_file: Path
    stores: list[Store] = field(default_factory=list)
    most_frames: int | None = None

    def run(self, *paths: Path, options: DeliveryOptions = UNPROVEN) -> list[SeriesOutcome]:
        with Ledger(self.ledger_file) as ledger:
            found, unreadable = find_series(paths)
            assert unreadable == []
            return list(deliver(found, self.destinations(ledger), ledger, options))

    def destinations(self, ledger: Ledger) -> list[Destination]:
        return [Destination(store, ledger, self.most_frames) for store in self.stores]


def convert(slide: Path, output: Path, **changes: Any) -> Path:
    """Convert a slide, and return the folder of its series."""
    result = convert_slide(ConversionRequest(path=slide, output=output, workers=1, **changes))
    return result.series[0].folder


@pytest.fixture(scope="session")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("upload") / "slide.svs"
    write_aperio_svs(path, rows=1000, columns=1100, native_downsamples=())
    return path


@pytest.fixture(scope="session")
def converted(slide: Path) -> Path:
    """Folder of a series of several instances; copy it to change it."""
    return convert(slide, slide.parent / "out", attributes={"PatientID": "P1"})


@pytest.fixture(scope="session")
def corrected(slide: Path) -> Path:
    """Folder of a series of the same slide with another patient."""
    return convert(slide, slide.parent / "corrected", attributes={"PatientID": "P2"})


@pytest.fixture
def series(converted: Path, tmp_path: Path) -> Path:
    """A copy of the converted series."""
    return Path(shutil.copytree(converted, tmp_path / "study" / converted.name))


@pytest.fixture
def foreign(converted: Path, tmp_path: Path) -> Path:
    """The same instances without `conversion.json`, as others give them."""
    ignore = shutil.ignore_patterns("conversion.json")
    return Path(shutil.copytree(converted, tmp_path / "foreign", ignore=ignore))


@pytest.fixture
def archive(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "archive")


@pytest.fixture
def delivery(tmp_path: Path, archive: LocalStore) -> Delivery:
    """Delivers to one folder."""
    return Delivery(tmp_path / "ledger.sqlite", [archive])


@pytest.fixture
def uids_archive(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "uids", Naming.UIDS)


@pytest.fixture
def open_ledger(delivery: Delivery) -> Iterator[Ledger]:
    with Ledger(delivery.ledger_file) as ledger:
        yield ledger


def stored_names(store: LocalStore) -> set[str]:
    """Return the names of everything below the folder of a store, also of what is under way."""
    folder = store._folder
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
