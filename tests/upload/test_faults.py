"""Uploads that are killed, cut off or out of room; one more run ends verified, nothing twice and nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.command_line import ENVIRONMENT, ROOT
from tests.upload.conftest import Delivery, stored_names

from coverslip.pipeline.ledger import Ledger, State
from coverslip.stores.local import LocalStore
from coverslip.stores.options import Naming
from coverslip.upload.deliverables import describe_series, find_series


def names(folder: Path) -> set[str]:
    found, _ = find_series([folder])
    return {instance.object_name for each in found for instance in describe_series(each, Naming.UUIDS).instances}


def run_killed(at: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.upload.killed", str(at), *map(str, arguments)]
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def steps_of_an_upload(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    folder = tmp_path_factory.mktemp("steps")
    done = run_killed(0, *_upload(converted, folder))
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


def _upload(series: Path, folder: Path) -> list[object]:
    store, ledger = folder / "archive", folder / "ledger.sqlite"
    return ["upload", series, "--to", store, "--ledger", ledger, "--validate", "off", "--workers", 1]


MOMENTS = 20


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_an_upload_that_was_killed_is_finished_by_the_next(
    moment: int, steps_of_an_upload: int, delivery: Delivery, archive: LocalStore, converted: Path, tmp_path: Path
) -> None:
    at = 1 + moment * (steps_of_an_upload - 2) // (MOMENTS - 1)
    assert run_killed(at, *_upload(converted, tmp_path)).returncode == -signal.SIGKILL
    (outcome,) = delivery.run(converted)
    assert outcome.state == State.VERIFIED
    assert stored_names(archive) == names(converted)
    (again,) = delivery.run(converted)
    assert (again.proof, again.bytes_sent) == ("verified before", 0)
    with Ledger(delivery.ledger_file) as ledger:
        states = {record.state for record in ledger.iter_records()}
    assert states == {State.UPLOADED, State.VERIFIED}
