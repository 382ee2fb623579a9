"""The codecs as a user names them."""

from __future__ import annotations

import re

from coverslip.errors import UsageError
from coverslip.tiler.codecs.base import CodecOption

__all__ = ["parse_codec"]

_JPEG = re.compile(r"jpeg(?::([1-9]\d?|100)(?::(444|422|420))?)?")
_OTHERS = {
    "jpeg2000": CodecOption("jpeg2000", lossless=False),
    "jpeg2000:lossless": CodecOption("jpeg2000", lossless=True),
    "htj2k": CodecOption("htj2k", lossless=True),
    "jpegls": CodecOption("jpegls", lossless=True),
    "none": CodecOption("none", lossless=True),
}


def parse_codec(text: str) -> CodecOption:
    """Read ``jpeg[:QUALITY[:444|422|420]]``, ``jpeg2000[:lossless]``, ``htj2k``, ``jpegls`` or ``none``.

    JPEG is of quality 80 with 4:2:0 chroma unless said otherwise.

    Raises
    ------
    UsageError
        If the text names no codec.
    """
    if text in _OTHERS:
        return _OTHERS[text]
    match = _JPEG.fullmatch(text)
    if match is None:
        raise UsageError(
            f"codec {text!r} is unknown, expected jpeg[:QUALITY[:444|422|420]] with a quality of 1 to 100, "
            f"{', '.join(list(_OTHERS)[:-1])} or none"
        )
    return CodecOption("jpeg", lossless=False, quality=int(match[1] or 80), subsampling=match[2] or "420")
