"""Who may ask, what is refused, and what stays out of answers and logs."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest

from coverslip.server.settings import Access, Limits, ServerSettings
from tests.server.conftest import Slide
from tests.server.running import Running, serving

TOKEN = "correct-horse-battery"


@pytest.fixture(scope="module")
def guarded(slide: Slide) -> Iterator[Running]:
    access = Access(token=TOKEN, hosts=("slides.example",), origins=("https://viewer.example",))
    limits = Limits(header_s=0.5, stall_s=1.0, connections=8, frames_per_request=5)
    with serving(slide.folder, ServerSettings(access=access, limits=limits)) as running:
        yield running


def raw(running: Running, data: bytes, timeout_s: float = 20) -> bytes:
    """Send bytes as they are; return what comes until the server closes or is silent."""
    place = urlsplit(running.url)
    with socket.create_connection((place.hostname, place.port), timeout_s) as connection:
        connection.sendall(data)
        found = b""
        with contextlib.suppress(OSError):
            while piece := connection.recv(1 << 16):
                found += piece
                if b"\r\n\r\n" in found and b"connection: close" not in data.lower():
                    break
    return found


@pytest.mark.parametrize(
    "path", ["/dicomweb/studies", "/openapi.json", "/iiif/1.2/info.json", "/slides/1.2", "/viewer/x"]
)
def test_nothing_is_told_without_the_token(guarded: Running, path: str) -> None:
    refused = guarded.ask(path)
    assert refused.status == 401
    assert refused.headers["www-authenticate"].startswith("Bearer")
    assert guarded.ask(path, Authorization="Bearer wrong").status == 401
    assert guarded.ask(path, Authorization=f"Basic {TOKEN}").status == 401
    assert guarded.ask(path, Authorization=f"Bearer {TOKEN}").status in (200, 404)


def test_frames_need_the_token_too(guarded: Running, slide: Slide) -> None:
    place = f"{slide.place(slide.base)}/frames/1"
    assert guarded.ask(place, Authorization=f"Bearer {TOKEN}").status == 200
    assert guarded.ask(place, Authorization=f"Bearer {TOKEN}").status == 200
    assert guarded.ask(place).status == 401


def test_a_browser_signs_in_with_the_token(guarded: Running) -> None:
    sent = guarded.ask("/", "text/html")
    assert (sent.status, sent.headers["location"]) == (303, "/login")
    assert guarded.ask("/login", "text/html").status == 200
    form = {"Content_Type": "application/x-www-form-urlencoded"}
    assert guarded.ask("/login", method="POST", body=b"token=wrong", **form).status == 401
    answer = guarded.ask("/login", method="POST", body=f"token={TOKEN}".encode(), **form)
    assert answer.status == 303
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert TOKEN not in cookie
    session = cookie.partition(";")[0]
    assert guarded.ask("/", "text/html", Cookie=session).status == 200
    assert guarded.ask("/", "text/html", Cookie=f"{session}x").status == 303


def test_health_needs_no_token(guarded: Running) -> None:
    assert guarded.ask("/healthz").json() == {"status": "ok"}
    assert guarded.ask("/readyz").json()["studies"] == 1


def test_a_proxy_that_signs_people_in_is_believed(slide: Slide) -> None:
    settings = ServerSettings(access=Access(user_header="X-Forwarded-Email"))
    with serving(slide.folder, settings) as running:
        assert running.ask("/dicomweb/studies").status == 401
        assert running.ask("/dicomweb/studies", X_Forwarded_Email="somebody@example.org").status == 200


def test_pages_of_other_sites_read_nothing_unless_they_are_allowed(
    guarded: Running, server: Running, slide: Slide
) -> None:
    path = f"{slide.place(slide.base)}/frames/1"
    asked = {"Access_Control_Request_Method": "GET", "Access_Control_Request_Headers": "accept"}
    allowed = guarded.ask(path, method="OPTIONS", Origin="https://viewer.example", **asked)
    assert allowed.status == 204
    assert allowed.headers["access-control-allow-origin"] == "https://viewer.example"
    assert "Accept" in allowed.headers["access-control-allow-headers"]
    answer = guarded.ask(path, Origin="https://viewer.example", Authorization=f"Bearer {TOKEN}")
    assert answer.headers["access-control-allow-origin"] == "https://viewer.example"
    for running, origin in ((guarded, "https://evil.example"), (server, "https://viewer.example")):
        refused = running.ask(path, method="OPTIONS", Origin=origin, **asked)
        assert "access-control-allow-origin" not in refused.headers


def test_pages_of_any_origin_may_only_read(slide: Slide) -> None:
    access = Access(origins=("*", "https://viewer.example"))
    with serving(slide.folder, ServerSettings(access=access)) as running:
        for origin, stores in (("https://other.example", False), ("https://viewer.example", True)):
            told = running.ask("/dicomweb/studies", method="OPTIONS", Origin=origin).headers
            assert told["access-control-allow-origin"] == origin
            assert ("POST" in told["access-control-allow-methods"]) is stores
            assert ("Content-Type" in told["access-control-allow-headers"]) is stores
            assert "GET, HEAD, OPTIONS" in told["access-control-allow-methods"]


def test_only_known_names_of_the_server_are_answered(guarded: Running) -> None:
    for name, status in (("evil.example", 400), ("slides.example", 200), ("localhost:1", 200), ("127.0.0.1", 200)):
        data = f"GET /healthz HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode()
        assert raw(guarded, data).startswith(f"HTTP/1.1 {status} ".encode())


def test_every_answer_has_security_headers(server: Running, slide: Slide) -> None:
    for path in (
        "/",
        f"/slides/{slide.series}",
        "/dicomweb/studies",
        "/nothing",
        f"{slide.place(slide.base)}/frames/1",
    ):
        answer = server.ask(path, "*/*")
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
    policy = server.ask("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert "http" not in policy


HOSTILE = [
    ("/../../etc/passwd", 404),
    ("/static/../run.py", 404),
    ("/static/..%2frun.py", 404),
    ("/viewer/../run.py", 404),
    ("/viewer/..%2f..%2fcli.py", 404),
    ("/viewer/%2e%2e/%2e%2e/cli.py", 404),
    ("/slim/../../etc/passwd", 404),
    ("/dicomweb/studies/..%2f..%2fetc/metadata", 404),
    ("/dicomweb/studies/1.2/series/1.2/instances/1.2/bulkdata/..%2f..%2fetc%2fpasswd", 404),
    ("/dicomweb/studies/" + "9" * 65, 400),
    ("/dicomweb/studies?-0000001=x", 400),
    ("/dicomweb/studies?StudyInstanceUID=1' OR '1'='1".replace(" ", "%20"), 400),
    ("/?collection=%27%3B%20DROP%20TABLE%20instances%3B--", 200),
    ("/?q=%00%27%22%3Cscript%3Ealert(1)%3C/script%3E", 200),
    ("/?" + "&".join(f"anatomy={each}" for each in range(200)), 400),
    ("/?objective=x", 400),
    ("/?page=99999999999999999999", 200),
    ("/iiif/{series}/full/^max/0/default.jpg", 200),
    ("/iiif/{series}/full/^50000,50000/0/default.jpg", 400),
    ("/iiif/{series}/0,0,99999999999999999999,1/max/0/default.jpg", 400),
    ("/iiif/http:%2f%2f169.254.169.254%2f/full/max/0/default.jpg", 404),
    ("/iiif/http:..169.254.169.254/full/max/0/default.jpg", 400),
    ("/deepzoom/{series}_files/9999999/0_0.jpg", 404),
    ("/deepzoom/{series}_files/99999999999999999999/0_0.jpg", 400),
    ("/xyz/{series}/2/9999999/9999999.jpg", 404),
    ("{base}/frames/1,1,1,1,1,1,1,1", 400),
    ("{base}/frames/999999999", 404),
    ("{base}/frames/9999999999", 400),
    ("{base}/rendered?viewport=100000,100000", 400),
    ("{base}/rendered?viewport=nan,nan", 400),
    ("{base}/rendered?viewport=10,10,0,0,1e300,1e300", 400),
    ("{base}/rendered?quality=0", 400),
    ("{base}/metadata%00", 404),
    ("/dicomweb/studies?PatientName=" + "*a" * 400 + "b", 400),
]


@pytest.mark.parametrize(("path", "status"), HOSTILE, ids=[path[:40] for path, _ in HOSTILE])
def test_a_hostile_request_is_refused_or_harmless(guarded: Running, slide: Slide, path: str, status: int) -> None:
    path = path.replace("{series}", slide.series).replace("{base}", slide.place(slide.base))
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n\r\n"
    start = time.monotonic()
    answer = raw(guarded, head.encode())
    assert time.monotonic() - start < 10
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer[:300]
    assert b"root:" not in answer
    assert b"<script>alert" not in answer
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\xff\xfe garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_with_400_and_closed(guarded: Running, data: bytes) -> None:
    answer = raw(guarded, data)
    assert answer == b"" or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert guarded.ask("/healthz").status == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "TRACE", "CONNECT"])
def test_other_methods_are_refused(server: Running, method: str) -> None:
    answer = raw(
        server, f"{method} /dicomweb/studies HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    )
    assert answer.startswith((b"HTTP/1.1 405 ", b"HTTP/1.1 400 "))


def test_nothing_is_stored_unless_the_server_may_write(server: Running) -> None:
    answer = server.ask("/dicomweb/studies", method="POST", body=b"x", Content_Type="application/dicom")
    assert answer.status == 405


def test_a_body_that_is_too_large_is_refused(server: Running) -> None:
    answer = server.ask("/login", method="POST", body=b"x" * 100_000)
    assert answer.status == 413
    # One whose length is not told is as large.
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert raw(server, head + b"186a0\r\n" + b"x" * 100_000 + b"\r\n0\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_health_is_told_while_all_threads_wait(slide: Slide, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(slide.folder) as running, ThreadPoolExecutor(70) as pool:
        go_on = threading.Event()
        monkeypatch.setattr(running.service, "series", lambda _series: go_on.wait(30) and None)
        try:
            waiting = [pool.submit(running.ask, "/iiif/1.2") for _ in range(70)]
            assert running.ask("/healthz").status == running.ask("/readyz").status == 200
            assert not any(each.done() for each in waiting)
        finally:
            go_on.set()
        assert {each.result().status for each in waiting} == {303}


def test_head_tells_what_get_would_without_the_body(guarded: Running, slide: Slide) -> None:
    token = {"Authorization": f"Bearer {TOKEN}"}
    paths = ("/", "/dicomweb/studies", f"{slide.place(slide.base)}/frames/1", f"{slide.place(slide.base)}/metadata")
    for path in (*paths, slide.place(slide.base), f"/dicomweb/studies/{slide.study}", "/slides/1.2"):
        head, got = (guarded.ask(path, "*/*", method, **token) for method in ("HEAD", "GET"))
        assert head.status == got.status
        assert head.body == b""
        left_out = {"date", "transfer-encoding"}
        assert {*head.headers.items()} >= {each for each in got.headers.items() if each[0] not in left_out}


def test_a_client_that_sends_too_slowly_is_let_go(guarded: Running) -> None:
    place = urlsplit(guarded.url)
    with socket.create_connection((place.hostname, place.port), 20) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        start = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert connection.recv(100) == b""
        assert time.monotonic() - start < 15


def test_connections_beyond_the_limit_are_closed_and_others_served(guarded: Running) -> None:
    place = urlsplit(guarded.url)
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection((place.hostname, place.port), 20)) for _ in range(12)]
        closed = 0
        for connection in held:
            with contextlib.suppress(ConnectionError):
                assert connection.recv(100) == b""  # all are let go in the end: none has asked for anything
            closed += 1
        assert closed == 12
    assert guarded.ask("/healthz").status == 200


def test_logs_hold_no_text_of_queries_and_headers(
    server: Running, slide: Slide, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("coverslip.server")
    with caplog.at_level(logging.DEBUG):
        before, logger.propagate = logger.propagate, True
        try:
            server.ask("/dicomweb/studies?PatientName=Quimby")
            server.ask("/dicomweb/studies?StudyDate=Quimby")
            server.ask(f"{slide.place(slide.base)}/frames/Quimby")
            server.ask("/Quimby/Zyxwvut")
        finally:
            logger.propagate = before
    assert "Quimby" not in caplog.text
    assert slide.study not in caplog.text


def test_logs_of_requests_hold_no_uids(slide: Slide, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("coverslip.server")
    with serving(slide.folder, ServerSettings(log_requests=True)) as running, caplog.at_level(logging.INFO):
        before, logger.propagate = logger.propagate, True
        try:
            for path in (".dzi", "_files/0/0_0.png"):
                assert running.ask(f"/deepzoom/{slide.series}{path}").status == 200
            assert running.ask(f"{slide.place(slide.base)}/frames/1").status == 200
        finally:
            logger.propagate = before
    routes = [record.route for record in caplog.records if hasattr(record, "route")]
    assert routes[:2] == ["/deepzoom/{uid}.dzi", "/deepzoom/{uid}_files/0/0_0.png"]
    assert not any(uid in route for route in routes for uid in (slide.study, slide.series, slide.base))
