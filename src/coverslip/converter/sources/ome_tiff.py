"""Plain OME-TIFF: one 8-bit RGB plane and its reductions, described by OME-XML."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree as ET
from xml.parsers.expat import ErrorString

from coverslip.converter.sources.base import PixelSpacing
from coverslip.converter.sources.generic_tiff import open_tiff
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.tiff_source import TiffSource
from coverslip.converter.sources.tiff_structure import TiffStructure
from coverslip.errors import UnsupportedSourceError

__all__ = ["open_source"]

_OME_UNITS_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 0.001, "mm": 1000.0, "cm": 10000.0}


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> TiffSource:
    """Open an OME-TIFF whose directories are read already.

    Raises
    ------
    UnsupportedSourceError
        If its XML does not parse, or says that it is not one 8-bit RGB image.
    CorruptSourceError
        If a page is damaged.
    """
    pixels = _ome_pixels(structure.pages[0].description)
    return open_tiff(path, structure, background, _ome_spacing(pixels), ("ome-tiff", "OME-TIFF"))


def _ome_pixels(description: str) -> dict[str, str]:
    """Return the attributes of the one Pixels element of OME-XML.

    Raises
    ------
    UnsupportedSourceError
        If the XML does not parse, or the image is not plainly one 8-bit RGB plane.
    """
    try:
        # Bytes, as the text may declare an encoding of its own. Expat itself limits how far entities expand.
        root = ET.fromstring(description.encode())  # noqa: S314
    except ET.ParseError as error:
        raise UnsupportedSourceError(
            f"OME-TIFF whose OME-XML does not parse: {ErrorString(error.code)} in line {error.position[0]}"
        ) from error
    found = root.findall(".//{*}Pixels")
    if len(found) != 1:
        raise UnsupportedSourceError(f"OME-TIFF of {len(found)} images, which is not read yet; one is")
    pixels = dict(found[0].attrib)
    channels = found[0].findall("{*}Channel")
    samples = [channel.get("SamplesPerPixel", "1") for channel in channels]
    sizes = [pixels.get(name, "1") for name in ("SizeZ", "SizeT")]
    sample_type = pixels.get("Type", "unknown")
    if sample_type != "uint8" or sizes != ["1", "1"] or pixels.get("SizeC") != "3" or samples not in (["3"], []):
        count, planes, points, kind = map(_known_word, (pixels.get("SizeC", "?"), *sizes, sample_type))
        raise UnsupportedSourceError(
            f"OME-TIFF of {count} samples in {len(channels)} channels, {planes} focal planes and "
            f"{points} time points of {kind}, which is not read yet; one 8-bit RGB plane is"
        )
    return pixels


def _known_word(text: str) -> str:
    """Return a number or the name of a sample type, "?" for what no message may repeat."""
    return text if re.fullmatch(r"\d{1,9}|u?int\d\d?|float|double|(double-)?complex|bit", text) else "?"


def _ome_spacing(pixels: dict[str, str]) -> PixelSpacing | None:
    """Return the spacing that PhysicalSizeX and PhysicalSizeY give; micrometres if no unit is said."""
    try:
        row_um, column_um = (
            float(pixels[name]) * _OME_UNITS_UM[pixels.get(f"{name}Unit", "µm")]
            for name in ("PhysicalSizeY", "PhysicalSizeX")
        )
    except (KeyError, ValueError):
        return None
    return plausible_spacing(row_um, column_um, "OME PhysicalSize")
