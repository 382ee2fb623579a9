"""Frames: count, order, offset tables, and what their codestreams say against the header."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from coverslip.errors import CorruptSourceError
from coverslip.tiler.codecs import jpeg2000_stream, jpeg_stream
from coverslip.validators.codestream_header import kind_of
from coverslip.validators.instance import InstanceView
from coverslip.validators.report import Finding, Severity, first_of_each_rule
from coverslip.validators.rules import RULES, finding
from coverslip.validators.series import SeriesView

if TYPE_CHECKING:
    from coverslip.validators.validate import ValidationOptions

__all__ = ["check", "misfits", "sample_indices"]

_JPEG = ("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_JPEG_LS = ("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81")
_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
_HTJ2K = ("1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202", "1.2.840.10008.1.2.4.203")
_LOSSLESS_JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201", "1.2.840.10008.1.2.4.202")
_JPEG_PROCESSES = {_JPEG[0]: (0xC0,), _JPEG[1]: (0xC0, 0xC1), _JPEG[2]: (0xC3,), _JPEG[3]: (0xC3,)}

_WHOLE_FRAMES = 24
_FEWEST_SAMPLED, _MOST_SAMPLED = 8, 24
_SAMPLED_SHARE = 32


def sample_indices(instance: InstanceView, thorough: bool) -> list[int]:
    """Return which frames are decoded: all, or one of 32, within bounds, half evenly spread and half of most bytes.

    The sample depends on the file alone. Frames of many bytes are those that show tissue; the one of fewest, which is
    decoded too, is the blank one if there is any.
    """
    count = instance.number_of_frames
    if thorough or count <= _WHOLE_FRAMES:
        return list(range(count))
    spread = min(_MOST_SAMPLED, max(_FEWEST_SAMPLED, count // _SAMPLED_SHARE)) // 2
    chosen = {index * (count - 1) // (spread - 1) for index in range(spread)}
    if instance.encapsulated and len(instance.items.lengths) == count:
        largest = sorted(range(count), key=lambda index: (-instance.items.lengths[index], index))
        chosen |= {*largest[:: max(1, count // 2 // spread)][:spread], largest[-1]}
    return sorted(chosen)


def check(series: SeriesView, _options: ValidationOptions) -> Iterator[Finding]:
    """Check the frames of every slide image, but for decoding them."""
    for instance in series.slide_images:
        yield from _check_count(instance)
        if instance.pixel_element is None:
            yield finding("frames.no-pixel-data", "there is no Pixel Data element", instance.place())
            continue
        yield from first_of_each_rule(_check_items(instance) if instance.encapsulated else _check_native(instance))
        if instance.encapsulated:
            yield from first_of_each_rule(_check_codestreams(instance))


def misfits(instance: InstanceView) -> set[int]:
    """Return the frames whose codestreams are not what the header says, of which decoding would only tell the same."""
    if not instance.encapsulated or instance.pixel_element is None:
        return set()
    try:
        return {
            index
            for header, frames in instance.frame_headers()
            if any(severity is Severity.ERROR for _, severity, _ in _check_header(instance, header, frames[0]))
            for index in frames
        }
    except CorruptSourceError:
        return set()


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
    lengths = np.asarray(items.lengths)
    for index in np.flatnonzero(lengths == 0).tolist():
        yield finding("frames.empty", "an item of 0 bytes", instance.place(index))
    for index in np.flatnonzero(lengths % 2).tolist():
        message = f"an item of {lengths[index]} bytes, expected an even number"
        yield finding("frames.padding", message, instance.place(index))
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
    starts = np.asarray(items.positions) - items.positions[0]
    one_each = len(starts) == count
    wrong = np.flatnonzero(np.asarray(table) != starts if one_each else ~np.isin(table, starts))
    if len(wrong):
        message = f"the {kind} Offset Table points beside the items of {len(wrong)} frames"
        yield finding("frames.offset-table", message, instance.place(int(wrong[0])))
    if extended and one_each:
        lengths = ds.get("ExtendedOffsetTableLengths") or b""
        stated = np.frombuffer(lengths[: len(lengths) // 8 * 8], np.uint64)
        found = np.asarray(items.lengths)
        if len(stated) != count:
            message = f"the Extended Offset Table has {len(stated)} lengths for {count} frames"
            yield finding("frames.offset-table", message, place)
        # The lengths are those of the frames; a padding byte may be counted or not.
        elif len(off := np.flatnonzero((stated != found) & (stated + 1 != found))):
            message = f"the lengths of the Extended Offset Table are wrong for {len(off)} frames"
            yield finding("frames.offset-table", message, instance.place(int(off[0])))


def _check_end(instance: InstanceView, end: int) -> Iterator[Finding]:
    """Check that nothing but elements of higher tags follows the pixel data (PS3.10 7.2)."""
    rest = instance.pread(8, end)
    if rest and (len(rest) < 8 or rest[:4] not in (b"\xfc\xff\xfc\xff", b"\xfa\xff\xfa\xff")):
        yield finding("frames.trailing", f"{instance.size - end} bytes follow the pixel data", instance.place())


def _check_codestreams(instance: InstanceView) -> Iterator[Finding]:
    """Check the header of every frame, each different one once, and that JPEG streams end."""
    try:
        for header, frames in instance.frame_headers():
            problems = list(_check_header(instance, header, frames[0]))
            for index in frames if problems else ():
                yield from (finding(rule, message, instance.place(index)) for rule, _, message in problems)
    except CorruptSourceError:
        return  # told by the rules of items
    if instance.transfer_syntax_uid in _JPEG:
        for index in _endless(instance):
            message = "the JPEG stream does not end with EOI and at most one byte of padding"
            yield finding("frames.padding", message, instance.place(index))


def _check_header(instance: InstanceView, header: bytes, frame_index: int) -> Iterator[tuple[str, Severity, str]]:
    """Yield (rule, severity, message) of what a codestream's header says against that of the instance."""
    syntax = instance.transfer_syntax_uid
    kind, wanted = kind_of(header), _kind_wanted(syntax)
    if wanted is None:
        return
    if kind != wanted:
        yield _problem("frames.transfer-syntax", f"the frame is {kind or 'no codestream'}, expected {wanted}")
        return
    try:
        try:
            facts = _facts(kind, header)
        except CorruptSourceError:
            facts = _facts(kind, instance.read_frame(frame_index))
    except CorruptSourceError as error:
        yield _problem("frames.corrupt", str(error))
        return
    rows, columns, components, bits = facts.size
    if all(instance.tile_size) and (rows, columns) != instance.tile_size:
        tall, wide = instance.tile_size
        yield _problem("frames.size", f"the frame is {rows} x {columns} pixels, expected {tall} x {wide}")
    stated = instance.frame_format
    if components != stated.samples_per_pixel:
        message = f"the frame has {components} components, Samples per Pixel is {stated.samples_per_pixel}"
        yield _problem("frames.samples", message)
    if bits != stated.bits_stored:
        yield _problem("frames.samples", f"the frame has {bits} bits per sample, Bits Stored is {stated.bits_stored}")
    yield from facts.check(syntax, stated.photometric_interpretation)


