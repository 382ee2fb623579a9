"""What the XML of Philips slides says: that of a TIFF's ImageDescription, and that at the start of an iSyntax file."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator
from xml.etree import ElementTree as ET

from coverslip.converter.sources.base import AssociatedImage
from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs import make_decoder
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.tiler.codecs.jpeg_stream import parse_jpeg
from coverslip.validators.report import Finding, Severity

__all__ = ["attribute_text", "picture_of_base64", "picture_of_jpeg", "properties", "representations", "scanned_images"]

_JPEG = FrameFormat("1.2.840.10008.1.2.4.50", "YBR_FULL_422", 3)
_MOST_PICTURE_PIXELS = 1 << 26


def scanned_images(root: ET.Element) -> list[ET.Element]:
    """Return the elements of the scan, the label and the macro image."""
    return root.findall("Attribute[@Name='PIM_DP_SCANNED_IMAGES']/Array/DataObject")


def representations(image: ET.Element) -> list[ET.Element]:
    """Return the elements of an image's levels."""
    return image.findall("Attribute[@Name='PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE']/Array/DataObject")


def attribute_text(element: ET.Element, name: str) -> str:
    """Return the text of an attribute, empty if there is none."""
    found = element.find(f"Attribute[@Name='{name}']")
    return (found.text or "").strip() if found is not None else ""


def properties(root: ET.Element, image: ET.Element) -> Iterator[tuple[str, str]]:
    """Yield what the XML says of slide and scanned image, named as OpenSlide names it."""
    for element in (root, image):
        for attribute in element.findall("Attribute"):
            if len(attribute) == 0 and attribute.text and attribute.get("Name") != "PIM_DP_IMAGE_DATA":
                yield f"philips.{attribute.get('Name')}", attribute.text.strip()
    yield "openslide.barcode", _barcode(attribute_text(root, "PIM_DP_UFS_BARCODE"))
    text = attribute_text(image, "DICOM_DERIVATION_DESCRIPTION").partition("sourceFilename")[0]
    power = re.match(r".*?-levels=(\d+)", text)
    # The first of the levels is the objective's magnification, or a number above 10000.
    if power and 0 < int(power[1]) <= 200:
        yield "openslide.objective-power", power[1]


def _barcode(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return text


def picture_of_base64(text: str, name: str) -> AssociatedImage | Finding:
    """Return a label or macro image that the XML holds, a finding if it does not decode."""
    try:
        return picture_of_jpeg(base64.b64decode(text), name)
    except (binascii.Error, ValueError):
        return _unread(name)


def picture_of_jpeg(data: bytes, name: str) -> AssociatedImage | Finding:
    """Return a label or macro image, a finding if it is no JPEG of a picture."""
    try:
        header = parse_jpeg(data)
    except CorruptSourceError:
        return _unread(name)
    if len(header.components) != 3 or not 0 < header.rows * header.columns <= _MOST_PICTURE_PIXELS:
        return _unread(name)
    decoder = make_decoder(_JPEG, rows=header.rows, columns=header.columns)
    return AssociatedImage(
        name, header.rows, header.columns, lambda: decoder.decode(data), "ISO_10918_1", stored_bytes=len(data)
    )


def _unread(name: str) -> Finding:
    message = f"the {name} image in the XML does not decode; it is left out"
    return Finding("source.associated-image-unread", Severity.WARNING, message, name)
