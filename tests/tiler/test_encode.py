"""The streaming pass, against a plain computation on whole arrays."""

from __future__ import annotations

import threading
import time
import weakref

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.factories.levels import ArrayLevel

from coverslip.errors import CorruptSourceError, EncodingError
from coverslip.tiler.block import Block, Segment
from coverslip.tiler.codecs import make_encoder, parse_codec
from coverslip.tiler.codecs.base import FrameFormat, Pixels
from coverslip.tiler.encode import Workload, encode_pyramid
from coverslip.tiler.grid import TileAddress
from coverslip.tiler.pyramid import Pyramid, PyramidOptions, StoredLevel, plan_pyramid

NATIVE = parse_codec("none")


def picture(rows: int, columns: int, samples: int = 3, dtype: type = np.uint8, *, planes: tuple[int, int] = (1, 1)):
    """Random pixels: no two places alike, so that any mix-up shows."""
    top = 65536 if dtype == np.uint16 else 256
    return np.random.default_rng(rows * 7 + columns).integers(0, top, (*planes, rows, columns, samples)).astype(dtype)


def plan(*levels: ArrayLevel, **options: object) -> Pyramid:
    stored = [StoredLevel(one.grid, one.frame_format, lossy=False) for one in levels]
    return plan_pyramid(stored, (0.0005, 0.0005), PyramidOptions(**{"codec": NATIVE, **options}))


def run(
    levels: list[ArrayLevel], pyramid: Pyramid, *, workers: int = 1, **workload: object
) -> tuple[list[list[bytes]], Workload]:
    """Return the frames of every level, after checking that they came in runs of their own level."""
    encoder = make_encoder(pyramid.codec, dtype=levels[0].dtype, samples_per_pixel=levels[0].samples_per_pixel)
    work = Workload(workers, **workload)
    frames: list[list[bytes]] = [[] for _ in pyramid.levels]
    for level_index, some in encode_pyramid(levels, pyramid, encoder, work):
        assert some
        frames[level_index] += some
    return frames, work


def half(pixels: Pixels) -> Pixels:
    """Return the 2x2 means of a whole picture, odd edges replicated."""
    pixels = np.pad(pixels, ((0, pixels.shape[0] % 2), (0, pixels.shape[1] % 2), (0, 0)), mode="edge")
    wide = pixels.astype(np.float64 if pixels.dtype.kind == "f" else np.int64)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return (total / 4 if pixels.dtype.kind == "f" else (total + 2) >> 2).astype(pixels.dtype)


def expected_planes(levels: list[ArrayLevel], pyramid: Pyramid) -> list[dict[tuple[int, int], Pixels]]:
    """Return every plane of every level, each computed on its own."""
    result: list[dict[tuple[int, int], Pixels]] = []
    for level in pyramid.levels:
        planes = {}
        for path in range(level.grid.optical_paths):
            for focal in range(level.grid.focal_planes):
                index = level.stored_level_index
                pixels = half(result[-1][path, focal]) if index is None else levels[index].decoded(path, focal)
                planes[path, focal] = pixels
        result.append(planes)
    return result


def assert_frames_are(levels: list[ArrayLevel], pyramid: Pyramid, frames: list[list[bytes]]) -> None:
    """Compare native frames with the expected planes, in TILED_FULL order, padding included where we make it."""
    for level, planes, found in zip(pyramid.levels, expected_planes(levels, pyramid), frames, strict=True):
        grid = level.grid
        assert len(found) == grid.number_of_frames
        for frame, address in zip(found, grid.iter_addresses(), strict=True):
            top, left = address.row_index * grid.rows, address.column_index * grid.columns
            part = planes[address.optical_path_index, address.focal_plane_index]
            part = part[top : top + grid.rows, left : left + grid.columns]
            shape = (grid.rows, grid.columns, part.shape[2])
            pixels = np.frombuffer(frame, part.dtype).reshape(shape)
            if level.reuses_frames:
                pixels, expected = pixels[: part.shape[0], : part.shape[1]], part
            else:
                expected = np.pad(part, ((0, shape[0] - part.shape[0]), (0, shape[1] - part.shape[1]), (0, 0)), "edge")
            np.testing.assert_array_equal(pixels, expected, err_msg=f"{address}")


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 150),
    columns=st.integers(1, 150),
    tile=st.sampled_from([16, 18, 32]),
    cut=st.sampled_from([None, 16, 20, 32]),
    coding=st.sampled_from(["native", "none"]),
    levels=st.sampled_from(["dyadic", 1, 2, 3]),
    workers=st.sampled_from([1, 2, 3]),
    block_pixels=st.sampled_from([1, 64, 2048]),
    kind=st.sampled_from([(3, np.uint8), (1, np.uint8), (1, np.uint16), (1, np.float32)]),
    planes=st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 3)]),
)
def test_every_frame_of_every_level_is_what_whole_arrays_give(
    rows, columns, tile, cut, coding, levels, workers, block_pixels, kind, planes
):
    level = ArrayLevel(picture(rows, columns, *kind, planes=planes), tile, coding=coding)
    pyramid = plan(level, levels=levels, tile_size=cut)
    frames, _ = run([level], pyramid, workers=workers, block_pixels=block_pixels)
    assert_frames_are([level], pyramid, frames)


