"""Open a slide by the first format that recognises it; a format's module is loaded on first use."""

from __future__ import annotations

import os
from pathlib import Path

from coverslip.converter.sources.base import SlideSource
from coverslip.converter.sources.byte_ranges import ByteRanges
from coverslip.converter.sources.evidence import Evidence, looks_like
from coverslip.converter.sources.formats import FORMATS
from coverslip.converter.sources.slide_format import SlideFormat
from coverslip.converter.sources.tiff_structure import TiffStructure
from coverslip.errors import CorruptSourceError, SourceError, UnsupportedSourceError

__all__ = ["FORMATS", "SlideFormat", "open_slide"]

_HEADER_BYTES = 1024


def open_slide(
    path: Path | str, *, background: tuple[int, int, int] = (255, 255, 255), ranges: ByteRanges | None = None
) -> SlideSource:
    """Open a slide of any format that is read.

    Parameters
    ----------
    path : Path or str
    background : tuple of int
        RGB of what the file holds no pixels for.
    ranges : ByteRanges, optional
        Of a slide that is not here: `path` is its name then, and only formats that coverslip reads itself are opened.

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
    descriptor = None if ranges is not None else _open_file(path)
    header = _read_header(descriptor, ranges)
    structure = None
    damage = None
    try:
        structure = TiffStructure(path, descriptor, ranges)
    except UnsupportedSourceError:
        pass
    except CorruptSourceError as error:
        damage = error
    if not header:
        raise UnsupportedSourceError("the file is empty, expected a slide")
    try:
        evidence = Evidence(path, header, structure)
        chosen = next((slide_format for slide_format in FORMATS if slide_format.detect(evidence)), None)
        if chosen is None:
            raise damage or UnsupportedSourceError(f"{looks_like(header)}, not a slide that is read")
        if ranges is not None and (structure is None or getattr(chosen, "dependency", None)):
            raise UnsupportedSourceError(f"a {chosen.title} slide, which is not read in place: wanted all of it here")
        return chosen.open(evidence, background)
    except UnsupportedSourceError as error:
        if structure:
            structure.close()
        if ranges is not None and "OpenSlide" in str(error):  # which was given a name and no file
            raise UnsupportedSourceError("a slide for OpenSlide, not read in place: wanted all of it here") from error
        raise
    except BaseException:
        if structure:
            structure.close()
        raise


def _read_header(descriptor: int | None, ranges: ByteRanges | None) -> bytes:
    if ranges is not None:
        return ranges.read(0, min(_HEADER_BYTES, ranges.size))
    assert descriptor is not None
    return os.pread(descriptor, _HEADER_BYTES, 0)


def _open_file(path: Path) -> int:
    """Return a descriptor of a file that can be read."""
    try:
        if path.is_dir():
            raise SourceError("is a directory, expected a slide file")
        if path.exists() and not path.is_file():
            raise SourceError("is no regular file, expected a slide file")
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise SourceError(f"cannot be read: {error}") from error
