"""The viewer in headless Chromium."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.viewer.dicomweb_server import serve_all
from tests.viewer.store_proxy import serve_store

_HERE = Path(__file__).resolve().parent
_MODULES = _HERE / "node_modules"
_STATIC = {
    "/": _HERE / "page",
    "/dmv": _MODULES / "dicom-microscopy-viewer" / "dist",
    "/dicomweb-client": _MODULES / "dicomweb-client" / "build",
}


@dataclass(frozen=True, slots=True)
class Viewer:
    """What is needed to show series in dicom-microscopy-viewer.

    Parameters
    ----------
    node, chromium : str
        Programs.
    """

    node: str
    chromium: str

    def show(self, folders: Sequence[Path], screenshots: Path) -> list[dict[str, Any]]:
        """Open each folder of DICOM files on a page of its own; return what ``drive.mjs`` reports of each."""
        with serve_all(folders, _STATIC) as urls:
            return self._show(urls, screenshots)

    def show_store(self, dicomweb_url: str, screenshots: Path) -> dict[str, Any]:
        """Open the one slide of a store on a page of the same origin; return what ``drive.mjs`` reports of it."""
        with serve_store(dicomweb_url, _STATIC) as url:
            return self._show([url], screenshots)[0]

    def _show(self, urls: Sequence[str], screenshots: Path) -> list[dict[str, Any]]:
        command = [self.node, str(_HERE / "drive.mjs"), self.chromium]
        for index, url in enumerate(urls):
            place = screenshots / str(index)
            place.mkdir()
            command += [f"{url}/", str(place)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stderr
        reports: list[dict[str, Any]] = json.loads(done.stdout)
        return reports


def _require(what: str | None, install: str) -> str:
    """Return `what`; without it skip, or fail in CI, where everything that can be installed must be."""
    if what is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"the viewer test needs {install}")
    return what


@pytest.fixture(scope="session")
def viewer() -> Viewer:
    node = _require(shutil.which("node"), "Node.js 20 or newer: apt-get install nodejs npm")
    modules = _MODULES / "playwright-core"
    _require(str(modules) if modules.is_dir() else None, "its packages: npm ci --prefix tests/viewer")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, map(shutil.which, names)), None)
    return Viewer(node, _require(chromium, "Chromium: apt-get install chromium"))