def _problem(rule: str, message: str) -> tuple[str, Severity, str]:
    return rule, RULES[rule].severity, message


def _endless(instance: InstanceView) -> list[int]:
    """Return the frames that end otherwise than with EOI, or with EOI and a byte of padding."""
    lasts = [span[-1] for span in instance.fragments if span]
    items = instance.items
    tails = np.frombuffer(items.tails, np.uint8).reshape(-1, 3)
    if len(lasts) != len(instance.fragments) or max(lasts, default=0) >= len(tails):
        return []
    tails = tails[lasts]
    ended = (tails[:, 1:] == (0xFF, 0xD9)).all(axis=1) | (tails[:, :2] == (0xFF, 0xD9)).all(axis=1)
    return np.flatnonzero(~ended & (np.asarray(items.lengths)[lasts] > 0)).tolist()


class _JpegFacts:
    """What the header of a JPEG frame says."""

    def __init__(self, head: bytes) -> None:
        self.header = jpeg_stream.parse_jpeg(head)
        self.size = (self.header.rows, self.header.columns, len(self.header.components), self.header.precision)

    def check(self, syntax: str, photometric: str) -> Iterator[tuple[str, Severity, str]]:
        """Check process and colour."""
        header = self.header
        processes = _JPEG_PROCESSES.get(syntax)
        if processes and header.process not in processes:
            yield _problem("frames.transfer-syntax", f"JPEG process {header.process:#x} in transfer syntax {syntax}")
        if len(header.components) != 3:
            return
        identifiers = bytes(part.identifier for part in header.components)
        if photometric == "RGB":
            if header.has_jfif or header.adobe_transform == 1:
                yield _problem("frames.photometric", "RGB, but the frame is marked as YCbCr")
            elif header.adobe_transform is None and identifiers != b"RGB":
                yield _problem("frames.rgb-unmarked", "RGB without an Adobe marker, which readers take for YCbCr")
        elif photometric.startswith("YBR"):
            if header.adobe_transform == 0 or identifiers == b"RGB":
                yield _problem("frames.photometric", f"{photometric}, but the frame is marked as RGB")
            elif photometric in ("YBR_RCT", "YBR_ICT"):
                yield _problem("frames.photometric", f"{photometric} is for JPEG 2000, the frame is JPEG")
        elif photometric:
            yield _problem("frames.photometric", f"{photometric}, but the frame has three components")


