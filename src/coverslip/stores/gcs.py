"""A bucket of Google Cloud Storage.

Instances are sent in one resumable upload each, never composed of parts, so that every object has the md5 that the
pipelines of the Imaging Data Commons ask for. Google verifies crc32c and md5, which are given with the upload, before
the object appears; its answer is compared once more here.

References: https://cloud.google.com/storage/docs/performing-resumable-uploads,
https://cloud.google.com/storage/docs/request-preconditions
"""

from __future__ import annotations

import base64
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import google.api_core.exceptions
import google_crc32c
import requests
from google.auth.transport.requests import AuthorizedSession
from google.cloud import storage  # type: ignore[attr-defined]  # published without types
from google.cloud.storage.exceptions import InvalidResponse

from coverslip.errors import ConflictError, StoreError, UsageError
from coverslip.stores.base import LocalInstance, OnBytes, PutOutcome, PutResult, StoredInstance, VersionedBytes
from coverslip.stores.digests import require_unchanged
from coverslip.stores.google_credentials import load_google_credentials
from coverslip.stores.google_failures import FAILURES, status_of, store_failure
from coverslip.stores.objects import Digest, NamedBytes
from coverslip.stores.options import Anonymous, StoreDefault, StoreOptions
from coverslip.stores.resumable import LostSession, ResumableSession
from coverslip.stores.retrying import Retrier
from coverslip.stores.transport import require_safe_url, tls_context

__all__ = ["GcsStore", "open_store_at"]

_CONTENT_TYPE = "application/dicom"
_CHUNK_MULTIPLE = 256 << 10
_SESSIONS = 4
_EMULATOR = "STORAGE_EMULATOR_HOST"
_FIELDS = "items(name,size,md5Hash,crc32c,generation),nextPageToken"


def open_store_at(url: str, options: StoreOptions) -> GcsStore:
    """Open the bucket, or the part of it, at a ``gs:`` URL."""
    match = re.fullmatch(r"gs://([a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(.*))?", url)
    if match is None:
        raise UsageError(f"{url}: wanted gs://bucket or gs://bucket/prefix")
    return GcsStore(match[1], (match[2] or "").strip("/"), options)


