"""A bucket of S3, or of a service that speaks its protocol.

Every part is sent with its SHA-256, which the server verifies; the entity tag of the whole, which is made of the md5 of
the parts, is compared after that. Where it means something else, as with keys of KMS, the object is read back.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotSupportedError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store as Bucket

from coverslip.errors import ConflictError, StoreError, UsageError
from coverslip.stores.base import LocalInstance, OnBytes, PutOutcome, PutResult, StoredInstance, VersionedBytes
from coverslip.stores.digests import require_unchanged
from coverslip.stores.objects import NamedBytes
from coverslip.stores.options import Anonymous, StoreDefault, StoreOptions
from coverslip.stores.progress import Progress
from coverslip.stores.retrying import Retrier
from coverslip.stores.transport import require_safe_url, status_failure
from coverslip.stores.whole_file import iter_chunks

if TYPE_CHECKING:
    from obstore import PutMode
    from obstore.store import ClientConfig, S3Config

__all__ = ["S3Store", "open_store_at"]

_SMALLEST_PART_BYTES = 5 << 20
_MOST_PARTS = 9_000  # of 10,000
_PARTS_AT_ONCE = 2
_ENDPOINT_VARIABLES = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_LONGEST_REQUEST_S = 600
_RETRIES_OF_REQUESTS = 2  # by the library, at once; calls as a whole are retried by the policy


def open_store_at(url: str, options: StoreOptions) -> S3Store:
    """Open the bucket, or the part of it, at an ``s3:`` URL."""
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*))?", url)
    if match is None:
        raise UsageError(f"{url}: wanted s3://bucket or s3://bucket/prefix")
    if not isinstance(options.credentials, StoreDefault | Anonymous):
        raise UsageError("s3:// takes its credentials from AWS_ variables of the environment or from the machine")
    if options.client_certificate is not None:
        raise UsageError("s3:// takes no client certificate")
    return S3Store(match[1], (match[2] or "").strip("/"), options)


class S3Store(NamedBytes):
    """Keeps instances as objects of a bucket.

    Parameters
    ----------
    bucket, prefix : str
        Objects lie below the prefix, without a slash at either end.
    options : StoreOptions
    """

    def __init__(self, bucket: str, prefix: str, options: StoreOptions) -> None:
        super().__init__(f"s3://{bucket}/{prefix}", options.naming)
        self._bucket_name = bucket
        self._prefix = prefix
        self._options = options
        self._retrier = Retrier(options.retry)
        self._takes_conditions = True
        found = [os.environ[name] for name in _ENDPOINT_VARIABLES if os.environ.get(name)]
        endpoint = options.endpoint_url or (found[0] if found else "")
        self._endpoint = require_safe_url(endpoint, options) if endpoint else ""

    def put(self, instance: LocalInstance, on_bytes: OnBytes | None = None) -> PutResult:
        """Send an instance if nothing has its name; see `coverslip.stores.base.Store`."""
        name = instance.object_name
        self.location_of(name)  # refuses what is no name
        parts = _PartDigests(self._part_bytes(instance.size_bytes))
        require_unchanged(instance, parts)
        progress = Progress(on_bytes)
        try:
            there = self.find_object(name)
            if there is None:
                there = self._retrier.run(lambda: self._send_once(instance, parts, progress))
                if there is not None:
                    return PutResult(PutOutcome.STORED, there)
                there = self._require_object(name)
            comparison = self.compare_stored(instance, there)
            if not comparison.equal:
                raise ConflictError(f"{name}: other content in {self.url}: {'; '.join(comparison.differences)}")
        except BaseException:
            progress.move_to(0)
            raise
        progress.move_to(instance.size_bytes)
        return PutResult(PutOutcome.ALREADY_THERE, there)

    def _send_once(self, instance: LocalInstance, parts: _PartDigests, progress: Progress) -> StoredInstance | None:
        """Return what has arrived; None if something has the name already."""
        name = instance.object_name
        is_large = instance.size_bytes > parts.part_bytes

        def content() -> Iterator[bytes]:
            progress.move_to(0)
            for chunk in iter_chunks(instance.path, parts.part_bytes):
                progress.move(len(chunk))
                yield chunk

        try:
            _told(
                name,
                lambda: obstore.put(
                    self._bucket,
                    name,
                    content() if is_large else b"".join(content()),
                    attributes={"Content-Type": "application/dicom", "md5": instance.md5},
                    # The library has no condition for what goes in parts.
                    mode=None if is_large or not self._takes_conditions else "create",
                    use_multipart=is_large,
                    chunk_size=parts.part_bytes,
                    max_concurrency=_PARTS_AT_ONCE,
                ),
                AlreadyExistsError,
                NotSupportedError,
            )
        except AlreadyExistsError:
            return None
        except NotSupportedError:
            self._takes_conditions = False
            raise StoreError(f"{name}: the store takes no conditions", retryable=True) from None
        stored = self._require_object(name)
        if not self.compare_stored(instance, stored).equal:
            self.remove(stored)
            raise StoreError(f"{name}: other bytes arrived than were sent, now removed", retryable=True)
        return stored

    def _require_object(self, name: str) -> StoredInstance:
        stored = self.find_object(name)
        if stored is None:
            raise StoreError(f"{name}: vanished from {self.url}", retryable=True)
        return stored

    def find_object(self, name: str) -> StoredInstance | None:
        """Return what is stored under a name, or None."""
        location = self.location_of(name)
        try:
            told = self._call(name, lambda: obstore.head(self._bucket, name), FileNotFoundError)
        except FileNotFoundError:
            return None
        return _stored(location, told)

    def iter_objects(self, prefix: str = "") -> Iterator[StoredInstance]:
        """Yield every object whose name begins with `prefix`."""
        folder = prefix.rpartition("/")[0]
        pages = iter(obstore.list(self._bucket, prefix=folder or None))
        # Not tried again: after a failure the library's iterator would seem to be at its end.
        while (page := _told(prefix or self.url, lambda: next(pages, None))) is not None:
            for told in page:
                name = str(told["path"])
                if name.startswith(prefix):
                    yield _stored(f"{self.url}/{name}", told)

    def read_range(self, stored: StoredInstance, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of an object."""
        name = self.name_of(stored)
        size_bytes = stored.size_bytes if stored.size_bytes is not None else self._require_object(name).size_bytes
        length_bytes = min(length_bytes, (size_bytes or 0) - offset_bytes)
        if length_bytes <= 0:
            return b""  # a range without a byte is an error for S3
        data = self._call(name, lambda: obstore.get_range(self._bucket, name, start=offset_bytes, length=length_bytes))
        return bytes(data)

    def put_bytes(self, name: str, data: bytes) -> None:
        """Put a small object in place of the one that was there a moment before."""
        there = self.find_object(name)
        try:
            self._call(
                name,
                lambda: obstore.put(
                    self._bucket,
                    name,
                    data,
                    mode=self._condition(there),
                    use_multipart=False,
                ),
                AlreadyExistsError,
                NotSupportedError,
                PreconditionError,
            )
        except NotSupportedError:
            self._takes_conditions = False
            self.put_bytes(name, data)
        except (AlreadyExistsError, PreconditionError):
            if self.read_bytes(name) != data:
                raise ConflictError(f"{name}: was put by somebody else at the same time") from None

    def _condition(self, there: StoredInstance | None) -> PutMode | None:
        """Return what keeps a put from replacing another object than the one that was seen."""
        if not self._takes_conditions:
            return None
        return {"e_tag": there.generation} if there and there.generation else "create"

    def read_versioned(self, name: str) -> VersionedBytes | None:
        """Return a small object, or None; its version is its entity tag."""
        self.location_of(name)

        def read() -> VersionedBytes:
            found = obstore.get(self._bucket, name)
            return VersionedBytes(bytes(found.bytes()), found.meta["e_tag"] or "")

        try:
            return self._call(name, read, FileNotFoundError)
        except FileNotFoundError:
            return None

    def swap_bytes(self, name: str, data: bytes, version: str | None) -> str:
        """Put a small object in place of one with an entity tag; of no use where a service takes no conditions."""
        self.location_of(name)
        mode: PutMode = "create" if version is None else {"e_tag": version}
        try:
            told = self._call(
                name,
                lambda: obstore.put(self._bucket, name, data, mode=mode, use_multipart=False),
                AlreadyExistsError,
                NotSupportedError,
                PreconditionError,
                FileNotFoundError,
            )
            return told["e_tag"] or ""
        except NotSupportedError:
            raise StoreError(f"{name}: the store takes no conditions, so nothing can be agreed on there") from None
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            there = self.read_versioned(name)
            if there is None or there.data != data:
                raise ConflictError(f"{name}: was put by somebody else at the same time") from None
            return there.version

    def remove(self, stored: StoredInstance) -> bool:
        """Remove an object."""
        name = self.name_of(stored)
        if self.find_object(name) is None:
            return False  # S3 does not tell
        self._call(name, lambda: obstore.delete(self._bucket, name))
        return True

    def close(self) -> None:
        """Let go of connections; they end with the last use of the library's store."""
        self.__dict__.pop("_bucket", None)

    def _part_bytes(self, size_bytes: int) -> int:
        """Return the size of parts: as asked, but so many bytes fit into the parts that there may be."""
        wanted = max(self._options.chunk_bytes, _SMALLEST_PART_BYTES, math.ceil(size_bytes / _MOST_PARTS))
        return math.ceil(wanted / (1 << 20)) << 20

    def _compare_digests(self, instance: LocalInstance, stored: StoredInstance) -> tuple[str, str, str]:
        """Compare the entity tag if it can be understood, otherwise the bytes."""
        found = (stored.generation or "").strip('"')
        if found == instance.md5:
            return "md5", found, instance.md5
        if "-" in found:
            parts = _PartDigests(self._part_bytes(instance.size_bytes))
            require_unchanged(instance, parts)
            if found == parts.entity_tag():
                return "md5 of parts", found, found
        return super()._compare_digests(instance, stored)

    @cached_property
    def _bucket(self) -> Bucket:
        client: ClientConfig = {
            "allow_http": self._endpoint.startswith("http:"),
            "connect_timeout": timedelta(seconds=self._options.connect_timeout_s),
            # Of a whole request: there is none between bytes.
            "timeout": timedelta(seconds=max(self._options.read_timeout_s, _LONGEST_REQUEST_S)),
        }
        if self._options.ca_file is not None:
            try:
                client["root_certificate"] = self._options.ca_file.read_bytes()
            except OSError as error:
                raise UsageError(f"{self._options.ca_file.name}: cannot be read: {error.strerror}") from None
        config: S3Config = {"checksum_algorithm": "sha256"}
        if self._endpoint:
            config["endpoint"] = self._endpoint
        if isinstance(self._options.credentials, Anonymous):
            config["skip_signature"] = True
        policy = self._options.retry
        return Bucket(
            self._bucket_name,
            prefix=self._prefix or None,
            config=config,
            client_options=client,
            retry_config={
                "max_retries": min(_RETRIES_OF_REQUESTS, policy.attempts - 1),
                "backoff": {
                    "init_backoff": timedelta(seconds=policy.first_wait_s),
                    "max_backoff": timedelta(seconds=policy.longest_wait_s),
                    "base": 2,
                },
                "retry_timeout": timedelta(seconds=policy.longest_retry_after_s),
            },
        )

    def _call[T](self, what: str, call: Callable[[], T], *expected: type[Exception]) -> T:
        """Run a call of the library until it fails in no passing way."""
        return self._retrier.run(lambda: _told(what, call, *expected))


