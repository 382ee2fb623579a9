"""Instances that are stored over DICOMweb."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from dicomweb_client import DICOMwebClient

from coverslip.server.settings import Limits, ServerSettings
from tests.factories.part10 import write_part10
from tests.server.conftest import Slide
from tests.server.running import Running, serving

PARTS = 'multipart/related; type="application/dicom"; boundary=xyz'


@pytest.fixture
def store(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


@pytest.fixture
def writable(store: Path) -> Iterator[Running]:
    with serving(store, ServerSettings(writable=True, limits=Limits(upload_bytes=1 << 20))) as running:
        yield running


def parts(*contents: bytes) -> bytes:
    head = b"--xyz\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join(head + each + b"\r\n" for each in contents) + b"--xyz--\r\n"


def reasons(model: dict) -> list[int]:
    return [each["00081197"]["Value"][0] for each in model.get("00081198", {}).get("Value", [])]


def test_a_client_stores_a_slide_that_is_served_and_found_at_once(writable: Running, store: Path, slide: Slide) -> None:
    assert writable.ask("/dicomweb/studies").status == 204
    assert "nothing here yet" in writable.ask("/").body.decode()
    client = DICOMwebClient(f"{writable.url}/dicomweb")
    client.store_instances([pydicom.dcmread(slide.files[slide.named("LABEL")])])
    assert len(list(store.rglob("*.dcm"))) == 1
    (found,) = writable.ask("/dicomweb/instances").json()
    assert found["00080018"]["Value"] == [slide.named("LABEL")]
    assert writable.ask(f"{slide.place(slide.named('LABEL'))}/rendered", "image/png").status == 200
    assert "1 slide of 1 patient" in writable.ask("/").body.decode()


def test_each_instance_of_a_request_is_told_of(writable: Running, store: Path, tmp_path: Path) -> None:
    one = write_part10(tmp_path / "in", seed=1).path.read_bytes()
    other = write_part10(tmp_path / "in", seed=2).path.read_bytes()
    changed = write_part10(tmp_path / "changed", seed=1, patient="Other").path.read_bytes()
    answer = writable.ask("/dicomweb/studies", method="POST", body=parts(one, other), Content_Type=PARTS)
    assert answer.status == 200
    references = answer.json()["00081199"]["Value"]
    assert [each["00081155"]["Value"][0] for each in references] == ["2.25.3011", "2.25.3012"]
    assert references[0]["00081190"]["Value"][0].startswith(f"{writable.url}/dicomweb/studies/2.25.10/")
    again = writable.ask("/dicomweb/studies", method="POST", body=one, Content_Type="application/dicom")
    assert again.status == 200
    mixed = writable.ask("/dicomweb/studies", method="POST", body=parts(changed, b"garbage", one), Content_Type=PARTS)
    assert mixed.status == 202
    assert reasons(mixed.json()) == [0x0111, 0xC000]
    elsewhere = writable.ask("/dicomweb/studies/1.2.3", method="POST", body=parts(one), Content_Type=PARTS)
    assert elsewhere.status == 409
    assert reasons(elsewhere.json()) == [0xA900]
    stored = sorted(path.relative_to(store).as_posix() for path in store.rglob("*") if path.is_file())
    assert stored == ["2.25.10/2.25.201/2.25.3011.dcm", "2.25.10/2.25.201/2.25.3012.dcm"]


def test_what_is_served_under_another_name_is_compared_and_not_stored_twice(tmp_path: Path, store: Path) -> None:
    served = write_part10(store, seed=1).path.rename(store / "scan of today.dcm")
    same = served.read_bytes()
    other = write_part10(tmp_path / "other", seed=1, patient="Other").path.read_bytes()
    as_long = same.replace(b"P-1", b"P-2")
    with serving(store, ServerSettings(writable=True)) as running:
        for body, status in ((same, 200), (other, 409), (as_long, 409)):
            answer = running.ask("/dicomweb/studies", method="POST", body=body, Content_Type="application/dicom")
            assert answer.status == status
            assert reasons(answer.json()) == ([] if status == 200 else [0x0111])
    assert [path for path in store.rglob("*") if path.is_file()] == [served]
    assert served.read_bytes() == same


def damaged(path: Path) -> Path:
    """Let a file have an Instance Number that is no number."""
    ds = pydicom.dcmread(path)
    ds.InstanceNumber = "71"
    ds.save_as(path)
    data = path.read_bytes()
    element = b"\x20\x00\x13\x00IS\x02\x00"
    assert data.count(element + b"71") == 1
    path.write_bytes(data.replace(element + b"71", element + b"1A"))
    return path


def test_an_instance_number_that_is_none_stops_no_server(tmp_path: Path, store: Path) -> None:
    damaged(write_part10(store, seed=1).path)
    write_part10(store, seed=2)
    sent = damaged(write_part10(tmp_path / "in", seed=3).path).read_bytes()
    with serving(store, ServerSettings(writable=True)) as running:
        answer = running.ask("/dicomweb/studies", method="POST", body=sent, Content_Type="application/dicom")
        assert answer.status == 200
        found = running.ask("/dicomweb/instances?includefield=all").json()
    numbers = {each["00080018"]["Value"][0]: each["00200013"] for each in found}
    assert numbers == {f"2.25.301{seed}": {"vr": "IS"} for seed in (1, 2, 3)}
    with serving(store) as running:
        assert len(running.ask("/dicomweb/instances").json()) == 3


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, when the wrong UIDs are written
@pytest.mark.parametrize("uid", ["../../evil", "1.2/../../../evil", "1" * 65, "", "1..2", "/etc/cron.d/evil"])
def test_uids_that_are_none_name_no_file(writable: Running, store: Path, tmp_path: Path, uid: str) -> None:
    path = write_part10(tmp_path / "in", seed=1).path
    ds = pydicom.dcmread(path)
    ds._dict.pop(0x0020000D)
    element = pydicom.DataElement(0x0020000D, "LO", uid)
    ds.add_new(0x0020000D, "UI", "1.2")
    ds[0x0020000D]._value = element.value
    ds.save_as(path)
    answer = writable.ask("/dicomweb/studies", method="POST", body=parts(path.read_bytes()), Content_Type=PARTS)
    assert answer.status == 409
    assert list(store.rglob("*")) == []
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("text/plain", b"x", 415),
        (PARTS, b"--xyz\r\nContent-Type: application/dicom\r\n\r\nends here", 400),
        (PARTS, b"no parts at all", 400),
        ('multipart/related; type="application/dicom"', b"no boundary", 400),
        (PARTS, b"x" * ((1 << 20) + 1), 413),
    ],
)
def test_what_is_no_request_to_store_is_refused(
    writable: Running, store: Path, kind: str, body: bytes, status: int
) -> None:
    answer = writable.ask("/dicomweb/studies", method="POST", body=body, Content_Type=kind)
    assert answer.status == status
    assert list(store.rglob("*.dcm")) == []
