"""JPEG as TIFF holds it: tables in the directory, abbreviated streams in the tiles."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["encode_jpeg", "merge_tables", "split_tables"]

_SOS, _DQT, _DHT = 0xDA, 0xDB, 0xC4


def encode_jpeg(pixels: NDArray[np.uint8], quality: int, *, subsampling: str = "444", rgb: bool = False) -> bytes:
    """Encode to a baseline JPEG with standard Huffman tables.

    Parameters
    ----------
    pixels : ndarray
        (rows, columns, 3) RGB or (rows, columns) grey.
    subsampling : {"444", "422", "420"}
        Of the chroma.
    rgb : bool
        Store R, G and B as they are, with no marker that says so, as Aperio's ``JPEG/RGB`` does.
    """
    if rgb:
        import imagecodecs

        return bytes(
            imagecodecs.jpeg8_encode(pixels, quality, colorspace="rgb", outcolorspace="rgb", subsampling=subsampling)
        )
    import simplejpeg

    stream: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[..., None]),
        quality,
        "RGB" if pixels.ndim == 3 else "GRAY",
        subsampling if pixels.ndim == 3 else "Gray",
    )
    return stream


def split_tables(stream: bytes) -> tuple[bytes, bytes]:
    """Split a JPEG into a tables-only stream and an abbreviated one; application segments are dropped."""
    tables, frame = [b"\xff\xd8"], [b"\xff\xd8"]
    position = 2
    while True:
        marker = stream[position + 1]
        end = position + 2 + int.from_bytes(stream[position + 2 : position + 4])
        if marker == _SOS:
            break
        if marker in (_DQT, _DHT):
            tables.append(stream[position:end])
        elif not 0xE0 <= marker <= 0xEF:
            frame.append(stream[position:end])
        position = end
    return b"".join([*tables, b"\xff\xd9"]), b"".join([*frame, stream[position:]])


def merge_tables(tables: bytes, abbreviated: bytes) -> bytes:
    """Return a JPEG that decodes alone: the inverse of `split_tables`, less the application segments."""
    return tables[:-2] + abbreviated[2:]
