"""The slides of a run: from a table with a line per slide, or from what lies in a folder or bucket.

A slide is known by its *key* wherever something is written down: a digest of its name as the manifest has it and of the
checksum that stands there. It does not change when a folder is mounted elsewhere, and tells no name; with a project's
key, whoever guesses names cannot check his guess either.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from coverslip.errors import UsageError

if TYPE_CHECKING:
    from coverslip.metadata_maps.tables import Row, Table
    from coverslip.stores.base import StoredInstance

__all__ = ["Checksums", "Slide", "is_url", "list_bucket", "list_folder", "read_manifest", "slide_key"]

_FILE_COLUMNS = ("file", "file_url", "url", "location", "path", "file_name", "filename")
_COMPANION_COLUMNS = ("companions", "files")
_SIZE_COLUMNS = ("size_bytes", "file_size", "size", "bytes")
_CHECKSUM_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "md5": ("md5", "md5sum", "md5_hash"),
    "sha256": ("sha256", "sha256sum"),
    "crc32c": ("crc32c",),
}
_FOLDER_OF_OWN = frozenset({".mrxs"})
"""Formats whose other files lie in a folder of the slide's name."""

_SHARED_FOLDER = frozenset({".vms", ".vmu"})
"""Formats whose other files lie beside the slide."""


@dataclass(frozen=True, slots=True)
class Checksums:
    """What a manifest says of a file's bytes, in hexadecimal; empty for what it does not say."""

    md5: str = ""
    sha256: str = ""
    crc32c: str = ""

    def stated(self) -> dict[str, str]:
        """Return those that are stated, by name."""
        named = {"md5": self.md5, "sha256": self.sha256, "crc32c": self.crc32c}
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True, slots=True)
class Slide:
    """One slide of a run.

    Parameters
    ----------
    key : str
        By which ledgers and logs know it.
    number : int
        Row of the manifest, or place in the listing.
    name : str
        As the manifest has it; for the user's own terminal only.
    location : str
        Path or URL of the file that is opened.
    companions : tuple of str
        Locations of the other files; one that ends with a slash stands for all below it.
    size_bytes : int or None
        Of all files together, as far as it is known without asking for each.
    checksums : Checksums
        Of the file that is opened.
    """

    key: str
    number: int
    name: str
    location: str
    companions: tuple[str, ...] = ()
    size_bytes: int | None = None
    checksums: Checksums = field(default_factory=Checksums)


