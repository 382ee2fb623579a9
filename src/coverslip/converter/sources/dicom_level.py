"""One resolution of a DICOM slide made elsewhere: its frames as they are, and its pixels."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import UID

from coverslip.converter.sources.base import PixelSpacing
from coverslip.converter.sources.tile_region import read_tiled_region
from coverslip.errors import CorruptSourceError, SourceError, StoreError, UnsupportedSourceError
from coverslip.tiler.codecs import encoder_like, jpeg_stream, make_decoder
from coverslip.tiler.codecs.base import FrameDecoder, FrameFormat, Pixels
from coverslip.tiler.codecs.frame_check import FrameCheck
from coverslip.tiler.grid import TileAddress, TileGrid
from coverslip.validators.instance import InstanceView

__all__ = ["DicomLevel", "unreadable_kind"]

_NATIVE = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_JPEG_LS = "1.2.840.10008.1.2.4.80"
_NAMES = {
    **dict.fromkeys(_NATIVE, "none"),
    **dict.fromkeys(_JPEG, "JPEG"),
    **dict.fromkeys((*_JPEG_2000, *_HTJ2K), "JPEG 2000"),
    _JPEG_LS: "JPEG-LS",
}
_MOST_PIXELS = 1 << 25
"""Most pixels of one frame: 96 MB decoded."""
_MOST_FRAMES = 1 << 26


def unreadable_kind(instance: InstanceView) -> str | None:
    """Say what keeps the frames of an instance from being read as 8-bit RGB; None if nothing does."""
    uid = instance.transfer_syntax_uid
    photometric = str(instance.header.get("PhotometricInterpretation", ""))
    bits, stored = instance.number("BitsAllocated"), instance.number("BitsStored")
    samples = instance.number("SamplesPerPixel")
    rows, columns = instance.tile_size
    problems = (
        ("FloatPixelData" in instance.header or bits > 16, f"{bits}-bit samples"),
        (samples == 1, f"{bits}-bit monochrome frames"),
        (samples != 3, f"{samples} samples per pixel"),
        ((bits, stored) != (8, 8), f"{stored}-bit samples"),
        (
            uid not in _NAMES,
            f"frames in {UID(uid).name if UID(uid).is_transfer_syntax else 'no known transfer syntax'}",
        ),
        (uid in _NATIVE and photometric != "RGB", "uncompressed frames that are not RGB"),
        # Their stream does not tell the colour space (PS3.5 Table 8.2.3-1 allows YBR_FULL too).
        (uid == _JPEG_LS and photometric != "RGB", "JPEG-LS frames that are not RGB"),
        (instance.number("PixelRepresentation") != 0, "signed samples"),
        (not 0 < rows * columns <= _MOST_PIXELS, f"frames of {rows} x {columns} pixels"),
    )
    return next((words for found, words in problems if found), None)


class DicomLevel:
    """A VOLUME instance, or the parts of a concatenation, as a `SourceLevel`; thread safe.

    Parameters
    ----------
    parts : sequence of InstanceView
        In the order of their frames; of more than one only in a concatenation. All of one kind.
    level_index : int
    background : tuple of int
        RGB of what a missing tile is read as.
    planes_um : sequence of float
        Z of the focal planes that the slide has.

    Raises
    ------
    UnsupportedSourceError
        If frames do not lie in a grid.
    CorruptSourceError
        If frames are missing, or the first is not what the header says.
    """

    dtype: np.dtype[np.generic] = np.dtype(np.uint8)
    samples_per_pixel = 3

    def __init__(
        self,
        parts: Sequence[InstanceView],
        level_index: int,
        *,
        background: tuple[int, int, int],
        planes_um: Sequence[float] = (0.0,),
    ) -> None:
        self._parts = parts
        first = parts[0]
        self.level_index = level_index
        self._background = np.array(background, np.uint8)
        self.grid = _grid(first, len(planes_um))
        self._starts = list(accumulate((part.number_of_frames for part in parts[:-1]), initial=0))
        self._frames = self._frames_of_cells(planes_um)
        self.pixel_spacing: PixelSpacing | None = None
        self.compression = _NAMES[first.transfer_syntax_uid]
        self.stored_bytes = sum(self._stored_bytes(part) for part in parts)
        self._planar = first.number("PlanarConfiguration") == 1 and not first.encapsulated
        self._splicer: jpeg_stream.JpegSplicer | None = None
        sample = self._read_stored(self._first_frame())
        self._format, self.color = self._describe(sample)
        self.not_reusable = "colour planes of a frame are stored apart" if self._planar else None
        self.frame_format: FrameFormat | None = None if self._planar else self._format
        self._sample = self._to_frame(sample)
        self.lossy_history = _history(first, own=self._format.lossy_method is not None)
        self.lossy_method = self._format.lossy_method or (self.lossy_history[-1][0] if self.lossy_history else None)

    @property
    def decoding_unit(self) -> tuple[int, int]:
        """See `ReadableLevel`."""
        return self.grid.rows, self.grid.columns

    @property
    def missing_tiles(self) -> int:
        """Cells of the grid that have no frame."""
        return int((self._frames < 0).sum())

    @property
    def marker_added(self) -> bool:
        """Whether frames get the marker that says their components are RGB."""
        return self._splicer is not None

    @property
    def color_differs(self) -> bool:
        """Whether the frames themselves say that they hold something else than the header says."""
        stated = str(self._parts[0].header.get("PhotometricInterpretation", ""))
        return (self._format.photometric_interpretation == "RGB") != (stated == "RGB")

    def read_frame(self, address: TileAddress) -> bytes | None:
        """See `ReadableLevel`: the bytes of the item, with their padding."""
        if self.frame_format is None:
            raise ValueError(f"level {self.level_index} has no stored frames: {self.not_reusable}")
        frame = self._frame_of(address)
        if frame < 0:
            return None
        try:
            return self._to_frame(self._read_stored(frame))
        except CorruptSourceError as error:
            raise self._corrupt(error, frame) from error

    def expected_frame_lengths(self) -> list[int] | None:
        """See `ReadableLevel`."""
        lengths: list[int] = []
        for part in self._parts:
            if not part.encapsulated:
                lengths += [part.decoded_frame_bytes] * part.number_of_frames
            elif len(part.items.lengths) == part.number_of_frames and not self._splicer:
                lengths += part.items.lengths.tolist()
            else:
                return None
        return [lengths[frame] if frame >= 0 else len(self._blank_frame) for frame in self._frames.tolist()]

    def check_frame(self, frame: bytes, address: TileAddress) -> None:
        """See `ReadableLevel`."""
        try:
            self._check.check(frame)
        except CorruptSourceError as error:
            raise self._corrupt(error, self._frame_of(address)) from error

    @cached_property
    def _check(self) -> FrameCheck:
        return FrameCheck(self._format)

    def decode_frame(self, frame: bytes, address: TileAddress) -> Pixels:
        """See `ReadableLevel`."""
        if self.frame_format is None:
            raise ValueError(f"level {self.level_index} has no stored frames: {self.not_reusable}")
        try:
            return self._decoder.decode(frame)
        except CorruptSourceError as error:
            raise self._corrupt(error, self._frame_of(address)) from error

    def decode_half_frame(self, frame: bytes, address: TileAddress) -> Pixels | None:
        """See `ReadableLevel`."""
        try:
            return self._decoder.decode_half(frame)
        except CorruptSourceError as error:
            raise self._corrupt(error, self._frame_of(address)) from error

    def blank_frame(self) -> bytes:
        """See `ReadableLevel`."""
        if self.frame_format is None:
            raise ValueError(f"level {self.level_index} has no stored frames: {self.not_reusable}")
        return self._blank_frame

    @cached_property
    def _blank_frame(self) -> bytes:
        encoder = encoder_like(self._format, self._sample)
        return encoder.encode(np.full((self.grid.rows, self.grid.columns, 3), self._background))

    @cached_property
    def _decoder(self) -> FrameDecoder:
        return make_decoder(self._format, rows=self.grid.rows, columns=self.grid.columns)

    def read_region(
        self,
        row: int,
        column: int,
        rows: int,
        columns: int,
        *,
        focal_plane_index: int = 0,
        optical_path_index: int = 0,
    ) -> tuple[Pixels, int]:
        """See `ReadableLevel`."""

        def read_tile(address: TileAddress) -> Pixels | None:
            frame = self._frame_of(address._replace(focal_plane_index=focal_plane_index))
            if frame < 0:
                return None
            try:
                pixels = self._decoder.decode(self._to_frame(self._read_stored(frame)))
            except CorruptSourceError as error:
                raise self._corrupt(error, frame) from error
            return pixels.reshape(3, *self.decoding_unit).transpose(1, 2, 0) if self._planar else pixels

        return read_tiled_region(self.grid, (row, column), (rows, columns), self._background, read_tile)

    @property
    def loss_untold(self) -> bool:
        """Whether the header says that something was lost, and neither it nor the frames say how."""
        said = any(str(part.header.get("LossyImageCompression", "")) == "01" for part in self._parts)
        return said and self.lossy_method is None

    def _frame_of(self, address: TileAddress) -> int:
        return self._frames.item(self.grid.frame_index(address))

    def _first_frame(self) -> int:
        held = self._frames[self._frames >= 0]
        if not held.size:
            raise CorruptSourceError("no frame of the level has a place in it", level_index=self.level_index)
        return int(held.min())

    def _read_stored(self, frame: int) -> bytes:
        part, index = self._place(frame)
        try:
            return part.read_frame(index)
        except CorruptSourceError as error:
            raise self._corrupt(error, frame) from error
        except StoreError as error:
            raise SourceError(str(error)) from error

    def _to_frame(self, data: bytes) -> bytes:
        if not self.compression.startswith("JPEG"):
            return data
        start = b"\xff\x4f" if self.compression == "JPEG 2000" else b"\xff\xd8"
        if not data.startswith(start):
            found = f"starts with {data[:2].hex()}" if data else "0 bytes"
            raise CorruptSourceError(f"{found}, expected {self.compression}")
        return self._splicer.splice(data) if self._splicer else data

    def _place(self, frame: int) -> tuple[InstanceView, int]:
        number = bisect_right(self._starts, frame) - 1
        return self._parts[number], frame - self._starts[number]

    def _frames_of_cells(self, planes_um: Sequence[float]) -> NDArray[np.int64]:
        """Return the frame that holds each cell of the grid, -1 for none."""
        grid, parts = self.grid, self._parts
        count = sum(part.number_of_frames for part in parts)
        if parts[0].header.get("DimensionOrganizationType") == "TILED_FULL":
            if count != grid.number_of_frames:
                message = f"{count} frames, expected {grid.number_of_frames}"
                raise CorruptSourceError(message, level_index=self.level_index)
            return self._without_empty(np.arange(count))
        frames = np.full(grid.number_of_frames, -1, np.int64)
        positions = [position for part in parts for position in part.frame_positions]
        if len(positions) != count:
            message = f"places of {len(positions)} frames, expected {count}"
            raise CorruptSourceError(message, level_index=self.level_index)
        planes = {round(z, 3): index for index, z in enumerate(planes_um)}
        for frame, (row, column, _path, z) in enumerate(positions):
            plane = planes.get(round(z, 3), 0 if len(planes) == 1 else -1)
            if plane < 0:
                raise UnsupportedSourceError(
                    "a DICOM slide whose levels have different focal planes, which is not read"
                )
            cell = TileAddress(row // grid.rows, column // grid.columns, plane)
            if row % grid.rows or column % grid.columns:
                raise UnsupportedSourceError("a DICOM slide whose frames do not lie in a grid, which is not read")
            if not (0 <= cell.row_index < grid.tile_rows and 0 <= cell.column_index < grid.tile_columns):
                raise CorruptSourceError("lies outside the matrix", level_index=self.level_index, frame_index=frame)
            index = grid.frame_index(cell)
            if frames[index] >= 0:
                raise UnsupportedSourceError("a DICOM slide with several frames at one place, which is not read yet")
            frames[index] = frame
        return self._without_empty(frames)

    def _without_empty(self, frames: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the frames of the cells without those that have an item of no bytes."""
        for part, start in zip(self._parts, self._starts, strict=True):
            if part.encapsulated and len(part.items.lengths) == part.number_of_frames:
                empty = start + np.flatnonzero(np.asarray(part.items.lengths) == 0)
                frames[np.isin(frames, empty)] = -1
        return frames

    def _stored_bytes(self, part: InstanceView) -> int:
        if part.encapsulated:
            return sum(part.items.lengths)
        whole = part.number_of_frames * part.decoded_frame_bytes
        if len(part.whole_frames) < part.number_of_frames:
            frame = len(part.whole_frames)
            raise CorruptSourceError("the file ends before it", level_index=self.level_index, frame_index=frame)
        return whole

    def _describe(self, sample: bytes) -> tuple[FrameFormat, str]:
        """Return what frames are, by the first of them, and their components in words."""
        part = self._parts[0]
        uid, stated = part.transfer_syntax_uid, str(part.header.get("PhotometricInterpretation", ""))
        found: FrameFormat | str
        try:
            if uid in _JPEG:
                header = jpeg_stream.parse_jpeg(sample)
                # Every decoder goes by the stream's own markers; only without them the header is asked.
                marked = header.has_jfif or header.adobe_transform is not None
                rgb = header.adobe_transform == 0 or (stated == "RGB" and not marked)
                if rgb and header.adobe_transform is None:
                    self._splicer = jpeg_stream.JpegSplicer(None, color="rgb")
                found = jpeg_stream.dicom_format(header, "rgb" if rgb else "ycbcr")
                color = "RGB" if rgb else f"YCbCr {header.sampling}"
            elif uid in _JPEG_2000 or uid in _HTJ2K:
                from coverslip.tiler.codecs.jpeg2000_stream import dicom_format, parse_jpeg2000

                codestream = parse_jpeg2000(sample)
                ycbcr = stated.startswith("YBR_FULL")
                found = dicom_format(codestream, ycbcr_components=ycbcr)
                color = "YCbCr" if ycbcr and not codestream.multiple_component_transform else "RGB"
            elif uid == _JPEG_LS:
                found, color = FrameFormat(uid, "RGB", 3), "RGB"
            else:
                found, color = FrameFormat(_NATIVE[1], "RGB", 3), "RGB"
        except CorruptSourceError as error:
            raise self._corrupt(error, self._first_frame()) from error
        if isinstance(found, str):
            raise UnsupportedSourceError(f"a DICOM slide of {found}")
        return found, color

    def _corrupt(self, error: CorruptSourceError, frame: int) -> CorruptSourceError:
        part, index = self._place(frame)
        try:
            offset: int | None = part.frame_span(index)[0]
        except CorruptSourceError:
            offset = None
        return CorruptSourceError(
            error.reason, level_index=self.level_index, frame_index=frame, byte_offset=error.byte_offset or offset
        )


