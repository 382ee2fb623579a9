"""JPEG 2000 headers are read as they are, and YCbCr components are understood as other readers do."""

import contextlib
import random
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import openslide
import pytest
import tifffile
from tests.tiler.codecs.pictures import picture

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs import encoder_like, make_decoder
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.tiler.codecs.jpeg2000 import rgb_from_ycbcr, ycbcr_from_rgb
from coverslip.tiler.codecs.jpeg2000_stream import codestream_offset, dicom_format, parse_jpeg2000, without_comments

LOSSLESS = "1.2.840.10008.1.2.4.90"
LOSSY = "1.2.840.10008.1.2.4.91"


def codestream(pixels: np.ndarray, *, reversible: bool = True, mct: bool = True, boxed: bool = False) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(pixels, codecformat="JP2" if boxed else "J2K", reversible=reversible, mct=mct)
    )


def header_and_packets(stream: bytes) -> tuple[dict[int, bytes], bytes]:
    """The main header's segments by marker, and the packets of the only tile-part."""
    at, found = 2, {}
    while stream[at + 1] != 0x90:
        end = at + 2 + int.from_bytes(stream[at + 2 : at + 4])
        found[stream[at + 1]] = stream[at:end]
        at = end
    return found, stream[stream.index(b"\xff\x93", at) + 2 : at + int.from_bytes(stream[at + 6 : at + 10])]


def with_subsampled_chroma(ycbcr: np.ndarray) -> bytes:
    """Join three gray codestreams, chroma of half width, into one; without wavelets each is one packet."""
    planes = (ycbcr[..., 0], ycbcr[:, ::2, 1], ycbcr[:, ::2, 2])
    parts = [
        header_and_packets(
            bytes(
                imagecodecs.jpeg2k_encode(
                    np.ascontiguousarray(plane), codecformat="J2K", reversible=True, resolutions=1
                )
            )
        )
        for plane in planes
    ]
    segments = parts[0][0]
    sizes = segments[0x51][4:38] + struct.pack(">H", 3) + bytes((7, 1, 1, 7, 2, 1, 7, 2, 1))
    packets = b"".join(data for _, data in parts)
    return b"".join(
        (
            b"\xff\x4f\xff\x51" + struct.pack(">H", len(sizes) + 2) + sizes + segments[0x52] + segments[0x5C],
            b"\xff\x90\x00\x0a\x00\x00" + struct.pack(">I", len(packets) + 14) + b"\x00\x01\xff\x93",
            packets + b"\xff\xd9",
        )
    )


@pytest.mark.parametrize(
    "reversible,mct,ycbcr,expected",
    [
        (True, True, False, FrameFormat(LOSSLESS, "YBR_RCT", 3)),
        (True, True, True, FrameFormat(LOSSLESS, "YBR_RCT", 3)),
        (False, True, False, FrameFormat(LOSSY, "YBR_ICT", 3, 8, "ISO_15444_1")),
        (True, False, False, FrameFormat(LOSSLESS, "RGB", 3)),
        (False, False, False, FrameFormat(LOSSY, "RGB", 3, 8, "ISO_15444_1")),
        (True, False, True, FrameFormat(LOSSLESS, "YBR_FULL_422", 3)),
        (False, False, True, FrameFormat(LOSSY, "YBR_FULL_422", 3, 8, "ISO_15444_1")),
    ],
)
def test_format_follows_the_codestream_not_the_container(
    *, reversible: bool, mct: bool, ycbcr: bool, expected: FrameFormat
) -> None:
    for boxed in (False, True):
        header = parse_jpeg2000(codestream(picture(48, 40), reversible=reversible, mct=mct, boxed=boxed))
        assert (header.rows, header.columns) == (48, 40)
        assert (header.reversible, header.multiple_component_transform) == (reversible, mct)
        assert (header.quality_layers, header.high_throughput, header.subsampled) == (1, False, False)
        assert dicom_format(header, ycbcr_components=ycbcr) == expected


