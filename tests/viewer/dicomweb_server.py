"""A small read-only DICOMweb server over a folder of Part 10 files, for viewer tests on loopback only.

It answers what dicom-microscopy-viewer and Slim ask (PS3.18 section 10: QIDO-RS searches, WADO-RS metadata, frames,
bulk data, rendered and whole instances) under ``/dicomweb`` and serves pages from folders beside it. Headers are read
once at start; searches match exactly on UIDs and Modality and ignore other parameters.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from mimetypes import guess_type
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qs, urlsplit

import pydicom
from PIL import Image
from pydicom.encaps import generate_frames

DICOM_JSON = "application/dicom+json"
_PREFIX = "/dicomweb"
_BOUNDARY = "coverslip-frame-boundary"
_SEARCH_RESULTS = {  # level -> the UID that tells its results apart, and what each result says
    "studies": (
        "StudyInstanceUID",
        ["StudyInstanceUID", "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "PatientID", "PatientName"],
    ),
    "series": (
        "SeriesInstanceUID",
        ["Modality", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "StudyInstanceUID"],
    ),
    "instances": (
        "SOPInstanceUID",
        ["SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Modality", "SeriesInstanceUID", "StudyInstanceUID"],
    ),
}
_MATCHING_KEYS = {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "Modality"}

Json = dict[str, object]
Response = tuple[str, bytes]


@dataclass(frozen=True)
class Instance:
    """One stored file: its header without pixel data, and its path."""

    path: Path
    header: pydicom.Dataset

    @property
    def url_path(self) -> str:
        header = self.header
        return (
            f"{_PREFIX}/studies/{header.StudyInstanceUID}/series/{header.SeriesInstanceUID}"
            f"/instances/{header.SOPInstanceUID}"
        )

    @cached_property
    def frames(self) -> list[bytes]:
        """The stored frames; native pixel data is cut into frames of equal size."""
        dataset = pydicom.dcmread(self.path)
        number_of_frames = int(dataset.get("NumberOfFrames", 1))
        if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
            offsets = dataset.get("ExtendedOffsetTable")
            table = (offsets, dataset.ExtendedOffsetTableLengths) if offsets else None
            return list(generate_frames(dataset.PixelData, number_of_frames=number_of_frames, extended_offsets=table))
        size = dataset.Rows * dataset.Columns * dataset.SamplesPerPixel * dataset.BitsAllocated // 8
        return [dataset.PixelData[index * size : (index + 1) * size] for index in range(number_of_frames)]

    def metadata(self, base_url: str, bulk_data: dict[str, bytes]) -> Json:
        """Return the header as DICOM JSON; binary values go to `bulk_data` and are referenced by an absolute URI."""

        def reference(element: pydicom.DataElement) -> str:
            path = f"{self.url_path}/bulkdata/{len(bulk_data)}"
            bulk_data[path] = element.value
            return base_url + path

        return self.header.to_json_dict(bulk_data_threshold=1, bulk_data_element_handler=reference)

    def rendered(self, size: Sequence[int] | None) -> bytes:
        """Return the whole image as PNG, fitted into `size` (columns, rows) if given."""
        dataset = pydicom.dcmread(self.path)
        rows, columns, samples = dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
        across = -(-dataset.TotalPixelMatrixColumns // columns)
        tiles = dataset.pixel_array.reshape(-1, across, rows, columns, samples)  # rows of tiles, as TILED_FULL has them
        matrix = tiles.swapaxes(1, 2).reshape(-1, across * columns, samples)
        picture = Image.fromarray(matrix[: dataset.TotalPixelMatrixRows, : dataset.TotalPixelMatrixColumns])
        if size is not None:
            picture.thumbnail((size[0], size[1]))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()


class Archive:
    """All instances below a folder, and the answers to DICOMweb GET requests about them."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self.instances = [
            Instance(path, pydicom.dcmread(path, stop_before_pixels=True)) for path in sorted(folder.rglob("*.dcm"))
        ]
        self.bulk_data: dict[str, bytes] = {}
        self.metadata = [instance.metadata(base_url, self.bulk_data) for instance in self.instances]

    def answer(self, path: str, query: Mapping[str, list[str]]) -> Response | None:
        """Answer the request for `path` (below ``/dicomweb``), or return None when there is no such resource."""
        if (bulk := self.bulk_data.get(_PREFIX + path)) is not None:
            return _multipart([bulk], "application/octet-stream")
        parts = path.strip("/").split("/")
        matching = {key: values[0] for key, values in query.items() if key in _MATCHING_KEYS}
        while len(parts) >= 2 and parts[0] in _SEARCH_RESULTS:
            matching[_SEARCH_RESULTS[parts[0]][0]] = parts[1]
            parts = parts[2:]
        indices = [
            index
            for index, instance in enumerate(self.instances)
            if all(str(instance.header.get(key, "")) == value for key, value in matching.items())
        ]
        match parts:
            case ["studies" | "series" | "instances" as level]:
                return DICOM_JSON, json.dumps(self._search(level, indices)).encode()
            case ["metadata"] if indices:
                return DICOM_JSON, json.dumps([self.metadata[index] for index in indices]).encode()
            case ["frames", numbers] if indices:
                stored = self.instances[indices[0]].frames
                frames = [stored[int(number) - 1] for number in numbers.split(",")]
                return _multipart(frames, "application/octet-stream")
            case ["rendered"] if indices:
                viewport = query.get("viewport")
                size = [int(float(part)) for part in viewport[0].split(",")[:2]] if viewport else None
                return "image/png", self.instances[indices[0]].rendered(size)
            case [] if indices:
                return _multipart([self.instances[index].path.read_bytes() for index in indices], "application/dicom")
        return None

    def _search(self, level: str, indices: list[int]) -> list[Json]:
        """Return one QIDO-RS result per study, series or instance among `indices`."""
        key, keywords = _SEARCH_RESULTS[level]
        groups: dict[str, list[pydicom.Dataset]] = {}
        for index in indices:
            header = self.instances[index].header
            groups.setdefault(header[key].value, []).append(header)
        results = []
        for headers in groups.values():
            result = pydicom.Dataset()
            for keyword in keywords:
                setattr(result, keyword, headers[0].get(keyword, ""))
            if level == "studies":
                result.ModalitiesInStudy = sorted({header.Modality for header in headers})
                result.NumberOfStudyRelatedSeries = len({header.SeriesInstanceUID for header in headers})
                result.NumberOfStudyRelatedInstances = len(headers)
            results.append(result.to_json_dict())
        return results


