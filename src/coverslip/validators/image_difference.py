"""How much two pictures of the same place differ, and whether one is the other turned or mirrored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coverslip.tiler.codecs.base import Pixels

__all__ = ["ORIENTATIONS", "Orientation", "delta_e", "psnr", "ssim"]

_WINDOW = 8
_LAB_WHITE = (0.95047, 1.0, 1.08883)
"""D65, the white of sRGB."""

_XYZ_OF_SRGB = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


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
    difference = one.astype(np.float32) - other.astype(np.float32)
    error = float(np.mean(np.square(difference), dtype=np.float64))
    peak = float(np.iinfo(one.dtype).max) if one.dtype.kind == "u" else max(float(np.ptp(other)), 1e-9)
    return float("inf") if error == 0 else 10 * float(np.log10(peak * peak / error))


def ssim(one: Pixels, other: Pixels) -> float:
    """Return the mean structural similarity over windows of 8 x 8 pixels of the samples' mean.

    Windows do not overlap, so that the cost stays small; pictures smaller than a window are one window.
    """
    peak = float(np.iinfo(one.dtype).max) if one.dtype.kind == "u" else max(float(np.ptp(other)), 1e-9)
    first, second = (_windows(pixels.mean(axis=2, dtype=np.float32)) for pixels in (one, other))
    mean_one, mean_other = first.mean(axis=1), second.mean(axis=1)
    covariance = (first * second).mean(axis=1) - mean_one * mean_other
    steady, textured = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    similarity = (2 * mean_one * mean_other + steady) * (2 * covariance + textured)
    similarity /= (mean_one**2 + mean_other**2 + steady) * (first.var(axis=1) + second.var(axis=1) + textured)
    return float(similarity.mean())


def delta_e(one: Pixels, other: Pixels) -> float:
    """Return the mean CIE 1976 colour difference of two 8-bit pictures taken as sRGB."""
    return float(np.sqrt(np.square(_lab(one) - _lab(other)).sum(axis=-1)).mean())


def _windows(plane: Pixels) -> Pixels:
    rows, columns = plane.shape
    height, width = min(_WINDOW, rows), min(_WINDOW, columns)
    whole = plane[: rows // height * height, : columns // width * width]
    parts = whole.reshape(rows // height, height, columns // width, width).swapaxes(1, 2)
    return parts.reshape(-1, height * width)


def _lab(pixels: Pixels) -> Pixels:
    scaled = pixels.astype(np.float64) / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _XYZ_OF_SRGB.T / _LAB_WHITE
    x, y, z = np.moveaxis(np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
