"""The files of dicom-microscopy-viewer, which `make viewer` copies beside this module; they may be absent."""

from __future__ import annotations

from functools import cache
from pathlib import Path

__all__ = ["FOLDER", "has_viewer", "viewer_file"]

FOLDER = Path(__file__).parent / "viewer"
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
    ".txt": "text/plain; charset=utf-8",
}


@cache
def _files() -> dict[str, Path]:
    """Return every file by its path below the folder; nothing else is ever opened."""
    return {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*") if path.suffix in _TYPES}


def has_viewer() -> bool:
    """Whether the viewer was there when it was asked for first."""
    return "dicomMicroscopyViewer.bundle.min.js" in _files()


def viewer_file(name: str) -> tuple[Path, str] | None:
    """Return the path of one of its files and its media type, None if there is none."""
    path = _files().get(name)
    return None if path is None else (path, _TYPES[path.suffix])
