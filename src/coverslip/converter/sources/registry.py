"""Which formats there are, how each is recognised, and what each needs; a format's module is loaded on first use."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path

from coverslip.converter.sources.base import SlideSource
from coverslip.converter.sources.tiff_structure import TagCode, TiffPage, TiffStructure
from coverslip.errors import CorruptSourceError, MissingDependencyError, SourceError, UnsupportedSourceError

__all__ = ["FORMATS", "SlideFormat", "open_slide"]


class Evidence:
    """What a file shows of itself before a format is chosen: its name, its first bytes, its TIFF directories.

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
        return self.pages[0].description if self.pages else ""

    def says(self, tag: TagCode, word: str) -> bool:
        """Whether the text of a tag holds `word` on any page."""
        return any(tag in page and word in page.text(tag) for page in self.pages)


@dataclass(frozen=True, slots=True)
class SlideFormat:
    """One line of the table of formats.

    Parameters
    ----------
    name, title : str
        Registry name, and the name for people.
    module : str
        Where ``open_source(path, structure, background)`` is.
    detect : callable
        Whether the evidence is of this format; looks at magic bytes and tags alone.
    dependency, install : str
        Optional library that the module imports, and how to install it; empty for none.
    """

    name: str
    title: str
    module: str
    detect: Callable[[Evidence], bool]
    dependency: str = ""
    install: str = ""

    def open(self, evidence: Evidence, background: tuple[int, int, int]) -> SlideSource:
        """Open the slide; `evidence.structure` becomes the source's own."""
        try:
            module = import_module(self.module)
        except ImportError as error:
            if not self.dependency or error.name is None or error.name.split(".")[0] != self.dependency:
                raise
            raise MissingDependencyError(
                f"{self.title} slides are read with {self.dependency}, which is not installed: {self.install}"
            ) from error
        source: SlideSource = module.open_source(evidence.path, evidence.structure, background)
        return source


def _is_aperio(evidence: Evidence) -> bool:
    return evidence.description.startswith("Aperio")


def _is_tiff(evidence: Evidence) -> bool:
    return bool(evidence.pages)


def _is_vendor_tiff(evidence: Evidence) -> bool:
    pages = evidence.pages
    return bool(pages) and (
        TagCode.NDPI_VERSION in pages[0]
        or "http://www.leica-microsystems.com/scn/" in evidence.description
        or 'ObjectType="DPUfsImport"' in evidence.description
        or pages[0].text(TagCode.SOFTWARE).startswith(("Philips", "MedScan"))
        or re.match(r"Source = .*^Resolution = ", evidence.description, re.DOTALL | re.MULTILINE) is not None
        or evidence.says(TagCode.XMP, "iScan")
    )


def _is_vendor_file(evidence: Evidence) -> bool:
    # A MIRAX index is any picture at all, and an NDPI over 4 GB is no valid TIFF: only their names tell.
    return (
        evidence.path.suffix.lower() in (".mrxs", ".ndpi")
        or re.match(rb"\s*\[(Uncompressed )?Virtual Microscope Specimen\]", evidence.header) is not None
        or evidence.header.startswith((b"SQLite format 3\0", b"ZISRAWFILE"))
        or evidence.header[128:132] == b"DICM"
    )


FORMATS = (
    SlideFormat("aperio-svs", "Aperio SVS", "coverslip.converter.sources.aperio", _is_aperio),
    SlideFormat(
        "openslide",
        "Vendor",
        "coverslip.converter.sources.openslide_source",
        lambda evidence: _is_vendor_tiff(evidence) or _is_vendor_file(evidence),
        dependency="openslide",
        install="pip install openslide-python openslide-bin",
    ),
    SlideFormat("generic-tiff", "Generic TIFF", "coverslip.converter.sources.generic_tiff", _is_tiff),
)
"""The table of formats; the first that recognises a file reads it."""


def open_slide(path: Path | str, *, background: tuple[int, int, int] = (255, 255, 255)) -> SlideSource:
    """Open a slide of any format that is read.

    Parameters
    ----------
    path : Path or str
    background : tuple of int
        RGB of what the file holds no pixels for.

    Returns
    -------
    SlideSource
        To be closed by the caller.

    Raises
    ------
    UnsupportedSourceError
        If the file is no slide, or of a kind that is not read; the message says what it looks like.
    CorruptSourceError
        If it is damaged.
    MissingDependencyError
        If a library is needed that is not installed.
    SourceError
        If it cannot be opened at all.
    """
    path = Path(path)
    header = _read_header(path)
    structure = None
    damage = None
    try:
        structure = TiffStructure(path)
    except UnsupportedSourceError:
        pass
    except CorruptSourceError as error:
        damage = error
    try:
        evidence = Evidence(path, header, structure)
        chosen = next((slide_format for slide_format in FORMATS if slide_format.detect(evidence)), None)
        if chosen is None:
            raise damage or UnsupportedSourceError(f"{_looks_like(header)}, not a slide that is read")
        return chosen.open(evidence, background)
    except BaseException:
        if structure:
            structure.close()
        raise


def _read_header(path: Path) -> bytes:
    """Return the first bytes of a file that can be read and is not empty."""
    try:
        if path.is_dir():
            raise SourceError("is a directory, expected a slide file")
        if path.exists() and not path.is_file():
            raise SourceError("is no regular file, expected a slide file")
        with path.open("rb") as file:
            header = file.read(1024)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise SourceError(f"cannot be read: {error}") from error
    if not header:
        raise UnsupportedSourceError("the file is empty, expected a slide")
    return header


_MAGIC = (
    (b"\xff\xd8\xff", "looks like a JPEG picture"),
    (b"\x89PNG", "looks like a PNG picture"),
    (b"GIF8", "looks like a GIF picture"),
    (b"%PDF", "looks like a PDF document"),
    (b"PK\x03\x04", "looks like a ZIP archive"),
    (b"\x1f\x8b", "looks like a gzip archive"),
    (b"\x89HDF", "looks like an HDF5 file"),
    (b"\0\0\0\x0cjP  ", "looks like a JPEG 2000 picture"),
)


def _looks_like(header: bytes) -> str:
    """Say in a few words what a file seems to be."""
    for magic, words in _MAGIC:
        if header.startswith(magic):
            return words
    if header[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "looks like a TIFF file cut off in its header"
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in header):
        return "looks like a text file"
    return "is of an unknown kind"