def test_levels_above_the_blocks_are_exact_too():
    # Blocks of 2048 pixels at most: this base is several blocks wide, high, and deep.
    level = ArrayLevel(picture(4200, 2100, 1), 128)
    pyramid = plan(level)
    assert len(pyramid.levels) == 7
    for block_pixels in (128, 2048):
        frames, _ = run([level], pyramid, workers=2, block_pixels=block_pixels)
        assert_frames_are([level], pyramid, frames)


def test_tiles_larger_than_a_block_are_blocks_of_their_own():
    level = ArrayLevel(picture(2600, 5000, 1), 2304)
    pyramid = plan(level)
    frames, _ = run([level], pyramid, workers=2)
    assert_frames_are([level], pyramid, frames)


@pytest.mark.parametrize("levels", ["dyadic", 1])
def test_finished_block_holds_frames_but_not_the_pixels_they_were_made_from(levels: str | int):
    level = ArrayLevel(picture(128, 128), 32)
    read: list[weakref.ref[Pixels]] = []

    def read_region(*place: int, **plane: int) -> tuple[Pixels, int]:
        pixels, missing_tiles = ArrayLevel.read_region(level, *place, **plane)
        read.append(weakref.ref(pixels))
        return pixels, missing_tiles

    level.read_region = read_region
    grids = tuple(one.grid for one in plan(level, levels=levels).levels)
    encoder = make_encoder(NATIVE, dtype=level.dtype, samples_per_pixel=3)
    block = Block(Segment(level, grids, encoder, False, False, 4), 0, 0, 0, 0).encode()
    assert sum(map(len, block.frames[0])) == 16
    assert {pixels() for pixels in read} == {None}


def test_stored_levels_between_derived_ones_start_anew():
    levels = [ArrayLevel(picture(300, 420), 32), ArrayLevel(picture(75, 105), 16)]
    pyramid = plan(*levels)
    assert [one.stored_level_index for one in pyramid.levels] == [0, None, 1, None, None, None]
    frames, _ = run(levels, pyramid, workers=2)
    assert_frames_are(levels, pyramid, frames)


def test_reused_frames_are_the_stored_bytes():
    level = ArrayLevel(picture(100, 130), 32, coding="jpeg")
    pyramid = plan(level, codec=parse_codec("jpeg:80"))
    frames, _ = run([level], pyramid)
    assert frames[0] == [level.read_frame(address) for address in level.grid.iter_addresses()]


def test_garbage_in_the_padding_of_edge_tiles_never_bleeds():
    # 33 x 33: the last tile row and column hold one valid pixel line each, the rest is garbage.
    level = ArrayLevel(np.full((1, 1, 33, 33, 3), 200, np.uint8), 32)
    pyramid = plan(level)
    frames, _ = run([level], pyramid)
    assert set(frames[1][0]) == {200}


def test_missing_tiles_become_blank_frames_and_are_counted():
    missing = [TileAddress(0, 1), TileAddress(2, 3)]
    level = ArrayLevel(picture(90, 128), 32, missing=missing)
    pyramid = plan(level)
    for workers in (1, 3):
        frames, work = run([level], pyramid, workers=workers)
        assert_frames_are([level], pyramid, frames)
        assert frames[0][1] == frames[0][11] == level.blank_frame()
        assert work.missing_tiles == {0: 2}


def test_missing_tiles_are_counted_by_the_level_that_reads_them():
    levels = [ArrayLevel(picture(128, 128), 32), ArrayLevel(picture(32, 32), 16, missing=[TileAddress(1, 1)])]
    pyramid = plan(*levels, reencode=True)
    frames, work = run(levels, pyramid)
    assert_frames_are(levels, pyramid, frames)
    assert work.missing_tiles == {2: 1}


def test_missing_tiles_of_a_level_without_frames_are_background():
    level = ArrayLevel(picture(70, 70), 32, coding="none", missing=[TileAddress(1, 1)])
    pyramid = plan(level)
    frames, work = run([level], pyramid)
    assert_frames_are([level], pyramid, frames)
    assert work.missing_tiles == {0: 1}