class GcsStore(NamedBytes):
    """Keeps instances as objects of a bucket.

    Parameters
    ----------
    bucket, prefix : str
        Objects lie below the prefix, without a slash at either end.
    options : StoreOptions
    """

    def __init__(self, bucket: str, prefix: str, options: StoreOptions) -> None:
        super().__init__(f"gs://{bucket}/{prefix}", options.naming)
        self._bucket_name = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._options = options
        self._retrier = Retrier(options.retry)
        self._timeout = (options.connect_timeout_s, options.read_timeout_s)
        self._lock = threading.Lock()
        emulator = os.environ.get(_EMULATOR, "")
        if emulator:
            require_safe_url(emulator if "://" in emulator else f"http://{emulator}", options)

    def put(self, instance: LocalInstance, on_bytes: OnBytes | None = None) -> PutResult:
        """Send an instance if nothing has its name; see `coverslip.stores.base.Store`."""
        location = self.location_of(instance.object_name)
        crc32c = _Crc32c()
        require_unchanged(instance, crc32c)
        there = self.find_object(instance.object_name)
        if there is None:
            answer = self._upload(instance, crc32c, on_bytes)
            if answer is not None:
                return PutResult(PutOutcome.STORED, self._require_arrived(instance, location, answer, crc32c))
            there = self.find_object(instance.object_name)
            if there is None:
                raise StoreError(f"{instance.object_name}: vanished from {self.url}", retryable=True)
        comparison = self.compare_stored(instance, there)
        if not comparison.equal:
            raise ConflictError(
                f"{instance.object_name}: other content in {self.url}: {'; '.join(comparison.differences)}"
            )
        if on_bytes:
            on_bytes(instance.size_bytes)
        return PutResult(PutOutcome.ALREADY_THERE, there)

    def _upload(self, instance: LocalInstance, crc32c: Digest, on_bytes: OnBytes | None) -> Mapping[str, Any] | None:
        """Return what Google says of the new object; None if something has the name already."""
        blob = self._blob(instance.object_name)
        blob.crc32c = base64.b64encode(bytes.fromhex(crc32c.hexdigest())).decode()
        blob.md5_hash = base64.b64encode(bytes.fromhex(instance.md5)).decode()
        # Outlives a copy that composes the object and so loses the md5 that Google computes.
        blob.metadata = {"md5": instance.md5}
        reason = ""
        for _ in range(_SESSIONS):
            try:
                session_url = self._call(
                    instance.object_name,
                    lambda retry: blob.create_resumable_upload_session(
                        content_type=_CONTENT_TYPE,
                        size=instance.size_bytes,
                        checksum=None,
                        if_generation_match=0,
                        timeout=self._timeout,
                        retry=retry,
                    ),
                    412,
                )
            except google.api_core.exceptions.PreconditionFailed:
                return None
            session = ResumableSession(self._session, session_url, instance, self._retrier, self._timeout)
            answer = session.send(self._chunk_bytes, on_bytes)
            if not isinstance(answer, LostSession):
                return answer
            if answer.precondition_failed:
                return None
            reason = answer.reason
        raise StoreError(f"{instance.object_name}: {reason}", retryable=True)

    def _require_arrived(
        self, instance: LocalInstance, location: str, answer: Mapping[str, Any], crc32c: Digest
    ) -> StoredInstance:
        """Compare what Google says that it has with what was sent; what is wrong is removed again."""
        stored = _stored_as_told(location, answer)
        wanted = (instance.size_bytes, crc32c.hexdigest(), instance.md5)
        if (stored.size_bytes, stored.crc32c or wanted[1], stored.md5 or wanted[2]) == wanted:
            return stored
        self.remove(stored)
        raise StoreError(f"{instance.object_name}: other bytes arrived than were sent, now removed", retryable=True)

    def find_object(self, name: str) -> StoredInstance | None:
        """Return what is stored under a name, or None."""
        location = self.location_of(name)
        blob = self._blob(name)
        try:
            self._call(name, lambda retry: blob.reload(timeout=self._timeout, retry=retry), 404)
        except google.api_core.exceptions.NotFound:
            return None
        return _stored_blob(location, blob)

    def iter_objects(self, prefix: str = "") -> Iterator[StoredInstance]:
        """Yield every object whose name begins with `prefix`."""
        pages = self._call(
            prefix or self.url,
            lambda retry: self._client.list_blobs(
                self._bucket_name, prefix=self._prefix + prefix, fields=_FIELDS, timeout=self._timeout, retry=retry
            ),
        )
        iterator = iter(pages)
        while (blob := self._call(prefix or self.url, lambda _retry: next(iterator, None))) is not None:
            if not blob.name.endswith("/"):  # the marker of a folder
                name = blob.name.removeprefix(self._prefix)
                yield _stored_blob(f"{self.url}/{name}", blob)

    def read_range(self, stored: StoredInstance, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of an object, of the generation that was found."""
        name = self.name_of(stored)
        if length_bytes <= 0:
            return b""
        blob = self._blob(name, stored.generation)
        try:
            return bytes(
                self._call(
                    name,
                    lambda retry: blob.download_as_bytes(
                        start=offset_bytes,
                        end=offset_bytes + length_bytes - 1,
                        raw_download=True,
                        checksum=None,
                        timeout=self._timeout,
                        retry=retry,
                    ),
                    404,
                    416,
                )
            )
        except google.api_core.exceptions.RequestRangeNotSatisfiable:
            return b""
        except google.api_core.exceptions.NotFound:
            raise StoreError(f"{name}: not in {self.url}") from None

    def put_bytes(self, name: str, data: bytes) -> None:
        """Put a small object in place of the one that was there a moment before."""
        there = self.find_object(name)
        self.swap_bytes(name, data, there.generation if there else None)

    def read_versioned(self, name: str) -> VersionedBytes | None:
        """Return a small object, or None; its version is its generation."""
        while (stored := self.find_object(name)) is not None:
            try:
                data = self.read_range(stored, 0, stored.size_bytes or 0)
            except StoreError as error:
                if error.retryable:
                    raise
                continue  # another generation has taken its place
            return VersionedBytes(data, stored.generation or "")
        return None

    def swap_bytes(self, name: str, data: bytes, version: str | None) -> str:
        """Put a small object in place of one generation."""
        blob = self._blob(name)
        crc32c = _Crc32c()
        crc32c.update(data)
        blob.crc32c = base64.b64encode(bytes.fromhex(crc32c.hexdigest())).decode()
        try:
            self._call(
                name,
                lambda retry: blob.upload_from_string(
                    data,
                    content_type="application/octet-stream",
                    if_generation_match=int(version or 0),
                    checksum=None,
                    timeout=self._timeout,
                    retry=retry,
                ),
                412,
            )
        except google.api_core.exceptions.PreconditionFailed:
            stored = self.find_object(name)  # it may be what an attempt of ours has put, whose answer was lost
            if stored is None or stored.crc32c != crc32c.hexdigest():
                raise ConflictError(f"{name}: was put by somebody else at the same time") from None
            return stored.generation or ""
        return str(blob.generation)

    def remove(self, stored: StoredInstance) -> bool:
        """Remove an object, if it is still the one that was found."""
        name = self.name_of(stored)
        generation = int(stored.generation) if stored.generation else None
        blob = self._blob(name)
        try:
            self._call(
                name,
                lambda retry: blob.delete(if_generation_match=generation, timeout=self._timeout, retry=retry),
                404,
                412,
            )
        except google.api_core.exceptions.NotFound:
            return False
        except google.api_core.exceptions.PreconditionFailed:
            raise ConflictError(f"{name}: another object has this name now") from None
        return True

    def close(self) -> None:
        """Close connections."""
        with self._lock:
            if "_session" in self.__dict__:
                self._session.close()  # type: ignore[no-untyped-call]
                del self.__dict__["_session"]
                self.__dict__.pop("_client", None)

    def _compare_digests(self, instance: LocalInstance, stored: StoredInstance) -> tuple[str, str, str]:
        """Compare what Google has computed: md5, or crc32c where a composite object has no md5."""
        if stored.md5 is None and stored.crc32c is not None:
            crc32c = _Crc32c()
            require_unchanged(instance, crc32c)
            return "crc32c", stored.crc32c, crc32c.hexdigest()
        return super()._compare_digests(instance, stored)

    def _digest_of(self, stored: StoredInstance) -> tuple[Digest, str | None]:
        if stored.crc32c is not None:
            return _Crc32c(), stored.crc32c
        return super()._digest_of(stored)

    def _blob(self, name: str, generation: str | None = None) -> storage.Blob:
        self.location_of(name)  # refuses what is no name
        bucket = self._connected_client().bucket(self._bucket_name)
        return bucket.blob(self._prefix + name, generation=int(generation) if generation else None)

    @property
    def _chunk_bytes(self) -> int:
        return max(1, self._options.chunk_bytes // _CHUNK_MULTIPLE) * _CHUNK_MULTIPLE

    def _connected_client(self) -> storage.Client:
        with self._lock:
            return self._client

    @cached_property
    def _client(self) -> storage.Client:
        # Without a project: buckets are named world-wide.
        return storage.Client(project=None, credentials=self._session.credentials, _http=self._session)

    @cached_property
    def _session(self) -> AuthorizedSession:
        credentials = self._options.credentials
        if os.environ.get(_EMULATOR) and isinstance(credentials, StoreDefault):
            credentials = Anonymous()
        session = AuthorizedSession(load_google_credentials(credentials))  # type: ignore[no-untyped-call]
        adapter = _Adapter(self._options)
        session.mount("https://", adapter)
        session.mount("http://", adapter)
        return session

    def _call[T](self, what: str, call: Callable[[Callable[..., Any]], T], *expected: int) -> T:
        """Run a call of Google's client, which retries its requests with what it is given.

        Raises
        ------
        google.api_core.exceptions.GoogleAPICallError
            For a status that the caller expects.
        StoreError
            In place of every other failure.
        """

        def told[U](request: Callable[[], U]) -> U:
            try:
                return request()
            except FAILURES as error:
                status = status_of(error)
                if isinstance(error, InvalidResponse):
                    error.response.close()  # a download that fails leaves its connection open
                if status is not None and status in expected:
                    raise google.api_core.exceptions.from_http_status(  # type: ignore[no-untyped-call]
                        status, ""
                    ) from None
                raise store_failure(what, error) from None

        def retrying[U](request: Callable[[], U]) -> Callable[[], U]:
            return lambda: self._retrier.run(lambda: told(request))

        return told(lambda: call(retrying))


class _Adapter(requests.adapters.HTTPAdapter):
    """Sets up TLS as asked, also where variables of the environment would have it otherwise."""

    def __init__(self, options: StoreOptions) -> None:
        self._tls_context = tls_context(options)
        self._ca_file = str(options.ca_file) if options.ca_file else None
        super().__init__(pool_maxsize=options.connections)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        """Make pools whose connections show the client's certificate."""
        super().init_poolmanager(*arguments, **options, ssl_context=self._tls_context)

    def send(self, request: requests.PreparedRequest, *arguments: Any, **options: Any) -> requests.Response:
        """Send a request, trusting the authorities asked for."""
        if self._ca_file is not None:
            options["verify"] = self._ca_file
        return super().send(request, *arguments, **options)


class _Crc32c:
    """crc32c in the form of hashlib's digests."""

    name = "crc32c"

    def __init__(self) -> None:
        self._checksum = google_crc32c.Checksum()  # type: ignore[no-untyped-call]

    def update(self, data: bytes, /) -> None:
        self._checksum.update(data)  # type: ignore[no-untyped-call]

    def hexdigest(self) -> str:
        return bytes(self._checksum.digest()).hex()  # type: ignore[no-untyped-call]


def _stored_as_told(location: str, answer: Mapping[str, Any]) -> StoredInstance:
    """Return what Google says of an object."""
    size, generation = answer.get("size"), answer.get("generation")
    return StoredInstance(
        location,
        size_bytes=int(size) if size is not None else None,
        md5=_hexadecimal(answer.get("md5Hash")),
        crc32c=_hexadecimal(answer.get("crc32c")),
        generation=str(generation) if generation is not None else None,
    )


def _stored_blob(location: str, blob: storage.Blob) -> StoredInstance:
    answer = {"size": blob.size, "md5Hash": blob.md5_hash, "crc32c": blob.crc32c, "generation": blob.generation}
    return _stored_as_told(location, answer)


def _hexadecimal(text: str | None) -> str | None:
    return base64.b64decode(text).hex() if text else None
