"""What every `Store` must do; a test class of a store inherits it and gives an empty store."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from coverslip.errors import ConflictError, StoreError
from coverslip.stores.base import LocalInstance, ObjectStore, PutOutcome, Store, StoredInstance
from tests.factories.part10 import NATIVE, write_part10

PATIENT = "Muster^Maß"


def message_of(caught: pytest.ExceptionInfo[BaseException]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    assert PATIENT not in text
    return text


class StoreContract:
    """Subclasses have a fixture `store` that gives an empty store, opened anew for each test."""

    keeps_bytes = False
    """Whether a download is the file that was put, byte for byte."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        raise NotImplementedError

    @pytest.fixture
    def instance(self, tmp_path: Path) -> LocalInstance:
        return write_part10(tmp_path / "local")

    def test_it_is_a_store_and_says_where(self, store):
        assert isinstance(store, Store)
        assert "://" in store.url
        assert not store.url.endswith("/")

    def test_what_is_put_is_found_and_equal(self, store, instance):
        result = store.put(instance)
        assert result.outcome is PutOutcome.STORED
        assert result.stored.location.startswith(f"{store.url}/")
        found = store.find(instance)
        assert found.location == result.stored.location
        comparison = store.compare(instance, (1, 3, 5))
        assert comparison.differences == ()
        assert comparison.equal
        assert "frames 1, 3, 5" in comparison.compared

    def test_native_frames_are_compared_too(self, store, tmp_path):
        instance = write_part10(tmp_path / "native", seed=4, transfer_syntax_uid=NATIVE)
        store.put(instance)
        assert store.compare(instance, (1, 2, 5)).differences == ()

    def test_putting_the_same_again_is_harmless(self, store, instance):
        store.put(instance)
        again = store.put(instance)
        assert again.outcome is PutOutcome.ALREADY_THERE
        assert again.stored.location == store.find(instance).location
        assert len(list(store.iter_instances())) == 1

    def test_other_frames_under_the_same_uids_are_a_conflict_and_change_nothing(self, store, instance, tmp_path):
        other = replace(write_part10(tmp_path / "other", frame_bytes=700), object_name=instance.object_name)
        store.put(instance)
        with pytest.raises(ConflictError) as caught:
            store.put(other)
        assert not caught.value.retryable
        message_of(caught)
        assert store.compare(instance, (1, 2, 3, 4, 5)).equal
        assert not store.compare(other, (1, 2, 3, 4, 5)).equal

    def test_another_header_under_the_same_uids_is_a_conflict(self, store, instance, tmp_path):
        other = replace(write_part10(tmp_path / "other", patient="Else^Body"), object_name=instance.object_name)
        store.put(instance)
        with pytest.raises(ConflictError) as caught:
            store.put(other)
        message_of(caught)
        assert "Else" not in str(caught.value)
        comparison = store.compare(other)
        assert comparison.differences
        assert not any("Muster" in line or "Else" in line for line in comparison.differences)

    def test_progress_adds_up_to_the_size(self, store, instance):
        sent: list[int] = []
        store.put(instance, sent.append)
        assert sum(sent) == instance.size_bytes

    def test_what_is_not_there_is_not_found(self, store, instance):
        assert store.find(instance) is None
        assert list(store.iter_instances()) == []
        with pytest.raises(StoreError):
            store.compare(instance)

    def test_a_file_that_has_changed_is_not_put(self, store, instance):
        data = bytearray(instance.path.read_bytes())
        data[-100] ^= 1
        instance.path.write_bytes(data)
        with pytest.raises(StoreError, match="changed"):
            store.put(instance)

    def test_a_file_that_is_gone_is_an_error_of_the_store(self, store, instance):
        instance.path.unlink()
        with pytest.raises(StoreError) as caught:
            store.put(instance)
        assert instance.path.name in message_of(caught)
        assert store.find(instance) is None

    def test_listing_tells_studies_and_series_apart(self, store, tmp_path):
        instances = [write_part10(tmp_path, seed=seed, series=series) for series in (1, 2) for seed in (1, 2, 3)]
        for instance in instances:
            store.put(instance)
        everything = {stored.location for stored in store.iter_instances()}
        assert everything == {store.find(instance).location for instance in instances}
        of_second = list(store.iter_instances("2.25.10", "2.25.202"))
        assert {it.uids for it in of_second} == {it.uids for it in instances[3:]}
        assert {it.location for it in of_second} == {store.find(it).location for it in instances[3:]}
        assert {it.uids for it in store.iter_instances("2.25.10")} == {it.uids for it in instances}
        assert list(store.iter_instances("2.25.11")) == []
        assert list(store.iter_instances("2.25.10", "2.25.2")) == []

    def test_header_comes_without_pixel_data(self, store, instance):
        header = store.read_header(store.put(instance).stored)
        assert header.SOPInstanceUID == instance.uids.sop_instance_uid
        assert header.PatientName == PATIENT
        assert header.ImagedVolumeWidth == 15.25
        assert header.OpticalPathSequence[0].OpticalPathIdentifier == "1"
        assert header.OpticalPathSequence[0].ICCProfile == bytes(range(256)) * 12
        assert "PixelData" not in header

    def test_download_gives_the_whole_instance(self, store, instance, tmp_path):
        path = tmp_path / "down.dcm"
        store.download(store.put(instance).stored, path)
        if self.keeps_bytes:
            assert path.read_bytes() == instance.path.read_bytes()
        assert path.read_bytes()[128:132] == b"DICM"
        assert [it.name for it in tmp_path.iterdir() if it.is_file()] == ["down.dcm"]

    def test_download_never_overwrites(self, store, instance, tmp_path):
        path = tmp_path / "down.dcm"
        path.write_bytes(b"mine")
        stored = store.put(instance).stored
        with pytest.raises(StoreError):
            store.download(stored, path)
        assert path.read_bytes() == b"mine"

    def test_download_of_what_is_not_there_leaves_no_file(self, store, instance, tmp_path):
        stored = store.put(instance).stored
        assert store.remove(stored)
        with pytest.raises(StoreError):
            store.download(stored, tmp_path / "down.dcm")
        assert [it for it in tmp_path.iterdir() if it.is_file()] == []

    def test_what_is_removed_is_gone_and_can_be_put_again(self, store, instance):
        stored = store.put(instance).stored
        assert store.remove(stored) is True
        assert store.find(instance) is None
        assert store.remove(stored) is False
        assert store.put(instance).outcome is PutOutcome.STORED

    def test_several_threads_may_use_it(self, store, tmp_path):
        instances = [write_part10(tmp_path, seed=seed) for seed in range(1, 9)]
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(store.put, instances))
        assert {it.outcome for it in results} == {PutOutcome.STORED}
        with ThreadPoolExecutor(4) as pool:
            assert all(it.equal for it in pool.map(store.compare, instances))

    def test_one_instance_put_by_several_threads_is_stored_once(self, store, instance):
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(store.put, [instance] * 4))
        assert PutOutcome.STORED in {it.outcome for it in results}
        assert len(list(store.iter_instances())) == 1
        assert store.compare(instance).equal

    def test_closing_twice_is_harmless(self, store):
        store.close()
        store.close()


