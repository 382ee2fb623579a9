"""A folder as a store."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.contracts.store import ObjectStoreContract
from tests.factories.part10 import write_part10

from coverslip.errors import StoreError, UsageError
from coverslip.stores.base import PutOutcome
from coverslip.stores.options import Naming, StoreOptions
from coverslip.stores.registry import open_store


class TestLocalStore(ObjectStoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        with open_store((tmp_path / "a store ü").as_uri()) as store:
            yield store


def test_a_plain_path_and_a_file_url_name_the_same_folder(tmp_path: Path) -> None:
    instance = write_part10(tmp_path / "local")
    open_store(str(tmp_path / "a b")).put(instance)
    assert open_store((tmp_path / "a b").as_uri()).find(instance) is not None
    assert (tmp_path / "a b" / instance.object_name).read_bytes() == instance.path.read_bytes()


@pytest.mark.parametrize("url", ["", "file://host/folder", "file://"])
def test_what_is_no_folder_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        open_store(url)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="not a folder"):
        open_store(str(tmp_path / "file"))


def test_series_named_by_uids_are_listed_without_reading_others(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"), StoreOptions(naming=Naming.UIDS))
    for series in (1, 2):
        instance = write_part10(tmp_path / "local", series=series)
        uids = instance.uids
        name = f"{uids.study_instance_uid}/{uids.series_instance_uid}/{uids.sop_instance_uid}.dcm"
        store.put(replace(instance, object_name=name))
    (tmp_path / "store" / "2.25.10" / "2.25.202" / "2.25.3021.dcm").write_bytes(b"not DICOM")
    assert [it.uids.series_instance_uid for it in store.iter_instances("2.25.10", "2.25.201")] == ["2.25.201"]


def test_what_a_killed_writer_left_is_never_listed_and_goes_with_the_next_put(tmp_path: Path) -> None:
    instance = write_part10(tmp_path / "local")
    folder = tmp_path / "store" / "series"
    script = (
        "import os, sys, pathlib\n"
        "from coverslip.stores.whole_file import whole_file\n"
        "with whole_file(pathlib.Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", script, folder / "x.dcm"], check=False, timeout=120)
    (left,) = folder.iterdir()
    store = open_store(str(tmp_path / "store"))
    assert list(store.iter_objects()) == []
    assert store.put(replace(instance, object_name="series/x.dcm")).outcome is PutOutcome.STORED
    assert not left.exists()
    assert [it.name for it in folder.iterdir()] == ["x.dcm"]


@pytest.fixture
def full_folder(tmp_path: Path):
    """Folder on a file system of 64 KiB."""
    folder = tmp_path / "full"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a small file system cannot be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_fails_the_put_and_leaves_nothing(tmp_path: Path, full_folder: Path) -> None:
    instance = write_part10(tmp_path / "local", frame_bytes=40_000)
    with open_store(str(full_folder)) as store:
        with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)) as caught:
            store.put(instance)
        assert instance.object_name.rpartition("/")[2] in str(caught.value)
        assert [it for it in full_folder.rglob("*") if it.is_file()] == []
        assert store.put(write_part10(tmp_path / "small", frame_bytes=10)).outcome is PutOutcome.STORED


def test_a_full_disk_fails_the_download_and_leaves_nothing(tmp_path: Path, full_folder: Path) -> None:
    instance = write_part10(tmp_path / "local", frame_bytes=40_000)
    with open_store(str(tmp_path / "store")) as store:
        stored = store.put(instance).stored
        with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
            store.download(stored, full_folder / "down.dcm")
    assert list(full_folder.iterdir()) == []


def test_a_file_put_is_as_readable_as_others(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    instance = write_part10(tmp_path / "local")
    store.put(instance)
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "store" / instance.object_name).stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_folder_that_cannot_be_listed_is_an_error_not_a_short_list(tmp_path: Path, monkeypatch) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put(write_part10(tmp_path / "local"))
    scandir = os.scandir

    def refuse(path):
        if "series" in os.fspath(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))  # root would be let in
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StoreError, match=os.strerror(errno.EACCES)):
        list(store.iter_objects())


def test_a_folder_is_no_object(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    store.put_bytes("a/b", b"x")
    assert store.find_object("a") is None
    assert store.read_bytes("a/b/c") is None
