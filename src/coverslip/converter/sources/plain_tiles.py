"""Tiles of samples, as they are or behind a general purpose compression, in any arrangement that gives 8-bit RGB."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coverslip.converter.sources.tiff_structure import Photometric, TagCode, TiffPage
from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import Pixels

__all__ = ["SampleLayout", "compresses_samples", "read_samples", "sample_layout"]

_UNSPECIFIED, _PREMULTIPLIED = 0, 1
"""Values of ExtraSamples; 2 is alpha that the colours are not multiplied by."""
_FAST_INFLATE_PIXELS = 1 << 26
"""Loading imagecodecs takes as long as it saves on so many pixels."""
_COMPRESSED_SAMPLES = ("none", "LZW", "deflate", "Zstandard")


def compresses_samples(compression: str) -> bool:
    """Whether a compression holds samples one after another, which may be of any number and arrangement."""
    return compression in _COMPRESSED_SAMPLES


@dataclass(frozen=True, slots=True)
class SampleLayout:
    """How the samples of a page make 8-bit RGB.

    Parameters
    ----------
    name : str
        For people: ``"RGB"``, ``"RGBA"`` ...
    planes : int
        Tiles that together make one: 1, or one for each sample.
    samples : int
        In one tile.
    to_rgb : callable
        Takes (rows, columns, `planes` x `samples`), returns (rows, columns, 3).
    reason : str or None
        Why the samples are not those of a DICOM frame.
    """

    name: str
    planes: int
    samples: int
    to_rgb: Callable[[Pixels], Pixels]
    reason: str | None = None


def sample_layout(page: TiffPage, background: tuple[int, int, int]) -> SampleLayout:
    """Return how the samples of a page that can be read make RGB over a background."""
    count = page.integer(TagCode.SAMPLES_PER_PIXEL, 1)
    planar = page.integer(TagCode.PLANAR_CONFIGURATION, 1) == 2
    planes, samples = (count, 1) if planar and count > 1 else (1, count)
    reason = "colour planes are stored apart" if planes > 1 else None
    if page.photometric == Photometric.PALETTE:
        palette = _palette(page)
        return SampleLayout("palette", 1, 1, lambda pixels: palette[pixels[..., 0]], "colours are those of a palette")
    if count == 4:
        kind = page.integer(TagCode.EXTRA_SAMPLES, 2)
        return SampleLayout("RGBA", planes, samples, _over(background, kind), reason or "4 samples per pixel")
    return SampleLayout("RGB", planes, samples, _unchanged, reason)


def _unchanged(pixels: Pixels) -> Pixels:
    return pixels


def _over(background: tuple[int, int, int], kind: int) -> Callable[[Pixels], Pixels]:
    """Return what lays RGBA over a colour; a fourth sample of no stated meaning is dropped."""
    under = np.array(background, np.uint16)

    def flatten(pixels: Pixels) -> Pixels:
        colour, alpha = pixels[..., :3], pixels[..., 3:].astype(np.uint16)
        if kind == _UNSPECIFIED or alpha.min() == 255:
            return np.ascontiguousarray(colour)
        rest = (255 - alpha) * under
        # Both parts are rounded as one: 127 more is half of 255.
        total = (colour * np.uint16(255) if kind == _PREMULTIPLIED else colour * alpha) + rest.astype(np.uint32) + 127
        return (total // 255).clip(0, 255).astype(np.uint8)

    return flatten


def _palette(page: TiffPage) -> NDArray[np.uint8]:
    """Return the colours, (256, 3); some writers fill the 16 bits of a value, some its lower 8."""
    values = page.values(TagCode.COLOR_MAP)
    if values.size != 768 or values.dtype.kind != "u":
        raise CorruptSourceError(f"palette of {values.size} values, expected 768", byte_offset=page.offset)
    table = values.astype(np.uint16).reshape(3, 256).T
    return np.ascontiguousarray((table >> 8 if table.max() > 255 else table).astype(np.uint8))


def read_samples(page: TiffPage, compression: str, samples: int) -> Callable[[bytes, int], Pixels]:
    """Return what decodes one stored tile of so many rows to (rows, columns, samples)."""
    columns = page.segment_columns
    # Inflates twice as fast as zlib, once it has been loaded.
    inflate_fast = compression == "deflate" and page.rows * page.columns >= _FAST_INFLATE_PIXELS
    differenced = page.integer(TagCode.PREDICTOR, 1) == 2 and compression != "none"

    def decode(data: bytes, rows: int) -> Pixels:
        size = rows * columns * samples
        plain = _inflate_fast(data, size) if inflate_fast else None
        if plain is None:
            plain = _inflate(data, compression, size)
        if len(plain) < size:
            raise CorruptSourceError(f"decodes to {len(plain)} bytes, expected {size}")
        pixels = np.frombuffer(plain, np.uint8, size).reshape(rows, columns, samples)
        return np.cumsum(pixels, axis=1, dtype=np.uint8) if differenced else pixels

    return decode


def _inflate_fast(data: bytes, size: int) -> bytes | None:
    """Return what `data` inflates to, None if that is more than `size` bytes or the data are damaged."""
    import imagecodecs

    try:
        return bytes(imagecodecs.deflate_decode(data, out=size))
    except RuntimeError:
        return None


def _inflate(data: bytes, compression: str, size: int) -> bytes:
    """Return at least the first `size` bytes of what `data` decompresses to, less if it ends before."""
    if compression == "none":
        return data
    try:
        if compression == "deflate":
            return zlib.decompressobj().decompress(data, size)
        import imagecodecs

        if compression == "Zstandard":
            return bytes(imagecodecs.zstd_decode(data, out=size))
        return bytes(imagecodecs.lzw_decode(data, out=size))
    except (zlib.error, RuntimeError, ValueError) as error:
        raise CorruptSourceError(f"{compression} data do not decode: {error}") from error
