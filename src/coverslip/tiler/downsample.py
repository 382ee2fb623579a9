"""Exact 2x2 means, so that a derived level has neither seams nor shift."""

from __future__ import annotations

import cv2
import numpy as np

from coverslip.tiler.codecs.base import Pixels

__all__ = ["halve", "replicate_edges"]

# OpenCV's own thread pool would compete with ours.
cv2.setNumThreads(1)


def replicate_edges(pixels: Pixels, rows: int, columns: int) -> None:
    """Overwrite all beyond (rows, columns) with the last valid row and column, in place.

    What a file stores in the padding of its edge tiles is arbitrary and must not bleed into a mean.
    """
    if columns < pixels.shape[1]:
        pixels[:rows, columns:] = pixels[:rows, columns - 1 : columns]
    if rows < pixels.shape[0]:
        pixels[rows:] = pixels[rows - 1 : rows]


def halve(pixels: Pixels, out: Pixels | None = None) -> Pixels:
    """Return the mean of every 2x2 square of pixels, rounded half up.

    Parameters
    ----------
    pixels : ndarray
        (rows, columns, samples), both sizes even; uint8, uint16 or float32.
    out : ndarray, optional
        (rows / 2, columns / 2, samples) of the same type, may be a view of a larger array; written to and returned.

    Notes
    -----
    For 8-bit samples OpenCV's area interpolation at exactly one half computes ``(a + b + c + d + 2) >> 2`` in
    integers. Its wider types go through floating point, hence the integer sums for 16 bits.
    """
    rows, columns, samples = pixels.shape[0] // 2, pixels.shape[1] // 2, pixels.shape[2]
    if out is None:
        out = np.empty((rows, columns, samples), pixels.dtype)
    if pixels.dtype == np.uint8:
        # A view with one sample loses its last axis in OpenCV, so both sides are given without it.
        source, target = (pixels, out) if samples > 1 else (pixels[..., 0], out[..., 0])
        cv2.resize(source, (columns, rows), dst=target, interpolation=cv2.INTER_AREA)
        return out
    squares = pixels.reshape(rows, 2, columns, 2, samples)
    if pixels.dtype == np.uint16:
        total = squares.sum(axis=(1, 3), dtype=np.uint32)
        np.right_shift(total + 2, 2, out=out, casting="unsafe")
    else:
        out[...] = squares.mean(axis=(1, 3), dtype=np.float64)
    return out
