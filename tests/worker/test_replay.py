"""Messages as queues deliver them: several times, in any order, to several workers, some of which are killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from tests.pipeline.conftest import coverslip, digests_below, write_slide
from tests.stores.fakes.gcs import StrictGcs
from tests.worker.conftest import FORMS, Message, Place, Service

from coverslip.stores.base import ObjectStore
from coverslip.stores.options import Anonymous, StoreOptions
from coverslip.stores.registry import open_store


def run_over(slides: Path, place: Path) -> dict[str, str]:
    """Return what a run over a folder puts into a store."""
    done = coverslip("run", slides, "--work", place / "work", "--to", place / "store", "--validate", "off",
                     "--set", "PatientID=P1", "--json")  # fmt: skip
    assert done.code in (0, 3), done.err
    return digests_below(place / "store")


def deliver(message: Message, services: list[Service], draw: random.Random, tries: int = 40) -> list[int]:
    """Deliver a message until it is acknowledged, each time to any worker in any form, and return the answers."""
    statuses = []
    for _ in range(tries):
        statuses.append(draw.choice(services).send(message, draw.choice(FORMS)).status)
        if statuses[-1] == 200:
            break
    return statuses


def test_replay_with_duplicates_in_any_order_makes_each_slide_once(place: Place, tmp_path: Path) -> None:
    for seed in range(3):
        (place.slides / f"case-{seed}").mkdir()
        write_slide(place.slides / f"case-{seed}" / "slide.svs", seed)
    names = [f"case-{seed}/slide.svs" for seed in range(3)]
    old = [place.message(name, generation="1-1") for name in names]
    (place.slides / "case-0/notes.txt").write_text("x")
    others = [
        place.message("case-0/notes.txt"),
        place.message("gone.svs"),
        place.message(names[0], event="OBJECT_DELETE"),
        Message("another-bucket", names[0], "5"),
    ]
    messages = [place.message(name) for name in names] * 4 + old + others
    draw = random.Random(5)
    draw.shuffle(messages)
    with place.worker("one", "--catalog", "x") as one, place.worker("two", "--catalog", "x") as two:
        with ThreadPoolExecutor(8) as executor:
            answers = list(executor.map(lambda each: deliver(each, [one, two], random.Random(str(each))), messages))
        assert {statuses[-1] for statuses in answers} == {200}
        made = [line["slide"] for service in (one, two) for line in service.said("convert begun")]
        assert len(made) == len(set(made)) == 3
        reasons = {line["message"].rpartition(": ")[2] for service in (one, two) for line in service.said("skipped")}
        assert reasons == {
            "not a slide, by the ending of its name",
            "gone meanwhile",
            "not about a new object",
            "of another bucket or folder",
            "there is a newer object of this name",
        }
        assert {service.end() for service in (one, two)} == {128 + signal.SIGTERM}
        for service in (one, two):
            assert service.strays == []
            assert not any("case-" in json.dumps(line) for line in service.lines)
    assert digests_below(place.store) == run_over(place.slides, tmp_path / "run")
    assert [state["verdict"] for state in place.states()] == ["done"] * 3
    status = coverslip("status", place.state, "--json").told
    assert (status["slides"], status["done"], status["failed"]) == (3, 3, 0)
    collected = coverslip("collect", place.state, "--catalog", tmp_path / "catalog.duckdb", "--json")
    assert collected.told["slides"] == 3
    assert b"case-" not in b"".join(path.read_bytes() for path in place.state.rglob("*.json*"))


def test_worker_killed_in_mid_slide_is_followed_by_another_that_makes_the_same(place: Place, tmp_path: Path) -> None:
    write_slide(place.slides / "slide.svs", 1, rows=1500, columns=1500)
    message = place.message("slide.svs")
    with place.worker("one", "--lease", 1) as one, ThreadPoolExecutor(1) as executor:
        lost = executor.submit(one.send, message)
        one.wait_for("convert begun")
        one.process.kill()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            lost.result(60)
    assert place.states()[0]["attempts"] == 1
    with place.worker("two", "--lease", 1) as two:
        assert two.send(message, "binary").status == 200  # waits until the lease of the other has ended
        assert two.send(message, "structured").told["reason"] == "was done before"
    (state,) = place.states()
    assert (state["verdict"], state["attempts"]) == ("done", 2)
    assert digests_below(place.store) == run_over(place.slides, tmp_path / "run")


def test_worker_that_is_stopped_puts_its_slide_back_within_the_grace_period(one_slide: Place) -> None:
    """It hangs in an upload to a store that does not answer, which is the worst that it can do."""
    message = one_slide.message("slide.svs")
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(2) as executor:
        url = f"dicomweb+http://127.0.0.1:{silent.getsockname()[1]}/dicom-web"
        work = one_slide.root / "work-one"
        arguments = ["--slides", one_slide.slides, "--to", url, "--state", one_slide.state, "--work", work]
        with Service(*arguments) as one:
            sent = executor.submit(one.send, message)
            one.wait_for("upload begun")
            assert one.request("GET", "/ready").told == {"status": "ready", "busy": True}
            waiting = executor.submit(one.send, message)
            children = psutil.Process(one.process.pid).children(recursive=True)
            one.process.send_signal(signal.SIGTERM)
            assert one.process.wait(timeout=10) == 128 + signal.SIGTERM
            assert (sent.result(10).status, sent.result(10).told["reason"]) == (503, "put back: stopping")
            with contextlib.suppress(ConnectionError, http.client.HTTPException):
                assert waiting.result(10).status == 503
            one.wait_for("all leases are given back")
            assert children
            assert psutil.wait_procs(children, timeout=10)[1] == []
    (state,) = one_slide.states()
    assert (state.get("owner", ""), state["attempts"]) == ("", 0)
    assert list((work / "scratch").iterdir()) == []
    with one_slide.worker("two") as two:
        assert two.send(message).told["reason"] == "done now"  # at once: nobody holds a lease


def test_bucket_with_generations_that_arrive_in_the_wrong_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with StrictGcs() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        with open_store("gs://bucket/slides", StoreOptions(credentials=Anonymous())) as store:
            assert isinstance(store, ObjectStore)

            def put(seed: int) -> Message:
                store.put_bytes("case/slide.svs", write_slide(tmp_path / "slide.svs", seed).read_bytes())
                found = store.find_object("case/slide.svs")
                assert found is not None
                return Message("bucket", "slides/case/slide.svs", found.generation or "")

            arguments = ["--slides", "gs://bucket/slides", "--to", "gs://bucket/dicom", "--state", "gs://bucket/state",
                         "--work", tmp_path / "work", "--credentials", "none", "--source-credentials", "none",
                         "--catalog", "catalog"]  # fmt: skip
            with Service(*arguments, STORAGE_EMULATOR_HOST=gcs.url) as service:
                first = put(1)
                second = put(2)
                assert service.send(second).told["reason"] == "done now"
                assert service.send(first).told["reason"] == "there is a newer object of this name"
                assert service.send(second, "binary").told["reason"] == "was done before"
                same = put(2)
                assert same.generation != second.generation
                assert service.send(same, "structured").told["reason"] == "was done before"  # other name, same bytes
                third = put(3)
                assert service.send(third, "unwrapped").told["reason"] == "done now"
                outside = Message("bucket", "dicom/x.svs", "1")
                assert service.send(outside).told["reason"] == "of another bucket or folder"
                assert len(service.said("convert begun")) == 2
        series = {name.split("/")[1] for name in gcs.objects if name.startswith("dicom/")}
        assert len(series) == 2
        assert not any("case" in name for name in gcs.objects if name.startswith("state/"))
