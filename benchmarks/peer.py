"""The converter that ours is compared with: wsidicomizer, in an environment of its own."""

from __future__ import annotations

import hashlib
import mmap
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks import CACHE

__all__ = ["check_frames", "peer_command", "peer_environment", "set_up_peer"]

_FOLDER = CACHE / "peer"
_REQUIREMENTS = Path(__file__).with_name("peer-requirements.txt")
_LIBRARY = "libturbojpeg.so.0"
_SYSTEM_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib")
_SOS = b"\xff\xda"


def set_up_peer() -> str:
    """Install the peer and a JPEG library for it, once for each set of pinned requirements; return its version.

    Raises
    ------
    RuntimeError
        If there is no libturbojpeg and the distribution's package cannot be fetched.
    """
    digest = hashlib.sha256(_REQUIREMENTS.read_bytes()).hexdigest()
    done = _FOLDER / "requirements.sha256"
    if not done.exists() or done.read_text() != digest:
        shutil.rmtree(_FOLDER, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(_FOLDER)], check=True)
        pip = [str(_FOLDER / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        # The version of PyTurboJPEG that the peer wants has no wheel; it is plain Python.
        only_binary = ("--only-binary=:all:", "--no-binary=PyTurboJPEG")
        subprocess.run([*pip, *only_binary, "-r", str(_REQUIREMENTS)], check=True)
        done.write_text(digest)
    _find_library()
    pinned = (line for line in _REQUIREMENTS.read_text().splitlines() if line.startswith("wsidicomizer=="))
    return next(pinned).replace("==", " ")


def peer_environment() -> dict[str, str]:
    """Return the variables under which the peer finds its JPEG library.

    Its look-up asks the compiler before it asks TURBOJPEG, and with a compiler and a static library present
    comes back with one that does not load; it then re-encodes every frame and exits 0. So it gets no PATH.
    """
    return {"PATH": "", "TURBOJPEG": str(_find_library())}


def peer_command(slide: Path, output: Path, *options: str) -> list[str]:
    """Return the command line of a conversion by the peer."""
    return [str(_FOLDER / "bin" / "wsidicomizer"), "-i", str(slide), "-o", str(output), *options]


def check_frames(slide: Path, output: Path) -> None:
    """Make sure that the frames of the base level are the stored tiles, whole and in order.

    Raises
    ------
    RuntimeError
        If a frame does not contain the entropy-coded bytes of its tile.
    """
    import tifffile

    base = max(output.rglob("*.dcm"), key=lambda path: path.stat().st_size)
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages.first
        tiles = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    with slide.open("rb") as stored, base.open("rb") as written:
        source = mmap.mmap(stored.fileno(), 0, access=mmap.ACCESS_READ)
        frames = mmap.mmap(written.fileno(), 0, access=mmap.ACCESS_READ)
        position = _first_frame(base)
        for index, (offset, size) in enumerate(tiles):
            tile = source[offset : offset + size]
            length = int.from_bytes(frames[position + 4 : position + 8], "little")
            frame = frames[position + 8 : position + 8 + length]
            if tile[tile.index(_SOS) :] not in frame:
                raise RuntimeError(f"frame {index} of {base.name} is not the stored tile: the frames were re-encoded")
            position += 8 + length


def _first_frame(instance: Path) -> int:
    """Return where the item of the first frame starts: after the header, the pixel data tag and the offset table."""
    import pydicom

    with instance.open("rb") as file:
        pydicom.dcmread(file, stop_before_pixels=True)
        start = file.tell()
        head = file.read(20)
    if head[:4] != b"\xe0\x7f\x10\x00" or head[12:16] != b"\xfe\xff\x00\xe0":
        raise RuntimeError(f"{instance.name} has no encapsulated pixel data")
    return start + 20 + int.from_bytes(head[16:20], "little")


def _find_library() -> Path:
    """Return libturbojpeg of the system, or of the distribution's package unpacked in the cache."""
    unpacked = _FOLDER / "turbojpeg"
    folders = [Path(folder) for folder in _SYSTEM_FOLDERS]
    found = next((folder / _LIBRARY for folder in folders if (folder / _LIBRARY).exists()), None)
    found = found or next(unpacked.rglob(_LIBRARY), None)
    if found:
        return found
    unpacked.mkdir(parents=True, exist_ok=True)
    try:
        subprocess.run(["apt-get", "download", "-qq", "libturbojpeg0"], cwd=unpacked, check=True, capture_output=True)
        package = next(unpacked.glob("*.deb"))
        subprocess.run(["dpkg", "-x", str(package), str(unpacked)], check=True, env=os.environ)
    except (OSError, subprocess.CalledProcessError, StopIteration) as error:
        raise RuntimeError("the peer needs libturbojpeg: install libturbojpeg0 or libjpeg-turbo") from error
    return next(unpacked.rglob(_LIBRARY))
