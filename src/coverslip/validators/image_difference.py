"""How much two pictures of the same place differ, and whether one is the other turned or mirrored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from coverslip.tiler.codecs.base import Pixels

__all__ = ["ORIENTATIONS", "Orientation", "delta_e", "psnr", "ssim"]

_WINDOW = 8
# CIE XYZ of linear sRGB, relative to the white of D65, and the linear part of the cube root of CIE L*a*b*.
_XYZ_OF_RGB = np.array(
    [[0.433953, 0.376219, 0.189828], [0.212671, 0.715160, 0.072169], [0.017758, 0.109477, 0.872765]], np.float32
)
_LINEAR_BELOW, _LINEAR_SLOPE, _LINEAR_START = 0.008856, 7.787, 16 / 116


@dataclass(frozen=True, slots=True)
class Orientation:
    """One of the ways, besides the right one, in which a picture can lie.

    Parameters
    ----------
    description : str
        What has been done to the picture.
    place : callable
        Takes (row, column, rows, columns) of a rectangle, then rows and columns of the picture that it lies in; returns
        the rectangle that the same content has in the picture that was not turned.
    turn : callable
        Turns that rectangle's pixels as the picture was.
    """

    description: str
    place: Callable[[int, int, int, int, int, int], tuple[int, int, int, int]]
    turn: Callable[[Pixels], Pixels]


ORIENTATIONS = (
    Orientation(
        "mirrored left to right",
        lambda row, column, rows, columns, _height, width: (row, width - column - columns, rows, columns),
        lambda pixels: pixels[:, ::-1],
    ),
    Orientation(
        "mirrored top to bottom",
        lambda row, column, rows, columns, height, _width: (height - row - rows, column, rows, columns),
        lambda pixels: pixels[::-1],
    ),
    Orientation(
        "rotated by 180 degrees",
        lambda row, column, rows, columns, height, width: (
            height - row - rows,
            width - column - columns,
            rows,
            columns,
        ),
        lambda pixels: pixels[::-1, ::-1],
    ),
    Orientation(
        "mirrored along its diagonal",
        lambda row, column, rows, columns, _height, _width: (column, row, columns, rows),
        lambda pixels: pixels.transpose(1, 0, 2),
    ),
    Orientation(
        "rotated by 90 degrees clockwise",
        lambda row, column, rows, columns, _height, width: (width - column - columns, row, columns, rows),
        lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    ),
    Orientation(
        "rotated by 90 degrees counterclockwise",
        lambda row, column, rows, columns, height, _width: (column, height - row - rows, columns, rows),
        lambda pixels: pixels.transpose(1, 0, 2)[::-1],
    ),
    Orientation(
        "mirrored along its other diagonal",
        lambda row, column, rows, columns, height, width: (
            width - column - columns,
            height - row - rows,
            columns,
            rows,
        ),
        lambda pixels: pixels.transpose(1, 0, 2)[::-1, ::-1],
    ),
)


def psnr(one: Pixels, other: Pixels) -> float:
    """Return the peak signal-to-noise ratio in dB, infinite for equal pictures; the peak is the largest integer."""
    if one.dtype == np.uint8 == other.dtype and one.shape == other.shape:
        # OpenCV sums the squares of bytes without a copy in floating point.
        error = cv2.norm(np.ascontiguousarray(one), np.ascontiguousarray(other), cv2.NORM_L2SQR) / one.size
    else:
        error = float(np.mean(np.square(one.astype(np.float32) - other.astype(np.float32)), dtype=np.float64))
    peak = _peak(one, other)
    return float("inf") if error == 0 else 10 * float(np.log10(peak * peak / error))


def _peak(one: Pixels, other: Pixels) -> float:
    return float(np.iinfo(one.dtype).max) if one.dtype.kind == "u" else max(float(np.ptp(other)), 1e-9)


def ssim(one: Pixels, other: Pixels) -> float:
    """Return the mean structural similarity over windows of 8 x 8 pixels of the samples' mean.

    Windows do not overlap, so that the cost stays small; pictures smaller than a window are one window.
    """
    peak = _peak(one, other)
    first, second = _gray(one), _gray(other)
    mean_one, mean_other, square_one, square_other, product = (
        _window_means(plane) for plane in (first, second, first * first, second * second, first * second)
    )
    steady, textured = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    squares, both = mean_one**2 + mean_other**2, mean_one * mean_other
    # Rounding may leave a variance of nothing below zero.
    variances = np.maximum(square_one + square_other - squares, 0)
    similarity = (2 * both + steady) * (2 * (product - both) + textured)
    similarity /= (squares + steady) * (variances + textured)
    return float(similarity.mean())


def delta_e(one: Pixels, other: Pixels) -> float:
    """Return the mean CIE 1976 colour difference of two 8-bit pictures taken as sRGB."""
    return float(np.sqrt(np.square(_lab(one) - _lab(other)).sum(axis=-1)).mean())


def _gray(pixels: Pixels) -> Pixels:
    """Return the mean of the samples, as float32, without the last axis."""
    if pixels.shape[2] == 1:
        return pixels[..., 0].astype(np.float32)
    weights = np.full((1, pixels.shape[2]), 1 / pixels.shape[2], np.float32)
    return cv2.transform(pixels.astype(np.float32), weights)


def _window_means(plane: Pixels) -> Pixels:
    rows, columns = plane.shape
    height, width = min(_WINDOW, rows), min(_WINDOW, columns)
    tall, wide = rows // height, columns // width
    return cv2.resize(plane[: tall * height, : wide * width], (wide, tall), interpolation=cv2.INTER_AREA)


def _lab(pixels: Pixels) -> Pixels:
    """Return CIE L*a*b* of 8-bit sRGB, for D65.

    OpenCV has this too, but builds tables for a tenth of a second first; a small slide is converted in half a second.
    """
    xyz = _linear()[pixels] @ _XYZ_OF_RGB.T
    cubic = np.where(xyz > _LINEAR_BELOW, np.cbrt(xyz), xyz * _LINEAR_SLOPE + _LINEAR_START)
    x, y, z = np.moveaxis(cubic, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


@cache
def _linear() -> Pixels:
    """Return the linear light of each value of 8-bit sRGB (IEC 61966-2-1)."""
    values = np.arange(256) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)
