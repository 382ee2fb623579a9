"""`coverslip serve` as a program, and as a container runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

from coverslip.cli import cli
from tests.server.conftest import Slide
from tests.server.running import serving


@contextmanager
def running(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    command = [sys.executable, "-m", "coverslip", "serve", *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+/", line)
        assert found, process.communicate(timeout=30)
        yield process, found.group()
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=30)


def test_a_container_is_told_its_port_and_ends_well(slide: Slide) -> None:
    with running(str(slide.folder), "--host", "127.0.0.1", "--log-requests", PORT="0") as (process, url):
        with urllib.request.urlopen(f"{url}healthz", timeout=30) as response:
            assert json.loads(response.read()) == {"status": "ok"}
        with urllib.request.urlopen(f"{url}dicomweb/studies?PatientID=TCGA-05-4244", timeout=30) as response:
            assert len(json.loads(response.read())) == 1
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{url}dicomweb/studies?PatientID=x&Quimby=1", timeout=30)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode in (0, 143, -signal.SIGTERM)
    lines = [json.loads(line) for line in err.splitlines()]
    assert {"GET"} == {line["method"] for line in lines}
    assert [line["status"] for line in lines] == [200, 200, 400]
    assert all({"severity", "message", "route", "ms"} <= set(line) for line in lines)
    assert "TCGA" not in err + out
    assert "Quimby" not in err
    assert not list(Path("/tmp").glob("coverslip-serve-*/never"))


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("nowhere",), 2, "no such catalog, folder or store"),
        ((".", "--host", "0.0.0.0"), 2, "--allow-anonymous"),
        ((".", "--token", "short"), 2, "at least 8"),
        ((".", "--token", "long-enough", "--proxy-user-header", "X-User"), 2, "expected one of them"),
    ],
)
def test_what_is_not_safe_or_not_there_is_refused(arguments: tuple[str, ...], code: int, text: str) -> None:
    result = CliRunner().invoke(cli, ["serve", *arguments, "--port", "0"])
    assert getattr(result.exception, "exit_code", result.exit_code) == code
    assert text in str(result.exception) + result.output


def test_a_catalog_is_served_from_where_its_files_lie(slide: Slide, tmp_path: Path) -> None:
    catalog = tmp_path / "catalog.duckdb"
    assert CliRunner().invoke(cli, ["index", str(slide.folder), "--to", str(catalog)]).exit_code == 0
    before = catalog.read_bytes()
    with serving(catalog) as server:
        assert server.ask(f"{slide.place(slide.base)}/frames/1").status == 200
        assert "1 slide of 1 patient" in server.ask("/").body.decode()
        # Another server over the first one's DICOMweb: frames come by its requests.
        with serving(f"dicomweb+{server.url}/dicomweb") as behind:
            for path in ("/frames/2", "/frames/2", "/rendered?iccprofile=no"):
                accept = "image/png" if "rendered" in path else "image/jpeg"
                one, other = (each.ask(slide.place(slide.base) + path, accept) for each in (server, behind))
                assert (one.status, other.status) == (200, 200)
                assert one.body == other.body
            whole = behind.ask(slide.place(slide.base), "application/dicom")
            assert whole.body == slide.files[slide.base].read_bytes()
    assert catalog.read_bytes() == before


def test_slim_is_configured_for_this_server(slide: Slide, tmp_path: Path) -> None:
    from coverslip.server.settings import ServerSettings

    (tmp_path / "static").mkdir()
    (tmp_path / "index.html").write_text("<!doctype html><title>Slim</title>")
    (tmp_path / "static" / "main.js").write_text("1")
    with serving(slide.folder, ServerSettings(slim=tmp_path)) as server:
        for path in ("/slim/", f"/slim/studies/{slide.study}/series/{slide.series}"):
            assert b"<title>Slim" in server.ask(path).body
        assert server.ask("/slim/static/main.js").body == b"1"
        assert server.ask("/slim/static/other.js").status == 404
        assert server.ask("/slim/../secret").status == 404
        config = server.ask("/slim/config/local.js").body.decode()
        assert "window.location.origin + '/dicomweb'" in config
        assert f"/slim/studies/{slide.study}" in server.ask(f"/slides/{slide.series}").body.decode()