class _Jpeg2000Facts:
    """What the main header of a JPEG 2000 frame says."""

    def __init__(self, head: bytes) -> None:
        self.header = jpeg2000_stream.parse_jpeg2000(head)
        parts = self.header.components
        self.size = (self.header.rows, self.header.columns, len(parts), parts[0].bits)

    def check(self, syntax: str, photometric: str) -> Iterator[tuple[str, Severity, str]]:
        """Check coding, wavelet and colour transform."""
        header = self.header
        if header.high_throughput != (syntax in _HTJ2K):
            coding = "high-throughput" if header.high_throughput else "not high-throughput"
            yield _problem("frames.transfer-syntax", f"blocks are {coding} coded in transfer syntax {syntax}")
        elif not header.reversible and syntax in _LOSSLESS_JPEG_2000:
            yield _problem("frames.transfer-syntax", "an irreversible wavelet in a lossless transfer syntax")
        if len(header.components) != 3:
            return
        if header.multiple_component_transform:
            wanted: tuple[str, ...] = ("YBR_RCT",) if header.reversible else ("YBR_ICT",)
        else:
            wanted = ("RGB", "YBR_FULL", "YBR_FULL_422")
        if photometric not in wanted:
            message = f"{photometric or 'absent'}, but the frame's component transform makes it {' or '.join(wanted)}"
            yield _problem("frames.photometric", message)


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

    def check(self, syntax: str, photometric: str) -> Iterator[tuple[str, Severity, str]]:
        """Check that what is called lossless is."""
        if self.near and syntax == _JPEG_LS[0]:
            yield _problem("frames.transfer-syntax", f"near-lossless JPEG-LS (NEAR {self.near}) called lossless")
        if self.size[2] == 3 and photometric not in ("RGB", "YBR_FULL"):
            yield _problem("frames.photometric", f"{photometric or 'absent'}, but the frame has three components")


def _kind_wanted(syntax: str) -> str | None:
    if syntax in _JPEG:
        return "JPEG"
    if syntax in _JPEG_LS:
        return "JPEG-LS"
    return "JPEG 2000" if syntax in (*_JPEG_2000, *_HTJ2K) else None


def _facts(kind: str, head: bytes) -> _JpegFacts | _Jpeg2000Facts | _JpegLsFacts:
    if kind == "JPEG":
        return _JpegFacts(head)
    return _Jpeg2000Facts(head) if kind == "JPEG 2000" else _JpegLsFacts(head)
