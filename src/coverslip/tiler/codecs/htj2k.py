"""High-Throughput JPEG 2000 (PS3.5 A.4.12), through OpenJPH."""

from __future__ import annotations

from dataclasses import dataclass

import imagecodecs
import numpy as np

from coverslip.errors import CorruptSourceError, EncodingError
from coverslip.tiler.codecs.base import CodecOption, FrameFormat, Pixels
from coverslip.tiler.codecs.jpeg2000_stream import parse_jpeg2000

__all__ = ["Htj2kDecoder", "Htj2kEncoder", "decoder", "encoder", "encoder_like"]

_EOC = b"\xff\xd9"


@dataclass(frozen=True, slots=True)
class Htj2kEncoder:
    """Raw codestreams of one tile; the photometric interpretation says which colour transform."""

    frame_format: FrameFormat
    reversible: bool

    @property
    def description(self) -> str:
        """Codec and wavelet in words."""
        return f"HTJ2K {'reversible 5/3' if self.reversible else 'irreversible 9/7'}"

    def encode(self, pixels: Pixels) -> bytes:
        """Encode (rows, columns, 3 or 1); raises EncodingError."""
        try:
            return bytes(
                imagecodecs.htj2k_encode(
                    pixels[..., 0] if pixels.shape[2] == 1 else pixels,
                    rgb=self.frame_format.photometric_interpretation in ("YBR_RCT", "YBR_ICT"),
                    reversible=self.reversible,
                )
            )
        except (ValueError, RuntimeError) as error:
            raise EncodingError(f"HTJ2K: {error}") from error


@dataclass(frozen=True, slots=True)
class Htj2kDecoder:
    """Decodes to RGB or gray."""

    rows: int | None
    columns: int | None

    def decode(self, frame: bytes) -> Pixels:
        """Decode to (rows, columns, 3 or 1); raises CorruptSourceError."""
        header = parse_jpeg2000(frame)
        if header.rows != (self.rows or header.rows) or header.columns != (self.columns or header.columns):
            raise CorruptSourceError(
                f"HTJ2K of {header.rows} x {header.columns} pixels, expected {self.rows} x {self.columns}"
            )
        # OpenJPH takes a codestream that breaks off in its last blocks for whole; a pad byte may follow EOC.
        if not frame.endswith((_EOC, _EOC + b"\0")):
            raise CorruptSourceError(f"HTJ2K of {len(frame)} bytes breaks off, expected EOC at its end")
        try:
            pixels = imagecodecs.htj2k_decode(frame)
        except (ValueError, RuntimeError) as error:
            raise CorruptSourceError(f"HTJ2K does not decode: {error}") from error
        return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels

    def decode_half(self, frame: bytes) -> None:
        """Return None: there is no DCT to scale in."""


def encoder(option: CodecOption, bits: int, samples_per_pixel: int) -> Htj2kEncoder:
    """Return the encoder of ``htj2k``: lossless, colour decorrelated."""
    photometric_interpretation = "YBR_RCT" if samples_per_pixel == 3 else "MONOCHROME2"
    frame_format = FrameFormat("1.2.840.10008.1.2.4.201", photometric_interpretation, samples_per_pixel, bits)
    return Htj2kEncoder(frame_format, option.lossless)


def encoder_like(frame_format: FrameFormat, sample_frame: bytes) -> Htj2kEncoder:
    """Return an encoder with the sample's wavelet and the format's components."""
    return Htj2kEncoder(frame_format, parse_jpeg2000(sample_frame).reversible)


def decoder(_frame_format: FrameFormat, rows: int | None, columns: int | None) -> Htj2kDecoder:
    """Return the decoder."""
    return Htj2kDecoder(rows, columns)