def is_url(location: str) -> bool:
    """Whether a location is a URL and no path."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", location) is not None


def slide_key(name: str, checksums: Checksums, secret: str = "") -> str:
    """Return the key of a slide.

    Parameters
    ----------
    secret : str
        What the project's key makes of itself; without it the key is a plain digest.
    """
    parts = (secret, name.replace("\\", "/"), *(f"{kind}={value}" for kind, value in checksums.stated().items()))
    digest = hashlib.sha256(b"coverslip slide")
    for part in parts:
        encoded = part.encode()
        digest.update(b"%d:%b" % (len(encoded), encoded))
    return digest.hexdigest()[:40]


def read_manifest(table: Table, root: str = "", columns: Iterable[str] = (), secret: str = "") -> list[Slide]:
    """Return the slides of a table in its order; several rows of one file are one slide.

    Parameters
    ----------
    table : Table
    root : str
        Folder or URL that names are relative to; by default the folder of the table.
    columns : iterable of str
        Columns that a map finds slides by; asked for after ``file``.
    secret : str

    Raises
    ------
    UsageError
        If there is no column of files, a row names none, or two rows contradict each other.
    """
    candidates = ("file", *columns, *_FILE_COLUMNS)
    column = next((each for each in candidates if table.has_column(each)), None)
    if column is None:
        raise UsageError(
            f"manifest {table.path.name!r}: has no column 'file', nor one of {', '.join(map(repr, candidates[1:]))}"
        )
    base = root or str(table.path.absolute().parent)
    slides: dict[str, Slide] = {}
    for row in table.rows:
        name = row[column]
        if not name:
            raise UsageError(f"manifest {table.path.name!r}: row {row.number}: {column!r} is empty, wanted a slide")
        slide = _slide_of(row, name, base, secret)
        earlier = slides.setdefault(slide.location, slide)
        if (earlier.checksums, earlier.companions) != (slide.checksums, slide.companions):
            raise UsageError(
                f"manifest {table.path.name!r}: rows {earlier.number} and {row.number} name one file with different "
                "checksums or companions"
            )
    return list(slides.values())


def _slide_of(row: Row, name: str, base: str, secret: str) -> Slide:
    checksums = Checksums(**{kind: _hexadecimal(_first(row, names)) for kind, names in _CHECKSUM_COLUMNS.items()})
    location = _join(base, name)
    beside = location.rpartition("/")[0]
    listed = _first(row, _COMPANION_COLUMNS)
    companions = [_join(beside, each.strip()) for each in listed.split(";") if each.strip()]
    size = _first(row, _SIZE_COLUMNS)
    size_bytes = int(size) if size.isascii() and size.isdigit() else None
    if not is_url(location):
        size_bytes = _local_size(location) if size_bytes is None else size_bytes
    elif not companions:
        companions = _usual_companions(location)
    key = slide_key(name, checksums, secret)
    return Slide(key, row.number, name, location, tuple(companions), size_bytes, checksums)


def _first(row: Row, names: Iterable[str]) -> str:
    return next((value for name in names if (value := row.get(name) or "")), "")


def _hexadecimal(text: str) -> str:
    """Return a checksum in hexadecimal; buckets tell theirs in base64."""
    if text.endswith("="):
        with contextlib.suppress(ValueError):
            return base64.b64decode(text, validate=True).hex()
    return text.lower()


def _join(base: str, name: str) -> str:
    if is_url(name):
        return name.removeprefix("file://") if name.startswith("file:///") else name
    if is_url(base):
        return f"{base.rstrip('/')}/{name.replace(os.sep, '/').lstrip('/')}"
    return os.path.join(base, name)  # noqa: PTH118 - a location may also be a URL


def _usual_companions(location: str) -> list[str]:
    """Return where a slide's other files lie, for formats that have some."""
    ending = PurePosixPath(location).suffix.lower()
    if ending in _FOLDER_OF_OWN:
        return [f"{location[: -len(ending)]}/"]
    if ending in _SHARED_FOLDER:
        return [f"{location.rpartition('/')[0]}/"]
    return []


def _local_size(location: str) -> int | None:
    """Return the bytes of a slide, or None if it is not there: which is told when it is its turn."""
    path = Path(location)
    try:
        files = [path]
        for companion in _usual_companions(location):
            files += (each for each in Path(companion).rglob("*") if each.is_file() and each != path)
        return sum(file.stat().st_size for file in files)
    except OSError:
        return None


def list_folder(folder: Path, secret: str = "") -> list[Slide]:
    """Return the slides in a folder, at any depth, in order of their names."""
    from coverslip.metadata_maps.check import find_slides

    slides = []
    for number, path in enumerate(find_slides(folder), start=1):
        opened = min(path.glob("*.dcm")) if path.is_dir() else path
        name = path.relative_to(folder).as_posix()
        size = sum(each.stat().st_size for each in path.glob("*.dcm")) if path.is_dir() else _local_size(str(path))
        slides.append(Slide(slide_key(name, Checksums(), secret), number, name, str(opened), (), size))
    return slides


def list_bucket(
    url: str, objects: Iterator[StoredInstance], is_slide: Callable[[str], bool], secret: str = ""
) -> list[Slide]:
    """Return the slides among the objects of a bucket, in order of their names.

    Parameters
    ----------
    url : str
        Of the bucket, and a prefix.
    objects : iterator of StoredInstance
    is_slide : callable
        Whether a file of this name is a slide.
    secret : str
    """
    base = url.rstrip("/")
    sizes = {each.location: each.size_bytes or 0 for each in objects}
    slides: list[Slide] = []
    for location in sorted(sizes):
        name = location.removeprefix(f"{base}/")
        if not is_slide(name) or any(part.startswith(".") for part in name.split("/")):
            continue
        companions = _usual_companions(location)
        size = sizes[location] + sum(
            size for each, size in sizes.items() if each != location and each.startswith(tuple(companions))
        )
        key = slide_key(name, Checksums(), secret)
        slides.append(Slide(key, len(slides) + 1, name, location, tuple(companions), size))
    return slides
