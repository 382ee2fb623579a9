"""JPEG 2000 (PS3.5 A.4.4), through OpenJPEG.

Lossy frames keep every coding pass of the irreversible transform at OpenJPEG's own quantization: 49 dB was the least
seen, on tiles of one real slide, uniform tiles and noise. Cutting passes off at a chosen PSNR is smaller, but OpenJPEG
then fell up to 16 dB short of targets of 38 to 43 dB on some of the slide's tiles, and 12 dB short of 45 dB on a
uniform one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import imagecodecs
import numpy as np

from coverslip.errors import CorruptSourceError, EncodingError
from coverslip.tiler.codecs.base import CodecOption, FrameFormat, Pixels
from coverslip.tiler.codecs.jpeg2000_stream import parse_jpeg2000

__all__ = [
    "Jpeg2000Decoder",
    "Jpeg2000Encoder",
    "decoder",
    "encoder",
    "encoder_like",
    "rgb_from_ycbcr",
    "ycbcr_from_rgb",
]


@dataclass(frozen=True, slots=True)
class Jpeg2000Encoder:
    """Raw codestreams of one tile and one layer; the photometric interpretation says which colour transform."""

    frame_format: FrameFormat
    reversible: bool

    @property
    def description(self) -> str:
        """Codec and wavelet in words."""
        return f"JPEG 2000 {'reversible 5/3' if self.reversible else 'irreversible 9/7'}"

    def encode(self, pixels: Pixels) -> bytes:
        """Encode (rows, columns, 3 or 1); raises EncodingError."""
        photometric_interpretation = self.frame_format.photometric_interpretation
        if photometric_interpretation == "YBR_FULL_422":
            pixels = ycbcr_from_rgb(pixels)
        try:
            return bytes(
                imagecodecs.jpeg2k_encode(
                    pixels[..., 0] if pixels.shape[2] == 1 else pixels,
                    codecformat="J2K",
                    reversible=self.reversible,
                    mct=photometric_interpretation in ("YBR_RCT", "YBR_ICT"),
                    numthreads=1,
                )
            )
        except (ValueError, RuntimeError) as error:
            raise EncodingError(f"JPEG 2000: {error}") from error


@dataclass(frozen=True, slots=True)
class Jpeg2000Decoder:
    """Decodes to RGB or gray; `ycbcr` says that the components are YCbCr, which no codestream tells."""

    ycbcr: bool
    rows: int | None
    columns: int | None

    def decode(self, frame: bytes) -> Pixels:
        """Decode to (rows, columns, 3 or 1); raises CorruptSourceError."""
        header = parse_jpeg2000(frame)
        if header.rows != (self.rows or header.rows) or header.columns != (self.columns or header.columns):
            raise CorruptSourceError(
                f"JPEG 2000 of {header.rows} x {header.columns} pixels, expected {self.rows} x {self.columns}"
            )
        try:
            pixels = imagecodecs.jpeg2k_decode(frame, numthreads=1)
        except (ValueError, RuntimeError) as error:
            raise CorruptSourceError(f"JPEG 2000 does not decode: {error}") from error
        if pixels.ndim == 2:
            return pixels[..., np.newaxis]
        # OpenJPEG takes three components of unequal size for YCbCr and converts them itself.
        convert = self.ycbcr and not header.multiple_component_transform and not header.subsampled
        return rgb_from_ycbcr(pixels) if convert else pixels

    def decode_half(self, frame: bytes) -> None:
        """Return None: there is no DCT to scale in."""


def encoder(option: CodecOption, bits: int, samples_per_pixel: int) -> Jpeg2000Encoder:
    """Return the encoder of ``jpeg2000`` or ``jpeg2000:lossless``; colour is decorrelated."""
    color = "YBR_RCT" if option.lossless else "YBR_ICT"
    return Jpeg2000Encoder(
        FrameFormat(
            f"1.2.840.10008.1.2.4.{'90' if option.lossless else '91'}",
            color if samples_per_pixel == 3 else "MONOCHROME2",
            samples_per_pixel,
            bits,
            None if option.lossless else "ISO_15444_1",
        ),
        option.lossless,
    )


def encoder_like(frame_format: FrameFormat, sample_frame: bytes) -> Jpeg2000Encoder:
    """Return an encoder with the sample's wavelet and the format's components."""
    return Jpeg2000Encoder(frame_format, parse_jpeg2000(sample_frame).reversible)


def decoder(frame_format: FrameFormat, rows: int | None, columns: int | None) -> Jpeg2000Decoder:
    """Return the decoder."""
    return Jpeg2000Decoder(frame_format.photometric_interpretation == "YBR_FULL_422", rows, columns)


def rgb_from_ycbcr(pixels: Pixels) -> Pixels:
    """Convert full-range BT.601 YCbCr (T.871) to RGB, rounding as libjpeg and OpenSlide do.

    Parameters
    ----------
    pixels : ndarray
        (rows, columns, 3) uint8.
    """
    red, green_blue, green_red, blue = _chroma_tables()
    luma, blue_chroma, red_chroma = pixels[..., 0].astype(np.int16), pixels[..., 1], pixels[..., 2]
    converted = np.stack(
        (
            luma + red[red_chroma],
            luma + ((green_blue[blue_chroma] + green_red[red_chroma]) >> 16).astype(np.int16),
            luma + blue[blue_chroma],
        ),
        axis=-1,
    )
    return converted.clip(0, 255).astype(np.uint8)


def ycbcr_from_rgb(pixels: Pixels) -> Pixels:
    """Convert RGB to full-range BT.601 YCbCr (T.871), (rows, columns, 3) uint8 both."""
    weights = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    converted = pixels @ weights.T + (0.5, 128.5, 128.5)
    return np.ascontiguousarray(converted.clip(0, 255).astype(np.uint8))


@cache
def _chroma_tables() -> tuple[Pixels, Pixels, Pixels, Pixels]:
    """Return what each chroma value adds to red, to green (two parts, scaled by 65536) and to blue."""
    chroma = np.arange(256, dtype=np.int32) - 128
    half = 1 << 15

    def scaled(factor: float) -> int:
        return int(factor * 65536 + 0.5)

    red = ((scaled(1.402) * chroma + half) >> 16).astype(np.int16)
    blue = ((scaled(1.772) * chroma + half) >> 16).astype(np.int16)
    return red, -scaled(0.34414) * chroma + half, -scaled(0.71414) * chroma, blue
