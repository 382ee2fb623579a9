"""Zeiss CZI files of brightfield slides: segments of tiles, a directory, XML, and pictures as attachments."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from tests.factories.aperio import block_mean
from tests.factories.jpeg_tiles import encode_jpeg
from tests.factories.tissue import tissue

__all__ = ["CziScene", "write_czi"]

_BGR24, _GRAY16 = 3, 1
_COMPRESSIONS = {"none": 0, "jpeg": 1, "zstd": 5}
_GUID = bytes(range(16))


@dataclass(frozen=True, slots=True)
class CziScene:
    """One scanned region: its size, and where it lies on the plane of all scenes."""

    rows: int = 300
    columns: int = 400
    place: tuple[int, int] = (0, 0)


def write_czi(
    path: Path,
    scenes: Sequence[CziScene] = (CziScene(),),
    *,
    tile: int = 128,
    compression: str = "none",
    dimensions: str = "C",
    planes: int = 1,
    downsamples: Sequence[int] = (2,),
    pixel_type: str = "Bgr24",
    attachments: bool = True,
    spacing_um: float | None = 0.5,
    seed: int = 0,
) -> list[NDArray[np.uint8]]:
    """Write a file, and return the pictures of its scenes before compression; of several planes the first.

    Parameters
    ----------
    dimensions : str
        Beside X, Y, S and M that every tile has, e.g. ``"CZT"``.
    planes : int
        Along Z, if that is one of the dimensions.
    pixel_type : {"Bgr24", "Gray16"}
    attachments : bool
        Whether there are a label and an overview.
    """
    pictures = [tissue(scene.rows, scene.columns, seed + number) for number, scene in enumerate(scenes)]
    with path.open("wb") as file:
        file.write(bytes(32 + 512))
        entries: list[bytes] = []
        index = 0
        for number, (scene, picture) in enumerate(zip(scenes, pictures, strict=True)):
            for plane in range(planes):
                base = picture if plane == 0 else tissue(scene.rows, scene.columns, seed + 100 * plane + number)
                for downsample in (1, *downsamples):
                    level = base if downsample == 1 else block_mean(base, downsample)
                    for row in range(0, level.shape[0], tile):
                        for column in range(0, level.shape[1], tile):
                            pixels = level[row : row + tile, column : column + tile]
                            places = _places(scene, (row, column), pixels.shape[:2], downsample)
                            others = {"C": 0, "T": 0, "Z": plane, "S": number, "M": index}
                            kept = [*dimensions, "S", *("M" if downsample == 1 else "")]
                            fields = [*places, *((name, others[name], 1, 1) for name in kept)]
                            entries.append(
                                _write_tile(file, pixels, fields, compression, pixel_type, pyramid=downsample > 1)
                            )
                            index += downsample == 1
        directory = _write_segment(file, "ZISRAWDIRECTORY", struct.pack("<i124x", len(entries)) + b"".join(entries))
        xml = _xml(scenes, planes, index, pixel_type, spacing_um).encode()
        metadata = _write_segment(file, "ZISRAWMETADATA", struct.pack("<ii248x", len(xml), 0) + xml)
        attached = []
        for name, size in (("Label", (50, 60)), ("SlidePreview", (50, 150))) if attachments else ():
            attached.append(_write_attachment(file, name, encode_jpeg(tissue(*size, seed + 50), 90)))
        attachment_directory = _write_segment(
            file, "ZISRAWATTDIR", struct.pack("<i252x", len(attached)) + b"".join(attached)
        )
        file.seek(0)
        head = struct.pack("<iiii", 1, 0, 0, 0) + _GUID + _GUID
        head += struct.pack("<iqqiq", 0, directory, metadata, 0, attachment_directory)
        file.write(b"ZISRAWFILE".ljust(16, b"\0") + struct.pack("<qq", 512, 512) + head.ljust(512, b"\0"))
    return pictures


def _places(
    scene: CziScene, corner: tuple[int, int], size: tuple[int, int], downsample: int
) -> list[tuple[str, int, int, int]]:
    (row, column), (rows, columns) = corner, size
    return [
        ("X", scene.place[1] + column * downsample, columns * downsample, columns),
        ("Y", scene.place[0] + row * downsample, rows * downsample, rows),
    ]


def _write_tile(
    file: BinaryIO,
    pixels: NDArray[np.uint8],
    fields: list[tuple[str, int, int, int]],
    compression: str,
    pixel_type: str,
    *,
    pyramid: bool,
) -> bytes:
    data = _encode(pixels, compression, pixel_type)
    position = file.tell()
    kind = _BGR24 if pixel_type == "Bgr24" else _GRAY16
    entry = b"DV" + struct.pack(
        "<iqiiB5xi", kind, position, 0, _COMPRESSIONS[compression], 2 if pyramid else 0, len(fields)
    )
    for name, start, size, stored in fields:
        entry += struct.pack("<4siifi", name.encode(), start, size, 0.0, stored)
    head = struct.pack("<iiq", 0, 0, len(data)) + entry
    _write_segment(file, "ZISRAWSUBBLOCK", head.ljust(256, b"\0") + data)
    return entry


def _encode(pixels: NDArray[np.uint8], compression: str, pixel_type: str) -> bytes:
    if pixel_type == "Gray16":
        return pixels[..., 1].astype("<u2").tobytes()
    if compression == "jpeg":
        return encode_jpeg(pixels, 90)
    data = np.ascontiguousarray(pixels[..., ::-1]).tobytes()
    if compression == "none":
        return data
    import imagecodecs

    return bytes(imagecodecs.zstd_encode(data))


def _write_segment(file: BinaryIO, name: str, data: bytes) -> int:
    position = file.tell()
    size = -(-len(data) // 32) * 32
    file.write(name.encode().ljust(16, b"\0") + struct.pack("<qq", size, len(data)) + data.ljust(size, b"\0"))
    return position


def _write_attachment(file: BinaryIO, name: str, data: bytes) -> bytes:
    position = file.tell()
    entry = b"A1" + struct.pack("<10xqi16s8s80s", position, 0, _GUID, b"JPG", name.encode())
    _write_segment(file, "ZISRAWATTACH", struct.pack("<i12x", len(data)) + entry + bytes(112) + data)
    return entry


def _xml(scenes: Sequence[CziScene], planes: int, tiles: int, pixel_type: str, spacing_um: float | None) -> str:
    rows = max(scene.place[0] + scene.rows for scene in scenes) - min(scene.place[0] for scene in scenes)
    columns = max(scene.place[1] + scene.columns for scene in scenes) - min(scene.place[1] for scene in scenes)
    lengths = [] if spacing_um is None else [("X", spacing_um), ("Y", spacing_um), ("Z", 2.0)]
    distances = "".join(f'<Distance Id="{axis}"><Value>{um / 1e6!r}</Value></Distance>' for axis, um in lengths)
    return (
        '<?xml version="1.0"?><ImageDocument><Metadata><Information>'
        "<User><DisplayName>Ann Other</DisplayName></User>"
        "<Application><Name>ZEN slidescan</Name><Version>3.5</Version></Application>"
        "<Document><Name>case-4711-7</Name><UserName>ann.other</UserName></Document>"
        f"<Image><PixelType>{pixel_type}</PixelType><SizeX>{columns}</SizeX><SizeY>{rows}</SizeY>"
        f"<SizeS>{len(scenes)}</SizeS><SizeM>{tiles}</SizeM><SizeC>1</SizeC><SizeZ>{planes}</SizeZ>"
        "<AcquisitionDateAndTime>2023-04-05T06:07:08.5Z</AcquisitionDateAndTime><ObjectiveSettings>"
        '<ObjectiveRef Id="Objective:1"/></ObjectiveSettings><Dimensions><Channels><Channel Id="Channel:0">'
        f"<PixelType>{pixel_type}</PixelType></Channel></Channels></Dimensions></Image>"
        '<Instrument><Microscopes><Microscope Id="Microscope:1" Name="Axioscan 7"/></Microscopes><Objectives>'
        '<Objective Id="Objective:1" Name="Plan-Apochromat 20x/0.8 M27">'
        "<NominalMagnification>20</NominalMagnification><LensNA>0.8</LensNA></Objective></Objectives></Instrument>"
        f"</Information><Scaling><Items>{distances}</Items></Scaling></Metadata></ImageDocument>"
    )
