"""Baseline JPEG (PS3.5 A.4.1), through libjpeg-turbo.

Its accurate integer DCT gives the same bytes on every machine, with or without vector instructions, at the speed
of the fast one.
"""

from __future__ import annotations

from dataclasses import dataclass

import simplejpeg

from coverslip.errors import CorruptSourceError, EncodingError
from coverslip.tiler.codecs.base import CodecOption, FrameFormat, Pixels
from coverslip.tiler.codecs.jpeg_stream import parse_jpeg

__all__ = ["JpegDecoder", "JpegEncoder", "RgbJpegEncoder", "decoder", "encoder", "encoder_like"]

_BACKGROUND_QUALITY = 90


@dataclass(frozen=True, slots=True)
class JpegEncoder:
    """Gray or YCbCr JPEG; `subsampling` is ``"Gray"``, ``"422"``, ``"420"``, ``"440"`` or ``"411"``."""

    frame_format: FrameFormat
    quality: int
    subsampling: str

    @property
    def description(self) -> str:
        """Codec, quality and chroma subsampling in words."""
        sampling = "grayscale" if self.subsampling == "Gray" else ":".join(self.subsampling)
        return f"JPEG quality {self.quality}, {sampling}"

    def encode(self, pixels: Pixels) -> bytes:
        """Encode (rows, columns, 3 or 1) uint8; raises EncodingError."""
        color = "GRAY" if self.subsampling == "Gray" else "RGB"
        try:
            return simplejpeg.encode_jpeg(pixels, self.quality, color, self.subsampling, False)  # type: ignore[no-any-return]
        except ValueError as error:
            raise EncodingError(f"JPEG: {error}") from error


@dataclass(frozen=True, slots=True)
class RgbJpegEncoder:
    """JPEG of RGB components at full resolution, marked by an Adobe APP14 segment with transform 0."""

    frame_format: FrameFormat
    quality: int

    @property
    def description(self) -> str:
        """Codec and quality in words."""
        return f"JPEG quality {self.quality}, RGB 4:4:4"

    def encode(self, pixels: Pixels) -> bytes:
        """Encode (rows, columns, 3) uint8; raises EncodingError."""
        import imagecodecs  # 0.3 s that 4:2:0 does without

        try:
            return bytes(imagecodecs.jpeg8_encode(pixels, self.quality, colorspace="RGB", outcolorspace="RGB"))
        except (ValueError, RuntimeError) as error:
            raise EncodingError(f"JPEG: {error}") from error


@dataclass(frozen=True, slots=True)
class JpegDecoder:
    """Decodes with accurate DCT and smooth chroma upsampling, as Pillow and OpenSlide do."""

    color: str
    rows: int | None
    columns: int | None

    def decode(self, frame: bytes) -> Pixels:
        """Decode to (rows, columns, 3 or 1) uint8; raises CorruptSourceError."""
        self._size(frame)
        try:
            return simplejpeg.decode_jpeg(frame, self.color)  # type: ignore[no-any-return]
        except ValueError as error:
            raise CorruptSourceError(f"JPEG does not decode: {error}") from error

    def decode_half(self, frame: bytes) -> Pixels:
        """Decode at half scale; raises CorruptSourceError."""
        rows, columns = self._size(frame)
        try:
            return simplejpeg.decode_jpeg(  # type: ignore[no-any-return]
                frame, self.color, min_height=(rows + 1) // 2, min_width=(columns + 1) // 2, min_factor=2
            )
        except ValueError as error:
            raise CorruptSourceError(f"JPEG does not decode: {error}") from error

    def _size(self, frame: bytes) -> tuple[int, int]:
        # 1 us, and a damaged header cannot ask for gigabytes.
        try:
            rows, columns, _, _ = simplejpeg.decode_jpeg_header(frame)
        except ValueError as error:
            raise CorruptSourceError(f"JPEG header does not decode: {error}") from error
        if rows != (self.rows or rows) or columns != (self.columns or columns):
            raise CorruptSourceError(f"JPEG of {rows} x {columns} pixels, expected {self.rows} x {self.columns}")
        return rows, columns


def encoder(option: CodecOption, bits: int, samples_per_pixel: int) -> JpegEncoder | RgbJpegEncoder:
    """Return the encoder of ``jpeg:QUALITY:SUBSAMPLING``."""
    assert option.quality is not None
    assert option.subsampling is not None
    if samples_per_pixel == 1:
        return JpegEncoder(_format("MONOCHROME2", bits), option.quality, "Gray")
    if option.subsampling == "444":
        return RgbJpegEncoder(_format("RGB", bits), option.quality)
    return JpegEncoder(_format("YBR_FULL_422", bits), option.quality, option.subsampling)


def encoder_like(frame_format: FrameFormat, sample_frame: bytes) -> JpegEncoder | RgbJpegEncoder:
    """Return an encoder with the sample's chroma subsampling."""
    if frame_format.photometric_interpretation == "RGB":
        return RgbJpegEncoder(frame_format, _BACKGROUND_QUALITY)
    sampling = parse_jpeg(sample_frame).sampling
    return JpegEncoder(frame_format, _BACKGROUND_QUALITY, "Gray" if sampling == "gray" else sampling.replace(":", ""))


def decoder(frame_format: FrameFormat, rows: int | None, columns: int | None) -> JpegDecoder:
    """Return the decoder; RGB frames carry the APP14 segment that keeps them unconverted."""
    return JpegDecoder("GRAY" if frame_format.samples_per_pixel == 1 else "RGB", rows, columns)


def _format(photometric_interpretation: str, bits: int) -> FrameFormat:
    samples = 1 if photometric_interpretation == "MONOCHROME2" else 3
    return FrameFormat("1.2.840.10008.1.2.4.50", photometric_interpretation, samples, bits, "ISO_10918_1")
