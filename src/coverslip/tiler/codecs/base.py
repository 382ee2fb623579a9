"""What an encoded frame is, and how one is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # numpy takes 0.1 s to load: naming a codec needs none of it
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CodecOption", "FrameDecoder", "FrameEncoder", "FrameFormat", "Pixels"]

type Pixels = NDArray[Any]
"""One tile: (rows, columns, samples), C-contiguous, uint8, uint16 or float32."""


@dataclass(frozen=True, slots=True)
class FrameFormat:
    """What all frames of one instance have in common, in the words of DICOM.

    Parameters
    ----------
    transfer_syntax_uid, photometric_interpretation : str
        As written to the file meta information and the Image Pixel Module.
    samples_per_pixel, bits_stored : int
        Samples are unsigned (or float32, `bits_stored` 32); Bits Allocated is the next of 8, 16, 32.
    lossy_method : str or None
        Defined term of Lossy Image Compression Method (PS3.3 C.7.6.1.1.5), e.g. ``"ISO_10918_1"``; None if
        the stored bytes give back the pixels exactly.
    """

    transfer_syntax_uid: str
    photometric_interpretation: str
    samples_per_pixel: int
    bits_stored: int = 8
    lossy_method: str | None = None

    @property
    def bits_allocated(self) -> int:
        """Bits each sample takes in memory: 8, 16 or 32."""
        return 8 if self.bits_stored <= 8 else 16 if self.bits_stored <= 16 else 32

    @property
    def encapsulated(self) -> bool:
        """Whether frames are items of an encapsulated Pixel Data element (PS3.5 A.4)."""
        return self.transfer_syntax_uid not in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")


@dataclass(frozen=True, slots=True)
class CodecOption:
    """A codec as the user names it: ``jpeg:80:420``, ``jpeg2000:lossless``, ``none``...

    Parameters
    ----------
    name : str
        ``jpeg``, ``jpeg2000``, ``htj2k``, ``jpegls`` or ``none``.
    lossless : bool
        False for ``jpeg`` and for ``jpeg2000`` without ``:lossless``.
    quality : int or None
        1 to 100, IJG scale, for ``jpeg``.
    subsampling : str or None
        ``"444"``, ``"422"`` or ``"420"``, for ``jpeg``; 444 is written as RGB.
    """

    name: str
    lossless: bool
    quality: int | None = None
    subsampling: str | None = None


class FrameEncoder(Protocol):
    """Pixels of one frame in, bytes of one transfer syntax out. Stateless: safe in any thread."""

    @property
    def frame_format(self) -> FrameFormat:
        """What every frame made by this encoder is."""
        ...

    @property
    def description(self) -> str:
        """Short words for DerivationDescription and logs, e.g. ``"JPEG quality 80, 4:2:0"``."""
        ...

    def encode(self, pixels: NDArray[np.generic]) -> bytes:
        """Encode one full-size tile.

        Parameters
        ----------
        pixels : ndarray
            (rows, columns, samples), C-contiguous, of the type the encoder was made for.

        Returns
        -------
        bytes
            One frame of even or odd length; the writer pads it.

        Raises
        ------
        EncodingError
            If the library refuses the pixels.
        """
        ...


class FrameDecoder(Protocol):
    """Bytes of one frame in, pixels out. Stateless: safe in any thread."""

    def decode(self, frame: bytes) -> Pixels:
        """Decode one frame.

        Returns
        -------
        ndarray
            (rows, columns, samples), C-contiguous, owned by the caller; colour is RGB whatever the
            photometric interpretation.

        Raises
        ------
        CorruptSourceError
            If the library reports an error or so much as a warning; it knows no level or frame.
        """
        ...

    def decode_half(self, frame: bytes) -> Pixels | None:
        """Decode at half scale in the DCT domain to (ceil(rows / 2), ceil(columns / 2), samples).

        None if the codec cannot. Raises as `decode` does.
        """
        ...
