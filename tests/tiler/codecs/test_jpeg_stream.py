"""Stored JPEG streams are read and completed without touching their entropy-coded bytes."""

import contextlib
import io
import random
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import simplejpeg
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.tiler.codecs.pictures import picture

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.tiler.codecs.jpeg_stream import JpegColor, JpegSplicer, dicom_format, parse_jpeg

JFIF = bytes.fromhex("ffe000104a46494600010100000100010000")
ADOBE_RGB = bytes.fromhex("ffee000e41646f62650064000000000000")[:16]
ADOBE_YCBCR = ADOBE_RGB[:-1] + b"\x01"
BASELINE = "1.2.840.10008.1.2.4.50"


def segments(stream: bytes) -> list[tuple[int, bytes]]:
    """The marker segments before the first scan, each whole, and the scan with all that follows."""
    at, found = 2, []
    while stream[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4])
        found.append((stream[at + 1], stream[at:end]))
        at = end
    return [*found, (0xDA, stream[at:])]


def abbreviate(stream: bytes) -> tuple[bytes, bytes]:
    """Split a complete stream into tables and an abbreviated tile, as libtiff stores them."""
    parts = segments(stream)
    tables = b"".join(body for marker, body in parts if marker in (0xDB, 0xC4))
    rest = b"".join(body for marker, body in parts if marker not in (0xDB, 0xC4, 0xE0, 0xEE))
    return b"\xff\xd8" + tables + b"\xff\xd9", b"\xff\xd8" + rest


def rgb_stream(pixels: np.ndarray) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, 85, colorspace="RGB", outcolorspace="RGB"))


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 70), columns=st.integers(1, 70), seed=st.integers(0, 99), has_jfif=st.booleans())
def test_spliced_rgb_tile_decodes_to_the_pixels_of_the_complete_stream(
    rows: int, columns: int, seed: int, *, has_jfif: bool
) -> None:
    pixels = picture(rows, columns, seed)
    whole = rgb_stream(pixels)
    tables, tile = abbreviate(whole)
    if has_jfif:
        tile = tile[:2] + JFIF + tile[2:]
    frame = JpegSplicer(tables, color="rgb").splice(tile)
    expected = imagecodecs.jpeg8_decode(tile, tables=tables, colorspace="RGB", outcolorspace="RGB")
    assert np.array_equal(simplejpeg.decode_jpeg(frame, strict=True), expected)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(frame))), expected)
    header = parse_jpeg(frame)
    assert (header.rows, header.columns, header.adobe_transform, header.has_jfif) == (rows, columns, 0, False)
    assert segments(frame)[-1] == segments(tile)[-1]


@settings(max_examples=25, deadline=None)
@given(sampling=st.sampled_from(["422", "420", "440", "411"]), seed=st.integers(0, 99))
def test_spliced_ycbcr_tile_decodes_to_the_pixels_of_the_complete_stream(sampling: str, seed: int) -> None:
    whole = simplejpeg.encode_jpeg(picture(48, 64, seed), 85, "RGB", sampling)
    tables, tile = abbreviate(whole)
    frame = JpegSplicer(tables, color="ycbcr").splice(tile)
    assert np.array_equal(simplejpeg.decode_jpeg(frame), simplejpeg.decode_jpeg(whole))
    header = parse_jpeg(frame)
    assert header.sampling.replace(":", "") == sampling
    assert header.adobe_transform is None
    expected = FrameFormat(BASELINE, "YBR_FULL_422", 3, 8, "ISO_10918_1")
    assert dicom_format(header, "ycbcr") == expected


def test_jfif_segment_in_the_tables_or_after_other_segments_is_dropped_from_rgb() -> None:
    tables, tile = abbreviate(rgb_stream(picture(16, 16)))
    comment = b"\xff\xfe\x00\x04hi"
    frame = JpegSplicer(tables[:2] + JFIF + tables[2:], color="rgb").splice(tile[:2] + comment + JFIF + tile[2:])
    assert [marker for marker, _ in segments(frame)].count(0xE0) == 0
    assert comment not in frame


