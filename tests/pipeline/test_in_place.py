"""Slides that are larger than scratch are read where they lie, and become the same series."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from tests.pipeline.conftest import coverslip, digests_below, write_slide
from tests.stores.fakes.gcs import StrictGcs

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.errors import CoverslipError, SourceError, StoreError, UnsupportedSourceError
from coverslip.pipeline.budget import Budget, Estimator
from coverslip.pipeline.fetch import Fetcher
from coverslip.pipeline.in_place import CachedRanges, may_be_in_place
from coverslip.pipeline.manifest import Checksums, Slide
from coverslip.stores.base import ObjectStore
from coverslip.stores.options import Anonymous, RetryPolicy, StoreOptions
from coverslip.stores.registry import open_store

DATA = bytes(range(256)) * 400
QUICK = StoreOptions(retry=RetryPolicy(attempts=2, first_wait_s=0.001, longest_wait_s=0.002))
FACTS = {"rows": 900, "columns": 700, "native_downsamples": (2,)}


class RangeServer(ThreadingHTTPServer):
    """Gives files of a folder by ranges of bytes; whole if it is told to know none."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), RangeHandler)
        self.folder = folder
        self.whole = False
        self.asked: list[str] = []


class RangeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        data = (self.server.folder / self.path.lstrip("/")).read_bytes()
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        given = self.headers.get("Range", "")
        self.server.asked.append(given)
        if self.headers.get("If-Match", tag) != tag:
            self.answer(412, b"", tag)
        elif given and not self.server.whole:
            first, last = map(int, given.removeprefix("bytes=").split("-"))
            self.answer(206, data[first : last + 1], tag, f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}")
        else:
            self.answer(200, data, tag)

    def answer(self, status: int, body: bytes, tag: str, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("ETag", tag)
        if content_range:
            self.send_header("Content-Range", content_range)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RangeServer]:
    folder = tmp_path / "served"
    folder.mkdir()
    with RangeServer(folder) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield http
        http.shutdown()


@pytest.fixture
def fetcher() -> Iterator[Fetcher]:
    fetcher = Fetcher(QUICK)
    yield fetcher
    fetcher.close()


def slide_at(server: RangeServer, name: str, **checksums: str) -> Slide:
    size = (server.folder / name).stat().st_size
    url = f"http://127.0.0.1:{server.server_port}/{name}"
    return Slide("0" * 40, 1, name, url, size_bytes=size, checksums=Checksums(**checksums))


def request(path: Path, output: Path, **more: object) -> ConversionRequest:
    return ConversionRequest(path=path, output=output, validate="fast", **more)


def test_blocks_are_asked_for_once_and_no_more_of_them_are_kept_than_fit() -> None:
    asked = []

    def fetch(offset: int, size: int) -> bytes:
        asked.append((offset, size))
        return DATA[offset : offset + size]

    ranges = CachedRanges(len(DATA), fetch, str, block_bytes=1000, cache_bytes=3000)
    assert ranges.read(10, 20) == DATA[10:30]
    assert ranges.read(900, 200) == DATA[900:1100]  # over the edge of a block
    assert asked == [(0, 1000), (1000, 1000)]
    assert ranges.read(len(DATA) - 5, 5) == DATA[-5:]
    assert ranges.read(2000, 1) == DATA[2000:2001]
    assert ranges.read(0, 1) == DATA[:1]
    assert len(asked) == 5  # the first block had to go
    assert ranges.read(0, 50_000) == DATA[:50_000]
    assert asked[-1] == (0, 50_000)  # more than is kept: at once


