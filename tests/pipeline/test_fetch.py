"""Slides from web servers and buckets: whole, as the manifest states, and from no place that is not safe."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import google_crc32c
import pytest

from coverslip.errors import SourceError, StoreError, UsageError
from coverslip.metadata_maps.tables import read_table
from coverslip.pipeline.fetch import Fetcher, check_file
from coverslip.pipeline.manifest import Checksums, Slide, read_manifest
from coverslip.stores.options import RetryPolicy, StoreOptions

DATA = bytes(range(256)) * 9000
QUICK = StoreOptions(retry=RetryPolicy(attempts=4, first_wait_s=0.001, longest_wait_s=0.002))


class Handler(BaseHTTPRequestHandler):
    """Gives `DATA`; by the path also cut off, after a failure, from elsewhere, or changed in between."""

    protocol_version = "HTTP/1.1"
    asked: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        path, given = self.path.partition("?")[0], self.headers.get("Range")
        self.asked.append((self.path, given))
        count = len(self.asked)
        if path.startswith("/busy") and count == 1:
            self.answer(503, b"")
        elif path.startswith("/moved"):
            self.answer(302, b"", Location=f"/here/{path.rpartition('/')[2]}?key=secret")
        elif path.startswith("/away"):
            self.answer(302, b"", Location="http://192.0.2.1/slide.svs")
        elif path.startswith("/gone"):
            self.answer(404, b"")
        else:
            self.give(path, given, count)

    def give(self, path: str, given: str | None, count: int) -> None:
        tag = f'"{count if path.startswith("/changing") else 1}"'
        first = int(re.findall(r"\d+", given)[0]) if given and self.headers.get("If-Range") == tag else 0
        body = DATA[first:]
        if path.startswith(("/cut", "/changing")) and count < 3:
            body = body[: len(body) // 3]
        more = {"Content-Range": f"bytes {first}-{len(DATA) - 1}/{len(DATA)}"} if first else {}
        self.answer(206 if first else 200, body, length=len(DATA) - first, ETag=tag, **more)

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        if length is not None and length != len(body):
            self.close_connection = True

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """URL of a server, and what it was asked for."""
    asked: list[tuple[str, str | None]] = []
    handler = type("Handler", (Handler,), {"asked": asked})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", asked
        http.shutdown()


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    fetcher = Fetcher(QUICK)
    yield fetcher
    fetcher.close()


def slide_at(location: str, **checksums: str) -> Slide:
    return Slide("0" * 40, 1, "slide.svs", location, checksums=Checksums(**checksums))


GOOD = {
    "md5": hashlib.md5(DATA).hexdigest(),
    "sha256": hashlib.sha256(DATA).hexdigest(),
    "crc32c": bytes(google_crc32c.Checksum(DATA).digest()).hex(),
}


@pytest.mark.parametrize("place", ["plain", "busy", "cut", "moved", "changing"])
def test_slide_comes_whole_whatever_the_server_does(
    place: str, server: tuple[str, list], fetcher: Fetcher, tmp_path: Path
) -> None:
    url, asked = server
    path = fetcher.fetch(slide_at(f"{url}/{place}/slide.svs?key=secret", **GOOD), tmp_path / "source")
    assert path.name == "slide.svs"
    assert path.read_bytes() == DATA
    ranges = [given for _, given in asked if given]
    assert len(ranges) == {"cut": 2, "changing": 2}.get(place, 0)
    assert asked[0][0].endswith("?key=secret")


def test_what_came_is_compared_with_every_stated_checksum(
    server: tuple[str, list], fetcher: Fetcher, tmp_path: Path
) -> None:
    url, _ = server
    for name in GOOD:
        with pytest.raises(SourceError, match=f"{name} .* the manifest says 00"):
            fetcher.fetch(slide_at(f"{url}/slide.svs", **{**GOOD, name: "00"}), tmp_path / "source")


def test_slide_on_this_machine_is_compared_and_not_copied(fetcher: Fetcher, tmp_path: Path) -> None:
    (tmp_path / "slide.svs").write_bytes(DATA)
    assert fetcher.fetch(slide_at(str(tmp_path / "slide.svs"), **GOOD), tmp_path / "source") == tmp_path / "slide.svs"
    assert not (tmp_path / "source").exists()
    with pytest.raises(SourceError, match="md5"):
        check_file(tmp_path / "slide.svs", Checksums(md5="00"))
    with pytest.raises(SourceError, match="cannot be read"):
        check_file(tmp_path / "absent.svs", Checksums(md5="00"))


def test_crc32c_may_stand_in_base64_as_buckets_tell_it(tmp_path: Path) -> None:
    text = base64.b64encode(bytes.fromhex(GOOD["crc32c"])).decode()
    (tmp_path / "slides.csv").write_text(f"file,crc32c\nslide.svs,{text}\n")
    assert read_manifest(read_table(tmp_path / "slides.csv"))[0].checksums.crc32c == GOOD["crc32c"]


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("http://192.0.2.1/slide.svs", UsageError),
        ("ftp://127.0.0.1/slide.svs", UsageError),
        ("dicomweb+http://localhost/slide.svs", UsageError),
        ("https://127.0.0.1:9/slide.svs", StoreError),
    ],
)
def test_place_that_is_not_safe_or_not_there_is_refused(
    location: str, kind: type[Exception], fetcher: Fetcher, tmp_path: Path
) -> None:
    with pytest.raises(kind):
        fetcher.fetch(slide_at(location), tmp_path / "source")


def test_server_that_leads_away_is_not_followed_over_plain_http(
    server: tuple[str, list], fetcher: Fetcher, tmp_path: Path
) -> None:
    url, _ = server
    with pytest.raises(UsageError, match="plain HTTP"):
        fetcher.fetch(slide_at(f"{url}/away/slide.svs"), tmp_path / "source")


def test_failure_tells_no_query(server: tuple[str, list], fetcher: Fetcher, tmp_path: Path) -> None:
    url, _ = server
    with pytest.raises(StoreError) as caught:
        fetcher.fetch(slide_at(f"{url}/gone/slide.svs?key=secret"), tmp_path / "source")
    assert "404" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_companions_come_into_the_folders_that_they_have(
    server: tuple[str, list], fetcher: Fetcher, tmp_path: Path
) -> None:
    url, _ = server
    slide = Slide("0" * 40, 1, "s", f"{url}/a/s.ome.tif", (f"{url}/a/sub/t.ome.tif", f"{url}/b/u.ome.tif"))
    path = fetcher.fetch(slide, tmp_path / "source")
    names = sorted(each.relative_to(path.parent).as_posix() for each in path.parent.rglob("*") if each.is_file())
    assert names == ["s.ome.tif", "sub/t.ome.tif", "u.ome.tif"]
