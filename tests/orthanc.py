"""Orthanc with its DICOMweb plugin, on loopback, from the packages of Debian."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Orthanc", "find_orthanc", "start_orthanc"]

_PLUGINS = (
    Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so"),
    Path("/usr/lib/orthanc/libOrthancDicomWeb.so"),
    Path("/usr/local/share/orthanc/plugins/libOrthancDicomWeb.so"),
)


@dataclass(frozen=True, slots=True)
class Orthanc:
    """A server that runs.

    Parameters
    ----------
    rest_url, dicomweb_url : str
        Of Orthanc's own REST API, and of its DICOMweb service.
    """

    rest_url: str
    dicomweb_url: str

    def ask(self, path: str, method: str = "GET") -> Any:
        """Return the answer of the REST API."""
        request = urllib.request.Request(f"{self.rest_url}{path}", method=method)
        with urllib.request.urlopen(request, timeout=30) as response:
            return json.loads(response.read() or b"null")

    def clear(self) -> None:
        """Remove everything."""
        for patient in self.ask("/patients"):
            self.ask(f"/patients/{patient}", "DELETE")


def find_orthanc() -> tuple[str, Path]:
    """Return program and plugin; without them skip, or fail in CI."""
    program = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    plugin = next((path for path in _PLUGINS if path.exists()), None)
    if program is None or plugin is None:
        stop = pytest.fail if os.environ.get("CI") else pytest.skip
        stop("the DICOMweb tests need Orthanc: apt-get install orthanc orthanc-dicomweb")
    return program, plugin


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextlib.contextmanager
def start_orthanc(folder: Path, **settings: Any) -> Iterator[Orthanc]:
    """Run Orthanc with its data in a folder; `settings` are added to its configuration."""
    program, plugin = find_orthanc()
    # Only this plugin: the one of orthanc-gdcm has been seen to crash the server.
    chosen = folder / "plugins"
    chosen.mkdir(parents=True)
    (chosen / plugin.name).symlink_to(plugin.resolve())
    port = _free_port()
    configuration = {
        "Name": "coverslip",
        "StorageDirectory": str(folder / "data"),
        "IndexDirectory": str(folder / "data"),
        "Plugins": [str(chosen)],
        "HttpPort": port,
        "HttpThreadsCount": 8,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "EnableWado": False, "Ssl": False},
        **settings,
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            orthanc = Orthanc(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{port}/dicom-web")
            _wait_for(orthanc, process, folder / "log")
            yield orthanc
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(orthanc: Orthanc, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            assert "dicom-web" in orthanc.ask("/plugins")
            return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise AssertionError(f"Orthanc did not start: {log.read_text(errors='replace')[-2000:]}")
