"""How the tiles of one TIFF page are stored: as DICOM frames where their bytes allow, and as pixels always."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from coverslip.converter.sources.tiff_structure import Compression, Photometric, TagCode, TiffPage
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.codecs import jpeg_stream, make_decoder
from coverslip.tiler.codecs.base import FrameFormat, Pixels

__all__ = ["StoredTiles", "open_stored_tiles", "unreadable_kind"]

_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_MOST_PIXELS = 1 << 25
"""Most pixels of one tile or strip: 96 MB decoded."""
_FAST_INFLATE_PIXELS = 1 << 26
"""Loading imagecodecs takes as long as it saves on so many pixels."""
_LONGEST_FRAME_SIDE = 65535
"""What Rows and Columns can hold (PS3.3 C.7.6.3)."""
_EOI = b"\xff\xd9"
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_IN_STRIPS = "pixels are stored in strips, not in tiles"
_JPEG2000 = "1.2.840.10008.1.2.4.91"
_NAMES: dict[int, str] = {
    Compression.NONE: "none",
    Compression.LZW: "LZW",
    Compression.JPEG: "JPEG",
    Compression.DEFLATE: "deflate",
    Compression.OLD_DEFLATE: "deflate",
    Compression.APERIO_JPEG2000_YCBCR: "JPEG 2000",
    Compression.APERIO_JPEG2000_RGB: "JPEG 2000",
    Compression.JPEG2000: "JPEG 2000",
}
_PHOTOMETRICS: dict[int, str] = {
    Photometric.WHITE_IS_ZERO: "monochrome",
    Photometric.BLACK_IS_ZERO: "monochrome",
    Photometric.PALETTE: "palette colour",
    Photometric.CMYK: "CMYK",
}


@dataclass(frozen=True, slots=True)
class StoredTiles:
    """What all tiles of one page have in common; every function is safe in any thread.

    Parameters
    ----------
    compression, color : str
        As in `SourceLevel`.
    decode : callable
        Takes the stored bytes and the number of rows they hold, returns (rows, columns, 3) uint8 RGB; raises
        `CorruptSourceError` without a place.
    frame_format : FrameFormat or None
        What the tiles are as DICOM frames.
    not_reusable : str or None
        Why they cannot be frames.
    to_frame : callable
        Takes the stored bytes, returns the frame; raises `CorruptSourceError` without a place if they are not
        what the first tile of the page is.
    lossy_method : str or None
        As in `SourceLevel`.
    sample_frame : bytes
        One of the frames, for making more of the same kind.
    added_bytes : int
        By which the sample's frame is longer than what is stored.
    """

    compression: str
    color: str
    decode: Callable[[bytes, int], Pixels]
    frame_format: FrameFormat | None = None
    not_reusable: str | None = None
    to_frame: Callable[[bytes], bytes] = bytes
    lossy_method: str | None = None
    sample_frame: bytes = b""
    added_bytes: int = 0


def unreadable_kind(page: TiffPage) -> str | None:
    """Say what keeps a page from being read as 8-bit RGB, e.g. ``"16-bit monochrome"``; None if nothing does."""
    samples = page.integer(TagCode.SAMPLES_PER_PIXEL, 1)
    bits = page.integers(TagCode.BITS_PER_SAMPLE) or [1]
    compression = _NAMES.get(page.compression)
    predictor = page.integer(TagCode.PREDICTOR, 1)
    ycbcr = page.photometric == Photometric.YCBCR
    problems = (
        (page.integer(TagCode.SAMPLE_FORMAT, 1) == 3, f"{bits[0]}-bit floating point samples"),
        (page.photometric in _PHOTOMETRICS, f"{bits[0]}-bit {_PHOTOMETRICS.get(page.photometric)}"),
        (set(bits) != {8}, f"{bits[0]}-bit samples"),
        (samples == 4, "4 samples per pixel (RGBA)"),
        (samples != 3, f"{samples} samples per pixel"),
        (page.photometric != Photometric.RGB and not ycbcr, f"photometric interpretation {page.photometric}"),
        (page.integer(TagCode.PLANAR_CONFIGURATION, 1) != 1, "separate colour planes"),
        (compression is None, f"TIFF compression {page.compression}"),
        (ycbcr and compression in ("none", "LZW", "deflate"), "YCbCr without JPEG compression"),
        (predictor not in (1, 2), f"TIFF predictor {predictor}"),
    )
    return next((words for found, words in problems if found), None)


def open_stored_tiles(page: TiffPage, sample: bytes | None) -> StoredTiles:
    """Find out from the first stored tile what the tiles of a page are.

    Parameters
    ----------
    page : TiffPage
    sample : bytes or None
        The stored bytes of one tile; None if the file holds none.

    Raises
    ------
    UnsupportedSourceError
        If the page is not 8-bit RGB in a compression that is read.
    CorruptSourceError
        If the sample is not what the page's compression says.
    """
    kind = unreadable_kind(page)
    if kind:
        raise UnsupportedSourceError(f"the image holds {kind}, which is not read yet; 8-bit RGB is")
    if page.segment_rows * page.segment_columns > _MOST_PIXELS:
        raise UnsupportedSourceError(
            f"the image is stored in pieces of {page.segment_rows} x {page.segment_columns} pixels, too large to read"
        )
    name = _NAMES[page.compression]
    if sample is None:
        return StoredTiles(name, "RGB", _no_pixels, not_reusable="the file holds no tile of this level")
    if name == "JPEG":
        tiles = _jpeg_tiles(page, sample)
    elif name == "JPEG 2000":
        tiles = _jpeg2000_tiles(page, sample)
    else:
        tiles = _plain_tiles(page, name, sample)
    if tiles.frame_format is not None and max(page.segment_rows, page.segment_columns) > _LONGEST_FRAME_SIDE:
        return replace(tiles, frame_format=None, not_reusable=f"tiles are longer than {_LONGEST_FRAME_SIDE} pixels")
    return tiles


def _no_pixels(data: bytes, rows: int) -> Pixels:
    raise CorruptSourceError(f"{len(data)} bytes for {rows} rows, expected no tile")


def _jpeg_tiles(page: TiffPage, sample: bytes) -> StoredTiles:
    """Abbreviated JPEG streams; PhotometricInterpretation tells the colour (TIFF Technical Note 2).

    Bio-Formats writes YCbCr under the tag's RGB; subsampled components give it away, as nobody subsamples RGB.
    """
    header = jpeg_stream.parse_jpeg(sample)
    rgb = page.photometric == Photometric.RGB and header.sampling == "4:4:4"
    color: jpeg_stream.JpegColor = "rgb" if rgb else "ycbcr"
    splicer = jpeg_stream.JpegSplicer(page.data(TagCode.JPEG_TABLES), color=color)
    found = jpeg_stream.dicom_format(header, color)
    usual_start = sample[: sample.find(b"\xff\xda")]
    rows, columns = page.segment_rows, page.segment_columns

    def check(data: bytes) -> None:
        other = jpeg_stream.parse_jpeg(data)
        _expect_size("JPEG", (other.rows, other.columns), (rows, columns))
        if jpeg_stream.dicom_format(other, color) != found or other.sampling != header.sampling:
            raise CorruptSourceError(
                f"JPEG of another kind (sampled {other.sampling}) than the first tile of the level ({header.sampling})"
            )

    # Tiles of one page start alike, so their completed header is made once; only one that differs is parsed.
    scan_offset = len(usual_start)
    scan = sample[scan_offset:]
    sample_frame = splicer.splice(sample)
    frame_start = sample_frame[: -len(scan)] if sample_frame.endswith(scan) else None

    def to_frame(data: bytes) -> bytes:
        if data.startswith(usual_start):
            if frame_start is not None and data.endswith(_EOI):
                return frame_start + data[scan_offset:]
        else:
            check(data)
        return splicer.splice(data)

    photometric_interpretation = "RGB" if rgb else "YBR_FULL_422"
    decoder = make_decoder(FrameFormat(_JPEG_BASELINE, photometric_interpretation, 3), columns=columns)

    def decode(data: bytes, valid_rows: int) -> Pixels:
        pixels = decoder.decode(splicer.splice(data))
        _expect_size("JPEG", pixels.shape, (valid_rows, columns, 3))
        return pixels

    if page.is_tiled:
        check(sample)
    reusable = page.is_tiled and isinstance(found, FrameFormat)
    return StoredTiles(
        "JPEG",
        "RGB" if rgb else f"YCbCr {header.sampling}",
        decode,
        frame_format=found if reusable and isinstance(found, FrameFormat) else None,
        not_reusable=None if reusable else (found if isinstance(found, str) else _IN_STRIPS),
        to_frame=to_frame,
        lossy_method="ISO_10918_1",
        sample_frame=sample_frame,
        added_bytes=len(sample_frame) - len(sample),
    )


def _jpeg2000_tiles(page: TiffPage, sample: bytes) -> StoredTiles:
    """Codestreams that tell their own colour, but for components to which no transform was applied."""
    from coverslip.tiler.codecs.jpeg2000_stream import codestream_offset, dicom_format, parse_jpeg2000, without_comments

    ycbcr = page.compression == Compression.APERIO_JPEG2000_YCBCR or page.photometric == Photometric.YCBCR
    header = parse_jpeg2000(sample)
    found = dicom_format(header, ycbcr_components=ycbcr)
    usual_start = sample[: sample.find(b"\xff\x90")]  # up to the first tile-part
    rows, columns = page.segment_rows, page.segment_columns

    def check(data: bytes) -> None:
        other = parse_jpeg2000(data)
        _expect_size("JPEG 2000", (other.rows, other.columns), (rows, columns))
        if dicom_format(other, ycbcr_components=ycbcr) != found:
            raise CorruptSourceError("JPEG 2000 of another kind than the first tile of the level")

    def to_frame(data: bytes) -> bytes:
        if not data.startswith(usual_start):
            check(data)
        return without_comments(data[codestream_offset(data) :])

    ycbcr = ycbcr and not header.multiple_component_transform
    frame_format = found if isinstance(found, FrameFormat) else None
    decoder = make_decoder(
        frame_format or FrameFormat(_JPEG2000, "YBR_FULL_422" if ycbcr else "RGB", 3), columns=columns
    )

    def decode(data: bytes, valid_rows: int) -> Pixels:
        pixels = decoder.decode(data[codestream_offset(data) :])
        _expect_size("JPEG 2000", pixels.shape, (valid_rows, columns, 3))
        return pixels

    if page.is_tiled:
        check(sample)
    reusable = page.is_tiled and frame_format is not None
    return StoredTiles(
        "JPEG 2000",
        "YCbCr" if ycbcr else "RGB",
        decode,
        frame_format=frame_format if reusable else None,
        not_reusable=None if reusable else (found if isinstance(found, str) else _IN_STRIPS),
        to_frame=to_frame,
        lossy_method=None if header.reversible else "ISO_15444_1",
        sample_frame=to_frame(sample) if reusable else b"",
    )


def _expect_size(what: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise CorruptSourceError(f"{what} of {_by(found)}, expected {_by(expected)}")


def _by(size: tuple[int, ...]) -> str:
    return " x ".join(str(length) for length in size)


def _plain_tiles(page: TiffPage, name: str, sample: bytes) -> StoredTiles:
    """Pixels as they are, or behind a lossless general purpose compression."""
    columns = page.segment_columns
    # Inflates twice as fast as zlib, once it has been loaded.
    inflate_fast = name == "deflate" and page.rows * page.columns >= _FAST_INFLATE_PIXELS
    differenced = page.integer(TagCode.PREDICTOR, 1) == 2 and name != "none"

    def decode(data: bytes, rows: int) -> Pixels:
        size = rows * columns * 3
        plain = _inflate_fast(data, size) if inflate_fast else None
        if plain is None:
            plain = _inflate(data, name, size)
        if len(plain) < size:
            raise CorruptSourceError(f"decodes to {len(plain)} bytes, expected {size}")
        pixels = np.frombuffer(plain, np.uint8, size).reshape(rows, columns, 3)
        return np.cumsum(pixels, axis=1, dtype=np.uint8) if differenced else pixels

    if name != "none" or not page.is_tiled:
        reason = _IN_STRIPS if name == "none" else f"{name} has no DICOM transfer syntax"
        return StoredTiles(name, "RGB", decode, not_reusable=reason)
    size = page.segment_rows * columns * 3

    def to_frame(data: bytes) -> bytes:
        if len(data) != size:
            raise CorruptSourceError(f"{len(data)} bytes, expected {size}")
        return data

    frame_format = FrameFormat(_EXPLICIT_VR_LITTLE_ENDIAN, "RGB", 3)
    return StoredTiles(name, "RGB", decode, frame_format, to_frame=to_frame, sample_frame=sample)


def _inflate_fast(data: bytes, size: int) -> bytes | None:
    """Return what `data` inflates to, None if that is more than `size` bytes or the data are damaged."""
    import imagecodecs

    try:
        return bytes(imagecodecs.deflate_decode(data, out=size))
    except RuntimeError:
        return None


def _inflate(data: bytes, name: str, size: int) -> bytes:
    """Return at least the first `size` bytes of what `data` decompresses to, less if it ends before."""
    if name == "none":
        return data
    try:
        if name == "deflate":
            return zlib.decompressobj().decompress(data, size)
        import imagecodecs

        return bytes(imagecodecs.lzw_decode(data, out=size))
    except (zlib.error, RuntimeError) as error:
        raise CorruptSourceError(f"{name} data do not decode: {error}") from error
