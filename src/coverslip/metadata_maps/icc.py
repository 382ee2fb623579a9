"""ICC profiles as DICOM wants them: input class, RGB to XYZ or Lab (PS3.3 C.11.15)."""

from __future__ import annotations

import struct

__all__ = ["as_input_profile", "profile_name", "srgb_input_profile"]

_CLASS = slice(12, 16)
_COLOR_SPACE = slice(16, 20)
_CONNECTION_SPACE = slice(20, 24)
_SIGNATURE = slice(36, 40)
_PROFILE_ID = slice(84, 100)
_HEADER_BYTES = 128
# Profiles of these classes hold the same device-to-connection-space tags as an input profile.
_SAME_TAGS = (b"mntr", b"spac")


def as_input_profile(profile: bytes) -> tuple[bytes | None, str | None]:
    """Return a slide's own profile as one that DICOM allows.

    Returns
    -------
    profile : bytes or None
        The profile itself if it is of input class; with its class set to input and nothing else changed if it is a
        display or colour space profile; None if it cannot describe an RGB image.
    remark : str or None
        What was changed or why it cannot be used; None if it is used as it is.
    """
    if len(profile) < _HEADER_BYTES or profile[_SIGNATURE] != b"acsp":
        return None, "not an ICC profile"
    if len(profile) < struct.unpack_from(">I", profile)[0]:
        return None, "an ICC profile cut short"
    if profile[_COLOR_SPACE] != b"RGB " or profile[_CONNECTION_SPACE] not in (b"XYZ ", b"Lab "):
        return None, f"a profile from {_text(profile[_COLOR_SPACE])} to {_text(profile[_CONNECTION_SPACE])}"
    device_class = profile[_CLASS]
    if device_class == b"scnr":
        return profile, None
    if device_class not in _SAME_TAGS:
        return None, f"a profile of class {_text(device_class)}"
    changed = bytearray(profile)
    changed[_CLASS] = b"scnr"
    changed[_PROFILE_ID] = bytes(16)  # an MD5 of the profile; all zero means not computed
    return bytes(changed), f"class {_text(device_class)} set to input class"


def profile_name(profile: bytes) -> str | None:
    """Return the profile description (ICC.1:2022, 9.2.41) of version 2 or 4, None if there is none to be read."""
    try:
        (count,) = struct.unpack_from(">I", profile, _HEADER_BYTES)
        for index in range(min(count, 100)):
            signature, offset, size = struct.unpack_from(">4sII", profile, _HEADER_BYTES + 4 + 12 * index)
            if signature == b"desc":
                return _read_text(profile[offset : offset + size])
    except struct.error:
        pass
    return None


def _read_text(element: bytes) -> str | None:
    """Read a textDescriptionType (version 2) or the first text of a multiLocalizedUnicodeType (version 4)."""
    if element[:4] == b"desc":
        (length,) = struct.unpack_from(">I", element, 8)
        return element[12 : 12 + length].split(b"\0")[0].decode("ascii", "replace").strip() or None
    if element[:4] == b"mluc":
        length, offset = struct.unpack_from(">II", element, 20)
        return element[offset : offset + length].decode("utf-16-be", "replace").strip("\0 ") or None
    return None


def srgb_input_profile() -> bytes:
    """Return an input-class profile of the sRGB colour space (IEC 61966-2-1), the same bytes always.

    Made here because the profiles that colour libraries generate are of display class and carry the current date.
    """
    # Primaries of sRGB adapted to the D50 white of the connection space.
    white, red, green, blue = (
        (0.9642, 1.0, 0.8249),
        (0.43607, 0.22249, 0.01392),
        (0.38515, 0.71687, 0.09708),
        (0.14307, 0.06061, 0.71410),
    )
    curve = _curve()
    contents = {
        b"desc": _description("sRGB, input class"),
        b"cprt": b"text\0\0\0\0No copyright, use freely\0",
        b"wtpt": _xyz(*white),
        b"rXYZ": _xyz(*red),
        b"gXYZ": _xyz(*green),
        b"bXYZ": _xyz(*blue),
        b"rTRC": curve,
        b"gTRC": curve,
        b"bTRC": curve,
    }
    body = b""
    table = struct.pack(">I", len(contents))
    start = _HEADER_BYTES + 4 + 12 * len(contents)
    places: dict[bytes, int] = {}
    for signature, data in contents.items():
        if data not in places:
            places[data] = start + len(body)
            body += data + bytes(-len(data) % 4)
        table += struct.pack(">4sII", signature, places[data], len(data))
    header = struct.pack(
        ">I4sI4s4s4s6H4s4sIIIQI3i4s44x",
        start + len(body),
        b"\0\0\0\0",
        0x02400000,  # version 2.4, which every reader knows
        b"scnr",
        b"RGB ",
        b"XYZ ",
        *(2000, 1, 1, 0, 0, 0),
        b"acsp",
        b"\0\0\0\0",
        0,
        0,
        0,
        0,
        0,
        *(_fixed(value) for value in white),
        b"\0\0\0\0",
    )
    return header + table + body


def _curve() -> bytes:
    """Return sRGB's transfer curve as 1,024 points."""
    points = []
    for index in range(1024):
        value = index / 1023
        linear = value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        points.append(round(linear * 65535))
    return struct.pack(f">4s4xI{len(points)}H", b"curv", len(points), *points)


def _description(text: str) -> bytes:
    """Return a textDescriptionType (ICC.1:2001-04, 6.5.17) with its ASCII part only."""
    ascii_text = text.encode("ascii") + b"\0"
    return struct.pack(">4s4xI", b"desc", len(ascii_text)) + ascii_text + bytes(4 + 4 + 2 + 1 + 67)


def _xyz(x: float, y: float, z: float) -> bytes:
    return struct.pack(">4s4x3i", b"XYZ ", _fixed(x), _fixed(y), _fixed(z))


def _fixed(value: float) -> int:
    """Return an s15Fixed16Number."""
    return round(value * 65536)


def _text(signature: bytes) -> str:
    return signature.decode("ascii", "replace").strip()
