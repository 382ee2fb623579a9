"""Small Part 10 files of frames that are no pictures."""

from __future__ import annotations

import io
from pathlib import Path

from pydicom import Dataset, dcmwrite
from pydicom.uid import UID

from coverslip.converter.instance_writer import HeaderWriter, InstanceWriter, WrittenInstance
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.validators.structure import StructureExpectation

__all__ = ["FRAMES", "JPEG", "LOSSLESS", "PLAIN", "SOP_INSTANCE_UID", "expected", "header", "padded", "write"]

JPEG = FrameFormat("1.2.840.10008.1.2.4.50", "RGB", 3, 8, "ISO_10918_1")
LOSSLESS = FrameFormat("1.2.840.10008.1.2.4.90", "YBR_RCT", 3, 8)
PLAIN = FrameFormat("1.2.840.10008.1.2.1", "RGB", 3, 8)
SOP_INSTANCE_UID = "2.25.1234"
FRAMES = [b"one", b"four", b"sevenxx", b"12345678"]


def header(frame_format: FrameFormat, rows: int, columns: int, number_of_frames: int) -> HeaderWriter:
    """Return what writes a small header."""

    def write(ratio: float | None) -> bytes:
        ds = Dataset()
        ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.77.1.6"
        ds.SOPInstanceUID = SOP_INSTANCE_UID
        ds.NumberOfFrames = number_of_frames
        ds.Rows, ds.Columns = rows, columns
        ds.SamplesPerPixel = frame_format.samples_per_pixel
        ds.BitsAllocated = ds.BitsStored = frame_format.bits_allocated
        if ratio is not None:
            ds.LossyImageCompressionRatio = f"{ratio:06.2f}"
        ds.ensure_file_meta()
        ds.file_meta.TransferSyntaxUID = UID(frame_format.transfer_syntax_uid)
        buffer = io.BytesIO()
        dcmwrite(buffer, ds, enforce_file_format=True)
        return buffer.getvalue()

    return write


def write(
    path: Path,
    frames: list[bytes],
    frame_format: FrameFormat = JPEG,
    *,
    table: str = "auto",
    size: tuple[int, int] = (4, 4),
    number_of_frames: int = 0,
    write_header: HeaderWriter | None = None,
) -> WrittenInstance:
    rows, columns = size
    number_of_frames = number_of_frames or len(frames)
    decoded = rows * columns * frame_format.samples_per_pixel * frame_format.bits_allocated // 8
    write_header = write_header or header(frame_format, rows, columns, number_of_frames)
    with InstanceWriter(path, write_header, frame_format, number_of_frames, decoded, table) as writer:
        writer.write_frames(frames[:1])
        writer.write_frames(frames[1:])
        return writer.finish()


def expected(written: WrittenInstance, frame_format: FrameFormat = JPEG) -> StructureExpectation:
    return StructureExpectation(
        SOP_INSTANCE_UID,
        frame_format.transfer_syntax_uid,
        written.number_of_frames,
        written.size_bytes,
        written.offset_table,
    )


def padded(frames: list[bytes]) -> list[bytes]:
    return [frame + bytes(len(frame) % 2) for frame in frames]
