"""Every codec gives back what it was given, in the format that it promises, and independent readers agree."""

import contextlib
import io
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import SecondaryCaptureImageStorage
from tests.tiler.codecs.pictures import picture

from coverslip.errors import CorruptSourceError, EncodingError, UsageError
from coverslip.tiler.codecs import (
    CodecOption,
    FrameDecoder,
    FrameEncoder,
    FrameFormat,
    encoder_like,
    jpeg2000_stream,
    jpeg_stream,
    make_decoder,
    make_encoder,
    parse_codec,
)

LOSSLESS = ["jpeg2000:lossless", "htj2k", "jpegls", "none"]
LOSSY = ["jpeg:80:420", "jpeg:80:422", "jpeg:80:444", "jpeg2000"]


def encoder_of(text: str, pixels: np.ndarray) -> FrameEncoder:
    return make_encoder(parse_codec(text), dtype=pixels.dtype, samples_per_pixel=pixels.shape[2])


def decoder_of(encoder: FrameEncoder, pixels: np.ndarray) -> FrameDecoder:
    return make_decoder(encoder.frame_format, rows=pixels.shape[0], columns=pixels.shape[1])


def psnr(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((found.astype(float) - wanted) ** 2), 1e-9)))


def read_with_pydicom(frame: bytes, frame_format: FrameFormat, rows: int, columns: int) -> np.ndarray:
    """Decode one frame as any DICOM reader would, colour turned to RGB."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = frame_format.transfer_syntax_uid
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.Rows, dataset.Columns = rows, columns
    dataset.SamplesPerPixel = frame_format.samples_per_pixel
    dataset.PhotometricInterpretation = frame_format.photometric_interpretation
    if frame_format.samples_per_pixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = frame_format.bits_allocated
    dataset.BitsStored = frame_format.bits_stored
    dataset.HighBit = frame_format.bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = encapsulate([frame]) if frame_format.encapsulated else frame
    dataset["PixelData"].VR = "OB" if frame_format.encapsulated or frame_format.bits_allocated == 8 else "OW"
    dataset["PixelData"].is_undefined_length = frame_format.encapsulated
    pixels = dataset.pixel_array
    return pixels.reshape(rows, columns, frame_format.samples_per_pixel)


@pytest.mark.parametrize(
    "text,option",
    [
        ("jpeg", CodecOption("jpeg", lossless=False, quality=80, subsampling="420")),
        ("jpeg:1", CodecOption("jpeg", lossless=False, quality=1, subsampling="420")),
        ("jpeg:100:444", CodecOption("jpeg", lossless=False, quality=100, subsampling="444")),
        ("jpeg2000", CodecOption("jpeg2000", lossless=False)),
        ("jpeg2000:lossless", CodecOption("jpeg2000", lossless=True)),
        ("htj2k", CodecOption("htj2k", lossless=True)),
        ("jpegls", CodecOption("jpegls", lossless=True)),
        ("none", CodecOption("none", lossless=True)),
    ],
)
def test_codec_text_is_read(text: str, option: CodecOption) -> None:
    assert parse_codec(text) == option


@pytest.mark.parametrize(
    "text", ["", "jpg", "jpeg:", "jpeg:0", "jpeg:101", "jpeg:80:440", "jpeg:80:420:1", "jpeg2000:90", "JPEG", "none\n"]
)
def test_unknown_codec_text_is_a_usage_error_that_names_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match=r"jpeg\[:QUALITY.*jpeg2000:lossless, htj2k, jpegls or none"):
        parse_codec(text)


def test_naming_a_codec_loads_no_codec_library() -> None:
    code = (
        "import sys; from coverslip.tiler.codecs import parse_codec; parse_codec('jpeg'); "
        "import coverslip.tiler.codecs.jpeg_stream, coverslip.tiler.codecs.jpeg2000_stream; "
        "print({'numpy', 'imagecodecs', 'simplejpeg', 'cv2'} & set(sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert found.stdout.strip() == "set()"


@pytest.mark.parametrize("text", LOSSLESS)
@settings(max_examples=12, deadline=None)
@given(
    rows=st.integers(1, 70),
    columns=st.integers(1, 70),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["rgb", "8", "16"]),
)
def test_lossless_codecs_give_back_every_pixel(text: str, rows: int, columns: int, seed: int, kind: str) -> None:
    pixels = picture(rows, columns, seed, samples=3 if kind == "rgb" else 1)
    if kind == "16":
        pixels = pixels.astype(np.uint16) * 251
    encoder = encoder_of(text, pixels)
    decoded = decoder_of(encoder, pixels).decode(encoder.encode(pixels))
    assert decoded.dtype == pixels.dtype
    assert decoded.flags.c_contiguous
    assert np.array_equal(decoded, pixels)
    assert encoder.frame_format.lossy_method is None


def test_uncompressed_float_samples_come_back() -> None:
    pixels = picture(5, 7, samples=1).astype(np.float32) / 3
    encoder = encoder_of("none", pixels)
    assert encoder.frame_format == FrameFormat("1.2.840.10008.1.2.1", "MONOCHROME2", 1, 32)
    assert encoder.encode(pixels) == pixels.astype("<f4").tobytes()
    assert np.array_equal(decoder_of(encoder, pixels).decode(encoder.encode(pixels)), pixels)


@pytest.mark.parametrize(
    "text,decibels", [("jpeg:80:420", 24), ("jpeg:80:422", 25), ("jpeg:80:444", 28), ("jpeg2000", 48)]
)
@pytest.mark.parametrize("samples", [1, 3])
def test_lossy_codecs_stay_close(text: str, decibels: float, samples: int) -> None:
    for seed in range(3):
        pixels = picture(128, 96, seed, samples=samples)
        encoder = encoder_of(text, pixels)
        assert psnr(decoder_of(encoder, pixels).decode(encoder.encode(pixels)), pixels) > decibels
        assert encoder.frame_format.lossy_method == ("ISO_15444_1" if text == "jpeg2000" else "ISO_10918_1")


@pytest.mark.parametrize("value", [0, 128, 200, 243, 255])
def test_lossy_jpeg2000_keeps_uniform_background(value: int) -> None:
    pixels = np.full((64, 64, 3), value, np.uint8)
    encoder = encoder_of("jpeg2000", pixels)
    assert np.abs(decoder_of(encoder, pixels).decode(encoder.encode(pixels)).astype(int) - value).max() <= 1


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("text", LOSSLESS + LOSSY)
def test_format_is_that_of_the_codestream(text: str, samples: int) -> None:
    pixels = picture(40, 56, samples=samples)
    encoder = encoder_of(text, pixels)
    frame = encoder.encode(pixels)
    wanted = encoder.frame_format
    if text.startswith("jpeg:"):
        color = {"MONOCHROME2": "gray", "RGB": "rgb", "YBR_FULL_422": "ycbcr"}[wanted.photometric_interpretation]
        header = jpeg_stream.parse_jpeg(frame)
        assert (header.rows, header.columns) == (40, 56)
        assert jpeg_stream.dicom_format(header, color) == wanted
        if color == "rgb":
            assert (header.adobe_transform, header.has_jfif) == (0, False)
    elif text in ("jpeg2000", "jpeg2000:lossless", "htj2k"):
        found = jpeg2000_stream.dicom_format(jpeg2000_stream.parse_jpeg2000(frame), ycbcr_components=False)
        assert found == wanted
    elif text == "jpegls":
        assert wanted == FrameFormat("1.2.840.10008.1.2.4.80", "RGB" if samples == 3 else "MONOCHROME2", samples)
        assert frame[:4] == b"\xff\xd8\xff\xf7"
    else:
        assert wanted == FrameFormat("1.2.840.10008.1.2.1", "RGB" if samples == 3 else "MONOCHROME2", samples)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("text", LOSSLESS + LOSSY)
def test_pydicom_reads_the_same_pixels(text: str, samples: int) -> None:
    pixels = picture(40, 56, samples=samples)
    encoder = encoder_of(text, pixels)
    frame = encoder.encode(pixels)
    decoded = decoder_of(encoder, pixels).decode(frame)
    found = read_with_pydicom(frame, encoder.frame_format, 40, 56)
    if encoder.frame_format.photometric_interpretation == "YBR_FULL_422":
        # pydicom converts from YBR_FULL_422 by its own arithmetic
        assert np.abs(found.astype(int) - decoded).max() <= 2
    else:
        assert np.array_equal(found, decoded)


@pytest.mark.parametrize("text", ["jpeg:80:420", "jpeg:80:422", "jpeg:80:444"])
def test_pillow_reads_the_same_jpeg_pixels(text: str) -> None:
    pixels = picture(41, 57)
    encoder = encoder_of(text, pixels)
    frame = encoder.encode(pixels)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(frame))), decoder_of(encoder, pixels).decode(frame))


@pytest.mark.parametrize("text", LOSSLESS + LOSSY)
def test_same_pixels_give_the_same_bytes_in_every_thread(text: str) -> None:
    pixels = picture(64, 64)
    encoder = encoder_of(text, pixels)
    with ThreadPoolExecutor(4) as threads:
        assert len(set(threads.map(encoder.encode, [pixels] * 24))) == 1


def test_half_scale_decoding_rounds_odd_sizes_up() -> None:
    pixels = np.full((33, 50, 3), (200, 120, 90), np.uint8)
    for text in ("jpeg:80:420", "jpeg:80:444"):
        encoder = encoder_of(text, pixels)
        half = decoder_of(encoder, pixels).decode_half(encoder.encode(pixels))
        assert half is not None
        assert half.shape == (17, 25, 3)
        assert np.abs(half.astype(int) - (200, 120, 90)).max() <= 3


@pytest.mark.parametrize("text", ["jpeg2000", "htj2k", "jpegls", "none"])
def test_codecs_without_a_dct_have_no_half_scale(text: str) -> None:
    pixels = picture(8, 8)
    encoder = encoder_of(text, pixels)
    assert decoder_of(encoder, pixels).decode_half(encoder.encode(pixels)) is None


@pytest.mark.parametrize(
    "text,dtype,samples",
    [
        ("jpeg", "uint16", 1),
        ("jpeg2000", "uint16", 1),
        ("jpeg2000:lossless", "float32", 1),
        ("htj2k", "uint16", 3),
        ("jpegls", "int8", 1),
        ("none", "float64", 1),
        ("none", "uint8", 4),
    ],
)
def test_pixels_that_a_codec_cannot_hold_are_a_usage_error(text: str, dtype: str, samples: int) -> None:
    with pytest.raises(UsageError, match=f"cannot hold pixels of {samples} x {dtype}, only 1 x uint8, 3 x uint8"):
        make_encoder(parse_codec(text), dtype=np.dtype(dtype), samples_per_pixel=samples)


@pytest.mark.parametrize("text", ["jpeg:80:420", "jpeg:80:444", "jpeg2000", "htj2k", "jpegls", "none"])
def test_pixels_of_another_type_are_an_encoding_error(text: str) -> None:
    pixels = picture(8, 8)
    with pytest.raises(EncodingError):
        encoder_of(text, pixels).encode(pixels.astype(np.complex128))


@pytest.mark.parametrize("text", LOSSLESS + LOSSY)
def test_frame_of_another_size_is_corrupt(text: str) -> None:
    pixels = picture(16, 16)
    encoder = encoder_of(text, pixels)
    with pytest.raises(CorruptSourceError, match="expected"):
        make_decoder(encoder.frame_format, rows=16, columns=24).decode(encoder.encode(pixels))


def test_jpeg_ls_is_not_decoded_to_a_size_that_it_only_claims() -> None:
    pixels = picture(16, 16)
    encoder = encoder_of("jpegls", pixels)
    frame = encoder.encode(pixels)
    at = frame.index(b"\xff\xf7") + 5
    claimed = frame[:at] + (4000).to_bytes(2) * 2 + frame[at + 4 :]
    with pytest.raises(CorruptSourceError, match="4000 x 4000 pixels, expected 16 x 16"):
        decoder_of(encoder, pixels).decode(claimed)


def test_native_frames_need_a_size() -> None:
    with pytest.raises(ValueError, match="rows and columns"):
        make_decoder(FrameFormat("1.2.840.10008.1.2.1", "RGB", 3))


def test_native_frame_may_carry_its_pad_byte() -> None:
    pixels = picture(3, 3, samples=1)
    encoder = encoder_of("none", pixels)
    assert np.array_equal(decoder_of(encoder, pixels).decode(encoder.encode(pixels) + b"\0"), pixels)


@pytest.mark.parametrize("text", LOSSLESS + LOSSY)
def test_frame_cut_short_is_corrupt(text: str) -> None:
    pixels = picture(64, 64)
    encoder = encoder_of(text, pixels)
    frame = encoder.encode(pixels)
    decoder = decoder_of(encoder, pixels)
    for length in (0, 1, 10, len(frame) // 2, len(frame) * 9 // 10):
        with pytest.raises(CorruptSourceError):
            decoder.decode(frame[:length])


@pytest.mark.parametrize("text", LOSSLESS + LOSSY)
def test_damaged_frames_raise_corrupt_source_error_and_nothing_else(text: str) -> None:
    chance = random.Random(text)
    pixels = picture(24, 24)
    encoder = encoder_of(text, pixels)
    frame = encoder.encode(pixels)
    decoder = decoder_of(encoder, pixels)
    for _ in range(300):
        damaged = bytearray(frame[: chance.choice((len(frame), chance.randrange(len(frame))))])
        # CharLS needs seconds to give up on a scan that is damaged inside: there only the end is cut off.
        for _ in range(chance.randrange(5) if damaged and text != "jpegls" else 0):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with contextlib.suppress(CorruptSourceError):
            decoder.decode(bytes(damaged))
        with contextlib.suppress(CorruptSourceError):
            decoder.decode_half(bytes(damaged))


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("text", LOSSLESS + LOSSY)
def test_encoder_like_writes_frames_of_the_stored_format(text: str, samples: int) -> None:
    pixels = picture(32, 32, samples=samples)
    stored = encoder_of(text, pixels)
    sample = stored.encode(pixels)
    like = encoder_like(stored.frame_format, sample)
    assert like.frame_format == stored.frame_format
    blank = np.full_like(pixels, 255)
    frame = like.encode(blank)
    assert np.array_equal(decoder_of(like, pixels).decode(frame), blank)
    if text.startswith("jpeg:"):
        assert jpeg_stream.parse_jpeg(frame).sampling == jpeg_stream.parse_jpeg(sample).sampling
    elif text.startswith(("jpeg2000", "htj2k")):
        assert jpeg2000_stream.parse_jpeg2000(frame) == jpeg2000_stream.parse_jpeg2000(sample)


@pytest.mark.parametrize("sampling", ["440", "411"])
def test_encoder_like_follows_uncommon_chroma_subsampling(sampling: str) -> None:
    sample = simplejpeg.encode_jpeg(picture(32, 32), 80, "RGB", sampling)
    found = jpeg_stream.dicom_format(jpeg_stream.parse_jpeg(sample), "ycbcr")
    assert isinstance(found, FrameFormat)
    frame = encoder_like(found, sample).encode(np.full((32, 32, 3), 243, np.uint8))
    assert jpeg_stream.parse_jpeg(frame).sampling.replace(":", "") == sampling
