"""Read the headers of stored JPEG 2000 codestreams (ITU-T T.800, T.814) without decoding them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import FrameFormat

__all__ = [
    "Jpeg2000Component",
    "Jpeg2000Header",
    "check_tile_parts",
    "codestream_offset",
    "dicom_format",
    "parse_jpeg2000",
    "without_comments",
]

_SOC = b"\xff\x4f"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_CAP = 0x50
_SIZ = 0x51
_COD = 0x52
_COC = 0x53
_COM = 0x64
_SOT = 0x90
_SOD = 0x93
_ENCODER_COMMENT = re.compile(
    rb"Kakadu-v?[\d.]{1,12}|Created by OpenJPEG version [\d.]{1,12}|"
    rb"Kdu-Layer-Info: log_2\{Delta-D\([\w-]+\)/Delta-L\(\w+\)\}, L\(\w+\)[-+\s\d.,e]*"
)
"""What encoders say of themselves; any other comment may be of people."""

_PART_15 = 1 << (32 - 15)  # Pcap numbers the parts from the most significant bit (T.800 A.5.2)


@dataclass(frozen=True, slots=True)
class Jpeg2000Component:
    """One component as the SIZ segment describes it (T.800 A.5.1)."""

    bits: int
    signed: bool
    horizontal_subsampling: int
    vertical_subsampling: int


@dataclass(frozen=True, slots=True)
class Jpeg2000Header:
    """What the main header and the header of the first tile-part say.

    Parameters
    ----------
    rows, columns : int
        Size of the image area in pixels.
    components : tuple of Jpeg2000Component
    reversible : bool
        Whether every component is transformed by the reversible 5/3 wavelet. The codestream is then usually
        lossless; one whose last coding passes were cut off when it was written is not, and no header tells.
    multiple_component_transform : bool
        Whether the first three components are decorrelated (RCT with 5/3, ICT with 9/7).
    quality_layers : int
    high_throughput : bool
        Whether blocks are coded as in Part 15 (HTJ2K).
    """

    rows: int
    columns: int
    components: tuple[Jpeg2000Component, ...]
    reversible: bool
    multiple_component_transform: bool
    quality_layers: int
    high_throughput: bool

    @property
    def subsampled(self) -> bool:
        """Whether any component has fewer samples than the image has pixels."""
        return any((part.horizontal_subsampling, part.vertical_subsampling) != (1, 1) for part in self.components)


def codestream_offset(data: bytes) -> int:
    """Return where the codestream starts: 0, or past the boxes of a JP2 file (T.800 I.5.4).

    Raises
    ------
    CorruptSourceError
        If there is no codestream.
    """
    if data.startswith(_SOC):
        return 0
    at = len(_JP2_SIGNATURE) if data.startswith(_JP2_SIGNATURE) else len(data)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        header = 16 if size == 1 else 8
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16])
        if data[at + 4 : at + 8] == b"jp2c" and data[at + header :].startswith(_SOC):
            return at + header
        if size < header:
            break
        at += size
    found = f"starts with {data[:4].hex()}" if data else "0 bytes"
    raise CorruptSourceError(f"{found}, expected JPEG 2000")


def without_comments(codestream: bytes) -> bytes:
    """Return a codestream without the comments of its main header (T.800 A.9.2), but for those that name the encoder.

    Nothing counts the main header's bytes, so all others stay as they are. One whose header is damaged stays whole,
    for its reader to complain.
    """
    at, kept = 2, [codestream[:2]]
    try:
        for marker, body in _iter_segments(codestream, at):
            if marker == _SOT:
                break
            end = at + 4 + len(body)
            if marker != _COM or _ENCODER_COMMENT.fullmatch(body, 2):
                kept.append(codestream[at:end])
            at = end
    except CorruptSourceError:
        return codestream
    return b"".join((*kept, codestream[at:]))


def check_tile_parts(codestream: bytes) -> None:
    """Follow the lengths of the tile-parts from the first to the end, without decoding (T.800 A.4.2).

    Raises
    ------
    CorruptSourceError
        If they do not lead from one to the next, and to EOC.
    """
    at = codestream.find(b"\xff\x90")
    while at > 0 and codestream[at : at + 2] == b"\xff\x90":
        length = int.from_bytes(codestream[at + 6 : at + 10])
        if length == 0:  # the last one, up to EOC
            at = codestream.rfind(b"\xff\xd9")
            break
        at += length
        if length < 14 or at > len(codestream):
            raise CorruptSourceError(f"JPEG 2000 of {len(codestream)} bytes breaks off in a tile-part of {length}")
    if codestream[at : at + 2] != b"\xff\xd9":
        raise CorruptSourceError(f"JPEG 2000 of {len(codestream)} bytes whose tile-parts do not lead to its end")


def parse_jpeg2000(data: bytes) -> Jpeg2000Header:
    """Read the header of a codestream, raw or in JP2 boxes.

    Raises
    ------
    CorruptSourceError
        If the marker segments are damaged, or SIZ or COD is missing.
    """
    sizes: bytes | None = None
    coding: bytes | None = None
    wavelets: list[int] = []
    high_throughput = False
    for marker, body in _iter_segments(data, codestream_offset(data) + 2):
        if marker == _SIZ:
            sizes = body
        elif marker == _CAP and len(body) >= 4:
            high_throughput = bool(int.from_bytes(body[:4]) & _PART_15)
        elif marker == _COD and len(body) >= 10:
            coding = body
            wavelets.append(body[9])
        elif marker == _COC and sizes is not None:
            wavelets.extend(body[7 if len(_component_fields(sizes)) < 257 * 3 else 8 :][:1] or b"\0")
    if sizes is None or coding is None:
        raise CorruptSourceError(f"JPEG 2000 codestream without {'SIZ' if sizes is None else 'COD'}")
    fields = _component_fields(sizes)
    components = tuple(
        Jpeg2000Component((fields[at] & 0x7F) + 1, fields[at] >= 0x80, fields[at + 1], fields[at + 2])
        for at in range(0, len(fields), 3)
    )
    right, bottom, left, top = (int.from_bytes(sizes[at : at + 4]) for at in (2, 6, 10, 14))
    if right <= left or bottom <= top or any(fields[at] == 0 for at in range(len(fields)) if at % 3):
        raise CorruptSourceError("JPEG 2000 image area or subsampling of 0")
    return Jpeg2000Header(
        rows=bottom - top,
        columns=right - left,
        components=components,
        reversible=all(wavelet == 1 for wavelet in wavelets),
        multiple_component_transform=coding[4] == 1,
        quality_layers=int.from_bytes(coding[2:4]),
        high_throughput=high_throughput,
    )


def dicom_format(header: Jpeg2000Header, *, ycbcr_components: bool) -> FrameFormat | str:
    """Say what the codestream is as a DICOM frame, or why it cannot be one without re-encoding.

    Follows PS3.5 8.2.4 and A.4.4. YCbCr components without a multiple component transform would be YBR_FULL
    there, which the VL Whole Slide Microscopy Image IOD does not allow (PS3.3 C.8.12.4.1.1): they are named
    YBR_FULL_422, the nearest that it does allow, subsampled or not.

    Parameters
    ----------
    header : Jpeg2000Header
    ycbcr_components : bool
        Whether the container says that the decoded components are YCbCr (TIFF compression 33003). Has no
        effect on a codestream with a multiple component transform, which always gives back RGB.

    Returns
    -------
    FrameFormat or str
        The reason, as the end of a sentence "stored frames are not reused: ...".
    """
    for component in header.components:
        if component.bits != 8 or component.signed:
            kind = "signed" if component.signed else "unsigned"
            return f"JPEG 2000 of {component.bits} bits per {kind} sample, only 8 unsigned are reused"
    count = len(header.components)
    if count not in (1, 3):
        return f"JPEG 2000 of {count} components, 1 or 3 expected"
    if count == 1:
        photometric_interpretation = "MONOCHROME2"
    elif header.multiple_component_transform:
        photometric_interpretation = "YBR_RCT" if header.reversible else "YBR_ICT"
    else:
        photometric_interpretation = "YBR_FULL_422" if ycbcr_components else "RGB"
    if header.subsampled and photometric_interpretation != "YBR_FULL_422":
        return (
            f"JPEG 2000 with subsampled components has no photometric interpretation but YBR, found {count} of colour"
        )
    if header.high_throughput:
        uid = "1.2.840.10008.1.2.4.201" if header.reversible else "1.2.840.10008.1.2.4.203"
        method = "ISO_15444_15"
    else:
        uid = "1.2.840.10008.1.2.4.90" if header.reversible else "1.2.840.10008.1.2.4.91"
        method = "ISO_15444_1"
    lossy_method = None if header.reversible else method
    return FrameFormat(uid, photometric_interpretation, count, lossy_method=lossy_method)


def _component_fields(sizes: bytes) -> bytes:
    fields = sizes[36:]
    if len(sizes) < 39 or len(fields) != 3 * int.from_bytes(sizes[34:36]):
        raise CorruptSourceError(f"JPEG 2000 SIZ of {len(sizes)} bytes does not fit its number of components")
    return fields


def _iter_segments(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield marker and body of the segments after SOC, up to the first SOD."""
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise CorruptSourceError(f"JPEG 2000 byte {at} is {data[at]:#04x}, expected a marker")
        marker = data[at + 1]
        if marker == _SOD:
            return
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if end < at + 4 or end > len(data):
            break
        yield marker, data[at + 4 : end]
        at = end
    raise CorruptSourceError(f"JPEG 2000 header breaks off at byte {at} of {len(data)}, expected tile data")
