"""Frames of one instance in pixels, and in other transfer syntaxes than the stored one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coverslip.errors import CorruptSourceError, UnsupportedSourceError, UsageError
from coverslip.server.negotiation import NATIVE

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

    from coverslip.server.open_instances import OpenInstance
    from coverslip.tiler.codecs.base import Pixels

__all__ = ["decode_frame", "encodable_syntaxes", "encode_frame", "number"]

_DECODED_AS = {
    "1.2.840.10008.1.2": NATIVE,
    "1.2.840.10008.1.2.4.81": "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.202": "1.2.840.10008.1.2.4.201",
}
_DECODABLE = frozenset(
    f"1.2.840.10008.1.2{suffix}" for suffix in (".1", ".4.50", ".4.51", ".4.80", ".4.90", ".4.91", ".4.201", ".4.203")
)
_CODECS = {
    NATIVE: "none",
    "1.2.840.10008.1.2.4.50": "jpeg:90:422",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2000:lossless",
}
_MOST_PIXELS = 80 << 20
_LOSSY = "1.2.840.10008.1.2.4.50"


def number(header: Dataset, keyword: str, default: int = 0) -> int:
    """Return an integer attribute of a header, or `default`."""
    try:
        value = header.get(keyword)
        return default if value is None or value == "" else int(value)
    except (TypeError, ValueError):
        return default


def encodable_syntaxes(header: Dataset, transfer_syntax_uid: str) -> frozenset[str]:
    """Return the transfer syntaxes that frames of an instance can be given in besides the stored one."""
    if _DECODED_AS.get(transfer_syntax_uid, transfer_syntax_uid) not in _DECODABLE:
        return frozenset()
    bits, samples = number(header, "BitsAllocated", 8), number(header, "SamplesPerPixel", 1)
    if (bits, samples) not in ((8, 1), (8, 3), (16, 1)):
        return frozenset()
    return frozenset(syntax for syntax in _CODECS if bits == 8 or syntax != _LOSSY)


def decode_frame(opened: OpenInstance, index: int) -> Pixels:
    """Return the pixels of a frame, (rows, columns, samples), colour as RGB.

    Raises
    ------
    UsageError
        If it is too large.
    UnsupportedSourceError
        If there is no decoder.
    CorruptSourceError, StoreError
        If the frame cannot be read or decoded.
    """
    from coverslip.tiler.codecs import FrameFormat, make_decoder

    syntax = _DECODED_AS.get(opened.transfer_syntax_uid, opened.transfer_syntax_uid)
    if syntax not in _DECODABLE:
        raise UnsupportedSourceError(f"frames of transfer syntax {syntax} are not decoded")
    bits = number(opened.header, "BitsAllocated", 8)
    if bits not in (8, 16):
        raise UnsupportedSourceError(f"frames of {bits} bits are not decoded")
    rows, columns = number(opened.header, "Rows"), number(opened.header, "Columns")
    if rows * columns > _MOST_PIXELS:
        raise UsageError(f"a frame of {rows * columns} pixels, expected at most {_MOST_PIXELS}")
    form = FrameFormat(
        syntax,
        str(opened.header.get("PhotometricInterpretation", "")),
        number(opened.header, "SamplesPerPixel", 1),
        number(opened.header, "BitsStored", bits),
    )
    decoder = make_decoder(form, rows=rows, columns=columns)
    pixels = decoder.decode(opened.read_frame(index))
    if pixels.shape[:2] != (rows, columns):
        raise CorruptSourceError(f"{pixels.shape[0]} x {pixels.shape[1]} pixels", frame_index=index)
    return pixels


def encode_frame(opened: OpenInstance, index: int, transfer_syntax_uid: str) -> bytes:
    """Return a frame in another transfer syntax; lossless but for JPEG."""
    import numpy as np

    from coverslip.tiler.codecs import make_encoder, parse_codec

    pixels = np.ascontiguousarray(decode_frame(opened, index))
    if transfer_syntax_uid == NATIVE:
        return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
    option = parse_codec(_CODECS[transfer_syntax_uid])
    return make_encoder(option, dtype=pixels.dtype, samples_per_pixel=pixels.shape[2]).encode(pixels)
