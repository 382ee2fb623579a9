"""Parse the XML that slides hold."""

from __future__ import annotations

from xml.etree import ElementTree as ET
from xml.parsers.expat import ErrorString

from coverslip.errors import CorruptSourceError

__all__ = ["parse_xml"]


def parse_xml(text: str, what: str) -> ET.Element:
    """Return the root element.

    Raises
    ------
    CorruptSourceError
        If the text does not parse; none of it is told.
    """
    try:
        # Bytes, as the text may declare an encoding of its own. Expat itself limits how far entities expand.
        return ET.fromstring(text.encode())  # noqa: S314
    except ET.ParseError as error:
        raise CorruptSourceError(
            f"{what} does not parse: {ErrorString(error.code)} in line {error.position[0]}"
        ) from error
    except (LookupError, ValueError) as error:  # an encoding that nobody knows, or of more than one byte
        raise CorruptSourceError(f"{what} does not parse: its encoding is unknown") from error
