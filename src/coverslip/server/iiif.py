"""Requests of the IIIF Image API 3.0: what region in what size, turned how (https://iiif.io/api/image/3.0/)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from coverslip.errors import UsageError
from coverslip.server.rendering import Region

__all__ = ["ImageRequest", "parse_image_request"]

_NUMBER = r"(\d{1,9}(?:\.\d{1,9})?)"
_BOX = re.compile(r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})")
_PERCENT_BOX = re.compile(rf"pct:{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}")
_SIZE = re.compile(rf"(\^?)(?:(max)|pct:{_NUMBER}|(!?)(\d{{0,9}}),(\d{{0,9}}))")
_ROTATION = re.compile(r"(!?)(\d{1,3})(?:\.0+)?")
_QUALITIES = ("default", "color", "gray", "bitonic")
FORMATS = {"jpg": "image/jpeg", "png": "image/png"}


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """What is asked for.

    Parameters
    ----------
    region : Region
        Within the slide.
    size : tuple of int
        (rows, columns), before it is turned.
    mirrored : bool
    quarter_turns : int
        Clockwise.
    quality, media_type : str
    """

    region: Region
    size: tuple[int, int]
    mirrored: bool
    quarter_turns: int
    quality: str
    media_type: str


def parse_image_request(
    columns: int, rows: int, most_pixels: int, *, region: str, size: str, rotation: str, quality: str, form: str
) -> ImageRequest:
    """Read the parts of a path about a slide of a size.

    Raises
    ------
    UsageError
        If a part is wrong, or asks for more than is allowed.
    """
    box = _region(columns, rows, region)
    turned = _ROTATION.fullmatch(rotation)
    if turned is None or int(turned[2]) not in (0, 90, 180, 270, 360):
        raise UsageError("rotation: expected 0, 90, 180 or 270, with ! before it to mirror")
    if quality not in _QUALITIES:
        raise UsageError(f"quality: expected one of {', '.join(_QUALITIES)}")
    if form not in FORMATS:
        raise UsageError(f"format: expected one of {', '.join(FORMATS)}")
    wanted = _size(box, size, most_pixels)
    return ImageRequest(box, wanted, bool(turned[1]), int(turned[2]) // 90 % 4, quality, FORMATS[form])


def _region(columns: int, rows: int, text: str) -> Region:
    if text == "full":
        return Region(0, 0, columns, rows)
    if text == "square":
        side = min(columns, rows)
        return Region((columns - side) // 2, (rows - side) // 2, side, side)
    box, percent = _BOX.fullmatch(text), _PERCENT_BOX.fullmatch(text)
    if box is not None:
        x, y, width, height = map(int, box.groups())
    elif percent is not None:
        parts = [float(each) for each in percent.groups()]
        sides = (columns, rows, columns, rows)
        x, y, width, height = (round(part * side / 100) for part, side in zip(parts, sides, strict=True))
    else:
        raise UsageError("region: expected full, square, x,y,w,h or pct:x,y,w,h")
    width, height = min(width, columns - x), min(height, rows - y)
    if width <= 0 or height <= 0:
        raise UsageError("region: expected one that lies in the picture and is not empty")
    return Region(x, y, width, height)


def _size(region: Region, text: str, most_pixels: int) -> tuple[int, int]:
    """Return (rows, columns)."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise UsageError("size: expected max, w,h w, ,h !w,h or pct:n, with ^ before it to enlarge")
    enlarges, most, percent, confined, width, height = match.groups()
    columns, rows = region.width, region.height
    if most:
        scale = (most_pixels / (columns * rows)) ** 0.5
        scale = scale if enlarges else min(1.0, scale)
        found = int(columns * scale + 1e-9), int(rows * scale + 1e-9)
    elif percent:
        found = round(columns * float(percent) / 100), round(rows * float(percent) / 100)
    else:
        found = _explicit(columns, rows, width, height, bool(confined), bool(enlarges))
    found = (max(1, found[0]), max(1, found[1])) if most or confined or not (width and height) else found
    if min(found) < 1:
        raise UsageError("size: expected at least one pixel")
    if not enlarges and (found[0] > columns or found[1] > rows):
        raise UsageError("size: expected no more pixels than the region has; ^ before it enlarges")
    if found[0] * found[1] > most_pixels:
        raise UsageError(f"size: expected at most {most_pixels} pixels in all")
    return found[1], found[0]


def _explicit(columns: float, rows: float, width: str, height: str, confined: bool, enlarges: bool) -> tuple[int, int]:
    if not width and not height:
        raise UsageError("size: expected a width or a height")
    if confined:
        if not (width and height):
            raise UsageError("size: expected a width and a height after !")
        scale = min(int(width) / columns, int(height) / rows)
        scale = scale if enlarges else min(1.0, scale)
        return round(columns * scale), round(rows * scale)
    if width and height:
        return int(width), int(height)
    if width:
        return int(width), round(rows * int(width) / columns)
    return round(columns * int(height) / rows), int(height)
