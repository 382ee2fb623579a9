"""Hamamatsu NDPI files: classic TIFF with offsets of 64 bits, and one JPEG for each level and focal plane."""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.factories.aperio import block_mean
from tests.factories.tissue import tissue

__all__ = ["NdpiCoding", "encode_with_restarts", "restart_starts", "write_ndpi", "write_vms", "write_vmu"]

Picture = NDArray[np.uint8]
_ASCII, _SHORT, _LONG, _RATIONAL, _SLONG, _DOUBLE = 2, 3, 4, 5, 9, 12
_SAMPLINGS = {"444": (0, 8, 8), "422": (1, 16, 8), "420": (2, 16, 16)}
PROPERTY_MAP = "Product=NanoZoomer\r\nNDP.S/N=SN0001\r\nObjective.Lens.Magnificant=20\r\n"


@dataclass(frozen=True, slots=True)
class NdpiCoding:
    """How the pictures are stored.

    Parameters
    ----------
    interval : int or None
        Columns of a restart interval, a multiple of the minimum coded unit; None for no restart markers.
    subsampling : {"444", "422", "420"}
    mcu_starts : {"right", "wrong", "short", None}
        What the tag of the intervals' places says; None leaves it out.
    size_in_jpeg : bool
        Whether the JPEG knows its size; those of more than 65,500 pixels say 0.
    """

    interval: int | None = 128
    subsampling: str = "444"
    mcu_starts: str | None = "right"
    size_in_jpeg: bool = True
    quality: int = 80

    def encode(self, pixels: Picture) -> bytes:
        """Return the JPEG."""
        interval = self.interval and math.gcd(self.interval, pixels.shape[1])
        stream = encode_with_restarts(pixels, interval, self.subsampling, self.quality)
        if self.size_in_jpeg:
            return stream
        at = stream.index(b"\xff\xc0") + 5
        return stream[:at] + bytes(4) + stream[at + 4 :]


def write_ndpi(
    path: Path,
    *,
    rows: int = 416,
    columns: int = 768,
    coding: NdpiCoding | None = None,
    downsamples: Sequence[int] = (2, 4),
    focal_planes_nm: Sequence[int] = (0,),
    missing_planes: Collection[tuple[int, int]] = (),
    macro: bool = True,
    map_page: bool = True,
    first_byte: int = 12,
    fluorescence: str | None = None,
    capture_mode: int | None = 0,
    compression: int = 7,
    resolution: int = 20000,
    seed: int = 0,
) -> list[Picture]:
    """Write a slide, and return the picture of each focal plane before compression.

    Parameters
    ----------
    downsamples : sequence of int
        Of the levels below the base.
    missing_planes : collection of (int, int)
        (level, focal plane) of pages that are left out.
    first_byte : int
        Where the first picture starts: beyond 2**32 the offsets need their high words. The file is sparse.
    fluorescence : str or None
        Name of the filter set.
    """
    coding = coding or NdpiCoding()
    pictures = [tissue(rows, columns, seed + index) for index in range(len(focal_planes_nm))]
    with path.open("wb") as file:
        writer = _Writer(file)
        file.seek(first_byte)
        for level, downsample in enumerate((1, *downsamples)):
            for plane, height in enumerate(focal_planes_nm):
                if (level, plane) in missing_planes:
                    continue
                pixels = pictures[plane] if downsample == 1 else block_mean(pictures[plane], downsample)
                tags = _page(writer, coding, pixels, 20.0 / downsample, (resolution, downsample), height)
                tags[259] = (_SHORT, (compression,))
                if capture_mode is not None:
                    tags[65441] = (_LONG, (capture_mode,))
                if fluorescence is not None:
                    tags[65434] = (_ASCII, fluorescence.encode() + b"\0")
                    tags[65451] = (_DOUBLE, (455.0,))
                writer.write_directory(tags)
        if macro:
            page = NdpiCoding(interval=None, mcu_starts=None)
            writer.write_directory(_page(writer, page, tissue(90, 240, seed + 50), -1.0, (300, 1), 0))
        if map_page:
            gray = tissue(30, 80, seed + 60)[..., 1].tobytes()
            tags = _tags((30, 80), (file.tell(), len(gray)), -2.0, (300, 1), 0)
            file.write(gray)
            writer.write_directory(
                tags | {258: (_SHORT, (8,)), 259: (_SHORT, (1,)), 262: (_SHORT, (1,)), 277: (_SHORT, (1,))}
            )
    return pictures