def _multipart(parts: list[bytes], media_type: str) -> Response:
    """Wrap `parts` as multipart/related (RFC 2387)."""
    head = f"--{_BOUNDARY}\r\nContent-Type: {media_type}\r\n\r\n".encode()
    body = b"".join(head + part + b"\r\n" for part in parts) + f"--{_BOUNDARY}--\r\n".encode()
    return f'multipart/related; type="{media_type}"; boundary={_BOUNDARY}', body


def read_static(path: str, folders: Mapping[str, Path]) -> Response | None:
    """Return a file of `folders` (URL prefix -> folder), or the index page where a single-page application routes."""
    for prefix in sorted((prefix for prefix in folders if path.startswith(prefix)), key=len, reverse=True):
        folder = folders[prefix].resolve()
        file = (folder / path[len(prefix) :].lstrip("/")).resolve()
        if file.is_file() and file.is_relative_to(folder):
            return guess_type(file)[0] or "application/octet-stream", file.read_bytes()
    index = folders["/"] / "index.html"
    return ("text/html", index.read_bytes()) if not Path(path).suffix and index.is_file() else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        mount = next((each for each in self.server.archives if url.path.startswith(f"{each}/")), "")
        path = url.path.removeprefix(mount)
        if path.startswith(_PREFIX + "/") and mount in self.server.archives:
            answer, headers = self.server.archives[mount].answer(path.removeprefix(_PREFIX), parse_qs(url.query)), {}
        else:
            answer, headers = read_static(path, self.server.folders), {"Cache-Control": "max-age=600"}
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
        else:
            self._send(HTTPStatus.OK, *answer, headers)

    def do_OPTIONS(self) -> None:
        self._send(HTTPStatus.NO_CONTENT, "text/plain", b"")

    def _send(
        self, status: HTTPStatus, media_type: str, body: bytes, headers: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Access-Control-Allow-Origin", "*")
        self.send_header("Access-Control-Allow-Headers", "*")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, template: str, *args: object) -> None:
        self.server.log(template % args)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(
        self, folders: Mapping[str, Path], static: Mapping[str, Path], port: int, log: Callable[[str], None]
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.archives = {mount: Archive(folder, self.url + mount) for mount, folder in folders.items()}
        self.folders = static
        self.log = log


@contextlib.contextmanager
def serve(
    folder: Path, static: Mapping[str, Path], port: int = 0, log: Callable[[str], None] = lambda line: None
) -> Iterator[str]:
    """Serve `folder` and the pages of `static` (URL prefix -> folder) on loopback; yield the base URL."""
    with _serving(_Server({"": folder}, static, port, log)) as url:
        yield url


@contextlib.contextmanager
def serve_all(folders: Sequence[Path], static: Mapping[str, Path]) -> Iterator[list[str]]:
    """Serve folders below ``/0``, ``/1`` and so on of one origin, so that a browser keeps what pages share."""
    mounts = [f"/{number}" for number in range(len(folders))]
    server = _Server(dict(zip(mounts, folders, strict=True)), static, 0, lambda line: None)
    with _serving(server) as url:
        yield [url + mount for mount in mounts]


@contextlib.contextmanager
def _serving(server: _Server) -> Iterator[str]:
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.url
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Serve until interrupted; the first line printed is the base URL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--static", action="append", default=[], metavar="PREFIX=FOLDER")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    static = {prefix: Path(folder) for prefix, _, folder in (item.partition("=") for item in arguments.static)}
    with serve(arguments.folder, static, arguments.port, log=lambda line: print(line, flush=True)) as url:
        print(url, flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()


if __name__ == "__main__":
    main()
