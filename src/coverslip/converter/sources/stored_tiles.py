"""How the tiles of one TIFF page are stored: as DICOM frames where their bytes allow, and as pixels always."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from coverslip.converter.sources.plain_tiles import compresses_samples, read_samples, sample_layout
from coverslip.converter.sources.tiff_structure import Compression, Photometric, TagCode, TiffPage
from coverslip.errors import CorruptSourceError, UnsupportedSourceError
from coverslip.tiler.codecs import jpeg_stream, make_decoder
from coverslip.tiler.codecs.base import FrameFormat, Pixels

__all__ = ["StoredTiles", "open_stored_tiles", "unreadable_kind"]

_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
_MOST_PIXELS = 1 << 25
"""Most pixels of one tile or strip: 96 MB decoded."""
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
    Compression.ZSTD: "Zstandard",
    Compression.WEBP: "WebP",
}
_PHOTOMETRICS: dict[int, str] = {
    Photometric.WHITE_IS_ZERO: "monochrome",
    Photometric.BLACK_IS_ZERO: "monochrome",
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
        Takes the stored bytes and the number of rows they hold, returns (rows, columns, samples) uint8, RGB unless
        there is a `to_rgb`; raises `CorruptSourceError` without a place.
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
    planes : int
        Stored tiles that together make one of pixels, each with one sample: 1, or 3 or 4.
    to_rgb : callable or None
        Takes the samples of all planes, returns (rows, columns, 3) uint8 RGB.
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
    planes: int = 1
    to_rgb: Callable[[Pixels], Pixels] | None = None


def unreadable_kind(page: TiffPage) -> str | None:
    """Say what keeps a page from being read as 8-bit RGB, e.g. ``"16-bit monochrome"``; None if nothing does."""
    samples = page.integer(TagCode.SAMPLES_PER_PIXEL, 1)
    bits = page.integers(TagCode.BITS_PER_SAMPLE) or [1]
    compression = _NAMES.get(page.compression)
    predictor = page.integer(TagCode.PREDICTOR, 1)
    ycbcr = page.photometric == Photometric.YCBCR
    planar = page.integer(TagCode.PLANAR_CONFIGURATION, 1) != 1
    palette = page.photometric == Photometric.PALETTE
    plain = compression is not None and compresses_samples(compression)
    problems = (
        (page.integer(TagCode.SAMPLE_FORMAT, 1) == 3, f"{bits[0]}-bit floating point samples"),
        (page.photometric in _PHOTOMETRICS, f"{bits[0]}-bit {_PHOTOMETRICS.get(page.photometric)}"),
        (set(bits) != {8}, f"{bits[0]}-bit samples"),
        (compression is None, f"TIFF compression {page.compression}"),
        (palette and not (samples == 1 and plain), f"palette colour of {samples} samples, or in {compression}"),
        (samples == 4 and not (plain or compression == "WebP"), f"4 samples per pixel (RGBA) in {compression}"),
        (samples not in (3, 4) and not palette, f"{samples} samples per pixel"),
        (page.photometric not in (Photometric.RGB, Photometric.PALETTE) and not ycbcr,
         f"photometric interpretation {page.photometric}"),
        (planar and not plain, f"separate colour planes in {compression}"),
        (ycbcr and (plain or compression == "WebP"), "YCbCr without JPEG compression"),
        (predictor not in (1, 2), f"TIFF predictor {predictor}"),
    )  # fmt: skip
    return next((words for found, words in problems if found), None)


def open_stored_tiles(
    page: TiffPage, sample: bytes | None, background: tuple[int, int, int] = (255, 255, 255)
) -> StoredTiles:
    """Find out from the first stored tile what the tiles of a page are.

    Parameters
    ----------
    page : TiffPage
    sample : bytes or None
        The stored bytes of one tile; None if the file holds none.
    background : tuple of int
        RGB under what is transparent.

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
    elif name == "WebP":
        tiles = _webp_tiles(page, sample, background)
    else:
        tiles = _plain_tiles(page, name, sample, background)
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


def _plain_tiles(page: TiffPage, name: str, sample: bytes, background: tuple[int, int, int]) -> StoredTiles:
    """Pixels as they are, or behind a lossless general purpose compression."""
    layout = sample_layout(page, background)
    decode = read_samples(page, name, layout.samples)
    reason = layout.reason
    if name != "none":
        reason = f"{name} has no DICOM transfer syntax"
    elif not page.is_tiled:
        reason = _IN_STRIPS
    if reason is not None:
        return StoredTiles(name, layout.name, decode, not_reusable=reason, planes=layout.planes, to_rgb=layout.to_rgb)
    size = page.segment_rows * page.segment_columns * 3

    def to_frame(data: bytes) -> bytes:
        if len(data) != size:
            raise CorruptSourceError(f"{len(data)} bytes, expected {size}")
        return data

    frame_format = FrameFormat(_EXPLICIT_VR_LITTLE_ENDIAN, "RGB", 3)
    return StoredTiles(name, "RGB", decode, frame_format, to_frame=to_frame, sample_frame=sample)


def _webp_tiles(page: TiffPage, sample: bytes, background: tuple[int, int, int]) -> StoredTiles:
    """WebP pictures, lossy or not, of RGB or RGBA."""
    layout = sample_layout(page, background)
    columns = page.segment_columns

    def decode(data: bytes, rows: int) -> Pixels:
        import imagecodecs

        pixels = np.empty((rows, columns, layout.samples), np.uint8)
        try:
            imagecodecs.webp_decode(data, hasalpha=layout.samples == 4, out=pixels)
        except (RuntimeError, ValueError) as error:
            raise CorruptSourceError(f"WebP does not decode: {error}") from error
        return pixels

    lossless = sample[12:16] == b"VP8L" or (sample[12:16] == b"VP8X" and b"VP8L" in sample[16:200])
    return StoredTiles(
        "WebP",
        layout.name,
        decode,
        not_reusable="WebP has no DICOM transfer syntax",
        lossy_method=None if lossless else "WEBP",
        to_rgb=layout.to_rgb,
    )
