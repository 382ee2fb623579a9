"""A DICOMweb service: STOW-RS, QIDO-RS and WADO-RS of PS3.18.

A service keeps data sets, not files: there is no digest to compare. What arrived is compared by metadata and frames;
only Orthanc, which keeps files, is asked for their md5 as well.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urljoin

from coverslip.errors import ConflictError, RejectedError, StoreError
from coverslip.stores.authorization import Authorization, open_authorization
from coverslip.stores.base import (
    Comparison,
    InstanceUids,
    LocalInstance,
    OnBytes,
    PutOutcome,
    PutResult,
    StoredInstance,
)
from coverslip.stores.digests import require_unchanged
from coverslip.stores.http_client import Answer, Body, HttpClient, iter_body
from coverslip.stores.metadata import iter_differences, parse_instances, parse_metadata
from coverslip.stores.multipart import iter_parts
from coverslip.stores.options import StoreOptions
from coverslip.stores.orthanc_rest import OrthancRest
from coverslip.stores.part10 import Part10File, sample_frame_numbers
from coverslip.stores.progress import Progress
from coverslip.stores.quiet import no_pydicom_warnings
from coverslip.stores.stow_answer import StowAnswer, is_passing, parse_stow_answer, reason_in_words
from coverslip.stores.transport import require_safe_url
from coverslip.stores.whole_file import iter_chunks, whole_file

if TYPE_CHECKING:
    from types import TracebackType

    from pydicom.dataset import Dataset

__all__ = ["DicomWebStore", "open_store_at"]

_JSON = "application/dicom+json"
_STOW_STATUSES = (200, 201, 202, 400, 409)
_PAGE = 1000
_FRAMES_AT_ONCE = 8
_SAMPLED_FRAMES = 5
_NO_SUCH_METHOD = (405, 501)


def open_store_at(url: str, options: StoreOptions) -> DicomWebStore:
    """Open the service at a ``dicomweb+https:`` URL."""
    service = require_safe_url(url.partition("+")[2], options)
    return DicomWebStore(service, service, options, open_authorization(options.credentials))


class DicomWebStore:
    """Keeps instances in a DICOMweb service.

    Parameters
    ----------
    url : str
        What the store is called, and what locations begin with.
    service_url : str
        Where requests go.
    options : StoreOptions
    authorization : Authorization
    """

    sends_multipart = True
    """Whether an instance is sent as the only part of a multipart body, as the standard has it."""
    knows_orthanc = True
    """Whether the service may be Orthanc's."""

    def __init__(self, url: str, service_url: str, options: StoreOptions, authorization: Authorization) -> None:
        self.url = url.rstrip("/")
        self._service_url = service_url.rstrip("/")
        self._options = options
        self._http = HttpClient(self._service_url, options, authorization)
        self._orthanc = OrthancRest(self._http, self._service_url)

    def put(self, instance: LocalInstance, on_bytes: OnBytes | None = None) -> PutResult:
        """Send an instance in one request if it is not there; see `coverslip.stores.base.Store`."""
        require_unchanged(instance)
        progress = Progress(on_bytes)
        try:
            result = self._put(instance, progress)
        except BaseException:
            progress.move_to(0)
            raise
        progress.move_to(instance.size_bytes)
        return result

    def _put(self, instance: LocalInstance, progress: Progress) -> PutResult:
        def attempt() -> PutResult | StoredInstance:
            # Also before a second attempt: the first may have arrived although its answer did not.
            return self._find_once(instance) or self._send_once(instance, progress)

        result = self._http.retrier.run(attempt)
        return result if isinstance(result, PutResult) else self._already_there(instance, result)

    def _already_there(self, instance: LocalInstance, there: StoredInstance) -> PutResult:
        """Compare what has the UIDs of an instance with it."""
        numbers = sample_frame_numbers(Part10File(instance.path).number_of_frames, _SAMPLED_FRAMES)
        comparison = self._compare(instance, there, numbers)
        if not comparison.equal:
            raise ConflictError(
                f"instance {instance.uids.sop_instance_uid}: other content in {self.url}: "
                f"{'; '.join(comparison.differences[:5])}"
            )
        return PutResult(PutOutcome.ALREADY_THERE, there)

    def _send_once(self, instance: LocalInstance, progress: Progress) -> PutResult | StoredInstance:
        what = f"instance {instance.uids.sop_instance_uid}"
        head, tail, content_type = self._envelope()

        def content() -> Iterator[bytes]:
            progress.move_to(0)
            yield head
            for chunk in iter_chunks(instance.path, self._options.chunk_bytes):
                yield chunk
                progress.move(len(chunk))
            yield tail

        body: Body = (len(head) + instance.size_bytes + len(tail), content)
        headers = {"Content-Type": content_type, "Accept": _JSON}
        answer = self._http.ask_once(
            "POST", f"{self._service_url}/studies", what, expected=_STOW_STATUSES, headers=headers, body=body
        )
        return self._judge(instance, answer)

    def _envelope(self) -> tuple[bytes, bytes, str]:
        """Return what stands before and after an instance, and the type of all."""
        if not self.sends_multipart:
            return b"", b"", "application/dicom"
        boundary = f"coverslip-{secrets.token_hex(16)}"
        head = f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        return head, tail, f'multipart/related; type="application/dicom"; boundary={boundary}'

    def _judge(self, instance: LocalInstance, answer: Answer) -> PutResult | StoredInstance:
        """Return what the store says of an instance, or what has its UIDs already, or raise a refusal."""
        uid = instance.uids.sop_instance_uid
        what = f"instance {uid}"
        told = parse_stow_answer(answer.content) or StowAnswer()
        stored = StoredInstance(self._location(instance.uids), instance.uids)
        if uid in told.stored and uid not in told.failed:
            # Orthanc answers 400 for a request of which this instance was stored.
            warning = told.stored[uid]
            return PutResult(PutOutcome.STORED, stored, (reason_in_words(warning),) if warning else ())
        reason = told.failed.get(uid, next(iter(told.failed.values()), None))
        # Somebody else may have stored it meanwhile; the reasons that stores give for that differ.
        if answer.status == 409 and (there := self._find_once(instance)) is not None:
            return there
        if told.failed or answer.status in (400, 409):
            words = reason_in_words(reason) if reason is not None else "the store refuses it without a reason"
            if reason is not None and is_passing(reason):
                raise StoreError(f"{what}: {words}", retryable=True)
            raise RejectedError(f"{what}: {words} ({answer.status})")
        if told.stored:
            raise StoreError(f"{what}: the store's answer tells of another instance")
        return PutResult(PutOutcome.STORED, stored, ("the store's answer tells of no instance",))

    def find(self, instance: LocalInstance) -> StoredInstance | None:
        """Return what is stored under the UIDs of an instance, or None."""
        return self._http.retrier.run(lambda: self._find_once(instance))

    def _find_once(self, instance: LocalInstance) -> StoredInstance | None:
        uids = instance.uids
        what = f"instance {uids.sop_instance_uid}"
        url = f"{self._service_url}/studies/{uids.study_instance_uid}/series/{uids.series_instance_uid}/instances"
        answer = self._http.ask_once(
            "GET",
            url,
            what,
            expected=(200, 204, 404),
            headers={"Accept": _JSON},
            params={"SOPInstanceUID": uids.sop_instance_uid},
        )
        if answer.status != 200:
            return None
        for model in parse_instances(answer.content, what):
            if _uid(model, "00080018") == uids.sop_instance_uid:
                return StoredInstance(self._location(uids), uids)
        return None

    def compare(self, instance: LocalInstance, frame_numbers: Sequence[int] = ()) -> Comparison:
        """Compare metadata and frames, and with Orthanc the md5 of its file."""
        stored = self.find(instance)
        if stored is None:
            raise StoreError(f"instance {instance.uids.sop_instance_uid}: not in {self.url}")
        return self._compare(instance, stored, frame_numbers)

    def _compare(self, instance: LocalInstance, stored: StoredInstance, frame_numbers: Sequence[int]) -> Comparison:
        compared: list[str] = []
        differences: list[str] = []
        file = self._orthanc.find_file(instance.uids.sop_instance_uid) if self.knows_orthanc else None
        if file is not None:
            compared += ["size", "md5"]
            if file.size_bytes != instance.size_bytes:
                differences.append(f"size: {file.size_bytes} bytes, expected {instance.size_bytes}")
            if file.md5 != instance.md5:
                differences.append(f"md5: {file.md5}, expected {instance.md5}")
        local = Part10File(instance.path)
        compared.append("metadata")
        header = self.read_header(stored)
        with no_pydicom_warnings():
            differences += iter_differences(header, local.header)
        if frame_numbers:
            compared.append(f"frames {', '.join(map(str, frame_numbers))}")
            differences += self._compare_frames(local, stored, frame_numbers)
        return Comparison(tuple(differences), tuple(compared))

    def _compare_frames(self, local: Part10File, stored: StoredInstance, frame_numbers: Sequence[int]) -> Iterator[str]:
        for start in range(0, len(frame_numbers), _FRAMES_AT_ONCE):
            numbers = frame_numbers[start : start + _FRAMES_AT_ONCE]
            for number, found in zip(numbers, self.read_frames(stored, numbers), strict=True):
                if not _is_same_frame(found, local.read_frame(number)):
                    yield f"frame {number}: other bytes than in {local.path.name}"

    def read_frames(self, stored: StoredInstance, frame_numbers: Sequence[int]) -> list[bytes]:
        """Return the stored bytes of frames, in the order they are asked for.

        Parameters
        ----------
        frame_numbers : sequence of int
            1-based.
        """
        what = f"frames of {self._what(stored)}"
        url = f"{self._service_place(stored)}/frames/{','.join(map(str, frame_numbers))}"
        accept = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'

        def attempt() -> list[bytes]:
            with self._http.stream_once("GET", url, what, headers=_raw(accept)) as response:
                content_type = response.headers.get("Content-Type", "")
                parts = iter_parts(content_type, iter_body(response, what), what)
                return [b"".join(part) for part in parts]

        frames = self._http.retrier.run(attempt)
        if len(frames) != len(frame_numbers):
            raise StoreError(f"{what}: {len(frames)} frames came, expected {len(frame_numbers)}")
        return frames

    def iter_instances(self, study_instance_uid: str = "", series_instance_uid: str = "") -> Iterator[StoredInstance]:
        """Yield what is stored, asking for pages until one is empty."""
        url, params = self._service_url, {}
        if study_instance_uid:
            url += f"/studies/{study_instance_uid}"
            if series_instance_uid:
                url += f"/series/{series_instance_uid}"
        elif series_instance_uid:
            params["SeriesInstanceUID"] = series_instance_uid
        offset, before = 0, list[str]()
        while page := self._page(f"{url}/instances", params, offset):
            uids = [_uid(model, "00080018") for model in page]
            if uids == before:
                raise StoreError(f"{self.url}: the store gives the same page of instances again")
            for model in page:
                yield self._listed(model, study_instance_uid, series_instance_uid)
            offset, before = offset + len(page), uids

    def _page(self, url: str, params: Mapping[str, str], offset: int) -> list[dict[str, Any]]:
        what = f"instances in {self.url}"
        asked = {**params, "limit": str(_PAGE), "offset": str(offset)}
        answer = self._http.ask("GET", url, what, expected=(200, 204, 404), headers={"Accept": _JSON}, params=asked)
        return parse_instances(answer.content, what) if answer.status == 200 else []

    def _listed(self, model: Mapping[str, Any], study_instance_uid: str, series_instance_uid: str) -> StoredInstance:
        uids = InstanceUids(
            _uid(model, "0020000D") or study_instance_uid,
            _uid(model, "0020000E") or series_instance_uid,
            _uid(model, "00080018"),
        )
        if not all((uids.study_instance_uid, uids.series_instance_uid, uids.sop_instance_uid)):
            raise StoreError(f"{self.url}: the store lists an instance without the UID of its study or series")
        return StoredInstance(self._location(uids), uids)

    def read_header(self, stored: StoredInstance) -> Dataset:
        """Return the data set without pixel data; file meta information holds the transfer syntax if it is told."""
        what = self._what(stored)
        url = f"{self._service_place(stored)}/metadata"
        answer = self._http.ask("GET", url, what, headers={"Accept": _JSON})
        models = parse_instances(answer.content, what)
        if len(models) != 1:
            raise StoreError(f"{what}: {len(models)} data sets came, expected one")
        return parse_metadata(models[0], lambda uri: self._read_bulk(urljoin(url, uri), what), what)

    def _read_bulk(self, url: str, what: str) -> bytes:
        accept = 'multipart/related; type="application/octet-stream"'

        def attempt() -> bytes:
            with self._http.stream_once("GET", url, what, headers=_raw(accept)) as response:
                parts = iter_parts(response.headers.get("Content-Type", ""), iter_body(response, what), what)
                return b"".join(next(parts, iter(())))

        return self._http.retrier.run(attempt)

    def download(self, stored: StoredInstance, path: Path) -> None:
        """Write a whole instance to a new file."""
        self._http.retrier.run(lambda: self._download_once(stored, path))

    def _download_once(self, stored: StoredInstance, path: Path) -> None:
        what = self._what(stored)
        accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
        try:
            with (
                self._http.stream_once("GET", self._service_place(stored), what, headers=_raw(accept)) as response,
                whole_file(path) as file,
            ):
                head = b""
                parts = iter_parts(response.headers.get("Content-Type", ""), iter_body(response, what), what)
                for piece in next(parts, iter(())):
                    head = head + piece[: 132 - len(head)] if len(head) < 132 else head
                    file.write(piece)
                if head[128:132] != b"DICM":
                    raise StoreError(f"{what}: what came is no Part 10 file")
        except FileExistsError:
            raise StoreError(f"{path.name}: not downloaded: there is a file of that name") from None

    def remove(self, stored: StoredInstance) -> bool:
        """Remove an instance where the store does that: by DELETE, or by Orthanc's own way."""
        what = self._what(stored)
        place = self._service_place(stored)
        answer = self._http.ask("DELETE", place, what, expected=(200, 202, 204, 404, 410, *_NO_SUCH_METHOD))
        if answer.status not in _NO_SUCH_METHOD:
            return answer.status not in (404, 410)
        if self.knows_orthanc and self._orthanc.is_there():
            return self._orthanc.remove(place.rpartition("/")[2])
        raise RejectedError(f"{what}: {self.url} removes nothing by DICOMweb ({answer.status})")

    def close(self) -> None:
        """Close connections."""
        self._http.close()

    def _location(self, uids: InstanceUids) -> str:
        return (
            f"{self.url}/studies/{uids.study_instance_uid}/series/{uids.series_instance_uid}"
            f"/instances/{uids.sop_instance_uid}"
        )

    def _service_place(self, stored: StoredInstance) -> str:
        """Return where requests about an instance go."""
        place = stored.location.removeprefix(self.url)
        if place == stored.location or not re.fullmatch(r"/studies/[0-9.]+/series/[0-9.]+/instances/[0-9.]+", place):
            raise ValueError(f"{stored.location} is not below {self.url}")
        return self._service_url + place

    @staticmethod
    def _what(stored: StoredInstance) -> str:
        return f"instance {stored.location.rpartition('/')[2]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _uid(model: Mapping[str, Any], tag: str) -> str:
    values = model.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _raw(accept: str) -> dict[str, str]:
    """Return headers that ask for bytes as they are stored."""
    return {"Accept": accept, "Accept-Encoding": "identity"}


def _is_same_frame(one: bytes, other: bytes) -> bool:
    """Whether frames are equal; the byte that makes a length even may be there or not."""
    if one == other:
        return True
    shorter, longer = sorted((one, other), key=len)
    return len(longer) == len(shorter) + 1 and longer == shorter + b"\0"