def test_threads_that_want_one_block_ask_for_it_once() -> None:
    asked = []
    gate = threading.Event()

    def fetch(offset: int, size: int) -> bytes:
        asked.append(offset)
        gate.wait(10)
        return DATA[offset : offset + size]

    ranges = CachedRanges(len(DATA), fetch, str, block_bytes=1000, cache_bytes=3000)
    got: list[bytes] = []
    threads = [Thread(target=lambda: got.append(ranges.read(5, 5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(10)
    assert (asked, got) == ([0], [DATA[5:10]] * 4)


def test_part_that_comes_short_is_told() -> None:
    ranges = CachedRanges(100, lambda offset, size: b"x", str)
    with pytest.raises(StoreError, match="1 bytes of the slide came, expected 100"):
        ranges.read(0, 100)


def test_slide_of_a_web_server_becomes_the_same_series_without_being_here(
    server: RangeServer, fetcher: Fetcher, tmp_path: Path
) -> None:
    path = write_slide(server.folder / "slide.svs", 3, **FACTS)
    wanted = convert_slide(request(path, tmp_path / "wanted", include=("label",)))
    stated = slide_at(server, "slide.svs", sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    ranges = fetcher.open_ranges(stated)
    found = convert_slide(request(tmp_path / "slide.svs", tmp_path / "found", ranges=ranges, include=("label",)))
    assert found.source_sha256 == wanted.source_sha256
    assert digests_below(tmp_path / "found", ("conversion.json",)) == digests_below(
        tmp_path / "wanted", ("conversion.json",)
    )
    assert all(given.startswith("bytes=") for given in server.asked)


def test_what_is_not_as_stated_or_not_given_in_parts_is_refused(server: RangeServer, fetcher: Fetcher) -> None:
    write_slide(server.folder / "slide.svs", 3)
    with pytest.raises(SourceError, match=r"md5 .* the manifest says 00"):
        fetcher.open_ranges(slide_at(server, "slide.svs", md5="00"))
    server.whole = True
    with pytest.raises(StoreError, match="gives no parts"):
        fetcher.open_ranges(slide_at(server, "slide.svs"))


def test_slide_that_changes_meanwhile_is_not_delivered(server: RangeServer, fetcher: Fetcher, tmp_path: Path) -> None:
    write_slide(server.folder / "slide.svs", 3, **FACTS)
    ranges = fetcher.open_ranges(slide_at(server, "slide.svs"))
    write_slide(server.folder / "slide.svs", 4, **FACTS)
    with pytest.raises(CoverslipError):
        convert_slide(request(tmp_path / "slide.svs", tmp_path / "out", ranges=ranges))
    assert not list(tmp_path.glob("out/*/*/*.dcm"))


def test_format_that_another_library_reads_is_refused_in_place(
    server: RangeServer, fetcher: Fetcher, tmp_path: Path
) -> None:
    (server.folder / "slide.tif").write_bytes(b"SQLite format 3\0" + bytes(2000))
    ranges = fetcher.open_ranges(slide_at(server, "slide.tif"))
    with pytest.raises(UnsupportedSourceError):
        convert_slide(request(tmp_path / "slide.tif", tmp_path / "out", ranges=ranges))


@pytest.mark.parametrize(
    ("location", "companions", "may"),
    [
        ("gs://b/a.svs", (), True),
        ("https://host/a.ndpi?key=1", (), True),
        ("gs://b/a.mrxs", ("gs://b/a/",), False),
        ("gs://b/a.ome.tif", ("gs://b/b.ome.tif",), False),
        ("/a.svs", (), False),
        ("gs://b/a.czi", (), False),
    ],
)
def test_only_one_file_of_a_tiff_format_may_be_read_in_place(
    location: str, companions: tuple[str, ...], may: bool
) -> None:
    assert may_be_in_place(Slide("0" * 40, 1, "", location, companions, 1000)) is may


def test_slide_is_read_in_place_when_source_and_output_do_not_fit_together() -> None:
    slide = Slide("0" * 40, 1, "", "gs://b/a.svs", size_bytes=10**9)
    roomy = Estimator(Budget(2, 1 << 33, 10 * 10**9), 64 << 20).need_of(slide)
    tight = Estimator(Budget(2, 1 << 33, 2 * 10**9), 64 << 20)
    assert not roomy.in_place
    assert tight.need_of(slide).in_place
    assert tight.need_of(slide).scratch_bytes < 2 * 10**9 < roomy.scratch_bytes
    tight.require_disk([slide])
    with pytest.raises(StoreError, match="of scratch"):
        Estimator(Budget(2, 1 << 33, 10**9), 64 << 20).require_disk([slide])


def test_run_over_a_bucket_converts_what_does_not_fit_on_its_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_slide(tmp_path / "slide.svs", 5, **FACTS)
    size = path.stat().st_size
    with StrictGcs() as gcs:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.url)
        with open_store("gs://bucket/slides", StoreOptions(credentials=Anonymous())) as slides:
            assert isinstance(slides, ObjectStore)
            slides.put_bytes("slide.svs", path.read_bytes())
        run = ["run", "gs://bucket/slides", "--work", tmp_path / "work", "--stages", "convert,validate",
               "--source-credentials", "none", "--json"]  # fmt: skip
        few = coverslip(*run, "--scratch-limit", size, STORAGE_EMULATOR_HOST=gcs.url)
        assert (few.code, "of scratch" in few.err) == (6, True)
        done = coverslip(*run, "--scratch-limit", int(2 * size), STORAGE_EMULATOR_HOST=gcs.url)
    assert (done.code, done.told["done"]) == (0, 1), done.err
    convert_slide(request(path, tmp_path / "wanted"))
    ignored = ("conversion.json",)
    assert digests_below(tmp_path / "work" / "series", ignored) == digests_below(tmp_path / "wanted", ignored)
