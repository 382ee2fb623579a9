"""Slides with bytes changed, tags rewritten or an end cut off: each ends in an error of ours or a whole series."""

from __future__ import annotations

import random
import shutil
import struct
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from coverslip.converter.convert import convert_slide
from coverslip.converter.request import ConversionRequest
from coverslip.errors import CorruptSourceError, CoverslipError, ValidationFailedError
from coverslip.validators.instance import InstanceView
from coverslip.validators.structure import StructureExpectation, check_structure
from tests.factories.aperio import write_aperio_svs
from tests.factories.czi import CziScene, write_czi
from tests.factories.dicom_wsi import DicomCoding, write_dicom_wsi
from tests.factories.generic import write_tiled_tiff
from tests.factories.hamamatsu import NdpiCoding, write_ndpi
from tests.factories.leica import ScnRegion, write_scn
from tests.factories.mirax import write_mirax
from tests.factories.philips import write_philips
from tests.factories.vendor_tiff import write_argos, write_huron, write_trestle
from tests.factories.ventana import write_ventana

COPIES = 96
"""Mutations of each of 21 kinds of slide: 2,000 in all."""
LONGEST_S = 60
"""For one slide, on a machine that has other things to do."""
VALIDATED = 10
"""Every so many are validated before they are delivered; all others are decoded here."""
INTERESTING = (0, 1, 2, 3, 7, 255, 256, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000)


def _write_dicom(path: Path, coding: DicomCoding) -> None:
    folder = path.parent / "whole series"
    write_dicom_wsi(folder, rows=70, columns=90, tile=(32, 32), coding=coding, downsamples=(), pictures=False)
    shutil.move(folder / "01-volume.dcm", path)
    folder.rmdir()


# What writes a slide. They are tiny: a mutation is as good in one of twelve tiles as in one of a million.
KINDS: dict[str, Callable[[Path], object]] = {
    "svs": lambda path: write_aperio_svs(path, rows=70, columns=90, tile=32, native_downsamples=(2,)),
    "svs-j2k": lambda path: write_aperio_svs(
        path, rows=40, columns=60, tile=32, native_downsamples=(), compression="j2k-33005", bigtiff=True
    ),
    "tiff-jpeg": lambda path: write_tiled_tiff(path, rows=70, columns=90, tile=32, downsamples=(2,)),
    "tiff-444": lambda path: write_tiled_tiff(
        path, rows=70, columns=90, tile=32, downsamples=(), subsampling="444", bigtiff=True
    ),
    "tiff-lzw": lambda path: write_tiled_tiff(
        path, rows=70, columns=90, tile=32, downsamples=(2,), compression="lzw", byteorder=">"
    ),
    "tiff-planar": lambda path: write_tiled_tiff(
        path, rows=70, columns=90, tile=32, downsamples=(2,), compression="deflate", planar=True
    ),
    "tiff-strips": lambda path: write_tiled_tiff(
        path, rows=70, columns=90, tile=32, downsamples=(), compression="none", striped=True
    ),
    "ndpi": lambda path: write_ndpi(
        path, rows=50, columns=128, coding=NdpiCoding(interval=64), downsamples=(2,), macro=False
    ),
    "ndpi-stack": lambda path: write_ndpi(
        path, rows=32, columns=64, coding=NdpiCoding(interval=32), downsamples=(), macro=False,
        focal_planes_nm=(0, 1000),
    ),
    "scn": lambda path: write_scn(path, [ScnRegion(rows=70, columns=90)]),
    "philips": lambda path: write_philips(path, rows=70, columns=90, levels=2),
    "bif": lambda path: write_ventana(path, tile_rows=1, tile_columns=2, tile=48),
    "bif-overlapping": lambda path: write_ventana(path, tile_rows=2, tile_columns=2, tile=48, overlap=(8, 8)),
    "trestle": lambda path: write_trestle(path, rows=70, columns=90, tile=32),
    "huron": lambda path: write_huron(path, rows=70, columns=90, tile=32),
    "argos": lambda path: write_argos(path, rows=70, columns=90, tile=32, planes=2),
    "czi": lambda path: write_czi(path, [CziScene(70, 90)], tile=32, compression="zstd"),
    "czi-z": lambda path: write_czi(path, [CziScene(70, 90)], tile=32, dimensions="CZT", attachments=False),
    "dicom": lambda path: _write_dicom(path, DicomCoding()),
    "dicom-sparse": lambda path: _write_dicom(path, DicomCoding("j2k", sparse=True)),
}  # fmt: skip


