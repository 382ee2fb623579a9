"""Means of 2x2 pixels, against the formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coverslip.tiler.downsample import halve, replicate_edges

shapes = st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.integers(0, 2**32 - 1))


def mean_by_formula(pixels: np.ndarray) -> np.ndarray:
    """(a + b + c + d + 2) >> 2 in 64-bit integers."""
    wide = pixels.astype(np.int64)
    total = wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]
    return ((total + 2) >> 2).astype(pixels.dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@given(shapes)
def test_integer_means_are_rounded_half_up_exactly(dtype: type, shape: tuple[int, int, int, int]):
    rows, columns, samples, seed = shape
    top = np.iinfo(dtype).max
    pixels = np.random.default_rng(seed).integers(0, top, (2 * rows, 2 * columns, samples), dtype, endpoint=True)
    np.testing.assert_array_equal(halve(pixels), mean_by_formula(pixels))


def test_every_sum_of_four_8_bit_values_rounds_half_up():
    # Each square holds one of the 1021 possible sums, spread over its four pixels.
    sums = np.arange(1021)
    squares = np.stack([(sums + part) // 4 for part in range(4)]).astype(np.uint8)
    assert (squares.sum(axis=0, dtype=int) == sums).all()
    pixels = np.empty((2, 2 * sums.size, 1), np.uint8)
    pixels[0, ::2, 0], pixels[0, 1::2, 0], pixels[1, ::2, 0], pixels[1, 1::2, 0] = squares
    np.testing.assert_array_equal(halve(pixels)[0, :, 0], (sums + 2) >> 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_uniform_pixels_stay_what_they_are(dtype: type):
    for value in (0, 1, 127, 254, np.iinfo(dtype).max):
        assert (halve(np.full((6, 10, 3), value, dtype)) == value).all()


def test_means_of_floats_are_not_rounded_to_integers():
    pixels = np.array([[0.5, 1.0], [2.25, -4.0]], np.float32)[..., np.newaxis]
    result = halve(pixels)
    assert result.dtype == np.float32
    assert result.item() == -0.0625


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("samples", [1, 3])
def test_result_is_written_into_a_view_and_nowhere_else(dtype: type, samples: int):
    pixels = np.random.default_rng(5).integers(0, 255, (8, 12, samples)).astype(dtype)
    canvas = np.full((10, 20, samples), 77, dtype)
    view = canvas[3:7, 5:11]
    assert halve(pixels, view) is view
    np.testing.assert_array_equal(view, halve(pixels))
    canvas[3:7, 5:11] = 77
    assert (canvas == 77).all()


def test_a_view_is_halved_like_a_copy():
    canvas = np.random.default_rng(6).integers(0, 256, (20, 30, 3), np.uint8)
    view = canvas[2:10, 4:20]
    np.testing.assert_array_equal(halve(view), mean_by_formula(view))


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(1, 9))
def test_edges_are_replicated_over_everything_beyond_them(rows: int, columns: int, below: int, right: int):
    valid = np.random.default_rng(rows * 10 + columns).integers(0, 256, (rows, columns, 3), np.uint8)
    pixels = np.full((rows + below, columns + right, 3), 99, np.uint8)
    pixels[:rows, :columns] = valid
    replicate_edges(pixels, rows, columns)
    np.testing.assert_array_equal(pixels, np.pad(valid, ((0, below), (0, right), (0, 0)), mode="edge"))


def test_nothing_is_replicated_where_all_is_valid():
    pixels = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    before = pixels.copy()
    replicate_edges(pixels, 4, 2)
    replicate_edges(pixels, 9, 9)
    np.testing.assert_array_equal(pixels, before)
