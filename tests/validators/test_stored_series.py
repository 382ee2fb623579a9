"""Series are validated where they are stored, with the findings that they have in a folder."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydicom import dcmread

from coverslip.cli import cli
from coverslip.errors import StoreError
from coverslip.stores.base import InstanceUids, StoredInstance
from coverslip.stores.options import StoreOptions, TokenFromEnvironment
from coverslip.stores.registry import open_store
from coverslip.validators.stored_series import StoreFile, StorePlace
from tests.factories.part10 import local_instance
from tests.stores.fakes.dicomweb import StrictDicomWeb
from tests.stores.fakes.gcs import StrictGcs
from tests.stores.fakes.healthcare import StrictHealthcare

type Put = Callable[[Path], tuple[str, ...]]
"""Puts the series of a folder into a store; returns the arguments that name the store and say how it is reached."""


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictGcs]:
    with StrictGcs() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        yield gcs


@pytest.fixture
def dicomweb() -> Iterator[StrictDicomWeb]:
    with StrictDicomWeb() as service:
        yield service


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """Give the URL of a service like S3 with a bucket."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT"), timeout=10):
        pass
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def healthcare(monkeypatch: pytest.MonkeyPatch) -> Iterator[StrictHealthcare]:
    monkeypatch.setenv("TOKEN", "right")
    monkeypatch.setattr("coverslip.stores.operations._FIRST_WAIT_S", 0.001)
    with StrictHealthcare() as service:
        yield service


@pytest.fixture(params=["file", "gs", "s3", "dicomweb", "healthcare"])
def put(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Put:
    options, reached_by = StoreOptions(), ()
    if request.param == "file":
        url = f"file://{tmp_path / 'store'}"
        (tmp_path / "store").mkdir()
    elif request.param == "gs":
        request.getfixturevalue("gcs")
        url = "gs://bucket/some/prefix"
    elif request.param == "s3":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        endpoint = request.getfixturevalue("moto")
        url = f"s3://bucket/{tmp_path.name}"
        options, reached_by = StoreOptions(endpoint_url=endpoint), ("--endpoint-url", endpoint)
    elif request.param == "healthcare":
        endpoint = request.getfixturevalue("healthcare").url
        url = "healthcare://p/l/d/s"
        options = StoreOptions(endpoint_url=endpoint, credentials=TokenFromEnvironment("TOKEN"))
        reached_by = ("--endpoint-url", endpoint, "--credentials", "token-env:TOKEN")
    else:
        url = f"dicomweb+{request.getfixturevalue('dicomweb').dicomweb_url}"

    def put_series(folder: Path) -> tuple[str, ...]:
        with open_store(url, options) as store:
            for path in sorted(folder.rglob("*.dcm")):
                header = dcmread(path, stop_before_pixels=True)
                uids = InstanceUids(header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
                store.put(local_instance(path, uids, header.file_meta.TransferSyntaxUID))
        return url, *reached_by

    return put_series


def validate(*arguments: str) -> dict[str, object]:
    done = CliRunner().invoke(cli, ["validate", *arguments, "--json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return json.loads(done.stdout)


def test_a_good_series_is_good_in_every_store(
    put: Put, good: Path, aperio_slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    url, *reached_by = put(good)
    told = validate(url, *reached_by, "--source", str(aperio_slide))
    here = validate(str(good), "--source", str(aperio_slide))
    assert told["passed"]
    assert told["counts"] == here["counts"]
    (series,), (local,) = told["series"], here["series"]
    assert series["place"].startswith(url.removeprefix("dicomweb+"))
    assert series["checked"]["frames"] == local["checked"]["frames"]
    assert series["checked"]["frames_decoded"] == local["checked"]["frames_decoded"]
    assert list(scratch.iterdir()) == [], "nothing that was fetched is left"


def test_what_is_broken_is_told_with_its_name_in_the_store(put: Put, good: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(good, folder)
    for path in folder.rglob("*.dcm"):
        ds = dcmread(path)
        ds.PatientBirthDate = "20230230"
        ds.save_as(path)
    page = tmp_path / "report.html"
    done = CliRunner().invoke(cli, ["validate", *put(folder), "--html", str(page)])
    assert done.exit_code == 5
    assert "[date.impossible]" in done.stdout
    assert "data:image/jpeg" in page.read_text(), "the page has its thumbnail"


def test_one_object_or_one_series_may_be_named(gcs: StrictGcs, dicomweb: StrictDicomWeb, good: Path) -> None:
    paths = sorted(good.rglob("*.dcm"))
    headers = {path: dcmread(path, stop_before_pixels=True) for path in paths}
    for url in ("gs://bucket/p", f"dicomweb+{dicomweb.dicomweb_url}"):
        with open_store(url) as store:
            for path, header in headers.items():
                uids = InstanceUids(header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
                store.put(local_instance(path, uids, header.file_meta.TransferSyntaxUID))
    name = next(name for name in gcs.objects if name.endswith(".dcm"))
    (series,) = validate(f"gs://bucket/{name}")["series"]
    assert series["checked"]["instances"] == 1
    first = headers[paths[0]]
    whole = f"dicomweb+{dicomweb.dicomweb_url}/studies/{first.StudyInstanceUID}/series/{first.SeriesInstanceUID}"
    (series,) = validate(whole)["series"]
    assert series["checked"]["instances"] == len(paths)
    nothing = CliRunner().invoke(cli, ["validate", f"dicomweb+{dicomweb.dicomweb_url}/studies/2.25.1"])
    assert isinstance(nothing.exception, StoreError)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("gs://bucket/prefix", StorePlace("gs://bucket/prefix")),
        ("gs://bucket/a/b.dcm", StorePlace("gs://bucket/a", "b.dcm")),
        ("dicomweb+https://h/p/studies/1.2", StorePlace("dicomweb+https://h/p", "", "1.2")),
        ("dicomweb+https://h/p/studies/1.2/series/3.4/", StorePlace("dicomweb+https://h/p", "", "1.2", "3.4")),
    ],
)
def test_a_url_names_a_store_and_what_of_it_is_meant(url: str, place: StorePlace) -> None:
    assert StorePlace.of(url) == place


def test_small_pieces_one_after_the_other_are_asked_for_in_larger_ones(tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    (tmp_path / "a.dcm").write_bytes(data)
    asked: list[int] = []
    with open_store(str(tmp_path)) as store:
        read_range = store.read_range

        def counted(stored: StoredInstance, offset: int, length: int) -> bytes:
            asked.append(length)
            return read_range(stored, offset, length)

        store.read_range = counted
        (stored,) = store.iter_objects()
        file = StoreFile(store, stored)
        found = b"".join(file.read(at, 1000) for at in range(0, len(data), 1000))
        assert found == data
        assert len(asked) < 12
        assert max(asked) <= 4 << 20
        assert file.read(len(data) - 5, 100) == data[-5:]
        assert file.read(5, 10) == data[5:15]
        assert asked[-1] <= 128 << 10, "a jump is not followed by a large piece"