@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_slide_ends_in_an_error_of_ours_or_a_whole_series(tmp_path: Path, kind: str) -> None:
    whole = tmp_path / "whole"
    KINDS[kind](whole)
    original = whole.read_bytes()
    whole.unlink()
    slide, outcomes = tmp_path / "mutated", []
    for seed in range(COPIES):
        slide.write_bytes(_mutate(bytearray(original), random.Random(seed)))
        outcomes.append(_outcome(slide, tmp_path / f"out {seed}", seed))
    # Both ends are reached, else the mutations test nothing.
    assert {"error", "series"} <= set(outcomes)


@pytest.mark.timeout(150)
def test_a_slide_of_several_files_one_of_them_mutated_ends_so_too(tmp_path: Path) -> None:
    outcomes = []
    for seed in range(COPIES):
        chance = random.Random(seed)
        slide = tmp_path / f"slide {seed}.mrxs"
        write_mirax(slide, photos=(2, 2), photo=32, overlap=(4, 4), levels=2, pictures=False, image_format="JPEG")
        victim = chance.choice(sorted(slide.with_suffix("").iterdir()))
        victim.write_bytes(_mutate(bytearray(victim.read_bytes()), chance))
        outcomes.append(_outcome(slide, tmp_path / f"out {seed}", seed))
        shutil.rmtree(slide.with_suffix(""))
    assert {"error", "series"} <= set(outcomes)


def _outcome(slide: Path, output: Path, seed: int) -> str:
    start = time.monotonic()
    try:
        return _convert(slide, output, seed)
    finally:
        assert time.monotonic() - start < LONGEST_S, f"seed {seed} takes for ever"
        shutil.rmtree(output, ignore_errors=True)


def _convert(slide: Path, output: Path, seed: int) -> str:
    request = ConversionRequest(
        slide,
        output,
        include=("label", "overview", "thumbnail") if seed % 3 == 0 else (),
        spacing_mm=(0.00025, 0.00025),
        workers=1 + seed % 2,
        validate="fast" if seed % VALIDATED == 0 else "off",
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
    written = [(series, instance) for series in result.series for instance in series.instances]
    assert sorted(path.name for path in output.rglob("*.dcm")) == sorted(one.file_name for _, one in written)
    assert {path.name for path in output.iterdir()} == {series.study_instance_uid for series in result.series}
    sound = True
    for series, instance in written:
        path = series.folder / instance.file_name
        assert instance.size_bytes is not None
        assert instance.offset_table is not None
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
        sound &= _decodes(InstanceView(path))
    if sound:
        return "series"
    # What was copied and not decoded may be damaged: then the validation, which was switched off, must find it.
    with pytest.raises(ValidationFailedError):
        convert_slide(replace(request, validate="thorough", overwrite=True))
    return "error"


def _decodes(instance: InstanceView) -> bool:
    try:
        for index in range(instance.number_of_frames):
            instance.decode(index)
    except CorruptSourceError:
        return False
    finally:
        instance.file.close()
    return True


def _mutate(data: bytearray, chance: random.Random) -> bytearray:
    """Return the file changed in one of four ways; what is no TIFF, in one of three."""
    way = chance.randrange(5 if data[:2] in (b"II", b"MM") else 3)
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