@pytest.mark.parametrize("color", ["rgb", "ycbcr"])
def test_comments_and_application_segments_are_dropped_wherever_they_stand(color: JpegColor) -> None:
    stream = (
        rgb_stream(picture(16, 16)) if color == "rgb" else simplejpeg.encode_jpeg(picture(16, 16), 80, "RGB", "422")
    )
    tables, tile = abbreviate(stream)
    clean = JpegSplicer(tables, color=color).splice(tile)
    text = b"Jane Doe 1950-01-01"
    sos = tile.index(b"\xff\xda")
    for marker in (0xE0, 0xE1, 0xE2, 0xED, 0xEE, 0xEF, 0xFE):
        segment = bytes((0xFF, marker, 0, len(text) + 2)) + text
        assert JpegSplicer(tables, color=color).splice(tile[:2] + segment + tile[2:]) == clean
        assert JpegSplicer(tables, color=color).splice(tile[:sos] + segment + tile[sos:]) == clean
        assert JpegSplicer(tables[:2] + segment + tables[2:], color=color).splice(tile) == clean


def test_a_jfif_segment_stays_in_ycbcr_unless_it_holds_a_thumbnail() -> None:
    stream = simplejpeg.encode_jpeg(picture(16, 16), 80, "RGB", "422")
    assert stream[2:4] == b"\xff\xe0"
    assert JpegSplicer(None, color="ycbcr").splice(stream) == stream
    with_thumbnail = stream[:4] + b"\x00\x13" + stream[6:18] + b"\1\1abc" + stream[20:]
    assert b"JFIF" not in JpegSplicer(None, color="ycbcr").splice(with_thumbnail)


def test_adobe_segment_that_contradicts_the_container_is_replaced() -> None:
    tables, tile = abbreviate(rgb_stream(picture(16, 16)))
    frame = JpegSplicer(tables, color="rgb").splice(tile[:2] + ADOBE_YCBCR + tile[2:])
    assert frame.count(b"Adobe") == 1
    assert parse_jpeg(frame).adobe_transform == 0
    splicer = JpegSplicer(tables, color="ycbcr")
    assert parse_jpeg(splicer.splice(tile[:2] + ADOBE_RGB + tile[2:])).adobe_transform is None
    assert parse_jpeg(splicer.splice(tile[:2] + ADOBE_YCBCR + tile[2:])).adobe_transform == 1


def test_complete_stream_without_tables_stays_as_it_is() -> None:
    for color, stream in (
        ("ycbcr", simplejpeg.encode_jpeg(picture(16, 16), 80, "RGB", "420")),
        ("gray", simplejpeg.encode_jpeg(picture(16, 16, samples=1), 80, "GRAY", "Gray")),
        ("rgb", rgb_stream(picture(16, 16))),
    ):
        assert JpegSplicer(None, color=color).splice(stream) == stream


@pytest.mark.parametrize("padding", [b"\0", b"\xff", b"\0\0\0", b"\xff\xff\0", b"anything"])
def test_bytes_after_the_end_of_the_image_are_dropped(padding: bytes) -> None:
    tables, tile = abbreviate(rgb_stream(picture(16, 16)))
    splicer = JpegSplicer(tables, color="rgb")
    assert splicer.splice(tile + padding) == splicer.splice(tile)


@pytest.mark.parametrize(
    "tile,reason",
    [
        (b"", "0 bytes, expected JPEG"),
        (b"\x00\x01\x02", "starts with 0001, expected JPEG"),
        (b"\xff\xd8", "JPEG header ends"),
        (b"\xff\xd8\xff\xd9", "JPEG header ends"),
        (b"\xff\xd8\xff\xdb\xff\xff\x00", "runs past the end"),
        (b"\xff\xd8abcdef", "expected a marker"),
    ],
)
def test_tile_that_is_no_jpeg_is_corrupt(tile: bytes, reason: str) -> None:
    with pytest.raises(CorruptSourceError, match=reason):
        JpegSplicer(None, color="ycbcr").splice(tile)


def test_tile_cut_off_is_corrupt() -> None:
    tables, tile = abbreviate(rgb_stream(picture(32, 32)))
    with pytest.raises(CorruptSourceError, match="breaks off, expected EOI"):
        JpegSplicer(tables, color="rgb").splice(tile[:-10])


def test_tables_that_hold_an_image_or_are_broken_are_corrupt() -> None:
    whole = rgb_stream(picture(16, 16))
    with pytest.raises(CorruptSourceError, match="hold an image"):
        JpegSplicer(whole, color="rgb")
    with pytest.raises(CorruptSourceError, match="expected JPEG"):
        JpegSplicer(b"none", color="rgb")
    with pytest.raises(CorruptSourceError, match="broken marker"):
        JpegSplicer(b"\xff\xd8\xff", color="rgb")