@pytest.mark.parametrize("codec", ["jpeg:80:420", "jpeg2000:lossless"])
def test_bytes_do_not_depend_on_workers_or_memory(codec: str):
    level = ArrayLevel(picture(300, 500), 64, coding="jpeg", missing=[TileAddress(2, 2)])
    pyramid = plan(level, codec=parse_codec(codec))
    first, _ = run([level], pyramid)
    for workers, memory_bytes in ((1, 1 << 20), (2, 1 << 30), (3, 500_000), (7, None)):
        assert run([level], pyramid, workers=workers, memory_bytes=memory_bytes)[0] == first


def test_fast_mode_halves_whole_tiles_in_the_dct_domain_and_edge_tiles_exactly():
    level = ArrayLevel(picture(64, 80, 1), 32, coding="jpeg")
    pyramid = plan(level, levels=2, fast=True, codec=parse_codec("jpeg:80"))
    source = level.decode_half_frame(level.read_frame(TileAddress(0, 0)), TileAddress(0, 0))
    exact = half(level.decoded(0, 0))
    segments = list(encode_pyramid([level], pyramid, Verbatim(), Workload()))
    derived = np.frombuffer(segments[-1].frames[0], np.uint8).reshape(32, 32, 1)
    np.testing.assert_array_equal(derived[:16, :16], source)
    assert (derived[:16, :16] != exact[:16, :16]).any()
    edge = np.frombuffer(segments[-1].frames[1], np.uint8).reshape(32, 32, 1)
    np.testing.assert_array_equal(edge[:, :8], exact[:, 32:40])


def test_fast_mode_is_exact_where_the_codec_cannot_scale():
    level = ArrayLevel(picture(100, 80), 32)
    pyramid = plan(level, fast=True)
    frames, _ = run([level], pyramid)
    assert_frames_are([level], pyramid, frames)


def test_progress_ends_at_all_pixels_of_the_tiles():
    seen: list[int] = []
    level = ArrayLevel(picture(300, 500), 32)
    pyramid = plan(level)
    run([level], pyramid, workers=2, on_pixels=seen.append)
    assert sum(seen) == level.grid.number_of_frames * 32 * 32


class Verbatim:
    """Encodes nothing."""

    frame_format = FrameFormat("1.2.840.10008.1.2.1", "MONOCHROME2", 1)
    description = "uncompressed"

    def encode(self, pixels: Pixels) -> bytes:
        return pixels.tobytes()


class Refusing(Verbatim):
    """Refuses the fourth frame."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, pixels: Pixels) -> bytes:
        self.calls += 1
        if self.calls == 4:
            raise EncodingError("refused")
        return super().encode(pixels)


def threads_of_ours() -> int:
    return sum(thread.name.startswith("coverslip") for thread in threading.enumerate())


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("coding", ["jpeg", "none"])
def test_tile_that_does_not_decode_stops_the_work_with_its_place(workers: int, coding: str):
    level = ArrayLevel(picture(600, 600), 32, coding=coding, corrupt=[TileAddress(3, 5)])
    pyramid = plan(level, codec=parse_codec("jpeg:80"), tile_size=None)
    with pytest.raises(CorruptSourceError) as caught:
        run([level], pyramid, workers=workers, block_pixels=1)
    assert caught.value.frame_index == 3 * 19 + 5
    assert threads_of_ours() == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_refusing_encoder_stops_the_work(workers: int):
    level = ArrayLevel(picture(600, 600, 1), 32)
    pyramid = plan(level, reencode=True)
    with pytest.raises(EncodingError, match="refused"):
        list(encode_pyramid([level], pyramid, Refusing(), Workload(workers)))
    assert threads_of_ours() == 0


@pytest.mark.serial
def test_consumer_that_stops_early_leaves_no_thread_and_little_work():
    level = ArrayLevel(picture(3000, 300, 1), 32)
    pyramid = plan(level)
    encoder = make_encoder(NATIVE, dtype=level.dtype, samples_per_pixel=1)
    runs = encode_pyramid([level], pyramid, encoder, Workload(3))
    next(runs)
    start = time.monotonic()
    runs.close()
    assert threads_of_ours() == 0
    assert time.monotonic() - start < 5


def test_stored_frame_of_another_size_is_corrupt():
    class Shrunk(ArrayLevel):
        def decode_frame(self, frame: bytes, address: TileAddress) -> Pixels:
            return super().decode_frame(frame, address)[:16]

    level = Shrunk(picture(64, 64), 32)
    with pytest.raises(CorruptSourceError, match="frame 0: decoded to 16 x 32 pixels, expected 32 x 32"):
        run([level], plan(level))
