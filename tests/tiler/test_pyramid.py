"""Which levels are planned, and from where."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.converter.dataset import format_decimal
from coverslip.errors import UsageError
from coverslip.tiler.codecs import parse_codec
from coverslip.tiler.codecs.base import FrameFormat
from coverslip.tiler.grid import TileGrid
from coverslip.tiler.pyramid import Pyramid, PyramidOptions, StoredLevel, plan_pyramid

JPEG = FrameFormat("1.2.840.10008.1.2.4.50", "RGB", 3, 8, "ISO_10918_1")
JPEG2000 = FrameFormat("1.2.840.10008.1.2.4.91", "YBR_ICT", 3, 8, "ISO_15444_1")
JPEG2000_LOSSLESS = FrameFormat("1.2.840.10008.1.2.4.90", "YBR_RCT", 3, 8)
PLAIN = FrameFormat("1.2.840.10008.1.2.1", "RGB", 3, 8)
SPACING = (0.000252, 0.000253)


def level(
    rows: int,
    columns: int,
    tile: int | tuple[int, int] = 256,
    frame_format: FrameFormat | None = JPEG,
    *,
    lossy: bool = True,
    spacing_mm: tuple[float, float] | None = None,
) -> StoredLevel:
    size = (tile, tile) if isinstance(tile, int) else tile
    return StoredLevel(TileGrid(rows, columns, *size), frame_format, lossy, spacing_mm)


def plan(*stored: StoredLevel, **options: object) -> Pyramid:
    return plan_pyramid(stored, SPACING, PyramidOptions(**options))


def sources(pyramid: Pyramid) -> list[int | None]:
    return [one.stored_level_index for one in pyramid.levels]


def sizes(pyramid: Pyramid) -> list[tuple[int, int]]:
    return [one.size for one in pyramid.levels]


def reasons(pyramid: Pyramid) -> dict[int, str]:
    return {one.stored_level_index: one.reason for one in pyramid.unused_levels}


# Dyadic levels.


def test_base_is_halved_down_to_one_frame_rounding_up():
    pyramid = plan(level(700, 901))
    assert sizes(pyramid) == [(700, 901), (350, 451), (175, 226)]
    assert [one.grid.number_of_frames for one in pyramid.levels] == [12, 4, 1]
    assert pyramid.segments() == [[0, 1, 2]]


def test_base_of_one_frame_is_the_whole_pyramid():
    assert sizes(plan(level(256, 1))) == [(256, 1)]


@given(st.integers(1, 100_000), st.integers(1, 100_000), st.sampled_from([16, 240, 256, 1024]))
def test_each_level_is_half_the_one_before_rounded_up_and_only_the_last_is_one_frame(
    rows: int, columns: int, tile: int
):
    pyramid = plan(level(rows, columns, tile))
    for exponent, one in enumerate(pyramid.levels):
        assert one.size == (-(-rows // 2**exponent), -(-columns // 2**exponent))
        assert (one.grid.number_of_frames == 1) == (exponent == len(pyramid.levels) - 1)


@given(st.decimals("0.00002", "0.02", places=12), st.integers(0, 9))
def test_spacing_of_derived_levels_is_the_base_times_a_power_of_two_to_the_last_digit(spacing, exponent: int):
    stored = level(1 << 14, 1 << 14, 16)
    pyramid = plan_pyramid([stored], (float(spacing), float(spacing)), PyramidOptions())
    derived = pyramid.levels[exponent].pixel_spacing_mm[0]
    base = Fraction(format_decimal(pyramid.levels[0].pixel_spacing_mm[0]))
    assert Fraction(format_decimal(derived)) == base * 2**exponent


def test_all_planes_count_for_one_frame():
    grid = TileGrid(600, 600, 256, 256, focal_planes=2, optical_paths=3)
    pyramid = plan(StoredLevel(grid, None, False))
    assert [one.grid.number_of_frames for one in pyramid.levels] == [9 * 6, 4 * 6, 6]
    assert (pyramid.levels[-1].grid.focal_planes, pyramid.levels[-1].grid.optical_paths) == (2, 3)


def test_number_of_levels_limits_the_pyramid():
    assert len(plan(level(5000, 5000), levels=3).levels) == 3
    assert len(plan(level(5000, 5000), levels=1).levels) == 1
    assert len(plan(level(700, 900), levels=99).levels) == 3


# Native levels among dyadic ones.


def test_native_levels_of_4_16_and_32_are_used_and_the_rest_derived():
    base = (40_003, 30_001)
    natives = [level(base[0] // ratio, base[1] // ratio) for ratio in (4, 16, 32)]
    pyramid = plan(level(*base), *natives)
    assert sources(pyramid) == [0, None, 1, None, 2, 3, None, None, None]
    assert pyramid.unused_levels == ()
    assert pyramid.segments() == [[0, 1], [2, 3], [4], [5, 6, 7, 8]]
    assert all(one.reuses_frames == (one.stored_level_index is not None) for one in pyramid.levels)


@pytest.mark.parametrize("side", [249, 250, 251, 252])
def test_native_level_within_a_pixel_of_floor_and_ceiling_coincides(side: int):
    assert sources(plan(level(1001, 1001), level(side, side))) == [0, None, 1]


@pytest.mark.parametrize("size", [(248, 250), (250, 248), (253, 250), (250, 253)])
def test_native_level_off_by_more_than_a_pixel_on_either_side_is_unused(size: tuple[int, int]):
    pyramid = plan(level(1001, 1001), level(*size))
    assert sources(pyramid) == [0, None, None]
    assert "power of two" in reasons(pyramid)[1]


def test_native_level_of_a_third_is_unused_with_its_ratio():
    pyramid = plan(level(3000, 3000), level(1000, 1000))
    assert reasons(pyramid) == {1: "its downsampling of 3 is not a power of two"}


def test_native_level_with_other_ratios_down_and_across_is_said_to_be_so():
    pyramid = plan(level(3000, 4000), level(1000, 1000))
    assert reasons(pyramid) == {1: "its downsampling of 3 down and 4 across is not a power of two"}


def test_spacing_of_a_native_level_follows_from_its_size():
    pyramid = plan(level(1001, 1003), level(250, 250))
    assert pyramid.levels[2].pixel_spacing_mm == (SPACING[0] * (1001 / 250), SPACING[1] * (1003 / 250))
    assert pyramid.levels[1].pixel_spacing_mm == (SPACING[0] * 2, SPACING[1] * 2)


@given(st.integers(1, 200_000), st.integers(20, 20_000_000).map(lambda picometres: picometres / 1e9))
def test_spacing_of_the_base_is_kept_to_the_last_digit(rows: int, spacing_mm: float):
    pyramid = plan_pyramid([level(rows, 1, 512)], (spacing_mm, spacing_mm), PyramidOptions(levels=1))
    assert pyramid.levels[0].pixel_spacing_mm == (spacing_mm, spacing_mm)


def test_level_below_a_native_one_is_derived_from_it_and_spaced_by_the_base():
    pyramid = plan(level(4001, 4001), level(1000, 1000))
    assert sizes(pyramid) == [(4001, 4001), (2001, 2001), (1000, 1000), (500, 500), (250, 250)]
    assert pyramid.levels[3].pixel_spacing_mm == (SPACING[0] * 8, SPACING[1] * 8)


def test_native_level_whose_stated_spacing_disagrees_is_unused():
    pyramid = plan(level(1000, 1000, spacing_mm=(0.001, 0.001)), level(250, 250, spacing_mm=(0.0041, 0.0041)))
    assert reasons(pyramid) == {1: "its stated spacing does not fit its size"}
    pyramid = plan(level(1000, 1000, spacing_mm=(0.001, 0.001)), level(250, 250, spacing_mm=(0.00405, 0.004)))
    assert sources(pyramid) == [0, None, 1]


def test_base_spacing_repeated_on_every_level_is_passed_over():
    base = level(1000, 1000, spacing_mm=(0.001, 0.001))
    assert sources(plan(base, level(250, 250, spacing_mm=(0.001, 0.001)))) == [0, None, 1]


def test_stated_spacing_is_compared_with_the_given_one_where_the_base_states_none():
    fitting = tuple(value * 4 for value in SPACING)
    assert sources(plan(level(1000, 1000), level(250, 250, spacing_mm=fitting))) == [0, None, 1]
    pyramid = plan(level(1000, 1000), level(250, 250, spacing_mm=(0.01, 0.01)))
    assert reasons(pyramid) == {1: "its stated spacing does not fit its size"}


def test_second_native_level_of_one_power_of_two_is_unused():
    pyramid = plan(level(1000, 1000), level(500, 500), level(499, 499))
    assert sources(pyramid) == [0, 1, None]
    assert reasons(pyramid) == {2: "another stored level has its place"}


def test_native_level_beyond_the_wanted_ones_is_unused():
    pyramid = plan(level(4000, 4000), level(1000, 1000), levels=2)
    assert sources(pyramid) == [0, None]
    assert reasons(pyramid) == {1: "it is beyond the levels wanted"}


def test_regenerate_derives_every_level_from_the_base():
    pyramid = plan(level(1000, 1000), level(500, 500), level(250, 250), regenerate=True)
    assert sources(pyramid) == [0, None, None]
    assert set(reasons(pyramid).values()) == {"all levels are derived from the base"}


def test_native_level_of_other_tiles_and_codec_is_used_and_keeps_them():
    pyramid = plan(level(1000, 1000), level(500, 500, 128, JPEG2000))
    assert [(one.grid.rows, one.frame_format) for one in pyramid.levels] == [
        (256, JPEG),
        (128, JPEG2000),
        (128, None),
        (128, None),
    ]


# Native mode.


def test_native_mode_writes_the_stored_levels_as_they_are():
    pyramid = plan(level(3000, 3000), level(1000, 1000), level(100, 100), levels="native")
    assert sizes(pyramid) == [(3000, 3000), (1000, 1000), (100, 100)]
    assert pyramid.segments() == [[0], [1], [2]]


def test_native_mode_drops_a_level_of_the_same_total_pixel_matrix():
    pyramid = plan(level(3000, 3000), level(1000, 1000), level(1000, 1000, 512), levels="native")
    assert sources(pyramid) == [0, 1]
    assert reasons(pyramid) == {2: "a level with the same total pixel matrix is already there"}


@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.lists(st.tuples(st.floats(1, 70), st.integers(-1, 1)), max_size=4),
    st.sampled_from(["dyadic", "native", 2, 5]),
    st.booleans(),
)
def test_levels_shrink_always_and_each_stored_one_is_used_or_has_a_reason(rows, columns, natives, levels, regenerate):
    stored = [level(rows, columns, 16)]
    for ratio, shift in sorted(natives):
        stored.append(level(max(1, int(rows / ratio) + shift), max(1, int(columns / ratio) + shift), 16))
    pyramid = plan(*stored, levels=levels, regenerate=regenerate and levels != "native")
    assert len(set(sizes(pyramid))) == len(pyramid.levels)
    used = [index for index in sources(pyramid) if index is not None]
    assert sorted([*used, *reasons(pyramid)]) == list(range(len(stored)))
    if levels != "native":
        assert all(sum(big) > sum(small) for big, small in zip(sizes(pyramid), sizes(pyramid)[1:], strict=False))


# Tiles and codecs.


@pytest.mark.parametrize(
    ("stored", "tile"),
    [
        ((240, 240), (240, 240)),
        ((1024, 1024), (1024, 1024)),
        ((2048, 2048), (512, 512)),
        ((256, 512), (512, 512)),
        ((16, 3000), (512, 512)),
        ((255, 255), (512, 512)),
    ],
)
def test_encoded_frames_keep_square_tiles_of_usual_size(stored: tuple[int, int], tile: tuple[int, int]):
    base = plan(level(5000, 5000, stored, None)).levels[0].grid
    assert (base.rows, base.columns) == tile


def test_reused_frames_keep_their_size_whatever_it_is():
    pyramid = plan(level(5000, 5000, (256, 2048)))
    assert [(one.grid.rows, one.grid.columns) for one in pyramid.levels] == [(256, 2048)] * len(pyramid.levels)


def test_tiles_of_odd_size_are_reused_only_where_nothing_is_derived_from_them():
    assert not plan(level(1000, 1000, 255)).levels[0].reuses_frames
    assert plan(level(1000, 1000, 255), levels="native").levels[0].reuses_frames
    assert plan(level(1000, 1000, 255), levels=1).levels[0].reuses_frames


def test_other_tile_size_re_encodes_and_the_same_one_reuses():
    assert not plan(level(1000, 1000), tile_size=512).levels[0].reuses_frames
    assert plan(level(1000, 1000), tile_size=256).levels[0].reuses_frames
    assert {one.grid.rows for one in plan(level(1000, 1000), tile_size=512).levels} == {512}


@pytest.mark.parametrize(
    ("stored", "codec", "reused"),
    [
        (JPEG, "jpeg:50:420", True),
        (JPEG, "jpeg2000", False),
        (JPEG, "none", False),
        (JPEG2000, "jpeg2000", True),
        (JPEG2000, "jpeg2000:lossless", False),
        (JPEG2000_LOSSLESS, "jpeg2000:lossless", True),
        (PLAIN, "none", True),
        (PLAIN, "jpeg:90", False),
        (JPEG2000_LOSSLESS, "htj2k", False),
    ],
)
def test_codec_of_the_same_kind_reuses_frames_and_another_encodes_them(stored: FrameFormat, codec: str, reused: bool):
    pyramid = plan(level(1000, 1000, 256, stored), codec=parse_codec(codec))
    assert pyramid.levels[0].reuses_frames == reused


def test_reencode_reuses_nothing():
    pyramid = plan(level(1000, 1000), level(500, 500), reencode=True)
    assert not any(one.reuses_frames for one in pyramid.levels)
    assert sources(pyramid) == [0, 1, None]


def test_default_codec_is_lossy_only_where_the_source_is():
    assert plan(level(1000, 1000)).codec == parse_codec("jpeg:80:420")
    assert plan(level(1000, 1000, 256, PLAIN, lossy=False)).codec == parse_codec("jpeg2000:lossless")
    assert plan(level(1000, 1000), codec=parse_codec("jpegls")).codec == parse_codec("jpegls")


@pytest.mark.parametrize("size", [0, 14, 255, 4098, -256])
def test_tile_size_out_of_range_or_odd_is_refused(size: int):
    with pytest.raises(UsageError, match=f"tile size {size}"):
        plan(level(1000, 1000), tile_size=size)


def test_no_levels_at_all_are_refused():
    with pytest.raises(UsageError, match="0 levels"):
        plan(level(1000, 1000), levels=0)


def test_native_levels_and_regenerating_them_exclude_each_other():
    with pytest.raises(UsageError, match="--regenerate"):
        plan(level(1000, 1000), levels="native", regenerate=True)
