"""A DICOM store of the Google Healthcare API.

Instances go in by STOW-RS, one per request, or are staged in a bucket and imported from there. An import says how many
objects failed, not which, and passes silently over what is there already; so each instance is compared after it.

References: https://cloud.google.com/healthcare-api/docs/dicom,
https://cloud.google.com/healthcare-api/docs/reference/rest/v1/projects.locations.datasets.dicomStores/import
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from coverslip.errors import RejectedError, StoreError, UsageError
from coverslip.stores.authorization import open_authorization
from coverslip.stores.base import LocalInstance, OnBytes, PutOutcome, PutResult
from coverslip.stores.dicomweb import DicomWebStore
from coverslip.stores.digests import require_unchanged
from coverslip.stores.operations import FinishedOperation, wait_for_operation
from coverslip.stores.options import ApplicationDefault, StoreDefault, StoreOptions
from coverslip.stores.part10 import Part10File
from coverslip.stores.transport import require_safe_url

if TYPE_CHECKING:
    from coverslip.stores.gcs import GcsStore

__all__ = ["HealthcareStore", "open_store_at"]

_ENDPOINT = "https://healthcare.googleapis.com"
_LARGEST_NATIVE_BYTES = 2 << 30


def open_store_at(url: str, options: StoreOptions) -> HealthcareStore:
    """Open the DICOM store at a ``healthcare:`` URL."""
    part = r"([A-Za-z0-9][\w.:-]*)"
    match = re.fullmatch(f"healthcare://{part}/{part}/{part}/{part}/?", url)
    if match is None:
        raise UsageError(f"{url}: wanted healthcare://project/location/dataset/store")
    if options.staging_url and not options.staging_url.startswith("gs://"):
        raise UsageError("staging: wanted gs://bucket or gs://bucket/prefix")
    return HealthcareStore(match[1], match[2], match[3], match[4], options)


class HealthcareStore(DicomWebStore):
    """Keeps instances in a DICOM store of the Healthcare API.

    Parameters
    ----------
    project, location, dataset, store : str
    options : StoreOptions
        `endpoint_url` may name another host; with `staging_url` instances are imported from there.
    """

    sends_multipart = False
    knows_orthanc = False

    def __init__(self, project: str, location: str, dataset: str, store: str, options: StoreOptions) -> None:
        self._api_url = f"{require_safe_url(options.endpoint_url or _ENDPOINT, options)}/v1"
        self._store_url = (
            f"{self._api_url}/projects/{project}/locations/{location}/datasets/{dataset}/dicomStores/{store}"
        )
        credentials = options.credentials
        if isinstance(credentials, StoreDefault):
            credentials = ApplicationDefault()
        super().__init__(
            f"healthcare://{project}/{location}/{dataset}/{store}",
            f"{self._store_url}/dicomWeb",
            options,
            open_authorization(credentials),
        )
        self._staging: GcsStore | None = None
        if options.staging_url:
            from coverslip.stores.gcs import open_store_at as open_bucket_at

            self._staging = open_bucket_at(options.staging_url, options)

    def put(self, instance: LocalInstance, on_bytes: OnBytes | None = None) -> PutResult:
        """Send an instance, or stage and import it; see `coverslip.stores.base.Store`."""
        _require_size(instance)
        if self._staging is None:
            return super().put(instance, on_bytes)
        require_unchanged(instance)
        there = self.find(instance)
        if there is None:
            return self._import(self._staging, instance, on_bytes)
        result = self._already_there(instance, there)
        if on_bytes:
            on_bytes(instance.size_bytes)
        return result

    def _import(self, staging: GcsStore, instance: LocalInstance, on_bytes: OnBytes | None) -> PutResult:
        """Stage an instance, import it and remove it from the bucket, whatever became of it."""
        uid = instance.uids.sop_instance_uid
        # The same name in every run: what was staged when a run was killed need not be sent again.
        staged = staging.put(replace(instance, object_name=f"{uid}-{instance.md5}.dcm"), on_bytes).stored
        refusal: RejectedError | None = None
        finished = FinishedOperation(0, 0, 0)
        try:
            finished = self._run_import(staged.location, f"instance {uid}")
        except RejectedError as error:
            refusal = error  # or somebody else has imported and removed what was staged
        finally:
            staging.remove(staged)
        there = self.find(instance)
        if there is None:
            if refusal is not None:
                raise refusal
            words = f"instance {uid}: not imported: {finished}"
            if finished.may_pass:
                raise StoreError(words, retryable=True)
            raise RejectedError(f"{words}; the store's log in Cloud Logging says why")
        # What somebody else has stored meanwhile is passed over by an import without a word.
        result = self._already_there(instance, there)
        if refusal is not None:
            return result
        warnings = () if finished.is_good else (f"the import ended with: {finished}",)
        return PutResult(PutOutcome.STORED, there, warnings)

    def _run_import(self, location: str, what: str) -> FinishedOperation:
        body = json.dumps({"gcsSource": {"uri": location}}).encode()
        answer = self._http.ask(
            "POST",
            f"{self._store_url}:import",
            what,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            body=(len(body), lambda: _once(body)),
        )
        return self._wait_for(answer.content, what)

    def _wait_for(self, started: bytes, what: str) -> FinishedOperation:
        return wait_for_operation(self._http, self._api_url, started, what, self._options.operation_timeout_s)

    def remove_series(self, study_instance_uid: str, series_instance_uid: str) -> bool:
        """Remove a series in one operation; False if it was not there."""
        what = f"series {series_instance_uid}"
        answer = self._http.ask(
            "DELETE",
            f"{self._service_url}/studies/{study_instance_uid}/series/{series_instance_uid}",
            what,
            expected=(200, 404),
        )
        if answer.status == 404:
            return False
        finished = self._wait_for(answer.content, what)
        if finished.error_code:
            raise StoreError(f"{what}: not removed: {finished}", retryable=finished.may_pass)
        return True

    def close(self) -> None:
        """Close connections."""
        super().close()
        if self._staging is not None:
            self._staging.close()


def _once(data: bytes) -> Iterator[bytes]:
    yield data


def _require_size(instance: LocalInstance) -> None:
    """Refuse what the service would refuse after it has been sent."""
    if instance.size_bytes < _LARGEST_NATIVE_BYTES:
        return
    file = Part10File(instance.path)
    if not file.is_encapsulated and file.pixel_data_bytes > _LARGEST_NATIVE_BYTES:
        raise RejectedError(
            f"instance {instance.uids.sop_instance_uid}: {file.pixel_data_bytes} bytes of native pixel data; the "
            "Healthcare API takes at most 2 GiB: convert with a compressed transfer syntax"
        )
