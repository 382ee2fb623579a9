"""What all tests may ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.factories.aperio import write_aperio_svs
from tests.orthanc import Orthanc, start_orthanc
from tests.turns import Turns

ROOT = Path(__file__).resolve().parents[1]
TURNS = pytest.StashKey[Turns]()


def pytest_configure(config: pytest.Config) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell has what it runs in the background ignore Ctrl-C, and so would the processes that tests interrupt.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(config, "workerinput"):  # in a process of pytest-xdist; each has a folder of its own in that of the run
        config.stash[TURNS] = Turns(Path(config.option.basetemp).parent)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what waits a minute for a browser first: of what is last, another process takes half, and waits once more."""
    items.sort(key=lambda item: "viewer" not in item.path.parts)


# Outermost, so that waiting counts neither for the timeout nor for the duration of a test.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    turns = item.config.stash.get(TURNS, None)
    if turns is None:
        return (yield)
    turns.take(alone=item.get_closest_marker("serial") is not None)
    try:
        return (yield)
    finally:
        turns.give_back()


# How long an example takes on a busy machine says nothing; the hang guard is there for what never ends.
hypothesis.settings.register_profile("coverslip", deadline=None)
hypothesis.settings.load_profile("coverslip")


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of slides kept beside the repository; a test that needs it is skipped where it is absent."""
    folder = Path(os.environ.get("COVERSLIP_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        pytest.skip("no shared slides beside the repository; COVERSLIP_SHARED may name their folder")
    return folder


@pytest.fixture(scope="session")
def aperio_slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small SVS, JPEG RGB, 700 x 900 with a level at 4, label, macro and thumbnail; copy it to change it."""
    path = tmp_path_factory.mktemp("slides") / "aperio.svs"
    write_aperio_svs(path)
    return path


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """Orthanc with its DICOMweb service; a test that wants it empty clears it."""
    with start_orthanc(tmp_path_factory.mktemp("orthanc") / "server") as orthanc:
        yield orthanc
