"""Slides with bytes changed, tags rewritten or an end cut off: each ends in an error of ours or a whole series."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.errors import CoverslipError, ValidationFailedError
from coverslip.validators.structure import StructureExpectation, check_structure
from tests.factories.aperio import write_aperio_svs
from tests.factories.generic import write_tiled_tiff
from tests.factories.hamamatsu import NdpiCoding, write_ndpi
from tests.factories.leica import ScnRegion, write_scn
from tests.factories.philips import write_philips
from tests.factories.ventana import write_ventana

COPIES = 50
INTERESTING = (0, 1, 2, 3, 7, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000)


def _svs(path: Path) -> None:
    write_aperio_svs(path, rows=300, columns=260, tile=128, native_downsamples=(2,))


def _j2k_bigtiff(path: Path) -> None:
    write_aperio_svs(
        path, rows=200, columns=260, tile=128, native_downsamples=(), compression="j2k-33005", bigtiff=True
    )


def _jpeg_tiff(path: Path) -> None:
    write_tiled_tiff(path, rows=300, columns=260, tile=128, downsamples=(2,))


def _lzw_tiff(path: Path) -> None:
    write_tiled_tiff(path, rows=150, columns=200, tile=64, downsamples=(2,), compression="lzw", byteorder=">")


def _ndpi(path: Path) -> None:
    write_ndpi(path, rows=130, columns=256, coding=NdpiCoding(interval=64), downsamples=(2,))


def _scn(path: Path) -> None:
    write_scn(path, [ScnRegion(rows=200, columns=260)])


def _philips(path: Path) -> None:
    write_philips(path, rows=130, columns=200, levels=2)


def _bif(path: Path) -> None:
    write_ventana(path, tile_rows=1, tile_columns=2)


def _overlapping_bif(path: Path) -> None:
    write_ventana(path, tile_rows=2, tile_columns=2, overlap=(8, 8))


def _planar_tiff(path: Path) -> None:
    write_tiled_tiff(path, rows=150, columns=200, tile=64, downsamples=(2,), compression="deflate", planar=True)


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    "write_slide",
    [_svs, _j2k_bigtiff, _jpeg_tiff, _lzw_tiff, _ndpi, _scn, _philips, _bif, _overlapping_bif, _planar_tiff],
)
def test_a_mutated_slide_ends_in_an_error_of_ours_or_a_whole_series(
    tmp_path: Path, write_slide: Callable[[Path], None]
) -> None:
    whole = tmp_path / "whole"
    write_slide(whole)
    original = whole.read_bytes()
    slide, outcomes = tmp_path / "mutated", []
    for seed in range(COPIES):
        slide.write_bytes(_mutate(bytearray(original), random.Random(seed)))
        outcomes.append(_outcome(slide, tmp_path / f"out {seed}", seed))
    # Both ends are reached, else the mutations test nothing.
    assert {"error", "series"} <= set(outcomes)


def _outcome(slide: Path, output: Path, seed: int) -> str:
    request = ConversionRequest(
        slide, output, include=("label", "overview", "thumbnail"), spacing_mm=(0.00025, 0.00025), workers=1 + seed % 2
    )
    try:
        result = convert_slide(request)
    except ValidationFailedError:
        # Copied tiles that do not decode are found by the validation.
        assert [path.name for path in output.iterdir()] == [".coverslip-quarantine"]
        return "error"
    except CoverslipError:
        assert not output.exists(), f"seed {seed}: {sorted(output.rglob('*'))}"
        return "error"
    (series,) = result.series
    assert sorted(path.parent for path in output.rglob("*.dcm")) == [series.folder] * len(series.instances)
    assert {path.name for path in output.iterdir()} == {series.study_instance_uid}
    for instance in series.instances:
        assert instance.size_bytes is not None
        assert instance.offset_table is not None
        path = series.folder / instance.file_name
        check_structure(
            path,
            StructureExpectation(
                instance.sop_instance_uid,
                instance.transfer_syntax_uid,
                instance.number_of_frames,
                instance.size_bytes,
                instance.offset_table,
            ),
        )
        pydicom.dcmread(path, stop_before_pixels=True)
    return "series"


def _mutate(data: bytearray, chance: random.Random) -> bytearray:
    """Return the file changed in one of four ways."""
    way = chance.randrange(5)
    if way == 0:
        return data[: chance.randrange(len(data))]
    if way == 1:
        for _ in range(chance.randrange(1, 20)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        return data
    if way == 2:
        start = chance.randrange(len(data))
        length = chance.randrange(1, 3000)
        data[start : start + length] = chance.randbytes(len(data[start : start + length]))
        return data
    for _ in range(chance.randrange(1, 3)):
        _edit_tag(data, chance)
    return data


def _edit_tag(data: bytearray, chance: random.Random) -> None:
    """Change the type, count or value of a random tag of a random directory."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"\x2b\0", b"\0\x2b")
    word, count_format, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    directories = []
    (offset,) = struct.unpack_from(order + word, data, 8 if big else 4)
    while offset and len(directories) < 20 and offset + 8 < len(data):
        (tags,) = struct.unpack_from(order + count_format, data, offset)
        directories.append((offset + struct.calcsize(count_format), tags))
        end = offset + struct.calcsize(count_format) + tags * entry
        if end + 8 > len(data):
            break
        (offset,) = struct.unpack_from(order + word, data, end)
    start, tags = chance.choice(directories)
    place = start + entry * chance.randrange(tags)
    field = chance.choice(["type", "count", "value", "value"])
    value = chance.choice([chance.choice(INTERESTING), chance.randrange(1 << 16), chance.randrange(1 << 32)])
    if field == "type":
        struct.pack_into(order + "H", data, place + 2, chance.randrange(20))
    elif field == "count":
        struct.pack_into(order + word, data, place + 4, value)
    else:
        # Short values stand at the start of the word in either byte order.
        struct.pack_into(order + chance.choice(["H", "I"]), data, place + (12 if big else 8), value & 0xFFFF)
