"""Uploads that are killed, cut off or out of room; one more run ends verified, nothing twice and nothing lost."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.faults.command_line import COMMAND, ENVIRONMENT, ROOT
from tests.stores.fakes.dicomweb import StrictDicomWeb
from tests.stores.fakes.gcs import StrictGcs
from tests.stores.fakes.http_server import Dropped, Fault, Request, Response
from tests.stores.fakes.proxy import SpoilingProxy
from tests.upload.conftest import UNPROVEN, Delivery, stored_names

from coverslip.pipeline.ledger import Ledger, State
from coverslip.stores.base import Store
from coverslip.stores.local import LocalStore
from coverslip.stores.options import Naming, RetryPolicy, StoreOptions, TokenFromEnvironment
from coverslip.stores.registry import open_store
from coverslip.upload.deliverables import describe_series, find_series
from coverslip.upload.retract import RetractRequest, retract_series


def names(folder: Path) -> set[str]:
    found, _ = find_series([folder])
    return {instance.object_name for each in found for instance in describe_series(each, Naming.UUIDS).instances}


def run_killed(at: int, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.upload.killed", str(at), *map(str, arguments)]
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="session")
def steps_of_an_upload(converted: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    folder = tmp_path_factory.mktemp("steps")
    done = run_killed(0, *_upload(converted, folder))
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


def _upload(series: Path, folder: Path, url: str = "", *extra: str) -> list[object]:
    where = ["--to", url or folder / "archive", "--ledger", folder / "ledger.sqlite"]
    return ["upload", series, *where, "--validate", "off", "--workers", 1, *extra]


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


def test_runs_of_one_series_into_one_store_end_well_together(
    archive: LocalStore, converted: Path, tmp_path: Path
) -> None:
    command = [*COMMAND, *map(str, _upload(converted, tmp_path))]
    processes = [
        subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ends = [(*process.communicate(timeout=120), process.returncode) for process in processes]
    assert [(said, code) for _printed, said, code in ends] == [("", 0)] * 3, ends
    assert stored_names(archive) == names(converted)


@pytest.fixture(scope="session")
def steps_of_a_replacement(converted: Path, corrected: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    folder = tmp_path_factory.mktemp("steps")
    Delivery(folder / "ledger.sqlite", [LocalStore(folder / "archive")]).run(converted)
    done = run_killed(0, *_upload(corrected, folder), "--replace", converted.name)
    assert done.returncode == 0, done.stderr
    return int(done.stderr.split()[-1])


@pytest.mark.parametrize("steps_before_the_end", [1, 4, 8])
def test_a_replacement_that_was_killed_keeps_a_whole_series_and_is_finished_by_the_next(
    steps_before_the_end: int,
    steps_of_a_replacement: int,
    delivery: Delivery,
    archive: LocalStore,
    converted: Path,
    corrected: Path,
    tmp_path: Path,
) -> None:
    delivery.run(converted)
    at = steps_of_a_replacement - steps_before_the_end
    done = run_killed(at, *_upload(corrected, tmp_path), "--replace", converted.name)
    assert done.returncode == -signal.SIGKILL
    assert any(names(folder) <= stored_names(archive) for folder in (converted, corrected))
    (outcome,) = delivery.run(corrected, options=replace(UNPROVEN, replaces=converted.name))
    assert outcome.state == State.VERIFIED
    assert stored_names(archive) == names(corrected)
    assert delivery.run(converted)[0].state == "refused"


@pytest.mark.parametrize("at", [2, 5, 8])
def test_a_retraction_that_was_killed_is_finished_by_the_next(
    at: int, delivery: Delivery, archive: LocalStore, converted: Path, tmp_path: Path
) -> None:
    delivery.run(converted)
    where = ["--from", tmp_path / "archive", "--ledger", tmp_path / "ledger.sqlite", "--reason", "label visible"]
    arguments = ["retract", converted.name, *where, "--yes"]
    assert run_killed(at, *arguments).returncode == -signal.SIGKILL
    assert delivery.run(converted)[0].state == "refused"
    with Ledger(delivery.ledger_file) as ledger:
        retract_series(RetractRequest(converted.name, "another"), delivery.destinations(ledger), ledger)
    assert stored_names(archive) == {f"retracted/{converted.name}.json"}
    with Ledger(delivery.ledger_file) as ledger:
        tombstone = ledger.tombstone(converted.name)
        assert tombstone is not None
        assert (tombstone.complete, tombstone.reason) == (True, "label visible")
        assert list(ledger.iter_records()) == []


def sizes(folder: Path) -> list[int]:
    return sorted(path.stat().st_size for path in folder.glob("*.dcm"))


@pytest.fixture
def full_disk(converted: Path, tmp_path: Path) -> Iterator[Path]:
    """A file system with room for all of a series but half of its largest file."""
    folder = tmp_path / "small"
    folder.mkdir()
    size = sum(sizes(converted)) - sizes(converted)[-1] // 2
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount a small file system")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_told_and_what_did_not_fit_is_sent_when_there_is_room(
    full_disk: Path, delivery: Delivery, converted: Path
) -> None:
    store = LocalStore(full_disk)
    delivery.stores = [store]
    (outcome,) = delivery.run(converted)
    assert outcome.state == State.FAILED
    (destination,) = outcome.destinations
    assert 0 < destination.counts()["verified"] < len(names(converted))
    failures = [each.failure.message for each in destination.instances if each.failure]
    assert all("No space left on device" in message for message in failures)
    assert stored_names(store) < names(converted)
    subprocess.run(["mount", "-o", "remount,size=10m", full_disk], check=True)
    (again,) = delivery.run(converted)
    assert (again.state, again.bytes_sent < outcome.size_bytes) == (State.VERIFIED, True)
    assert stored_names(store) == names(converted)


def test_a_limit_on_the_size_of_files_is_told_and_nothing_is_left_half_written(
    delivery: Delivery, archive: LocalStore, converted: Path, tmp_path: Path
) -> None:
    command = shlex.join([*COMMAND, *map(str, _upload(converted, tmp_path))])
    most_kilobytes = sizes(converted)[-1] // 2048
    limited = ["bash", "-c", f"ulimit -f {most_kilobytes}; exec {command}"]
    done = subprocess.run(limited, env=ENVIRONMENT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 6, done.stderr
    assert "failed: " in done.stdout
    assert "File too large" in done.stdout
    assert stored_names(archive) < names(converted)
    assert delivery.run(converted)[0].state == State.VERIFIED
    assert stored_names(archive) == names(converted)


# Over the network: a bucket, and what may lie between it and us.

HASTY = RetryPolicy(attempts=1)


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictGcs]:
    with StrictGcs() as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        yield server


@contextmanager
def bucket(**options: Any) -> Iterator[Store]:
    with open_store("gs://bucket/a", StoreOptions(retry=HASTY, chunk_bytes=256 << 10, **options)) as store:
        yield store


def assert_one_more_run_ends_verified(delivery: Delivery, gcs: StrictGcs, converted: Path, **options: Any) -> None:
    before = {name: stored.generation for name, stored in gcs.objects.items()}
    with bucket(**options) as store:
        delivery.stores = [store]
        (outcome,) = delivery.run(converted)
        assert outcome.state == State.VERIFIED
    assert set(gcs.objects) == {f"a/{name}" for name in names(converted)}
    by_name = {path.stem: path for path in converted.glob("*.dcm")}
    for found in find_series([converted])[0]:
        for instance in describe_series(found, Naming.UUIDS).instances:
            assert gcs.data(f"a/{instance.object_name}") == by_name[instance.uids.sop_instance_uid].read_bytes()
    # What was whole before was not written again.
    assert all(gcs.objects[name].generation == generation for name, generation in before.items())


@pytest.mark.parametrize("moment", range(4))
def test_an_upload_to_a_bucket_that_was_killed_is_finished_by_the_next(
    moment: int, gcs: StrictGcs, delivery: Delivery, converted: Path, tmp_path: Path
) -> None:
    kill_at = 3 + moment * 7
    requests = itertools.count(1)
    with subprocess.Popen(
        [*COMMAND, *map(str, _upload(converted, tmp_path, "gs://bucket/a", "--credentials", "none"))],
        env={**ENVIRONMENT, "STORAGE_EMULATOR_HOST": gcs.url},
        stdout=subprocess.PIPE,
    ) as process:

        def kill(_request: Request) -> None:
            if next(requests) == kill_at:
                process.kill()
                process.wait()
                if moment % 2:
                    raise Dropped  # else the request is carried out, and nobody hears of it

        gcs.before = kill
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert_one_more_run_ends_verified(delivery, gcs, converted)


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_upload_ends_at_once_and_is_finished_by_the_next(
    number: signal.Signals, code: int, gcs: StrictGcs, delivery: Delivery, converted: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [*COMMAND, *map(str, _upload(converted, tmp_path, "gs://bucket/a", "--credentials", "none"))],
        env={**ENVIRONMENT, "STORAGE_EMULATOR_HOST": gcs.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:

        def interrupt(request: Request) -> None:
            if request.method == "PUT" and gcs.count("PUT") == 2:
                process.send_signal(number)

        gcs.before = interrupt
        _printed, said = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in said
    assert len(gcs.objects) < len(names(converted))
    assert_one_more_run_ends_verified(delivery, gcs, converted)


@pytest.mark.parametrize("reset_after", [1, 700, 60_000, 150_000])
def test_connections_that_are_reset_fail_the_run_and_the_next_ends_verified(
    reset_after: int, gcs: StrictGcs, delivery: Delivery, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SpoilingProxy(gcs.port, reset_after=[reset_after] * 200) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        gcs.public_url = proxy.url
        with bucket() as store:
            delivery.stores = [store]
            (outcome,) = delivery.run(converted)
        assert proxy.resets
    assert outcome.state == State.FAILED or "refused" in str(outcome.state)
    gcs.public_url = ""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    assert_one_more_run_ends_verified(delivery, gcs, converted)


def test_bytes_that_are_changed_on_their_way_never_count_as_uploaded(
    gcs: StrictGcs, delivery: Delivery, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SpoilingProxy(gcs.port, corrupt_upload_at=range(60_000, 20_000_000, 60_000)) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        gcs.public_url = proxy.url
        with bucket() as store:
            delivery.stores = [store]
            (outcome,) = delivery.run(converted)
        assert proxy.corrupted
    assert outcome.state in (State.FAILED, State.REJECTED)
    gcs.public_url = ""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
    assert_one_more_run_ends_verified(delivery, gcs, converted)


def test_a_token_that_expires_amid_the_run_fails_the_rest_and_a_new_one_ends_verified(
    gcs: StrictGcs, delivery: Delivery, converted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gcs.tokens = {"Bearer one"}
    monkeypatch.setenv("TOKEN", "one")

    def expire(_request: Request) -> None:
        if gcs.count("POST") == 2:
            gcs.tokens = {"Bearer two"}

    gcs.before = expire
    with bucket(credentials=TokenFromEnvironment("TOKEN")) as store:
        delivery.stores = [store]
        (outcome,) = delivery.run(converted, options=replace(UNPROVEN, workers=1))
    assert outcome.state == State.FAILED
    data = json.dumps(outcome.as_json())
    assert outcome.destinations[0].counts()["verified"] == 1
    assert "Bearer" not in data
    monkeypatch.setenv("TOKEN", "two")
    assert_one_more_run_ends_verified(delivery, gcs, converted, credentials=TokenFromEnvironment("TOKEN"))


# Over the network: DICOMweb, which gives no digest.


@pytest.fixture
def dicomweb() -> Iterator[StrictDicomWeb]:
    with StrictDicomWeb() as server:
        yield server


@contextmanager
def service(url: str) -> Iterator[Store]:
    with open_store(f"dicomweb+{url}", StoreOptions(retry=HASTY)) as store:
        yield store


def assert_ends_verified_over_dicomweb(delivery: Delivery, dicomweb: StrictDicomWeb, converted: Path) -> None:
    with service(dicomweb.dicomweb_url) as store:
        delivery.stores = [store]
        (outcome,) = delivery.run(converted)
        assert outcome.state == State.VERIFIED
        (again,) = delivery.run(converted)
        assert (again.state, again.bytes_sent) == (State.VERIFIED, 0)
    stored = sorted(path.read_bytes() for path in dicomweb.instances.values())
    assert stored == sorted(path.read_bytes() for path in converted.glob("*.dcm"))


@pytest.mark.parametrize("instance", range(2))
@pytest.mark.parametrize("read_bytes", [0, 30_000, None])
def test_an_upload_over_dicomweb_that_was_killed_amid_an_instance_is_finished_by_the_next(
    instance: int,
    read_bytes: int | None,
    dicomweb: StrictDicomWeb,
    delivery: Delivery,
    converted: Path,
    tmp_path: Path,
) -> None:
    if read_bytes is not None:
        dicomweb.faults.append(Fault("POST", read_bytes=read_bytes, skip=instance))
    answer = dicomweb.answer

    def kill(request: Request) -> Response:
        if request.method != "POST" or dicomweb.count("POST") <= instance:
            return answer(request)
        response = answer(request) if read_bytes is None else None  # it is kept, but nobody hears of it
        process.kill()
        process.wait()
        if response is None:
            raise Dropped
        return response

    dicomweb.answer = kill
    command = [*COMMAND, *map(str, _upload(converted, tmp_path, f"dicomweb+{dicomweb.dicomweb_url}"))]
    with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE) as process:
        process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert len(dicomweb.instances) == instance + (read_bytes is None)
    dicomweb.faults.clear()
    dicomweb.answer = answer
    assert_ends_verified_over_dicomweb(delivery, dicomweb, converted)


def test_a_byte_changed_on_its_way_over_dicomweb_is_found_and_the_next_run_puts_it_right(
    dicomweb: StrictDicomWeb, delivery: Delivery, converted: Path
) -> None:
    with SpoilingProxy(dicomweb.port, corrupt_upload_at=[100_000]) as proxy:
        with service(dicomweb.dicomweb_url.replace(dicomweb.url, proxy.url)) as store:
            store.url = dicomweb.dicomweb_url  # the ledger knows the store by its own URL
            delivery.stores = [store]
            (outcome,) = delivery.run(converted, options=replace(UNPROVEN, workers=1))
        assert proxy.corrupted == 1
    assert outcome.state == State.FAILED
    (failed,) = [each for each in outcome.destinations[0].instances if each.state is not State.VERIFIED]
    assert failed.failure is not None
    assert "differs in the store: frame" in failed.failure.message
    assert_ends_verified_over_dicomweb(delivery, dicomweb, converted)


def test_connections_reset_amid_dicomweb_requests_fail_the_run_and_the_next_ends_verified(
    dicomweb: StrictDicomWeb, delivery: Delivery, converted: Path
) -> None:
    dicomweb.faults += [
        Fault("POST", read_bytes=50_000, drop_request=True),
        Fault("POST", drop_response=True),
        Fault("GET", path=".*/metadata", drop_response=True),
    ]
    with service(dicomweb.dicomweb_url) as store:
        delivery.stores = [store]
        (outcome,) = delivery.run(converted, options=replace(UNPROVEN, workers=1))
    assert outcome.state == State.FAILED
    assert_ends_verified_over_dicomweb(delivery, dicomweb, converted)
