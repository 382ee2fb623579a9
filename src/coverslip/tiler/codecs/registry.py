"""Which module encodes and decodes what; it is imported when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, cast

from coverslip.errors import UsageError
from coverslip.tiler.codecs.base import CodecOption, FrameDecoder, FrameEncoder, FrameFormat

if TYPE_CHECKING:
    import numpy as np

__all__ = ["encoder_like", "make_decoder", "make_encoder"]

# Each module has encoder(option, bits, samples), encoder_like(frame_format, sample_frame) and
# decoder(frame_format, rows, columns).
_MODULES = {"jpeg": "jpeg", "jpeg2000": "jpeg2000", "htj2k": "htj2k", "jpegls": "jpegls", "none": "native"}

_SYNTAXES = {
    "1.2.840.10008.1.2.1": "native",
    "1.2.840.10008.1.2.4.50": "jpeg",
    "1.2.840.10008.1.2.4.51": "jpeg",
    "1.2.840.10008.1.2.4.80": "jpegls",
    "1.2.840.10008.1.2.4.90": "jpeg2000",
    "1.2.840.10008.1.2.4.91": "jpeg2000",
    "1.2.840.10008.1.2.4.201": "htj2k",
    "1.2.840.10008.1.2.4.203": "htj2k",
}

_SAMPLES = {"uint8": ((8, 1), (8, 3)), "uint16": ((16, 1),), "float32": ((32, 1),)}


def make_encoder(option: CodecOption, *, dtype: np.dtype[np.generic], samples_per_pixel: int) -> FrameEncoder:
    """Return the encoder of a codec for one kind of pixels.

    Lossy codecs take 8-bit gray or RGB, lossless ones also 16-bit gray, ``none`` also float32 gray.

    Raises
    ------
    UsageError
        If the codec cannot hold such pixels.
    """
    known = {(bits, count): name for name, kinds in _SAMPLES.items() for bits, count in kinds}
    most_bits = 32 if option.name == "none" else 16 if option.lossless else 8
    bits = dtype.itemsize * 8
    if bits > most_bits or known.get((bits, samples_per_pixel)) != dtype.name:
        allowed = ", ".join(f"{count} x {name}" for (depth, count), name in known.items() if depth <= most_bits)
        raise UsageError(
            f"{'lossless' if option.lossless else 'lossy'} codec {option.name} cannot hold pixels of "
            f"{samples_per_pixel} x {dtype.name}, only {allowed}"
        )
    make = cast("Callable[[CodecOption, int, int], FrameEncoder]", _module(_MODULES[option.name], "encoder"))
    return make(option, bits, samples_per_pixel)


def encoder_like(frame_format: FrameFormat, sample_frame: bytes) -> FrameEncoder:
    """Return an encoder whose frames have the very format of stored ones.

    They share transfer syntax, photometric interpretation, wavelet and, for JPEG, chroma subsampling, so that a
    frame of background can stand among stored frames. Subsampled JPEG 2000 is met at full resolution.

    Parameters
    ----------
    frame_format : FrameFormat
        Of the stored frames.
    sample_frame : bytes
        Any one of them, complete.

    Raises
    ------
    CorruptSourceError
        If the header of the sample is damaged.
    """
    module = _SYNTAXES[frame_format.transfer_syntax_uid]
    make = cast("Callable[[FrameFormat, bytes], FrameEncoder]", _module(module, "encoder_like"))
    return make(frame_format, sample_frame)


def make_decoder(frame_format: FrameFormat, *, rows: int | None = None, columns: int | None = None) -> FrameDecoder:
    """Return the decoder of frames of one format.

    Parameters
    ----------
    frame_format : FrameFormat
    rows, columns : int, optional
        Size of every frame: one of another size is corrupt. Native frames, which do not tell, need both.
    """
    module = _SYNTAXES[frame_format.transfer_syntax_uid]
    make = cast("Callable[[FrameFormat, int | None, int | None], FrameDecoder]", _module(module, "decoder"))
    return make(frame_format, rows, columns)


def _module(name: str, function: str) -> object:
    return getattr(import_module(f"coverslip.tiler.codecs.{name}"), function)
