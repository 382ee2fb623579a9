"""3DHISTECH MIRAX slides, after OpenSlide's description of the format: photos that overlap, in numbered data files."""

from __future__ import annotations

import io
import struct
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.factories.aperio import block_mean
from tests.factories.jpeg_tiles import encode_jpeg
from tests.factories.tissue import tissue

__all__ = ["write_mirax"]

SLIDE_ID = "0123456789ABCDEF0123456789ABCDEF"
_PICTURES = ("SlideBarcode", "SlideThumbnail", "SlidePreview")
_KINDS = ("BARCODE", "THUMBNAIL", "PREVIEW")


def write_mirax(
    path: Path,
    *,
    photos: tuple[int, int] = (4, 4),
    photo: int = 128,
    overlap: tuple[int, int] = (0, 0),
    levels: int = 3,
    missing: Collection[tuple[int, int]] = (),
    data_files: int = 2,
    fill_bgr: int = 0xFFFFFF,
    image_format: str = "PNG",
    pictures: bool = True,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Write the index file and the folder of its name, and return the picture before compression.

    Parameters
    ----------
    path : Path
        Ends with ``.mrxs``.
    photos : (int, int)
        Down and across; of a power of two for so many levels.
    overlap : (int, int)
        Pixels that neighbouring photos share, down and across.
    missing : collection of (int, int)
        (row, column) of photos that were not taken.
    fill_bgr : int
        Of what was not scanned, as Slidedat.ini tells it: blue is the highest byte.
    image_format : {"PNG", "JPEG"}
    """
    step = photo - overlap[0], photo - overlap[1]
    picture = tissue((photos[0] - 1) * step[0] + photo, (photos[1] - 1) * step[1] + photo, seed)
    folder = path.with_suffix("")
    folder.mkdir()
    path.write_bytes(b"\xff\xd8\xff\xd9")
    data = _DataFiles(data_files)
    taken = {
        (row, column): picture[row * step[0] :, column * step[1] :][:photo, :photo]
        for row in range(photos[0])
        for column in range(photos[1])
        if (row, column) not in missing
    }
    records = []
    for level in range(levels):
        span = 2**level
        entries = []
        for row in range(0, photos[0], span):
            for column in range(0, photos[1], span):
                image = _concatenated(taken, (row, column), span, photo)
                if image is not None:
                    entries.append((row * photos[1] + column, *data.add(_encode(image, image_format))))
        records.append(entries)
    others = []
    for number in range(len(_PICTURES) if pictures else 0):
        size = (50, 60 + 40 * number)
        others.append(data.add(encode_jpeg(tissue(*size, seed + 50 + number), 90)))
    (folder / "Index.dat").write_bytes(_index(records, others))
    data.write(folder)
    settings = _settings(photos, photo, overlap, levels, data_files, fill_bgr, image_format, len(others))
    (folder / "Slidedat.ini").write_bytes(b"\xef\xbb\xbf" + settings.encode())
    return picture


@dataclass(slots=True)
class _DataFiles:
    """Files that images are put into in turn."""

    count: int
    contents: list[bytearray] = field(default_factory=list)
    turn: int = 0

    def __post_init__(self) -> None:
        head = f"01.02{SLIDE_ID}".encode()
        self.contents = [bytearray(head + f"{number:>3}".encode()) for number in range(self.count)]

    def add(self, data: bytes) -> tuple[int, int, int]:
        """Return offset, length and number of the file."""
        number = self.turn % self.count
        self.turn += 1
        offset = len(self.contents[number])
        self.contents[number] += data
        return offset, len(data), number

    def write(self, folder: Path) -> None:
        for number, content in enumerate(self.contents):
            (folder / f"Data{number:04}.dat").write_bytes(content)


def _concatenated(
    taken: dict[tuple[int, int], NDArray[np.uint8]], corner: tuple[int, int], span: int, photo: int
) -> NDArray[np.uint8] | None:
    """Return `span` x `span` photos side by side, with what they share twice, reduced to the size of one."""
    if span == 1:
        return taken.get(corner)
    image = np.full((span * photo, span * photo, 3), 255, np.uint8)
    found = False
    for row in range(span):
        for column in range(span):
            one = taken.get((corner[0] + row, corner[1] + column))
            if one is not None:
                found = True
                image[row * photo : (row + 1) * photo, column * photo : (column + 1) * photo] = one
    return block_mean(image, span) if found else None


def _encode(pixels: NDArray[np.uint8], image_format: str) -> bytes:
    if image_format == "JPEG":
        return encode_jpeg(pixels, 90, subsampling="420")
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _index(records: list[list[tuple[int, int, int, int]]], others: list[tuple[int, int, int]]) -> bytes:
    """Return Index.dat: two roots, tables of pointers, and for each of them a page of entries."""
    head = f"01.02{SLIDE_ID}".encode()
    tables = len(head) + 8
    pages = [
        struct.pack("<2i", len(entries), 0) + b"".join(struct.pack("<4i", *entry) for entry in entries)
        for entries in records
    ]
    pages += [struct.pack("<7i", 1, 0, 0, 0, *entry) for entry in others]
    at = tables + 4 * len(pages)
    pointers, body = [], b""
    for page in pages:
        pointers.append(at + len(body))
        body += struct.pack("<2i", 0, at + len(body) + 8) + page
    roots = struct.pack("<2i", tables, tables + 4 * len(records))
    return head + roots + struct.pack(f"<{len(pointers)}i", *pointers) + body


def _settings(
    photos: tuple[int, int],
    photo: int,
    overlap: tuple[int, int],
    levels: int,
    data_files: int,
    fill_bgr: int,
    image_format: str,
    pictures: int,
) -> str:
    lines = [
        "[GENERAL]",
        "SLIDE_VERSION = 01.02",
        f"SLIDE_ID = {SLIDE_ID}",
        "SLIDE_NAME = case-4711-7",
        "SLIDE_CREATIONDATETIME = 05/04/2023 06:07:08",
        f"IMAGENUMBER_X = {photos[1]}",
        f"IMAGENUMBER_Y = {photos[0]}",
        "OBJECTIVE_MAGNIFICATION = 20",
        "CameraImageDivisionsPerSide = 1",
        "[HIERARCHICAL]",
        "HIER_COUNT = 1",
        f"NONHIER_COUNT = {int(pictures > 0)}",
        "INDEXFILE = Index.dat",
        "HIER_0_NAME = Slide zoom level",
        f"HIER_0_COUNT = {levels}",
    ]
    for level in range(levels):
        lines += [
            f"HIER_0_VAL_{level} = ZoomLevel_{level}",
            f"HIER_0_VAL_{level}_SECTION = LAYER_0_LEVEL_{level}_SECTION",
        ]
    if pictures:
        lines += ["NONHIER_0_NAME = Scan data layer", f"NONHIER_0_COUNT = {pictures}"]
    for number in range(pictures):
        name = f"NONHIER_0_VAL_{number}"
        lines += [f"{name} = ScanDataLayer_{_PICTURES[number]}", f"{name}_SECTION = N{number}"]
    lines += ["[DATAFILE]", f"FILE_COUNT = {data_files}"]
    lines += [f"FILE_{number} = Data{number:04}.dat" for number in range(data_files)]
    for number in range(pictures):
        lines += [f"[N{number}]", f"{_KINDS[number]}_IMAGE_TYPE = JPEG"]
    for level in range(levels):
        lines += [
            f"[LAYER_0_LEVEL_{level}_SECTION]",
            f"OVERLAP_X = {overlap[1] / 2**level:g}",
            f"OVERLAP_Y = {overlap[0] / 2**level:g}",
            f"MICROMETER_PER_PIXEL_X = {0.5 * 2**level}",
            f"MICROMETER_PER_PIXEL_Y = {0.5 * 2**level}",
            f"IMAGE_FORMAT = {image_format}",
            f"IMAGE_FILL_COLOR_BGR = {fill_bgr}",
            f"DIGITIZER_WIDTH = {photo}",
            f"DIGITIZER_HEIGHT = {photo}",
            f"IMAGE_CONCAT_FACTOR = {int(level > 0)}",
        ]
    return "\r\n".join(lines) + "\r\n"
