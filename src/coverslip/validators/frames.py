"""Frames: count, order, offset tables, and what their codestreams say against the header."""

from __future__ import annotations

from array import array
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs import jpeg2000_stream, jpeg_stream
from coverslip.validators.report import Finding, Severity
from coverslip.validators.rules import finding
from coverslip.validators.series import InstanceView, SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check", "sample_indices"]

_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_LOSSLESS_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202")
_JPEG_PROCESSES = {_JPEG[0]: (0xC0,), _JPEG[1]: (0xC0, 0xC1), _JPEG[2]: (0xC3,), _JPEG[3]: (0xC3,)}

_HEADER_BYTES = 1024
_SAMPLED_FRAMES = 24
_MOST_TOLD = 10
"""Findings of one kind and instance; more tell nothing new."""


def sample_indices(instance: InstanceView, thorough: bool) -> list[int]:
    """Return which frames are decoded: all, or a fixed number, half evenly spread and half those of most bytes.

    The sample depends on the file alone. Frames of many bytes are those that show tissue.
    """
    count = instance.number_of_frames
    if thorough or count <= _SAMPLED_FRAMES:
        return list(range(count))
    spread = _SAMPLED_FRAMES // 2
    chosen = {index * (count - 1) // (spread - 1) for index in range(spread)}
    if instance.encapsulated and len(instance.items.lengths) == count:
        largest = sorted(range(count), key=lambda index: (-instance.items.lengths[index], index))
        chosen |= set(largest[:: max(1, count // 2 // spread)][:spread])
    return sorted(chosen)


def check(series: SeriesView, options: ValidationOptions) -> Iterator[Finding]:
    """Check the frames of every slide image."""
    for instance in series.slide_images:
        yield from _check_count(instance)
        if instance.pixel_element is None:
            yield finding("frames.no-pixel-data", "there is no Pixel Data element", instance.place())
            continue
        broken = list(_check_items(instance) if instance.encapsulated else _check_native(instance))
        yield from broken
        streams = list(_check_codestreams(instance)) if instance.encapsulated else []
        yield from _first(iter(streams))
        misfits = {each.place for each in streams if each.severity is Severity.ERROR}
        yield from _first(_check_decoding(instance, options.thorough, misfits))


def _first(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the first findings of each rule, and say that there are more."""
    told: dict[str, int] = {}
    last: dict[str, Finding] = {}
    for each in findings:
        told[each.rule] = told.get(each.rule, 0) + 1
        if told[each.rule] <= _MOST_TOLD:
            yield each
        last[each.rule] = each
    for rule, count in told.items():
        if count > _MOST_TOLD:
            instance = last[rule].place.partition(": frame")[0]
            yield Finding(
                rule, last[rule].severity, f"{count - _MOST_TOLD} more frames", instance, last[rule].reference
            )


def _check_count(instance: InstanceView) -> Iterator[Finding]:
    ds, place, count = instance.header, instance.place(), instance.number_of_frames
    groups = ds.get("PerFrameFunctionalGroupsSequence")
    if groups is not None and len(groups) != count:
        yield finding("frames.functional-groups", f"{len(groups)} items for {count} frames", place)
    grid = instance.grid()
    if grid is not None:
        if "ConcatenationUID" not in ds and grid.number_of_frames != count:
            rows, columns = instance.matrix_size
            yield finding(
                "frames.tiled-full-count",
                f"{count} frames, but {rows} x {columns} pixels in tiles of {grid.rows} x {grid.columns}, "
                f"{grid.focal_planes} focal planes and {grid.optical_paths} optical paths make {grid.number_of_frames}",
                place,
            )
        return
    if ds.get("DimensionOrganizationType") == "TILED_FULL":
        yield finding("frames.tiled-full-count", "the sizes of tiles and matrix are absent or zero", place)
        return
    yield from _check_sparse_positions(instance)


def _check_sparse_positions(instance: InstanceView) -> Iterator[Finding]:
    try:
        positions = instance.frame_positions
    except CorruptSourceError as error:
        yield finding("frames.position", str(error), instance.place())
        return
    rows, columns = instance.matrix_size
    seen: dict[tuple[int, int, str, float], int] = {}
    for index, position in enumerate(positions):
        row, column = position[:2]
        if not (0 <= row < rows and 0 <= column < columns):
            message = f"starts at row {row + 1}, column {column + 1} of a matrix of {rows} x {columns}"
            yield finding("frames.position", message, instance.place(index))
        if position in seen:
            yield finding("frames.position", f"lies where frame {seen[position] + 1} lies", instance.place(index))
        seen[position] = index


def _check_native(instance: InstanceView) -> Iterator[Finding]:
    assert instance.pixel_element is not None
    position, length = instance.pixel_element
    place = instance.place()
    wanted = instance.decoded_frame_bytes * instance.number_of_frames
    wanted += wanted % 2
    if length != wanted:
        yield finding("frames.native-length", f"pixel data of {length} bytes, the frames take {wanted}", place)
    if position + length > instance.size:
        missing = position + length - instance.size
        yield finding("frames.truncated", f"the file ends {missing} bytes before its pixel data do", place)
    else:
        yield from _check_end(instance, position + length)


def _check_items(instance: InstanceView) -> Iterator[Finding]:
    """Check the items against the number of frames and the offset tables, and how they end."""
    assert instance.pixel_element is not None
    place, items, count = instance.place(), instance.items, instance.number_of_frames
    if instance.pixel_element[1] != 0xFFFFFFFF:
        yield finding("frames.native-length", "encapsulated pixel data must be of undefined length", place)
        return
    if items.problem or items.end > instance.size:
        yield finding("frames.truncated", items.problem or "the file ends within the pixel data", place)
        return
    for index, length in enumerate(items.lengths):
        if length == 0:
            yield finding("frames.empty", "an item of 0 bytes", instance.place(index))
        elif length % 2:
            yield finding(
                "frames.padding", f"an item of {length} bytes, expected an even number", instance.place(index)
            )
    if len(items.lengths) < count:
        yield finding("frames.item-count", f"{len(items.lengths)} items for {count} frames", place)
    elif len(items.lengths) > count:
        try:
            several = [index for index, span in enumerate(instance.fragments) if len(span) != 1]
        except CorruptSourceError as error:
            yield finding("frames.item-count", str(error), place)
        else:
            yield finding("frames.fragments", f"{len(several)} frames are of more than one fragment", place)
    yield from _check_offset_tables(instance)
    yield from _check_end(instance, items.end)


def _check_offset_tables(instance: InstanceView) -> Iterator[Finding]:
    ds, place, items = instance.header, instance.place(), instance.items
    count = instance.number_of_frames
    basic, extended = items.basic_offset_table, ds.get("ExtendedOffsetTable")
    if basic and extended:
        yield finding("frames.offset-table", "there are a Basic and an Extended Offset Table", place)
    table = instance.offset_table
    if table is None or not items.positions:
        return
    kind = "Extended" if extended else "Basic"
    if len(table) != count:
        yield finding(
            "frames.offset-table", f"the {kind} Offset Table has {len(table)} entries for {count} frames", place
        )
        return
    starts = array("Q", (position - items.positions[0] for position in items.positions))
    one_each = len(starts) == count
    known = set(starts)
    wrong = [
        index for index, offset in enumerate(table) if (offset != starts[index] if one_each else offset not in known)
    ]
    if wrong:
        message = f"the {kind} Offset Table points beside the items of {len(wrong)} frames"
        yield finding("frames.offset-table", message, instance.place(wrong[0]))
    if extended and one_each:
        lengths = ds.get("ExtendedOffsetTableLengths") or b""
        stated = array("Q", lengths[: len(lengths) // 8 * 8])
        # The lengths are those of the frames; a padding byte may be counted or not.
        off = [
            index
            for index, (length, found) in enumerate(zip(stated, items.lengths, strict=False))
            if not found - 1 <= length <= found
        ]
        if off or len(stated) != count:
            message = f"the lengths of the Extended Offset Table are wrong for {len(off) or count - len(stated)} frames"
            yield finding("frames.offset-table", message, instance.place(off[0] if off else None))


def _check_end(instance: InstanceView, end: int) -> Iterator[Finding]:
    """Check that nothing but elements of higher tags follows the pixel data (PS3.10 7.2)."""
    rest = instance.pread(8, end)
    if rest and (len(rest) < 8 or rest[:4] not in (b"\xfc\xff\xfc\xff", b"\xfa\xff\xfa\xff")):
        yield finding("frames.trailing", f"{instance.size - end} bytes follow the pixel data", instance.place())


def _whole_frames(instance: InstanceView) -> range:
    """Return the frames that can be found and lie in the file; of the others the rules of items have told."""
    try:
        frames = range(len(instance.fragments) if instance.encapsulated else instance.number_of_frames)
        while frames and sum(instance.frame_span(frames[-1])) > instance.size:
            frames = frames[:-1]
    except CorruptSourceError:
        return range(0)
    return frames


def _check_codestreams(instance: InstanceView) -> Iterator[Finding]:
    """Check the header of every frame, and that JPEG streams end."""
    for index in _whole_frames(instance):
        if instance.frame_span(index)[1]:
            try:
                yield from _check_codestream(instance, instance.transfer_syntax_uid, index)
            except CorruptSourceError as error:
                yield finding("frames.corrupt", str(error), instance.place(index))


def _check_codestream(instance: InstanceView, syntax: str, index: int) -> Iterator[Finding]:
    place = instance.place(index)
    head = instance.read_frame(index, _HEADER_BYTES) if instance.frame_span(index)[1] > _HEADER_BYTES else b""
    head = head or instance.read_frame(index)
    kind = _kind_of(head)
    wanted = _kind_wanted(syntax)
    if wanted is None:
        return
    if kind != wanted:
        yield finding("frames.transfer-syntax", f"the frame is {kind or 'no codestream'}, expected {wanted}", place)
        return
    try:
        facts = _facts(kind, head)
    except CorruptSourceError:
        facts = _facts(kind, instance.read_frame(index))
    rows, columns, components, bits = facts.size
    if all(instance.tile_size) and (rows, columns) != instance.tile_size:
        tall, wide = instance.tile_size
        yield finding("frames.size", f"the frame is {rows} x {columns} pixels, expected {tall} x {wide}", place)
    stated = instance.frame_format
    if components != stated.samples_per_pixel:
        message = f"the frame has {components} components, Samples per Pixel is {stated.samples_per_pixel}"
        yield finding("frames.samples", message, place)
    if bits != stated.bits_stored:
        message = f"the frame has {bits} bits per sample, Bits Stored is {stated.bits_stored}"
        yield finding("frames.samples", message, place)
    yield from facts.check(syntax, stated.photometric_interpretation, place)
    if kind == "JPEG" and not _ends(instance, index):
        yield finding("frames.padding", "the JPEG stream does not end with EOI and at most one byte of padding", place)


def _ends(instance: InstanceView, index: int) -> bool:
    """Whether a JPEG frame ends with EOI, with or without a byte of padding."""
    last = instance.fragments[index][-1]
    position, length = instance.items.positions[last] + 8, instance.items.lengths[last]
    tail = instance.pread(min(3, length), position + length - min(3, length))
    return tail.endswith(b"\xff\xd9") or tail[:2] == b"\xff\xd9"


class _JpegFacts:
    """What the header of a JPEG frame says."""

    def __init__(self, head: bytes) -> None:
        self.header = jpeg_stream.parse_jpeg(head)
        self.size = (self.header.rows, self.header.columns, len(self.header.components), self.header.precision)

    def check(self, syntax: str, photometric: str, place: str) -> Iterator[Finding]:
        """Check process and colour."""
        header = self.header
        processes = _JPEG_PROCESSES.get(syntax)
        if processes and header.process not in processes:
            yield finding(
                "frames.transfer-syntax", f"JPEG process {header.process:#x} in transfer syntax {syntax}", place
            )
        if len(header.components) != 3:
            return
        identifiers = bytes(part.identifier for part in header.components)
        if photometric == "RGB":
            if header.has_jfif or header.adobe_transform == 1:
                yield finding("frames.photometric", "RGB, but the frame is marked as YCbCr", place)
            elif header.adobe_transform is None and identifiers != b"RGB":
                yield finding("frames.rgb-unmarked", "RGB without an Adobe marker, which readers take for YCbCr", place)
        elif photometric.startswith("YBR"):
            if header.adobe_transform == 0 or identifiers == b"RGB":
                yield finding("frames.photometric", f"{photometric}, but the frame is marked as RGB", place)
            elif photometric in ("YBR_RCT", "YBR_ICT"):
                yield finding("frames.photometric", f"{photometric} is for JPEG 2000, the frame is JPEG", place)
        elif photometric:
            yield finding("frames.photometric", f"{photometric}, but the frame has three components", place)


class _Jpeg2000Facts:
    """What the main header of a JPEG 2000 frame says."""

    def __init__(self, head: bytes) -> None:
        self.header = jpeg2000_stream.parse_jpeg2000(head)
        parts = self.header.components
        self.size = (self.header.rows, self.header.columns, len(parts), parts[0].bits)

    def check(self, syntax: str, photometric: str, place: str) -> Iterator[Finding]:
        """Check coding, wavelet and colour transform."""
        header = self.header
        if header.high_throughput != (syntax in _HTJ2K):
            coding = "high-throughput" if header.high_throughput else "not high-throughput"
            yield finding("frames.transfer-syntax", f"blocks are {coding} coded in transfer syntax {syntax}", place)
        elif not header.reversible and syntax in _LOSSLESS_JPEG_2000:
            yield finding("frames.transfer-syntax", "an irreversible wavelet in a lossless transfer syntax", place)
        if len(header.components) != 3:
            return
        if header.multiple_component_transform:
            wanted: tuple[str, ...] = ("YBR_RCT",) if header.reversible else ("YBR_ICT",)
        else:
            wanted = ("RGB", "YBR_FULL", "YBR_FULL_422")
        if photometric not in wanted:
            message = f"{photometric or 'absent'}, but the frame's component transform makes it {' or '.join(wanted)}"
            yield finding("frames.photometric", message, place)


class _JpegLsFacts:
    """What the header of a JPEG-LS frame says (T.87 C.2)."""

    def __init__(self, head: bytes) -> None:
        at, near, size = 2, None, None
        while at + 4 <= len(head) and head[at] == 0xFF:
            end = at + 2 + int.from_bytes(head[at + 2 : at + 4])
            body = head[at + 4 : end]
            if head[at + 1] == 0xF7 and len(body) >= 6:
                size = (int.from_bytes(body[1:3]), int.from_bytes(body[3:5]), body[5], body[0])
            elif head[at + 1] == 0xDA and len(body) >= 4:
                near = body[-3]
                break
            at = end
        if size is None or near is None:
            raise CorruptSourceError("JPEG-LS without a frame or scan header")
        self.size, self.near = size, near

    def check(self, syntax: str, photometric: str, place: str) -> Iterator[Finding]:
        """Check that what is called lossless is."""
        if self.near and syntax == _JPEG_LS[0]:
            yield finding("frames.transfer-syntax", f"near-lossless JPEG-LS (NEAR {self.near}) called lossless", place)
        if self.size[2] == 3 and photometric not in ("RGB", "YBR_FULL"):
            yield finding("frames.photometric", f"{photometric or 'absent'}, but the frame has three components", place)


def _kind_wanted(syntax: str) -> str | None:
    if syntax in _JPEG:
        return "JPEG"
    if syntax in _JPEG_LS:
        return "JPEG-LS"
    return "JPEG 2000" if syntax in (*_JPEG_2000, *_HTJ2K) else None


def _kind_of(head: bytes) -> str | None:
    if head.startswith((b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP")):
        return "JPEG 2000"
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    while at + 4 <= len(head) and head[at] == 0xFF:
        if head[at + 1] == 0xF7:
            return "JPEG-LS"
        if 0xC0 <= head[at + 1] <= 0xC3:
            return "JPEG"
        at += 2 + int.from_bytes(head[at + 2 : at + 4])
    return "JPEG"


def _facts(kind: str, head: bytes) -> _JpegFacts | _Jpeg2000Facts | _JpegLsFacts:
    if kind == "JPEG":
        return _JpegFacts(head)
    return _Jpeg2000Facts(head) if kind == "JPEG 2000" else _JpegLsFacts(head)


def _check_decoding(instance: InstanceView, thorough: bool, misfits: Collection[str]) -> Iterator[Finding]:
    """Decode a sample, or all, but for the places of frames that are known not to fit the header."""
    if not instance.decodable:
        if instance.transfer_syntax_uid:
            yield finding("frames.not-decoded", "no decoder for the transfer syntax", instance.place())
        return
    whole = _whole_frames(instance)
    for index in sample_indices(instance, thorough):
        if index not in whole or not instance.frame_span(index)[1] or instance.place(index) in misfits:
            continue
        try:
            instance.decode(index)
        except CorruptSourceError as error:
            yield finding("frames.corrupt", str(error), instance.place(index))
