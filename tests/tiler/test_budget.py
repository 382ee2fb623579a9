"""The shape of the work keeps within its memory, by estimate and in fact."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from tests.factories.levels import ArrayLevel

from coverslip.errors import UsageError
from coverslip.tiler.block import Segment
from coverslip.tiler.budget import DEFAULT_MEMORY, shape_work
from coverslip.tiler.codecs import make_encoder, parse_codec
from coverslip.tiler.encode import Workload, encode_pyramid
from coverslip.tiler.grid import TileGrid
from coverslip.tiler.pyramid import Pyramid, PyramidOptions, StoredLevel, plan_pyramid

JPEG = parse_codec("jpeg:80")
MB = 1 << 20


def plan(level: ArrayLevel, **options: object) -> Pyramid:
    stored = [StoredLevel(level.grid, level.frame_format, lossy=False)]
    return plan_pyramid(stored, (0.0005, 0.0005), PyramidOptions(**{"codec": JPEG, **options}))


def segment(rows: int, columns: int, tile: int, cut: int | None = None) -> Segment:
    # Zeros that take no memory: only the shape counts.
    level = ArrayLevel(np.zeros((1, 1, 1, 1, 3), np.uint8), tile, coding="none" if cut else "jpeg")
    level.grid = TileGrid(rows, columns, tile, tile)
    pyramid = plan(level, tile_size=cut)
    grids = tuple(one.grid for one in pyramid.levels)
    encoder = make_encoder(JPEG, dtype=level.dtype, samples_per_pixel=3)
    return Segment(level, grids, encoder, cut is None, False, 1)


def test_usual_tiles_get_all_workers_and_large_blocks() -> None:
    shape = shape_work(segment(30_000, 40_000, 256)._replace(frame_bytes=10_000), 2, None, 2048)
    assert (shape.block_tiles, shape.workers, shape.in_flight) == (8, 2, 8)
    assert shape.needed_bytes < DEFAULT_MEMORY


def test_workers_come_before_large_blocks() -> None:
    wide = segment(30_000, 200_000, 256)
    shapes = [shape_work(wide, 2, budget * MB, 2048) for budget in (1000, 300)]
    assert [shape.workers for shape in shapes] == [2, 2]
    assert shapes[1].block_tiles < shapes[0].block_tiles


def test_large_tiles_take_fewer_workers_and_then_all_that_one_needs() -> None:
    large = segment(12_000, 16_000, 4096)
    with pytest.raises(UsageError, match=r"64M does not hold .* 4096 x 4096: wanted at least (\d+)M") as told:
        shape_work(large, 2, 64 * MB, 2048)
    least = int(str(told.value).rpartition(" ")[2][:-1])
    assert shape_work(large, 2, least * MB, 2048).workers == 1
    with pytest.raises(UsageError):
        shape_work(large, 2, (least - 2) * MB, 2048)
    assert shape_work(large, 2, None, 2048) == shape_work(large, 2, least * MB, 2048)
    assert shape_work(large, 2, 3 * least * MB, 2048).workers == 2


@pytest.mark.parametrize(("tile", "budget"), [(128, 4), (512, 12), (1024, 40)])
def test_peak_stays_within_the_budget(tile: int, budget: int) -> None:
    level = ArrayLevel(np.full((1, 1, 2600, 3000, 3), 200, np.uint8), tile, coding="jpeg")
    pyramid = plan(level)
    encoder = make_encoder(JPEG, dtype=level.dtype, samples_per_pixel=3)
    work = Workload(2, budget * MB)
    tracemalloc.start()
    try:
        for _ in encode_pyramid([level], pyramid, encoder, work):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The factory makes its tiles anew: a generator's 8 bytes a sample, and copies, in each of two workers.
    assert peak < budget * MB + 2 * 12 * tile * tile * 3
