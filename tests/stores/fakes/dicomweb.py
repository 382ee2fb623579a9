"""A DICOMweb service (PS3.18) that is strict about requests and can answer as differently as stores do."""

from __future__ import annotations

import re
import secrets
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from pydicom import Dataset, dcmread
from pydicom.encaps import get_frame
from tests.stores.fakes.http_server import FakeServer, Request, Response, as_json

__all__ = ["StrictDicomWeb"]

JSON = "application/dicom+json"
Key = tuple[str, str, str]


class StrictDicomWeb(FakeServer):
    """One store.

    Attributes
    ----------
    answers : {"json", "xml", "empty"}
        How STOW-RS is answered.
    fail_with, warn_with : int or None
        Reason to refuse everything with, or to warn of.
    duplicates : {"409", "409 reason", "200"}
        What an instance that is there already is answered with; the new one is never kept.
    removes : bool
    largest_page : int
        However many instances are asked for.
    single_parts : bool
        Whether one frame or instance is answered without a multipart envelope.
    drops_padding : bool
        Whether the byte that makes the length of a frame even is dropped.
    bulk_host : str
        What BulkDataURIs point to in place of this server.
    """

    root = "/dicom"
    takes_multipart = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.instances: dict[Key, Path] = {}
        self.answers = "json"
        self.fail_with: int | None = None
        self.warn_with: int | None = None
        self.duplicates = "409"
        self.removes = True
        self.largest_page = 2
        self.single_parts = False
        self.drops_padding = False
        self.bulk_host = ""
        self._folder = tempfile.TemporaryDirectory(prefix="strict-dicomweb-")
        super().__init__(tls)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()

    @property
    def dicomweb_url(self) -> str:
        return f"{self.url}{self.root}"

    def answer(self, request: Request) -> Response:
        if not request.raw_path.startswith(self.root):
            request.read_all()
            return Response(404)
        place = request.raw_path.removeprefix(self.root)
        if request.method == "POST" and re.fullmatch(r"/studies", place):
            return self._store(request)
        request.read_all()
        match = re.fullmatch(
            r"(?:/studies/([0-9.]+))?(?:/series/([0-9.]+))?/instances(?:/([0-9.]+)(?:/(metadata|frames/([0-9,]+)|bulk/(\w+)))?)?",
            place,
        )
        if match is None:
            return Response(404)
        study, series, uid, what, frames, bulk = match.groups()
        if uid is None:
            return self._search(request, study, series)
        key = (study, series, uid)
        if request.method == "DELETE":
            return self._remove(key)
        if key not in self.instances:
            return Response(404)
        if what is None:
            return self._retrieve(request, key)
        if what == "metadata":
            return as_json(200, [self._metadata(request, key)], JSON)
        if bulk:
            return self._bulk(key, bulk)
        return self._frames(request, key, [int(number) for number in frames.split(",")])

    # STOW-RS

    def _store(self, request: Request) -> Response:
        if "Content-Length" not in request.headers:
            return Response(411)
        path = Path(self._folder.name, secrets.token_hex(8))
        problem = self._receive(request, path)
        if problem:
            return Response(problem)
        try:
            header = dcmread(path, stop_before_pixels=True)
        except Exception:  # noqa: BLE001
            return self._stow_answer(400, {}, {"": 0xC000})
        key = (header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID)
        uid = key[2]
        if self.fail_with is not None:
            return self._stow_answer(409, {}, {uid: self.fail_with})
        with self.lock:
            if key in self.instances:
                if self.duplicates == "200":
                    return self._stow_answer(200, {uid: None}, {})
                return self._stow_answer(409, {}, {uid: 0x0111} if self.duplicates == "409 reason" else {})
            self.instances[key] = path
        return self._stow_answer(202 if self.warn_with else 200, {uid: self.warn_with}, {})

    def _receive(self, request: Request, path: Path) -> int:
        """Write the instance in a request to a file; returns a status if something is wrong with the request."""
        kind = request.headers.get("Content-Type", "")
        if not self.takes_multipart:
            if kind != "application/dicom":
                return 415
            self._write(request, path, request.bytes_left)
            return 0
        match = re.fullmatch(r'multipart/related; type="application/dicom"; boundary=([\w-]+)', kind)
        if match is None:
            return 415
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            byte = request.read(1)
            if not byte or len(head) > 1000:
                return 400
            head += byte
        if head != f"--{match[1]}\r\nContent-Type: application/dicom\r\n\r\n".encode():
            return 400
        tail = f"\r\n--{match[1]}--\r\n".encode()
        self._write(request, path, request.bytes_left - len(tail))
        return 0 if request.read_all() == tail else 400

    @staticmethod
    def _write(request: Request, path: Path, length: int) -> None:
        with open(path, "wb") as file:
            while length:
                piece = request.read(min(length, 1 << 20))
                length -= len(piece)
                if piece == bytes(len(piece)):
                    file.truncate(file.seek(len(piece), 1))  # a hole
                else:
                    file.write(piece)

    def _stow_answer(self, status: int, stored: dict[str, int | None], failed: dict[str, int]) -> Response:
        if self.answers == "empty":
            return Response(status)
        if self.answers == "xml":
            return Response(status, self._stow_xml(stored, failed), {"Content-Type": "application/dicom+xml"})
        model: dict[str, Any] = {"00081198": {"vr": "SQ"}, "00081199": {"vr": "SQ"}}
        for tag, reason_tag, outcomes in (("00081199", "00081196", stored), ("00081198", "00081197", failed)):
            items = []
            for uid, reason in outcomes.items():
                item: dict[str, Any] = {"00081155": {"vr": "UI", "Value": [uid]}}
                if reason is not None:
                    item[reason_tag] = {"vr": "US", "Value": [reason]}
                items.append(item)
            if items:
                model[tag]["Value"] = items
        return as_json(status, model, JSON)

    @staticmethod
    def _stow_xml(stored: dict[str, int | None], failed: dict[str, int]) -> bytes:
        lines = ['<?xml version="1.0" encoding="utf-8"?>', "<NativeDicomModel>"]
        for tag, reason_tag, outcomes in (("00081199", "00081196", stored), ("00081198", "00081197", failed)):
            lines.append(f'<DicomAttribute tag="{tag}" vr="SQ">')
            for number, (uid, reason) in enumerate(outcomes.items(), 1):
                lines.append(f'<Item number="{number}"><DicomAttribute tag="00081155" vr="UI">')
                lines.append(f'<Value number="1">{escape(uid)}</Value></DicomAttribute>')
                if reason is not None:
                    lines.append(f'<DicomAttribute tag="{reason_tag}" vr="US">')
                    lines.append(f'<Value number="1">{reason}</Value></DicomAttribute>')
                lines.append("</Item>")
            lines.append("</DicomAttribute>")
        return "\n".join([*lines, "</NativeDicomModel>"]).encode()

    # QIDO-RS

    def _search(self, request: Request, study: str | None, series: str | None) -> Response:
        query = request.query
        with self.lock:
            found = [
                key
                for key in sorted(self.instances)
                if study in (None, key[0])
                and series in (None, key[1])
                and query.get("SeriesInstanceUID", key[1]) == key[1]
                and query.get("SOPInstanceUID", key[2]) == key[2]
            ]
        start = int(query.get("offset", 0))
        page = found[start : start + min(int(query.get("limit", 1000)), self.largest_page)]
        if not page:
            return Response(204)
        models = []
        for key in page:
            model = {"00080018": {"vr": "UI", "Value": [key[2]]}}
            if study is None:
                model["0020000D"] = {"vr": "UI", "Value": [key[0]]}
            if series is None:
                model["0020000E"] = {"vr": "UI", "Value": [key[1]]}
            models.append(model)
        return as_json(200, models, JSON)

    # WADO-RS

    def _place(self, request: Request, key: Key) -> str:
        host = self.bulk_host or f"{self._scheme}://{request.headers['Host']}"
        return f"{host}{self.root}/studies/{key[0]}/series/{key[1]}/instances/{key[2]}"

    def _metadata(self, request: Request, key: Key) -> dict[str, Any]:
        header = dcmread(self.instances[key], stop_before_pixels=True)
        syntax = header.file_meta.TransferSyntaxUID
        for keyword in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
            if keyword in header:
                del header[keyword]
        handler = lambda element: f"{self._place(request, key)}/bulk/{element.tag:08X}"  # noqa: E731
        model = header.to_json_dict(bulk_data_threshold=500, bulk_data_element_handler=handler)
        model["00083002"] = {"vr": "UI", "Value": [syntax]}
        model["00081190"] = {"vr": "UR", "Value": [self._place(request, key)]}
        return model

    def _bulk(self, key: Key, tag: str) -> Response:
        header = dcmread(self.instances[key], stop_before_pixels=True)
        for element in header.iterall():
            if f"{element.tag:08X}" == tag:
                return self._parts([bytes(element.value)], "application/octet-stream")
        return Response(404)

    def _frames(self, request: Request, key: Key, numbers: list[int]) -> Response:
        if "transfer-syntax=*" not in request.headers.get("Accept", ""):
            return Response(406)
        ds = dcmread(self.instances[key])
        if max(numbers) > ds.NumberOfFrames or min(numbers) < 1:
            return Response(404)
        return self._parts([self._frame(ds, number) for number in numbers], "application/octet-stream")

    def _frame(self, ds: Dataset, number: int) -> bytes:
        if not ds.file_meta.TransferSyntaxUID.is_encapsulated:
            length = ds.Rows * ds.Columns * ds.SamplesPerPixel
            return ds.PixelData[(number - 1) * length : number * length]
        frame = get_frame(ds.PixelData, number - 1, number_of_frames=ds.NumberOfFrames)
        return frame.removesuffix(b"\0") if self.drops_padding else frame

    def _retrieve(self, request: Request, key: Key) -> Response:
        path = self.instances[key]
        if "transfer-syntax=*" not in request.headers.get("Accept", ""):
            return Response(406)

        def pieces(head: bytes, tail: bytes) -> Iterator[bytes]:
            yield head
            with open(path, "rb") as file:
                while piece := file.read(1 << 20):
                    yield piece
            yield tail

        size = path.stat().st_size
        if self.single_parts:
            return Response(200, pieces(b"", b""), {"Content-Type": "application/dicom", "Content-Length": str(size)})
        head = b"preamble\r\n--b0und\r\nContent-Type: application/dicom\r\n\r\n"
        tail = b"\r\n--b0und--"
        headers = {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary="b0und"',
            "Content-Length": str(len(head) + size + len(tail)),
        }
        return Response(200, pieces(head, tail), headers)

    def _parts(self, contents: list[bytes], kind: str) -> Response:
        if self.single_parts and len(contents) == 1:
            return Response(200, contents[0], {"Content-Type": kind})
        boundary = secrets.token_hex(8)
        body = b"".join(f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + each + b"\r\n" for each in contents)
        headers = {"Content-Type": f'multipart/related; type="{kind}"; boundary={boundary}'}
        return Response(200, body + f"--{boundary}--\r\n".encode(), headers)

    def _remove(self, key: Key) -> Response:
        if not self.removes:
            return Response(405)
        with self.lock:
            return Response(200 if self.instances.pop(key, None) else 404)