def test_high_throughput_is_told_from_the_first_part() -> None:
    for reversible, uid, photometric_interpretation, lossy_method in (
        (True, "1.2.840.10008.1.2.4.201", "YBR_RCT", None),
        (False, "1.2.840.10008.1.2.4.203", "YBR_ICT", "ISO_15444_15"),
    ):
        header = parse_jpeg2000(bytes(imagecodecs.htj2k_encode(picture(32, 32), reversible=reversible)))
        assert header.high_throughput
        expected = FrameFormat(uid, photometric_interpretation, 3, 8, lossy_method)
        assert dicom_format(header, ycbcr_components=False) == expected


def test_samples_that_are_not_8_bit_gray_or_colour_are_refused() -> None:
    deep = parse_jpeg2000(codestream(picture(16, 16, samples=1)[..., 0].astype(np.uint16) * 9))
    assert deep.components[0].bits == 16
    assert "16 bits per unsigned" in str(dicom_format(deep, ycbcr_components=False))
    signed = parse_jpeg2000(codestream((picture(16, 16, samples=1)[..., 0] // 2).astype(np.int8)))
    assert "8 bits per signed" in str(dicom_format(signed, ycbcr_components=False))
    pair = parse_jpeg2000(codestream(picture(16, 16)[..., :2].copy()))
    assert "2 components" in str(dicom_format(pair, ycbcr_components=False))
    gray = parse_jpeg2000(codestream(picture(16, 16, samples=1)[..., 0]))
    assert dicom_format(gray, ycbcr_components=False) == FrameFormat(LOSSLESS, "MONOCHROME2", 1)


def test_wavelet_of_a_single_component_makes_the_whole_irreversible() -> None:
    stream = codestream(picture(16, 16))
    coding = 2 + stream[2:].index(b"\xff\x52")
    component = b"\xff\x53\x00\x09\x02\x00\x05\x04\x04\x00\x00"
    end = coding + 2 + int.from_bytes(stream[coding + 2 : coding + 4])
    assert parse_jpeg2000(stream).reversible
    assert not parse_jpeg2000(stream[:end] + component + stream[end:]).reversible


@pytest.mark.parametrize(
    "data,reason",
    [
        (b"", "0 bytes, expected JPEG 2000"),
        (b"\xff\xd8\xff\xe0", "starts with ffd8ffe0, expected JPEG 2000"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n\x00\x00\x00\x00ftyp", "expected JPEG 2000"),
        (b"\xff\x4f", "breaks off"),
        (b"\xff\x4fabcd", "expected a marker"),
        (b"\xff\x4f\xff\x93\x00\x00", "without SIZ"),
        (b"\xff\x4f\xff\x51\x00\x04\x00\x00\xff\x93\x00\x00", "without COD"),
    ],
)
def test_what_is_no_codestream_is_corrupt(data: bytes, reason: str) -> None:
    with pytest.raises(CorruptSourceError, match=reason):
        parse_jpeg2000(data)


def test_damaged_headers_raise_corrupt_source_error_and_nothing_else() -> None:
    chance = random.Random(3)
    for whole in (codestream(picture(16, 16)), codestream(picture(16, 16), boxed=True)):
        for _ in range(150):
            damaged = bytearray(whole[: chance.randrange(len(whole) + 1)])
            for _ in range(chance.randrange(5) if damaged else 0):
                damaged[chance.randrange(min(len(damaged), 200))] = chance.randrange(256)
            with contextlib.suppress(CorruptSourceError):
                parse_jpeg2000(bytes(damaged))


def test_codestream_in_boxes_is_found() -> None:
    boxed = codestream(picture(16, 16), boxed=True)
    at = codestream_offset(boxed)
    assert at > 0
    assert boxed[at:].startswith(b"\xff\x4f\xff\x51")
    assert codestream_offset(boxed[at:]) == 0


def test_ycbcr_becomes_rgb_as_libjpeg_does_it() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (256, 256, 3), np.uint8)
    stream = imagecodecs.jpeg8_encode(noise, 99, colorspace="YCbCr", outcolorspace="YCbCr", subsampling="444")
    components = imagecodecs.jpeg8_decode(stream, colorspace="YCbCr", outcolorspace="YCbCr")
    expected = imagecodecs.jpeg8_decode(stream, colorspace="YCbCr", outcolorspace="RGB")
    assert np.array_equal(rgb_from_ycbcr(components), expected)


def test_gray_stays_gray_in_both_directions() -> None:
    gray = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(ycbcr_from_rgb(gray)[..., 0], gray[..., 0])
    assert np.all(ycbcr_from_rgb(gray)[..., 1:] == 128)
    assert np.array_equal(rgb_from_ycbcr(ycbcr_from_rgb(gray)), gray)


def test_ycbcr_components_decode_as_openslide_decodes_an_aperio_slide_of_them(tmp_path: Path) -> None:
    frame = codestream(ycbcr_from_rgb(picture(128, 128)), mct=False)
    path = tmp_path / "ycbcr.svs"
    tifffile.imwrite(
        path,
        iter([frame]),
        shape=(128, 128, 3),
        dtype="uint8",
        tile=(128, 128),
        compression=33003,
        photometric="rgb",
        description="Aperio Image Library v11.2.1\n128x128 (128x128) J2K/YUV16 Q=70|AppMag = 20|MPP = 0.5",
        metadata=None,
    )
    found = dicom_format(parse_jpeg2000(frame), ycbcr_components=True)
    assert isinstance(found, FrameFormat)
    decoded = make_decoder(found, rows=128, columns=128).decode(frame)
    with openslide.OpenSlide(path) as slide:
        expected = np.asarray(slide.read_region((0, 0), 0, (128, 128)))[..., :3]
    # OpenSlide rounds the two parts of green apart.
    assert np.array_equal(decoded[..., ::2], expected[..., ::2])
    assert np.abs(decoded.astype(int) - expected).max() <= 1


def test_subsampled_chroma_is_kept_as_ycbcr_and_decodes_to_rgb() -> None:
    row, column = np.mgrid[:64, :64]
    rgb = np.stack([row * 3, column // 2 * 4, 200 - row * 2], axis=-1).astype(np.uint8)
    frame = with_subsampled_chroma(ycbcr_from_rgb(rgb))
    header = parse_jpeg2000(frame)
    assert header.subsampled
    found = dicom_format(header, ycbcr_components=True)
    assert found == FrameFormat(LOSSLESS, "YBR_FULL_422", 3)
    assert "subsampled" in str(dicom_format(header, ycbcr_components=False))
    decoder = make_decoder(found, rows=64, columns=64)
    assert np.abs(decoder.decode(frame).astype(int) - rgb).max() <= 3
    blank = encoder_like(found, frame).encode(np.full((64, 64, 3), 255, np.uint8))
    assert dicom_format(parse_jpeg2000(blank), ycbcr_components=True) == found
    assert np.array_equal(decoder.decode(blank), np.full((64, 64, 3), 255, np.uint8))


def test_stored_aperio_tile_is_irreversible_rgb(shared: Path) -> None:
    with tifffile.TiffFile(shared / "slides/synthetic/aperio_j2k33005.svs") as tiff:
        page = tiff.pages[0]
        tiff.filehandle.seek(page.dataoffsets[0])
        frame = tiff.filehandle.read(page.databytecounts[0])
        expected = page.asarray()[:256, :256]
    found = dicom_format(parse_jpeg2000(frame), ycbcr_components=False)
    assert found == FrameFormat(LOSSY, "RGB", 3, 8, "ISO_15444_1")
    assert np.array_equal(make_decoder(found, rows=256, columns=256).decode(frame), expected)


def comment(text: bytes) -> bytes:
    """Return a COM segment of Latin text (T.800 A.9.2)."""
    return b"\xff\x64" + (len(text) + 4).to_bytes(2) + b"\0\1" + text


def test_comments_of_people_are_dropped_and_all_other_bytes_stay() -> None:
    stream = bytes(imagecodecs.jpeg2k_encode(np.zeros((16, 16, 3), np.uint8), 0, codecformat="j2k", reversible=True))
    assert b"Created by OpenJPEG" in stream
    assert without_comments(stream) == stream
    cod = stream.index(b"\xff\x52")
    sot = stream.index(b"\xff\x90")
    for at in (cod, sot):
        for text in (b"Jane Doe", b"Kakadu-v6.4.1 Jane Doe", b"Created by OpenJPEG version Jane"):
            assert without_comments(stream[:at] + comment(text) + stream[at:]) == stream
        kept = stream[:at] + comment(b"Kakadu-v6.4.1") + stream[at:]
        assert without_comments(kept) == kept
    assert without_comments(stream[:20]) == stream[:20]
