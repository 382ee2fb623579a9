"""OME-TIFF of brightfield slides: an 8-bit RGB plane and its reductions, label and macro images, described by XML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from coverslip.converter.sources.base import AssociatedImage, PixelSpacing
from coverslip.converter.sources.generic_tiff import open_image
from coverslip.converter.sources.spacing import plausible_spacing
from coverslip.converter.sources.tiff_source import TiffSource, associated_image
from coverslip.converter.sources.tiff_structure import Compression, TiffPage, TiffStructure
from coverslip.converter.sources.xml_text import parse_xml
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.validators.report import Finding

__all__ = ["open_source"]

_OME_UNITS_UM = {"µm": 1.0, "μm": 1.0, "um": 1.0, "nm": 0.001, "mm": 1000.0, "cm": 10000.0}
_ASSOCIATED = (("label", "label"), ("macro", "overview"), ("overview", "overview"), ("thumbnail", "thumbnail"))
"""Words in the name of an image, and what it is."""
_LOSSY_METHODS: dict[int, str] = {Compression.JPEG: "ISO_10918_1", Compression.JPEG2000: "ISO_15444_1"}


@dataclass(frozen=True, slots=True)
class _Image:
    """One Image element.

    Parameters
    ----------
    kind : str or None
        ``label``, ``overview`` or ``thumbnail`` by its name; None for what was scanned.
    pixels : Element
    page : int
        Its first directory.
    """

    kind: str | None
    pixels: ET.Element
    page: int

    def attribute(self, name: str, default: str = "?") -> str:
        """Return an attribute of the Pixels element."""
        return self.pixels.get(name, default)

    @property
    def problem(self) -> str | None:
        """Why it is not one 8-bit RGB plane; None if it is."""
        channels = self.pixels.findall("{*}Channel")
        samples = [channel.get("SamplesPerPixel", "1") for channel in channels]
        sizes = [self.attribute(name, "1") for name in ("SizeZ", "SizeT")]
        sample_type = self.attribute("Type", "unknown")
        count = self.attribute("SizeC")
        alike = (count, samples) in (("3", ["3"]), ("3", []), ("4", ["4"]))
        if sample_type == "uint8" and sizes == ["1", "1"] and alike:
            return None
        words = [_known_word(text) for text in (count, *sizes, sample_type)]
        return (
            f"{words[0]} samples in {len(channels)} channels, {words[1]} focal planes and {words[2]} time points of"
            f" {words[3]}"
        )


def open_source(path: Path, structure: TiffStructure, background: tuple[int, int, int]) -> TiffSource:
    """Open an OME-TIFF whose directories are read already.

    Raises
    ------
    UnsupportedSourceError
        If its XML does not parse, or says that it is not one 8-bit RGB image.
    CorruptSourceError
        If a page is damaged.
    """
    images = _images(structure.pages[0].description)
    scanned = [image for image in images if image.kind is None]
    if len(scanned) != 1:
        raise UnsupportedSourceError(f"OME-TIFF of {len(scanned)} images, which is not read yet; one is")
    (main,) = scanned
    if main.problem:
        raise UnsupportedSourceError(f"OME-TIFF of {main.problem}, which is not read yet; one 8-bit RGB plane is")
    findings: list[Finding] = []
    associated: dict[str, AssociatedImage] = {}
    for image in images:
        if image.kind is not None and image.kind not in associated:
            page = _page(structure, image.page)
            opened = associated_image(structure, page, image.kind, _LOSSY_METHODS.get(page.compression))
            if isinstance(opened, Finding):
                findings.append(opened)
            else:
                associated[image.kind] = opened
    claimed = {image.page for image in images}
    rest = [page for index, page in enumerate(structure.pages) if index not in claimed]
    result = open_image(structure, _page(structure, main.page), rest, _spacing(main), background)
    return result.as_source(path, structure, ("ome-tiff", "OME-TIFF"), associated, findings)


def _images(description: str) -> Sequence[_Image]:
    """Return the images that the XML describes."""
    try:
        root = parse_xml(description, "OME-TIFF whose OME-XML")
    except CorruptSourceError as error:
        raise UnsupportedSourceError(error.reason) from error
    images: list[_Image] = []
    for element in root.findall("{*}Image"):
        pixels = element.find("{*}Pixels")
        if pixels is not None:
            name = element.get("Name", "").lower()
            kind = next((kind for word, kind in _ASSOCIATED if re.search(rf"\b{word}\b", name)), None)
            images.append(_Image(kind, pixels, _first_page(pixels, len(images))))
    if len(images) == 1:  # whatever it is called
        images = [_Image(None, images[0].pixels, images[0].page)]
    return images


def _first_page(pixels: ET.Element, default: int) -> int:
    data = pixels.find("{*}TiffData")
    text = data.get("IFD", "") if data is not None else ""
    return int(text) if re.fullmatch(r"\d{1,6}", text) else default


def _page(structure: TiffStructure, index: int) -> TiffPage:
    if index >= len(structure.pages):
        raise CorruptSourceError(f"OME-XML asks for directory {index} of {len(structure.pages)}")
    return structure.pages[index]


def _known_word(text: str) -> str:
    """Return a number or the name of a sample type, "?" for what no message may repeat."""
    return text if re.fullmatch(r"\d{1,9}|u?int\d\d?|float|double|(double-)?complex|bit", text) else "?"


def _spacing(image: _Image) -> PixelSpacing | None:
    """Return the spacing that PhysicalSizeX and PhysicalSizeY give; micrometres if no unit is said."""
    try:
        row_um, column_um = (
            float(image.attribute(name, "")) * _OME_UNITS_UM[image.attribute(f"{name}Unit", "µm")]
            for name in ("PhysicalSizeY", "PhysicalSizeX")
        )
    except (KeyError, ValueError):
        return None
    return plausible_spacing(row_um, column_um, "OME PhysicalSize")
