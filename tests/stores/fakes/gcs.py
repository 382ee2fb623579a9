"""Google Cloud Storage's JSON API as far as it is used, with the checks that emulators leave out.

https://cloud.google.com/storage/docs/json_api/v1, https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

from __future__ import annotations

import base64
import email.parser
import email.policy
import hashlib
import json
import re
import secrets
import ssl
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
from tests.stores.fakes.http_server import FakeServer, Request, Response, as_json

__all__ = ["StrictGcs"]

QUANTUM_BYTES = 256 << 10
PAGE = 3


@dataclass
class StoredObject:
    path: Path
    size: int
    md5: str
    crc32c: str
    generation: int
    metadata: dict[str, str]
    content_type: str
    is_composite: bool = False

    def as_json(self, bucket: str, name: str) -> dict[str, Any]:
        told = {
            "kind": "storage#object",
            "bucket": bucket,
            "name": name,
            "size": str(self.size),
            "md5Hash": self.md5,
            "crc32c": self.crc32c,
            "generation": str(self.generation),
            "metageneration": "1",
            "contentType": self.content_type,
            "metadata": self.metadata,
        }
        if self.is_composite:
            del told["md5Hash"]
        return told


@dataclass
class Session:
    name: str
    wanted: dict[str, Any]
    match: int | None
    total: int | None
    path: Path
    persisted: int = 0
    md5: Any = field(default_factory=hashlib.md5)
    crc32c: Any = field(default_factory=google_crc32c.Checksum)
    answer: Response | None = None

    def take(self, data: bytes) -> None:
        with open(self.path, "r+b") as file:
            file.seek(self.persisted)
            if data == bytes(len(data)):
                file.truncate(self.persisted + len(data))  # a hole
            else:
                file.write(data)
        self.md5.update(data)
        self.crc32c.update(data)
        self.persisted += len(data)


class StrictGcs(FakeServer):
    """One bucket; of a chunk that was cut off, what came counts as far as its last whole 256 KiB, as with Google."""

    public_url = ""
    """What sessions are told to be at, when clients come through a proxy."""

    def __init__(self, bucket: str = "bucket", tls: ssl.SSLContext | None = None) -> None:
        self.bucket = bucket
        self.objects: dict[str, StoredObject] = {}
        self.sessions: dict[str, Session] = {}
        self.session_chunks: list[int] = []
        self._generation = 1000
        self._folder = tempfile.TemporaryDirectory(prefix="strict-gcs-")
        super().__init__(tls)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()

    def data(self, name: str) -> bytes:
        return self.objects[name].path.read_bytes()

    def answer(self, request: Request) -> Response:
        if "session" in request.query:
            return self._continue_session(request)
        match = re.match(r"/(?:upload/|download/)?storage/v1/b/([^/]+)/o(?:/(.+))?$", request.path)
        if match is None or match[1] != self.bucket:
            request.read_all()
            return as_json(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
        name = match[2]
        if request.path.startswith("/upload/"):
            return self._upload(request)
        if name is None:
            return self._list(request)
        if request.method == "DELETE":
            return self._delete(request, name)
        if request.query.get("alt") == "media":
            return self._media(request, name)
        stored = self.objects.get(name)
        return as_json(200, stored.as_json(self.bucket, name)) if stored else self._not_found()

    @staticmethod
    def _not_found() -> Response:
        return as_json(404, {"error": {"code": 404, "message": "No such object"}})

    @staticmethod
    def _precondition_failed() -> Response:
        return as_json(412, {"error": {"code": 412, "message": "conditionNotMet"}})

    def _violates(self, name: str, match: int | None) -> bool:
        found = self.objects[name].generation if name in self.objects else 0
        return match is not None and match != found

    def _upload(self, request: Request) -> Response:
        match = request.query.get("ifGenerationMatch")
        generation = int(match) if match is not None else None
        if request.query["uploadType"] == "multipart":
            head = f"Content-Type: {request.headers['Content-Type']}\r\n\r\n".encode()
            message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.read_all())
            described, content = message.iter_parts()
            wanted = json.loads(described.get_payload(decode=True))
            session = self._session(wanted["name"], wanted, generation, None)
            # The parser of mail takes a line end at the end of the content for its own.
            session.take(content.get_payload(decode=True))
            return self._finish(session)
        assert request.query["uploadType"] == "resumable"
        wanted = json.loads(request.read_all())
        wanted["contentType"] = request.headers.get("X-Upload-Content-Type")
        with self.lock:
            if self._violates(wanted["name"], generation):
                return self._precondition_failed()
            total = request.headers.get("X-Upload-Content-Length")
            session = self._session(wanted["name"], wanted, generation, int(total) if total else None)
            key = secrets.token_hex(8)
            self.sessions[key] = session
        place = f"{self.url}/upload/storage/v1/b/{self.bucket}/o?uploadType=resumable&session={key}"
        if self.public_url:
            place = place.replace(self.url, self.public_url)
        return Response(200, b"", {"Location": place})

    def _session(self, name: str, wanted: dict[str, Any], match: int | None, total: int | None) -> Session:
        path = Path(self._folder.name, secrets.token_hex(8))
        path.touch()
        return Session(name, wanted, match, total, path)

    def _continue_session(self, request: Request) -> Response:
        session = self.sessions.get(request.query["session"])
        if session is None:
            return as_json(404, {"error": {"code": 404, "message": "no such session"}})
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", request.headers.get("Content-Range", ""))
        if match is None or request.headers.get("Content-Length") is None:
            return as_json(400, {"error": {"code": 400, "message": "no Content-Range"}})
        if session.answer is not None:
            request.read_all()
            return session.answer
        total = int(match[3])
        if session.total not in (None, total):
            return as_json(400, {"error": {"code": 400, "message": "another total"}})
        if match[1] is None:
            return self._incomplete(session)
        first, last = int(match[1]), int(match[2])
        length = last - first + 1
        if length != int(request.headers["Content-Length"]) or first > session.persisted or last >= total:
            return as_json(400, {"error": {"code": 400, "message": "Content-Range does not fit"}})
        if last + 1 < total and length % QUANTUM_BYTES:
            return as_json(400, {"error": {"code": 400, "message": "chunk is no multiple of 256 KiB"}})
        self._receive(session, request, first, length, is_last=last + 1 == total)
        with self.lock:
            self.session_chunks.append(length)
            if session.persisted == total:
                session.answer = self._finish(session)
                return session.answer
        return self._incomplete(session)

    def _receive(self, session: Session, request: Request, first: int, length: int, *, is_last: bool) -> None:
        """Take a chunk; if the connection ends before it does, as far as the last whole quantum."""
        skip = session.persisted - first
        held = b""
        came = 0
        try:
            while came < length and (piece := request.read(QUANTUM_BYTES)):
                came += len(piece)
                if skip:
                    cut = min(skip, len(piece))
                    piece, skip = piece[cut:], skip - cut
                held += piece
                whole = len(held) // QUANTUM_BYTES * QUANTUM_BYTES
                session.take(held[:whole])
                held = held[whole:]
        finally:
            if came == length:
                session.take(held)

    @staticmethod
    def _incomplete(session: Session) -> Response:
        headers = {"Range": f"bytes=0-{session.persisted - 1}"} if session.persisted else {}
        return Response(308, b"", headers)

    def _finish(self, session: Session) -> Response:
        with self.lock:
            if self._violates(session.name, session.match):
                return self._precondition_failed()
            crc32c = base64.b64encode(session.crc32c.digest()).decode()
            md5 = base64.b64encode(session.md5.digest()).decode()
            for key, found in (("crc32c", crc32c), ("md5Hash", md5)):
                if session.wanted.get(key, found) != found:
                    message = f"Provided {key} {session.wanted[key]!r} doesn't match calculated {found!r}."
                    return as_json(400, {"error": {"code": 400, "message": message}})
            self._generation += 1
            self.objects[session.name] = StoredObject(
                session.path,
                session.persisted,
                md5,
                crc32c,
                self._generation,
                session.wanted.get("metadata", {}),
                session.wanted.get("contentType", "application/octet-stream"),
            )
            return as_json(200, self.objects[session.name].as_json(self.bucket, session.name))

    def _list(self, request: Request) -> Response:
        with self.lock:
            names = sorted(name for name in self.objects if name.startswith(request.query.get("prefix", "")))
            start = int(request.query.get("pageToken", 0))
            items = [self.objects[name].as_json(self.bucket, name) for name in names[start : start + PAGE]]
        answer: dict[str, Any] = {"kind": "storage#objects", "items": items}
        if start + PAGE < len(names):
            answer["nextPageToken"] = str(start + PAGE)
        return as_json(200, answer)

    def _delete(self, request: Request, name: str) -> Response:
        match = request.query.get("ifGenerationMatch")
        with self.lock:
            if name not in self.objects:
                return self._not_found()
            if self._violates(name, int(match) if match else None):
                return self._precondition_failed()
            del self.objects[name]
        return Response(204)

    def _media(self, request: Request, name: str) -> Response:
        stored = self.objects.get(name)
        if stored is None or request.query.get("generation", str(stored.generation)) != str(stored.generation):
            return self._not_found()
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.headers.get("Range", ""))
        if match is None:
            return Response(200, stored.path.read_bytes(), {"Content-Type": stored.content_type})
        first = int(match[1])
        if first >= stored.size:
            return as_json(416, {"error": {"code": 416, "message": "range"}})
        last = min(int(match[2] or stored.size), stored.size - 1)
        with open(stored.path, "rb") as file:
            file.seek(first)
            data = file.read(last - first + 1)
        headers = {"Content-Range": f"bytes {first}-{last}/{stored.size}", "Content-Type": stored.content_type}
        return Response(206, data, headers)
