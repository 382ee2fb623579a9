"""Lossless JPEG-LS (PS3.5 A.4.3), through CharLS."""

from __future__ import annotations

from dataclasses import dataclass

import imagecodecs
import numpy as np

from coverslip.errors import CorruptSourceError, EncodingError
from coverslip.tiler.codecs.base import CodecOption, FrameFormat, Pixels

__all__ = ["JpegLsDecoder", "JpegLsEncoder", "decoder", "encoder", "encoder_like"]

_EOI = b"\xff\xd9"
_SOF55, _SOS = 0xF7, 0xDA


@dataclass(frozen=True, slots=True)
class JpegLsEncoder:
    """Lossless JPEG-LS; colour is RGB, interleaved by sample."""

    frame_format: FrameFormat
    description: str = "JPEG-LS lossless"

    def encode(self, pixels: Pixels) -> bytes:
        """Encode (rows, columns, 3 or 1); raises EncodingError."""
        try:
            return bytes(imagecodecs.jpegls_encode(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
        except (ValueError, RuntimeError) as error:
            raise EncodingError(f"JPEG-LS: {error}") from error


@dataclass(frozen=True, slots=True)
class JpegLsDecoder:
    """Decodes to RGB or gray."""

    rows: int | None
    columns: int | None

    def decode(self, frame: bytes) -> Pixels:
        """Decode to (rows, columns, 3 or 1); raises CorruptSourceError."""
        # CharLS needs seconds to see that a scan breaks off; a pad byte may follow EOI.
        if not frame.endswith((_EOI, _EOI + b"\0")):
            raise CorruptSourceError(f"JPEG-LS of {len(frame)} bytes breaks off, expected EOI at its end")
        rows, columns = _read_size(frame)
        if rows != (self.rows or rows) or columns != (self.columns or columns):
            raise CorruptSourceError(f"JPEG-LS of {rows} x {columns} pixels, expected {self.rows} x {self.columns}")
        try:
            pixels = imagecodecs.jpegls_decode(frame)
        except (ValueError, RuntimeError) as error:
            raise CorruptSourceError(f"JPEG-LS does not decode: {error}") from error
        return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels

    def decode_half(self, frame: bytes) -> None:
        """Return None: there is no DCT to scale in."""


def _read_size(frame: bytes) -> tuple[int, int]:
    """Return (rows, columns) of the frame header (ITU-T T.87 C.2.2): a few bytes may claim a picture of gigabytes."""
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF and frame[at + 1] != _SOS:
        if frame[at + 1] == 0xFF:  # fill
            at += 1
            continue
        if frame[at + 1] == _SOF55:
            return int.from_bytes(frame[at + 5 : at + 7]), int.from_bytes(frame[at + 7 : at + 9])
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    raise CorruptSourceError(f"JPEG-LS of {len(frame)} bytes without a frame header")


def encoder(_option: CodecOption, bits: int, samples_per_pixel: int) -> JpegLsEncoder:
    """Return the encoder of ``jpegls``."""
    photometric_interpretation = "RGB" if samples_per_pixel == 3 else "MONOCHROME2"
    return JpegLsEncoder(FrameFormat("1.2.840.10008.1.2.4.80", photometric_interpretation, samples_per_pixel, bits))


def encoder_like(frame_format: FrameFormat, _sample_frame: bytes) -> JpegLsEncoder:
    """Return an encoder of the same format; lossless JPEG-LS has no variants that matter."""
    return JpegLsEncoder(frame_format)


def decoder(_frame_format: FrameFormat, rows: int | None, columns: int | None) -> JpegLsDecoder:
    """Return the decoder."""
    return JpegLsDecoder(rows, columns)