class _PartDigests:
    """md5 of each part, from which S3 makes the entity tag of an object that was sent in parts."""

    name = "md5 of parts"

    def __init__(self, part_bytes: int) -> None:
        self.part_bytes = part_bytes
        self._digests: list[bytes] = []
        self._part = hashlib.md5(usedforsecurity=False)
        self._filled = 0

    def update(self, data: bytes, /) -> None:
        """Take more bytes."""
        view = memoryview(data)
        while view:
            piece = view[: self.part_bytes - self._filled]
            self._part.update(piece)
            self._filled += len(piece)
            view = view[len(piece) :]
            if self._filled == self.part_bytes:
                self._end_part()

    def _end_part(self) -> None:
        self._digests.append(self._part.digest())
        self._part = hashlib.md5(usedforsecurity=False)
        self._filled = 0

    def hexdigest(self) -> str:
        """Return the digest of the digests."""
        digests = [*self._digests, *([self._part.digest()] if self._filled else [])]
        return hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()

    def entity_tag(self) -> str:
        """Return the entity tag of an object in parts."""
        return f"{self.hexdigest()}-{len(self._digests) + bool(self._filled)}"


def _stored(location: str, told: Any) -> StoredInstance:
    return replace(StoredInstance(location), size_bytes=int(told["size"]), generation=told["e_tag"])


def _told[T](what: str, call: Callable[[], T], *expected: type[Exception]) -> T:
    """Run a call of the library; its messages hold URLs and answers of the server, and are not repeated."""
    try:
        return call()
    except expected:
        raise
    except (BaseError, FileNotFoundError) as error:
        failure = _failure(what, error)
        if NotSupportedError in expected and _status(error) == 501:
            raise NotSupportedError from None
        raise failure from None


def _failure(what: str, error: Exception) -> StoreError:
    if isinstance(error, PermissionDeniedError):
        return status_failure(what, 403)
    if isinstance(error, UnauthenticatedError):
        return status_failure(what, 401)
    if isinstance(error, FileNotFoundError):
        return StoreError(f"{what}: not in the bucket, or there is no such bucket")
    if isinstance(error, NotSupportedError):
        return StoreError(f"{what}: the store does not support this")
    status = _status(error)
    if status is not None:
        return status_failure(what, status)
    return StoreError(f"{what}: the connection failed", retryable=True)


def _status(error: Exception) -> int | None:
    """Return the status of HTTP that a message of the library holds."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else None
