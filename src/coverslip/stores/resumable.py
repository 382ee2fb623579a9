"""One resumable upload to Google Cloud Storage, in a session that has been opened.

After a failure the server is asked how much it has, and sending goes on from there.
https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import requests
from google.auth.transport.requests import AuthorizedSession

from coverslip.errors import StoreError
from coverslip.stores.base import LocalInstance, OnBytes
from coverslip.stores.google_failures import FAILURES, store_failure
from coverslip.stores.retrying import Retrier, parse_retry_after
from coverslip.stores.transport import status_failure

__all__ = ["LostSession", "ResumableSession"]

type Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LostSession:
    """Why a session ended without an object; what was sent in it is gone.

    Parameters
    ----------
    reason : str
    precondition_failed : bool
        Whether something has the name by now.
    """

    reason: str
    precondition_failed: bool = False


class ResumableSession:
    """Sends a file in a session.

    Parameters
    ----------
    session : AuthorizedSession
    session_url : str
        A secret: whoever knows it may write.
    instance : LocalInstance
    retrier : Retrier
    timeout : tuple of float
        For a connection and for an answer.
    """

    def __init__(
        self,
        session: AuthorizedSession,
        session_url: str,
        instance: LocalInstance,
        retrier: Retrier,
        timeout: tuple[float, float],
    ) -> None:
        self._session = session
        self._session_url = session_url
        self._instance = instance
        self._retrier = retrier
        self._timeout = timeout
        self._on_bytes: OnBytes | None = None
        self._arrived = 0
        self._is_unsure = False

    def send(self, chunk_bytes: int, on_bytes: OnBytes | None = None) -> Answer | LostSession:
        """Send the file in chunks and return what the server says of the object.

        Parameters
        ----------
        chunk_bytes : int
            A multiple of 256 KiB.
        on_bytes : callable, optional
            Told what the server has; if the session is lost, as much is taken back.
        """
        self._on_bytes = on_bytes
        answer: Answer | LostSession | None = None
        try:
            with open(self._instance.path, "rb", buffering=0) as file:
                while answer is None:
                    answer = self._retrier.run(lambda: self._send_chunk(file, chunk_bytes))
        except OSError as error:
            raise StoreError(f"{self._instance.path.name}: cannot be read: {error.strerror}") from None
        finally:
            if answer is None or isinstance(answer, LostSession):
                self._move_to(0)
        return answer

    def _send_chunk(self, file: BinaryIO, chunk_bytes: int) -> Answer | LostSession | None:
        """Return the answer after the last chunk, before it None."""
        total = self._instance.size_bytes
        if self._is_unsure:
            answer = self._take(self._request(b"", f"bytes */{total}"))
            if answer is not None:
                return answer
        file.seek(self._arrived)
        chunk = file.read(min(chunk_bytes, total - self._arrived))
        if not chunk:
            self._is_unsure = True
            raise StoreError(f"{self._instance.object_name}: sent but not acknowledged", retryable=True)
        self._is_unsure = True
        return self._take(self._request(chunk, f"bytes {self._arrived}-{self._arrived + len(chunk) - 1}/{total}"))

    def _request(self, data: bytes, content_range: str) -> requests.Response:
        try:
            response: requests.Response = self._session.request(  # type: ignore[no-untyped-call]
                "PUT",
                self._session_url,
                data=data,
                headers={"Content-Range": content_range},
                timeout=self._timeout,
                allow_redirects=False,
            )
            return response
        except FAILURES as error:
            raise store_failure(self._instance.object_name, error) from None

    def _take(self, response: requests.Response) -> Answer | LostSession | None:
        name = self._instance.object_name
        match response.status_code:
            case 200 | 201:
                try:
                    answer: Answer = response.json()
                except ValueError:
                    raise StoreError(f"{name}: the store's answer is no JSON", retryable=True) from None
                self._move_to(self._instance.size_bytes)
                return answer
            case 308:
                found = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("Range", ""))
                self._move_to(int(found[1]) + 1 if found else 0)
                self._is_unsure = False
                return None
            case 400:
                return LostSession("the store refuses what arrived: another checksum than was announced (400)")
            case 404 | 410:
                return LostSession(f"the store has ended the upload ({response.status_code})")
            case 412:
                return LostSession("something has this name by now (412)", precondition_failed=True)
            case status:
                retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
                raise status_failure(name, status, retry_after_s)

    def _move_to(self, arrived: int) -> None:
        if self._on_bytes and arrived != self._arrived:
            self._on_bytes(arrived - self._arrived)
        self._arrived = arrived