@pytest.mark.parametrize("sampling", ["444", "422", "420", "440", "411"])
def test_ycbcr_of_any_sampling_is_ybr_full_422(sampling: str) -> None:
    found = dicom_format(parse_jpeg(simplejpeg.encode_jpeg(picture(32, 32), 80, "RGB", sampling)), "ycbcr")
    assert isinstance(found, FrameFormat)
    assert found.photometric_interpretation == "YBR_FULL_422"


def test_formats_that_dicom_lacks_are_refused_with_the_reason() -> None:
    pixels = picture(32, 32)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "JPEG", progressive=True)
    assert "progressive" in str(dicom_format(parse_jpeg(encoded.getvalue()), "ycbcr"))
    full = parse_jpeg(simplejpeg.encode_jpeg(pixels, 80, "RGB", "444"))
    assert full.sampling == "4:4:4"
    luma, blue, red = full.components
    odd = replace(full, components=(luma, replace(blue, horizontal_sampling=2), red))
    assert "sampled 1x1,2x1,1x1" in str(dicom_format(odd, "ycbcr"))
    half = parse_jpeg(simplejpeg.encode_jpeg(pixels, 80, "RGB", "422"))
    assert "subsampled 4:2:2" in str(dicom_format(half, "rgb"))
    assert "3 components, 1 expected" in str(dicom_format(half, "gray"))
    lossless = parse_jpeg(bytes(imagecodecs.jpeg8_encode(pixels, lossless=True)))
    assert "lossless JPEG" in str(dicom_format(lossless, "rgb"))
    deep = imagecodecs.jpeg8_encode(np.zeros((16, 16), np.uint16), bitspersample=12)
    assert "12 bits" in str(dicom_format(parse_jpeg(bytes(deep)), "gray"))


def test_gray_and_extended_sequential_streams_have_a_format() -> None:
    gray = simplejpeg.encode_jpeg(picture(8, 8, samples=1), 80, "GRAY", "Gray")
    assert parse_jpeg(gray).sampling == "gray"
    assert dicom_format(parse_jpeg(gray), "gray") == FrameFormat(BASELINE, "MONOCHROME2", 1, 8, "ISO_10918_1")
    extended = parse_jpeg(gray.replace(b"\xff\xc0", b"\xff\xc1"))
    assert dicom_format(extended, "gray") == FrameFormat("1.2.840.10008.1.2.4.51", "MONOCHROME2", 1, 8, "ISO_10918_1")


def test_restart_interval_is_read() -> None:
    encoded = io.BytesIO()
    Image.fromarray(picture(64, 64)).save(encoded, "JPEG", restart_marker_blocks=4)
    assert parse_jpeg(encoded.getvalue()).restart_interval == 4


def test_damaged_streams_raise_corrupt_source_error_and_nothing_else() -> None:
    chance = random.Random(5)
    whole = simplejpeg.encode_jpeg(picture(16, 16), 80, "RGB", "420")
    splicer = JpegSplicer(abbreviate(whole)[0], color="rgb")
    for _ in range(300):
        damaged = bytearray(whole[: chance.randrange(len(whole) + 1)])
        for _ in range(chance.randrange(4) if damaged else 0):
            damaged[chance.randrange(min(len(damaged), 640))] = chance.randrange(256)
        for read in (parse_jpeg, splicer.splice, lambda data: JpegSplicer(data, color="ycbcr")):
            with contextlib.suppress(CorruptSourceError):
                read(bytes(damaged))


def test_real_aperio_rgb_tiles_decode_as_their_container_says(shared: Path) -> None:
    with tifffile.TiffFile(shared / "slides/real/CMU-1-Small-Region.svs") as tiff:
        page = tiff.pages[0]
        splicer = JpegSplicer(page.jpegtables, color="rgb")
        expected = page.asarray()
        for index in (0, 31, 60):
            tiff.filehandle.seek(page.dataoffsets[index])
            frame = splicer.splice(tiff.filehandle.read(page.databytecounts[index]))
            row, column = index // 10 * 240, index % 10 * 240
            assert dicom_format(parse_jpeg(frame), "rgb") == FrameFormat(BASELINE, "RGB", 3, 8, "ISO_10918_1")
            decoded = simplejpeg.decode_jpeg(frame)
            wanted = expected[row : row + 240, column : column + 240]
            assert np.array_equal(decoded[: wanted.shape[0], : wanted.shape[1]], wanted)
