"""Uncompressed frames, little endian, colour interleaved by pixel (PS3.5 A.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from coverslip.errors import CorruptSourceError, EncodingError
from coverslip.tiler.codecs.base import CodecOption, FrameFormat, Pixels

__all__ = ["NativeDecoder", "NativeEncoder", "decoder", "encoder", "encoder_like"]

_DTYPES: dict[int, np.dtype[Any]] = {8: np.dtype("u1"), 16: np.dtype("<u2"), 32: np.dtype("<f4")}


@dataclass(frozen=True, slots=True)
class NativeEncoder:
    """Writes samples as they are."""

    frame_format: FrameFormat
    description: str = "uncompressed"

    def encode(self, pixels: Pixels) -> bytes:
        """Return the bytes of (rows, columns, 3 or 1); raises EncodingError."""
        dtype = _DTYPES[self.frame_format.bits_allocated]
        if pixels.dtype != dtype:
            raise EncodingError(f"uncompressed: pixels of {pixels.dtype}, expected {dtype}")
        return pixels.astype(dtype, copy=False).tobytes()


@dataclass(frozen=True, slots=True)
class NativeDecoder:
    """Reads samples as they are."""

    frame_format: FrameFormat
    rows: int
    columns: int

    def decode(self, frame: bytes) -> Pixels:
        """Decode to (rows, columns, 3 or 1); raises CorruptSourceError."""
        dtype = _DTYPES[self.frame_format.bits_allocated]
        shape = (self.rows, self.columns, self.frame_format.samples_per_pixel)
        wanted = math.prod(shape) * dtype.itemsize
        if len(frame) not in (wanted, wanted + wanted % 2):  # a frame may come with its pad byte
            raise CorruptSourceError(f"uncompressed frame of {len(frame)} bytes, expected {wanted}")
        return np.frombuffer(frame[:wanted], dtype).reshape(shape).copy()

    def decode_half(self, frame: bytes) -> None:
        """Return None: there is no DCT to scale in."""


def encoder(_option: CodecOption, bits: int, samples_per_pixel: int) -> NativeEncoder:
    """Return the encoder of ``none``."""
    photometric_interpretation = "RGB" if samples_per_pixel == 3 else "MONOCHROME2"
    return NativeEncoder(FrameFormat("1.2.840.10008.1.2.1", photometric_interpretation, samples_per_pixel, bits))


def encoder_like(frame_format: FrameFormat, _sample_frame: bytes) -> NativeEncoder:
    """Return an encoder of the same format."""
    return NativeEncoder(frame_format)


def decoder(frame_format: FrameFormat, rows: int | None, columns: int | None) -> NativeDecoder:
    """Return the decoder; `rows` and `columns` are needed."""
    if rows is None or columns is None:
        raise ValueError("rows and columns of native frames are needed")
    return NativeDecoder(frame_format, rows, columns)