class ObjectStoreContract(StoreContract):
    """What a store of named bytes must do besides."""

    keeps_bytes = True

    def test_it_is_an_object_store(self, store):
        assert isinstance(store, ObjectStore)

    def test_the_location_is_made_of_url_and_name(self, store, instance):
        assert store.put(instance).stored.location == f"{store.url}/{instance.object_name}"

    def test_ranges_are_those_of_the_file(self, store, instance):
        stored = store.put(instance).stored
        data = instance.path.read_bytes()
        assert store.read_range(stored, 0, 10) == data[:10]
        assert store.read_range(stored, 128, 4) == b"DICM"
        assert store.read_range(stored, len(data) - 3, 100) == data[-3:]
        assert store.read_range(stored, len(data), 100) == b""
        assert store.read_range(stored, len(data) + 5, 100) == b""

    def test_range_of_what_is_gone_is_an_error(self, store, instance):
        stored = store.put(instance).stored
        store.remove(stored)
        with pytest.raises(StoreError) as caught:
            store.read_range(stored, 0, 10)
        message_of(caught)

    def test_size_is_told(self, store, instance):
        assert store.put(instance).stored.size_bytes == instance.size_bytes
        (listed,) = store.iter_objects()
        assert listed.size_bytes == instance.size_bytes

    def test_small_objects_are_put_replaced_read_and_listed(self, store, instance):
        store.put(instance)
        assert store.read_bytes("manifests/list.tsv") is None
        store.put_bytes("manifests/list.tsv", b"one")
        store.put_bytes("manifests/list.tsv", b"two\n")
        assert store.read_bytes("manifests/list.tsv") == b"two\n"
        store.put_bytes("empty", b"")
        assert store.read_bytes("empty") == b""
        names = {f"{store.url}/{name}" for name in ("manifests/list.tsv", "empty", instance.object_name)}
        assert {it.location for it in store.iter_objects()} == names
        assert [it.location for it in store.iter_objects("manifests/")] == [f"{store.url}/manifests/list.tsv"]
        assert [it.location for it in store.iter_objects("manif")] == [f"{store.url}/manifests/list.tsv"]
        assert list(store.iter_objects("nothing/")) == []
        assert [it.location for it in store.iter_instances()] == [store.find(instance).location]

    def test_small_object_is_swapped_for_the_version_that_is_there_and_no_other(self, store):
        assert store.read_versioned("leases/one") is None
        first = store.swap_bytes("leases/one", b"first", None)
        with pytest.raises(ConflictError):
            store.swap_bytes("leases/one", b"late", None)
        assert (store.read_versioned("leases/one").data, store.read_versioned("leases/one").version) == (
            b"first",
            first,
        )
        second = store.swap_bytes("leases/one", b"second", first)
        assert second != first
        with pytest.raises(ConflictError):
            store.swap_bytes("leases/one", b"late", first)
        assert store.read_bytes("leases/one") == b"second"
        with pytest.raises(ConflictError):
            store.swap_bytes("leases/none", b"late", second)
        assert store.read_bytes("leases/none") is None

    def test_of_several_who_swap_at_once_one_gets_through(self, store):
        version = store.swap_bytes("lease", b"start", None)

        def swap(number: int) -> bool:
            try:
                store.swap_bytes("lease", b"%d" % number, version)
            except ConflictError:
                return False
            return True

        with ThreadPoolExecutor(8) as executor:
            won = list(executor.map(swap, range(8)))
        assert won.count(True) == 1
        assert store.read_bytes("lease") == b"%d" % won.index(True)

    @pytest.mark.parametrize("name", ["../x.dcm", "/x.dcm", "a//b.dcm", "", "a/./b", "a\\b", "a\nb"])
    def test_a_name_that_leaves_the_store_is_a_programming_mistake(self, store, instance, name):
        with pytest.raises(ValueError, match="name of an object"):
            store.put(replace(instance, object_name=name))

    def test_a_location_of_another_store_is_a_programming_mistake(self, store):
        with pytest.raises(ValueError, match="not below"):
            store.read_range(StoredInstance("file:///" + "elsewhere/x"), 0, 1)

    def test_a_changed_byte_is_a_difference(self, store, instance):
        store.put(instance)
        data = bytearray(instance.path.read_bytes())
        data[-100] ^= 1
        store.put_bytes(instance.object_name, bytes(data))
        comparison = store.compare(instance)
        assert len(comparison.differences) == 1
        assert not comparison.equal
        with pytest.raises(ConflictError):
            store.put(instance)

    def test_names_with_odd_signs_are_kept(self, store, instance):
        odd = replace(instance, object_name="a b/ü#%25?&=+.dcm")
        stored = store.put(odd).stored
        assert store.compare(odd).equal
        assert [it.location for it in store.iter_objects()] == [stored.location]
        assert store.read_range(stored, 128, 4) == b"DICM"
        assert store.remove(stored)
