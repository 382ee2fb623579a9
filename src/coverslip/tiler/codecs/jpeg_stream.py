"""Read and complete stored JPEG streams (ITU-T T.81) without decoding them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import FrameFormat

__all__ = [
    "JpegColor",
    "JpegComponent",
    "JpegHeader",
    "JpegSplicer",
    "check_scan",
    "dicom_format",
    "expected_restarts",
    "parse_jpeg",
]

JpegColor = Literal["rgb", "ycbcr", "gray"]
"""What the components hold, as the container says: the stream itself may not."""

_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
_COMMON_STARTS = (b"\xff\xd8\xff\xc0\x00\x11", b"\xff\xd8\xff\xc1\x00\x11")
_COMMON_SOS = b"\xff\xda\x00\x0c"
_SOS = 0xDA
_DRI = 0xDD
_APP0 = 0xE0
_APP14 = 0xEE
_APP15 = 0xEF
_COM = 0xFE
_PLAIN_JFIF_BYTES = 14
_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD8)})

# Adobe TN 5116: version 100, no flags, transform 0 (components are RGB, not to be converted).
_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"

_PROCESSES = {
    0xC0: "baseline",
    0xC1: "extended sequential",
    0xC2: "progressive",
    0xC3: "lossless",
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
    **dict.fromkeys((0xC9, 0xCA, 0xCB), "arithmetic coded"),
}

_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
"""What entropy-coded data do not hold: a zero byte follows every FF there, or it is a restart marker (T.81 B.1.1.5)."""
_BETWEEN_SCANS = frozenset({0xC4, 0xDA, 0xDB, 0xDC, 0xDD, *range(0xE0, 0xF0), 0xFE})
_RESTARTS = tuple(bytes((0xFF, marker)) for marker in range(0xD0, 0xD8))

_SAMPLINGS = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}


@dataclass(frozen=True, slots=True)
class JpegComponent:
    """One component of a frame header (T.81 B.2.2)."""

    identifier: int
    horizontal_sampling: int
    vertical_sampling: int
    quantization_table: int


@dataclass(frozen=True, slots=True)
class JpegHeader:
    """What the marker segments before the first scan say.

    Parameters
    ----------
    process : int
        Second byte of the frame header's marker: 0xC0 baseline, 0xC1 extended, 0xC2 progressive ...
    precision : int
        Bits per sample.
    rows, columns : int
        Size in pixels; `rows` is 0 if a DNL segment after the scan gives it.
    components : tuple of JpegComponent
    has_jfif : bool
        Whether there is a JFIF APP0 segment, which makes readers take three components for YCbCr.
    adobe_transform : int or None
        Of the APP14 segment: 0 unconverted (RGB), 1 YCbCr, 2 YCCK; None without the segment.
    restart_interval : int
        Minimum coded units between restart markers, 0 for none.
    """

    process: int
    precision: int
    rows: int
    columns: int
    components: tuple[JpegComponent, ...]
    has_jfif: bool
    adobe_transform: int | None
    restart_interval: int

    @property
    def baseline(self) -> bool:
        """Whether this is the baseline sequential process."""
        return self.process == 0xC0

    @property
    def sampling(self) -> str:
        """As people name it (``"4:2:0"``, ``"gray"``), or the factors of all components: ``"2x1,1x2,1x1"``."""
        factors = [(part.horizontal_sampling, part.vertical_sampling) for part in self.components]
        if len(factors) == 1:
            return "gray"
        first, *others = factors
        if len(others) == 2 and others[0] == others[1]:
            horizontal, vertical = others[0]
            if first[0] % horizontal == 0 and first[1] % vertical == 0:
                known = _SAMPLINGS.get((first[0] // horizontal, first[1] // vertical))
                if known:
                    return known
        return ",".join(f"{horizontal}x{vertical}" for horizontal, vertical in factors)


def parse_jpeg(data: bytes) -> JpegHeader:
    """Read the header of a JPEG stream, complete or abbreviated, up to its first scan.

    Raises
    ------
    CorruptSourceError
        If the marker segments are damaged, or no frame header precedes the first scan.
    """
    _check_start(data)
    has_jfif = False
    adobe_transform = None
    restart_interval = 0
    frame: tuple[int, bytes] | None = None
    for marker, start, end in _iter_segments(data):
        body = data[start + 4 : end]
        if marker == _SOS:
            break
        if marker in _START_OF_FRAME and frame is None:
            frame = marker, body
        elif marker == _APP0 and body.startswith(b"JFIF\0"):
            has_jfif = True
        elif _is_adobe(marker, body):
            adobe_transform = body[11]
        elif marker == _DRI and len(body) >= 2:
            restart_interval = int.from_bytes(body[:2])
    if frame is None:
        raise CorruptSourceError("JPEG without a frame header, expected SOF")
    process, body = frame
    if len(body) < 6 or body[5] == 0 or len(body) != 6 + 3 * body[5]:
        raise CorruptSourceError(f"JPEG frame header of {len(body)} bytes does not fit its number of components")
    components = tuple(
        JpegComponent(body[at], body[at + 1] >> 4, body[at + 1] & 15, body[at + 2]) for at in range(6, len(body), 3)
    )
    columns = int.from_bytes(body[3:5])
    if columns == 0 or any(not (part.horizontal_sampling and part.vertical_sampling) for part in components):
        raise CorruptSourceError("JPEG frame header with a width or a sampling factor of 0")
    return JpegHeader(
        process, body[0], int.from_bytes(body[1:3]), columns, components, has_jfif, adobe_transform, restart_interval
    )


def dicom_format(header: JpegHeader, color: JpegColor) -> FrameFormat | str:
    """Say what the stream is as a DICOM frame, or why it cannot be one without re-encoding.

    Follows PS3.5 8.2.1 and 10.2-10.3, and the photometric interpretations that the VL Whole Slide
    Microscopy Image IOD allows (PS3.3 C.8.12.4.1.1). YCbCr of any chroma subsampling is YBR_FULL_422, also of
    none: the IOD has no YBR_FULL, scanners that write DICOM do the same, and readers go by the stream.

    Parameters
    ----------
    header : JpegHeader
        Of the complete stream.
    color : {"rgb", "ycbcr", "gray"}
        What the components hold.

    Returns
    -------
    FrameFormat or str
        The reason, as the end of a sentence "stored frames are not reused: ...".
    """
    if header.process not in (0xC0, 0xC1):
        return f"{_PROCESSES[header.process]} JPEG has no DICOM transfer syntax, only sequential Huffman coding has"
    if header.precision != 8:
        return f"JPEG of {header.precision} bits per sample, only 8 are reused"
    if header.rows == 0:
        return "JPEG whose height follows after the scan (DNL)"
    wanted = 1 if color == "gray" else 3
    if len(header.components) != wanted:
        return f"JPEG of {len(header.components)} components, {wanted} expected"
    if color == "gray":
        photometric_interpretation = "MONOCHROME2"
    elif color == "rgb":
        if header.sampling != "4:4:4":
            return f"RGB JPEG with components subsampled {header.sampling}, DICOM wants all at full resolution"
        photometric_interpretation = "RGB"
    elif header.sampling in ("4:4:4", "4:2:2", "4:2:0", "4:4:0", "4:1:1"):
        photometric_interpretation = "YBR_FULL_422"
    else:
        return f"YCbCr JPEG sampled {header.sampling} has no photometric interpretation in the WSI IOD"
    uid = "1.2.840.10008.1.2.4.50" if header.baseline else "1.2.840.10008.1.2.4.51"
    return FrameFormat(uid, photometric_interpretation, wanted, lossy_method="ISO_10918_1")


def expected_restarts(header: JpegHeader) -> int:
    """Return how many restart markers a complete scan of all components has, 0 for a stream without (T.81 A.2)."""
    if not header.restart_interval:
        return 0
    across = max(part.horizontal_sampling for part in header.components) * 8
    down = max(part.vertical_sampling for part in header.components) * 8
    if len(header.components) == 1:
        across = down = 8
    units = -(-header.columns // across) * -(-header.rows // down)
    return -(-units // header.restart_interval) - 1


def check_scan(data: bytes, start: int, restarts: int = 0) -> None:
    """Look for what entropy-coded data cannot hold, without decoding them: some microseconds.

    Bytes overwritten at random are found nearly always, as every 256th starts a marker that must not be there; bits
    that changed, or bytes that became zero, are not. A stream of several scans is looked at up to the end of the first.

    Parameters
    ----------
    data : bytes
        The stream.
    start : int
        Where the entropy-coded data of the first scan begin, or the header of that scan.
    restarts : int
        How many restart markers there must be, see `expected_restarts`.

    Raises
    ------
    CorruptSourceError
        If there is a marker that is none of a restart before EOI, or another number of restarts.
    """
    if data[start : start + 2] == b"\xff\xda":
        start += 2 + int.from_bytes(data[start + 2 : start + 4])
    found = _MARKER.search(data, start)
    if found is None:
        raise CorruptSourceError(f"JPEG tile of {len(data)} bytes breaks off, expected EOI at its end")
    at, marker = found.start(), data[found.start() + 1]
    if marker in _BETWEEN_SCANS:
        return
    if marker != _EOI[1] or (at != len(data) - 2 and data.endswith(_EOI)):
        raise CorruptSourceError(f"JPEG marker {marker:02x} at byte {at} of {len(data)} inside the entropy-coded data")
    if restarts:
        count = sum(data.count(each, start, at) for each in _RESTARTS)
        if count != restarts:
            raise CorruptSourceError(f"JPEG with {count} restart markers, expected {restarts}")


class JpegSplicer:
    """Complete the abbreviated tiles of one page, and mark their colour; entropy-coded bytes stay as stored.

    Tables come from the TIFF tag JPEGTables (TIFF Technical Note 2). RGB streams get an Adobe APP14 segment
    with transform 0 and lose a JFIF segment; YCbCr streams lose an Adobe segment that denies it. Comments and all
    other application segments (Exif, XMP, thumbnails) are dropped: they hold no pixels, and may name people.
    Immutable, so safe in any thread.

    Parameters
    ----------
    tables : bytes or None
        Abbreviated table-specification stream, from SOI to EOI.
    color : {"rgb", "ycbcr", "gray"}
        What the components hold.

    Raises
    ------
    CorruptSourceError
        If the tables are not a whole JPEG table stream.
    """

    __slots__ = ("_color", "_prefix")

    def __init__(self, tables: bytes | None, *, color: JpegColor) -> None:
        self._color = color
        segments = b""
        if tables:
            _check_start(tables)
            kept = []
            for marker, start, end in _iter_segments(tables, to_end=True):
                if marker == _SOS or marker in _START_OF_FRAME:
                    raise CorruptSourceError("JPEGTables hold an image, expected tables alone")
                if not self._is_dropped(marker, tables[start + 4 : end]):
                    kept.append(tables[start:end])
            segments = b"".join(kept)
        self._prefix = _SOI + (_ADOBE_RGB if color == "rgb" else b"") + segments

    def splice(self, tile: bytes) -> bytes:
        """Return the tile as a complete stream that ends with EOI.

        Bytes after EOI are dropped.

        Raises
        ------
        CorruptSourceError
            If the tile is no JPEG stream, or breaks off before EOI.
        """
        # The common case, a tile of SOI, SOF, SOS, data, EOI, is three comparisons and one copy.
        if tile[:6] in _COMMON_STARTS and tile[21:25] == _COMMON_SOS and tile.endswith(_EOI):
            return self._prefix + tile[2:]
        _check_start(tile)
        kept = [self._prefix]
        for marker, start, end in _iter_segments(tile):
            if marker == _SOS:
                # FFD9 cannot be entropy-coded data: a zero byte follows every FF there.
                stop = len(tile) if tile.endswith(_EOI) else tile.find(_EOI, end) + 2
                if stop < end + 2:
                    raise CorruptSourceError(f"JPEG tile of {len(tile)} bytes breaks off, expected EOI at its end")
                kept.append(tile[start:stop])
                return b"".join(kept)
            if not self._is_dropped(marker, tile[start + 4 : end]):
                kept.append(tile[start:end])
        raise CorruptSourceError("JPEG tile without a scan, expected SOS")

    def _is_dropped(self, marker: int, body: bytes) -> bool:
        if marker == _COM or _APP0 <= marker <= _APP15:
            if marker == _APP0:
                return self._color == "rgb" or len(body) != _PLAIN_JFIF_BYTES or not body.startswith(b"JFIF\0")
            return not _is_adobe(marker, body) or self._color == "rgb" or (body[11] == 0 and self._color == "ycbcr")
        return False


def _check_start(data: bytes) -> None:
    if not data.startswith(_SOI):
        found = f"starts with {data[:2].hex()}" if data else "0 bytes"
        raise CorruptSourceError(f"{found}, expected JPEG")


def _is_adobe(marker: int, body: bytes) -> bool:
    return marker == _APP14 and len(body) >= 12 and body.startswith(b"Adobe")


def _iter_segments(data: bytes, *, to_end: bool = False) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of the segments after SOI, up to the first SOS or, for tables, EOI.

    `start` is where the marker's FF stands, `end` past the last byte. Fill bytes (T.81 B.1.1.2) and markers
    without a segment are passed over. Tables may lack EOI.
    """
    at = 2
    size = len(data)
    while at + 4 <= size:
        marker = data[at + 1]
        if data[at] != 0xFF:
            raise CorruptSourceError(f"JPEG byte {at} is {data[at]:#04x}, expected a marker")
        if marker == 0xFF:
            at += 1
            continue
        if marker in _STANDALONE:
            at += 2
            continue
        if marker < 0xC0 or marker in (0xD8, 0xD9):
            break
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if end < at + 4 or end > size:
            raise CorruptSourceError(f"JPEG segment {marker:02x} at byte {at} runs past the end")
        yield marker, at, end
        if marker == _SOS:
            return
        at = end
    if not to_end:
        raise CorruptSourceError(f"JPEG header ends at byte {at} of {size}, expected a scan")
    if data[at : at + 2] not in (_EOI, b""):
        raise CorruptSourceError(f"JPEGTables end with a broken marker at byte {at}")