def _grid(instance: InstanceView, focal_planes: int) -> TileGrid:
    """Return the grid of tiles, of one optical path."""
    try:
        grid = TileGrid(*instance.matrix_size, *instance.tile_size, focal_planes)
    except ValueError as error:
        raise CorruptSourceError(f"sizes of matrix and frames that make no grid: {error}") from error
    if grid.number_of_frames > _MOST_FRAMES:
        raise CorruptSourceError(f"a grid of {grid.number_of_frames} frames, which no slide has")
    return grid


def _history(instance: InstanceView, *, own: bool) -> tuple[tuple[str, float], ...]:
    """Return method and ratio of each lossy compression that the header tells of, without the frames' own."""

    def values(keyword: str) -> list[str]:
        value = instance.header.get(keyword)
        return [str(each) for each in (value if not isinstance(value, str | float | int | None) else [value])]

    steps: list[tuple[str, float]] = []
    for method, ratio in zip(values("LossyImageCompressionMethod"), values("LossyImageCompressionRatio"), strict=False):
        try:
            number = float(ratio)
        except ValueError:
            continue
        if method in ("ISO_10918_1", "ISO_14495_1", "ISO_15444_1", "ISO_15444_15") and 1 <= number < 1e6:
            steps.append((method, number))
    return tuple(steps[:-1] if own else steps)