def encode_with_restarts(pixels: Picture, interval: int | None, subsampling: str, quality: int) -> bytes:
    """Encode to a baseline JPEG, YCbCr, with a restart marker after every `interval` columns of coded units."""
    sampling, unit_columns, _ = _SAMPLINGS[subsampling]
    buffer = io.BytesIO()
    blocks = 0 if interval is None else interval // unit_columns
    Image.fromarray(pixels).save(
        buffer, "JPEG", quality=quality, subsampling=sampling, restart_marker_blocks=blocks, comment=b"a comment"
    )
    return buffer.getvalue()


def restart_starts(stream: bytes) -> list[int]:
    """Return where the entropy-coded bytes of each interval start."""
    scan = stream.index(b"\xff\xda")
    start = scan + 2 + int.from_bytes(stream[scan + 2 : scan + 4])
    values = np.frombuffer(stream, np.uint8)
    found = np.flatnonzero((values[:-1] == 0xFF) & (values[1:] >= 0xD0) & (values[1:] <= 0xD7)) + 2
    return [start, *found[found > start].tolist()]


def write_vms(
    path: Path,
    *,
    parts: tuple[int, int] = (2, 2),
    part: tuple[int, int] = (768, 1024),
    interval: int = 64,
    seed: int = 0,
) -> Picture:
    """Write a slide of JPEG files side by side, with a map of it at an eighth; return the picture before encoding.

    Parameters
    ----------
    parts : tuple of int
        Rows and columns of files.
    part : tuple of int
        Rows and columns of pixels in each.
    interval : int
        Columns between restart markers.
    """
    picture = tissue(parts[0] * part[0], parts[1] * part[1], seed)
    lines = []
    for row in range(parts[0]):
        for column in range(parts[1]):
            name = f"part_{column}_{row}.jpg"
            pixels = picture[row * part[0] : (row + 1) * part[0], column * part[1] : (column + 1) * part[1]]
            (path.parent / name).write_bytes(encode_with_restarts(pixels, interval, "422", 90))
            lines.append(f"ImageFile{f'({column},{row})' if row or column else ''}={name}")
    (path.parent / "map.jpg").write_bytes(encode_with_restarts(block_mean(picture, 8), 16, "422", 90))
    (path.parent / "macro.jpg").write_bytes(encode_with_restarts(tissue(40, 120, seed + 50), None, "444", 90))
    path.write_text(
        f"[Virtual Microscope Specimen]\nNoLayers=1\nNoJpegColumns={parts[1]}\nNoJpegRows={parts[0]}\n"
        + "\n".join(lines)
        + f"\nMapFile=map.jpg\nMacroImage=macro.jpg\nPhysicalWidth={picture.shape[1] * 500}\n"
        f"PhysicalHeight={picture.shape[0] * 500}\nSourceLens=20\n"
    )
    return picture


