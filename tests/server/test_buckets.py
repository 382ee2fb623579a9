"""Frames out of a bucket: by ranges, never the whole file."""

from __future__ import annotations

import pytest

from coverslip.stores.registry import open_store
from tests.factories.part10 import write_part10
from tests.server.running import serving
from tests.stores.fakes.gcs import StrictGcs


class CountingGcs(StrictGcs):
    """Tells how many bytes of objects it has given."""

    given = 0

    def _media(self, request, name):
        response = super()._media(request, name)
        self.given += len(response.body)
        return response


def test_frames_of_a_bucket_come_by_ranges(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with CountingGcs() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        local = write_part10(tmp_path, frames=40, frame_bytes=100_000)
        with open_store("gs://bucket/a") as store:
            store.put(local)
        size = local.path.stat().st_size
        with serving("gs://bucket/a") as server:
            uids = local.uids
            place = (
                f"/dicomweb/studies/{uids.study_instance_uid}/series/{uids.series_instance_uid}"
                f"/instances/{uids.sop_instance_uid}"
            )
            assert server.ask(f"{place}/frames/1", "image/jpeg").status == 200  # reads the header and the table
            before = gcs.given
            for number in (40, 7, 7, 40):
                answer = server.ask(f"{place}/frames/{number}", "image/jpeg")
                assert answer.status == 200
                assert answer.body in local.path.read_bytes()
                assert 100_000 < len(answer.body) < 101_000
            assert gcs.given - before < 2 * 101_000  # each of two frames once
            assert gcs.given < size
            whole = server.ask(place, "application/dicom")
            assert whole.body == local.path.read_bytes()
