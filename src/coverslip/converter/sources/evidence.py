"""What a file shows of itself before a format is chosen: its name, its first bytes, its TIFF directories."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

from coverslip.converter.sources.tiff_structure import TagCode, TiffPage, TiffStructure
from coverslip.errors import CorruptSourceError

__all__ = ["Evidence", "looks_like"]


class Evidence:
    """What detection may look at; nothing here raises for a damaged or foreign file.

    Parameters
    ----------
    path : Path
    header : bytes
        The first bytes of the file.
    structure : TiffStructure or None
        None if the file is no TIFF, or a damaged one.
    """

    def __init__(self, path: Path, header: bytes, structure: TiffStructure | None) -> None:
        self.path = path
        self.header = header
        self.structure = structure

    @cached_property
    def pages(self) -> tuple[TiffPage, ...]:
        """Pages of the TIFF file; none if it is not one."""
        return self.structure.pages if self.structure else ()

    @cached_property
    def description(self) -> str:
        """ImageDescription of the first page."""
        return self.text(TagCode.IMAGE_DESCRIPTION)

    def text(self, tag: TagCode) -> str:
        """Return the text of a tag of the first page; empty if it is absent or cannot be read."""
        return _text(self.pages[0], tag) if self.pages else ""

    def has(self, tag: TagCode) -> bool:
        """Whether the first page has a tag."""
        return bool(self.pages) and tag in self.pages[0]

    def says(self, tag: TagCode, pattern: str) -> bool:
        """Whether the text of a tag matches a pattern somewhere, on any page."""
        return any(tag in page and re.search(pattern, _text(page, tag)) for page in self.pages)


def _text(page: TiffPage, tag: TagCode) -> str:
    try:
        return page.text(tag)
    except CorruptSourceError:
        return ""


_MAGIC = (
    (b"\xff\xd8\xff", "looks like a JPEG picture"),
    (b"\x89PNG", "looks like a PNG picture"),
    (b"GIF8", "looks like a GIF picture"),
    (b"%PDF", "looks like a PDF document"),
    (b"PK\x03\x04", "looks like a ZIP archive"),
    (b"\x1f\x8b", "looks like a gzip archive"),
    (b"\x89HDF", "looks like an HDF5 file"),
    (b"\0\0\0\x0cjP  ", "looks like a JPEG 2000 picture"),
    (b"[HEADER]", "looks like the Slidedat.ini of a MIRAX slide: give its .mrxs file"),
    (b"\xef\xbb\xbf[HEADER]", "looks like the Slidedat.ini of a MIRAX slide: give its .mrxs file"),
)


def looks_like(header: bytes) -> str:
    """Say in a few words what a file seems to be."""
    for magic, words in _MAGIC:
        if header.startswith(magic):
            return words
    if header[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "looks like a TIFF file cut off in its header"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in header):
        return "looks like a text file"
    return "is of an unknown kind"