def write_vmu(path: Path, *, rows: int = 130, columns: int = 192, column_width: int = 64, seed: int = 0) -> Picture:
    """Write an uncompressed slide of 12 bits per sample, and return the upper eight of its picture."""
    picture = tissue(rows, columns, seed)
    for name, pixels in (("image.ngr", picture), ("map.ngr", block_mean(picture, 2)[:, : columns // 4 * 2])):
        width = column_width if pixels.shape[1] % column_width == 0 else pixels.shape[1]
        twelve_bits = (pixels.astype("<u2") << 4) | 7
        parts = [twelve_bits[:, at : at + width].tobytes() for at in range(0, pixels.shape[1], width)]
        header = b"GN" + struct.pack("<HiiiQi", 0, pixels.shape[1], pixels.shape[0], width, 0, 28)
        (path.parent / name).write_bytes(header + b"".join(parts))
    macro = io.BytesIO()
    Image.fromarray(tissue(40, 120, seed + 50)).save(macro, "JPEG")
    (path.parent / "macro.jpg").write_bytes(macro.getvalue())
    path.write_text(
        "[Uncompressed Virtual Microscope Specimen]\nNoLayers=1\nImageFile=image.ngr\nMapFile=map.ngr\n"
        f"MacroImage=macro.jpg\nBitsPerPixel=36\nPixelOrder=RGB\nPhysicalWidth={columns * 500}\n"
        f"PhysicalHeight={rows * 500}\nSourceLens=20\n"
    )
    return picture


type _Tags = dict[int, tuple[int, Sequence[int] | Sequence[float] | bytes]]


def _page(
    writer: _Writer, coding: NdpiCoding, pixels: Picture, lens: float, resolution: tuple[int, int], height: int
) -> _Tags:
    """Append a JPEG and return the tags of its page."""
    stream = coding.encode(pixels)
    offset = writer.file.tell()
    writer.file.write(stream)
    tags = _tags(pixels.shape[:2], (offset, len(stream)), lens, resolution, height)
    if coding.mcu_starts:
        starts = restart_starts(stream)
        if coding.mcu_starts == "wrong":
            starts[1:] = [start + 1 for start in starts[1:]]
        elif coding.mcu_starts == "short":
            starts = starts[:-1]
        tags[65426] = (_LONG, starts)
    return tags


def _tags(
    size: tuple[int, int], place: tuple[int, int], lens: float, resolution: tuple[int, int], height: int
) -> _Tags:
    return {
        256: (_LONG, (size[1],)),
        257: (_LONG, (size[0],)),
        258: (_SHORT, (8, 8, 8)),
        259: (_SHORT, (7,)),
        262: (_SHORT, (6,)),
        271: (_ASCII, b"Hamamatsu\0"),
        272: (_ASCII, b"NanoZoomer\0"),
        273: (_LONG, (place[0],)),
        277: (_SHORT, (3,)),
        278: (_LONG, (size[0],)),
        279: (_LONG, (place[1],)),
        282: (_RATIONAL, resolution),
        283: (_RATIONAL, resolution),
        296: (_SHORT, (3,)),
        305: (_ASCII, b"NDP.scan 3.2\0"),
        306: (_ASCII, b"2020:01:02 03:04:05\0"),
        530: (_SHORT, (1, 1)),
        65420: (_LONG, (1,)),
        65421: (_DOUBLE, (lens,)),
        65422: (_SLONG, (1000,)),
        65423: (_SLONG, (-2000,)),
        65424: (_SLONG, (height,)),
        65427: (_ASCII, b"R1\0"),  # inside a directory were it not NDPI
        65442: (_ASCII, b"SN0001\0"),
        65449: (_ASCII, PROPERTY_MAP.encode() + b"\0"),
    }


class _Writer:
    """Directories as NDPI has them: offsets of 64 bits, and high words of all values behind each directory."""

    def __init__(self, file: io.BufferedWriter) -> None:
        self.file = file
        self._link = 4
        file.write(b"II*\0" + bytes(8))

    def write_directory(self, tags: _Tags) -> None:
        """Append a directory and link the one before to it."""
        entries, highs = [], []
        for code in sorted(tags):
            kind, values = tags[code]
            data, count, kind = self._encode(kind, values)
            if len(data) > 4 or kind == _ASCII:
                if len(data) == 8 and kind == _LONG and count == 1:
                    value = data  # a number of 64 bits
                else:
                    value = struct.pack("<Q", self.file.tell())
                    self.file.write(data)
            else:
                value = data.ljust(8, b"\0")
                if kind == _SLONG and count == 1:
                    value = data + bytes(4)
            entries.append(struct.pack("<HHI", code, kind, count) + value[:4])
            highs.append(value[4:])
        offset = self.file.tell()
        self.file.write(struct.pack("<H", len(entries)) + b"".join(entries) + bytes(8) + b"".join(highs))
        end = self.file.tell()
        self.file.seek(self._link)
        self.file.write(struct.pack("<Q", offset))
        self.file.seek(end)
        self._link = offset + 2 + 12 * len(entries)

    @staticmethod
    def _encode(kind: int, values: Sequence[int] | Sequence[float] | bytes) -> tuple[bytes, int, int]:
        if isinstance(values, bytes):
            return values, len(values), kind
        if kind == _LONG and len(values) == 1 and values[0] >= 1 << 32:
            return struct.pack("<Q", values[0]), 1, kind
        letter = {_SHORT: "H", _LONG: "I", _RATIONAL: "I", _SLONG: "i", _DOUBLE: "d"}[kind]
        count = len(values) // 2 if kind == _RATIONAL else len(values)
        return struct.pack(f"<{len(values)}{letter}", *values), count, kind
