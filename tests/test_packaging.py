"""What an installation contains."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import pytest

import coverslip

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "--no-cache-dir"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True, timeout=120)
    (built,) = folder.glob("*.whl")
    return built


def names_in(wheel: Path, *, metadata: bool) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if (".dist-info/" in name) == metadata}


def metadata_of(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return BytesParser().parsebytes(archive.read(name))


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    sources = ROOT / "src"
    package = {
        path.relative_to(sources).as_posix()
        for path in (sources / "coverslip").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names_in(wheel, metadata=False) == package


def test_wheel_says_it_is_typed_and_carries_its_licence(wheel: Path) -> None:
    assert "coverslip/py.typed" in names_in(wheel, metadata=False)
    assert any(name.endswith("/licenses/LICENSE") for name in names_in(wheel, metadata=True))
    assert metadata_of(wheel)["License-Expression"] == "Apache-2.0"


def test_wheel_runs_on_python_3_12_and_newer_and_has_the_version_of_the_package(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Requires-Python"] == ">=3.12"
    assert metadata["Version"] == coverslip.__version__


def test_plain_installation_asks_only_for_what_a_conversion_needs(wheel: Path) -> None:
    required = [each for each in metadata_of(wheel).get_all("Requires-Dist", []) if "extra ==" not in each]
    assert {each.split(">=")[0] for each in required} == {
        "click",
        "imagecodecs",
        "numpy",
        "opencv-python-headless",
        "openslide-bin",
        "openslide-python",
        "pydicom",
        "rich",
        "simplejpeg",
        "tifffile",
    }


def test_wheel_installs_the_command(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        assert "coverslip = coverslip.cli:main" in archive.read(name).decode()
