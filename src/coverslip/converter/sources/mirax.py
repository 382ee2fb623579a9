"""3DHISTECH MIRAX: an index file, and a folder of its name with the data; OpenSlide reads it once it is whole."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

from coverslip.converter.sources import openslide_source
from coverslip.converter.sources.openslide_source import OpenSlideSource
from coverslip.converter.sources.tiff_structure import TiffStructure
from coverslip.errors import CorruptSourceError, UnsupportedSourceError

__all__ = ["open_source"]

_SETTINGS = "Slidedat.ini"
_MOST_FILES = 10_000


def open_source(path: Path, structure: TiffStructure | None, background: tuple[int, int, int]) -> OpenSlideSource:
    """Open a MIRAX slide after a look at whether its files are there.

    Raises
    ------
    UnsupportedSourceError
        If there is no folder beside the index, or OpenSlide does not read the slide.
    CorruptSourceError
        If a file is missing, which is named; or Slidedat.ini is damaged.
    """
    folder = path.with_suffix("")
    if not folder.is_dir():
        raise UnsupportedSourceError(
            f"a MIRAX index without its folder: expected one of the file's name, less .mrxs, with {_SETTINGS} in it"
        )
    settings = _read_settings(folder)
    missing = [name for name in _data_files(settings) if not (folder / name).is_file()]
    if missing:
        shown = ", ".join(_file_name(name) for name in missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise CorruptSourceError(f"files of the slide's folder are missing: {shown}")
    return openslide_source.open_source(path, structure, background)


def _read_settings(folder: Path) -> configparser.ConfigParser:
    settings = configparser.ConfigParser(interpolation=None, strict=False, comment_prefixes=("#", ";"))
    try:
        settings.read_string((folder / _SETTINGS).read_text("utf-8-sig", "replace"))
    except FileNotFoundError as error:
        raise CorruptSourceError(f"a file of the slide's folder is missing: {_SETTINGS}") from error
    except (OSError, configparser.Error) as error:
        raise CorruptSourceError(f"{_SETTINGS} of the slide's folder does not parse") from error
    return settings


def _data_files(settings: configparser.ConfigParser) -> list[str]:
    """Return the names of index and data files."""
    names = [settings.get("HIERARCHICAL", "INDEXFILE", fallback="Index.dat")]
    count = settings.get("DATAFILE", "FILE_COUNT", fallback="0").strip()
    known = min(int(count), _MOST_FILES) if re.fullmatch(r"\d{1,9}", count) else 0
    names += [settings.get("DATAFILE", f"FILE_{number}", fallback="") for number in range(known)]
    return [name.strip() for name in names if name.strip()]


def _file_name(name: str) -> str:
    """Return the name of a file as 3DHISTECH names them; one of another kind may say whose slide it is."""
    return name if re.fullmatch(r"(Data|Index)\d*\.dat", name, re.IGNORECASE) else "a file of another name"
