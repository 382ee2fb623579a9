"""A procedural H&E picture, defined at every pixel of an endless slide."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["outline", "paint", "tissue", "tissue_mask"]

# Optical density per unit of stain in red, green and blue (Ruifrok and Johnston's H&E vectors).
_HEMATOXYLIN_OD = (0.650, 0.704, 0.286)
_EOSIN_OD = (0.092, 0.954, 0.283)
_GLASS_RGB = (243, 242, 244)
_OD_STEPS = 256  # table entries per unit of optical density
_NUCLEUS_SPACING = 24  # pixels between the centres of nuclei, about 6 um at 0.25 um per pixel
_MIX = (np.uint32(0x7FEB352D), np.uint32(0x846CA68B))

Field = NDArray[np.float32]


def tissue(rows: int, columns: int, seed: int = 0, row: int = 0, column: int = 0) -> NDArray[np.uint8]:
    """Paint a window of the endless slide `seed`.

    Windows agree where they overlap, so a big slide can be made tile by tile. About half of a large
    area is tissue: pink fibrous stroma, purple nuclei, white gaps; the rest is slightly noisy glass.

    Parameters
    ----------
    rows, columns : int
        Size of the window.
    seed : int
        Which slide.
    row, column : int
        0-based top left corner of the window.

    Returns
    -------
    ndarray
        (rows, columns, 3) uint8 RGB.
    """
    y = np.arange(row, row + rows, dtype=np.int64)
    x = np.arange(column, column + columns, dtype=np.int64)
    return paint(y, x, seed, outline(tissue_mask(y, x, seed)))


def outline(mask: Field) -> Field:
    """Turn a `tissue_mask` into the share of tissue at every pixel: 0 or 1 but for the edge."""
    return _ramp(mask, 0.02)


def paint(y: NDArray[np.int64], x: NDArray[np.int64], seed: int, inside: Field) -> NDArray[np.uint8]:
    """Paint consecutive rows `y` and columns `x` of the slide, with tissue where `inside` is 1 and glass where 0."""
    rows, columns = inside.shape
    hematoxylin = np.zeros((rows, columns), np.float32)
    eosin = np.zeros((rows, columns), np.float32)
    if inside.any():
        hematoxylin, eosin = _stains(y, x, seed)
        hematoxylin *= inside
        eosin *= inside
    shade = _noise(y, x, (70, 90), seed + 90) * np.float32(1.6) + _grain(y, x, seed + 91) * np.float32(1.2)
    shade *= 1 + 2 * inside
    picture = np.empty((rows, columns, 3), np.uint8)
    for channel, glass in enumerate(_GLASS_RGB):
        density = hematoxylin * np.float32(_HEMATOXYLIN_OD[channel]) + eosin * np.float32(_EOSIN_OD[channel])
        steps = np.minimum(density * np.float32(_OD_STEPS), np.float32(_TRANSMITTANCE.size - 1)).astype(np.int32)
        light = _TRANSMITTANCE[steps] * np.float32(glass) + shade
        picture[..., channel] = np.clip(np.rint(light), 0, 255).astype(np.uint8)
    return picture


def tissue_mask(y: NDArray[np.int64], x: NDArray[np.int64], seed: int = 0) -> Field:
    """Return where tissue lies: positive inside, negative on glass, with a smooth outline.

    Parameters
    ----------
    y, x : ndarray
        Ascending pixel rows and columns at which to evaluate; they need not be consecutive.
    """
    value = _noise(y, x, (2600, 2900), seed + 1)
    value += _noise(y, x, (700, 640), seed + 2) * np.float32(0.45)
    value += _noise(y, x, (170, 190), seed + 3) * np.float32(0.12)
    value += _noise(y, x, (37, 31), seed + 4) * np.float32(0.03)
    return value


def _stains(y: NDArray[np.int64], x: NDArray[np.int64], seed: int) -> tuple[Field, Field]:
    """Return hematoxylin and eosin at every pixel."""
    wave = _noise(y, x, (260, 300), seed + 10)
    fibre = np.abs(_noise(y, x, (15, 64), seed + 11) + wave * np.float32(0.3))
    fibre += np.abs(_noise(y, x, (7, 17), seed + 12)) * np.float32(0.6)
    texture = _noise(y, x, (4, 4), seed + 13)
    fine = _noise(y, x, (2, 2), seed + 14)
    eosin = np.float32(0.62) - fibre * np.float32(0.42) + texture * np.float32(0.09) + fine * np.float32(0.09)
    gap = _ramp(fibre + wave * np.float32(0.25) - np.float32(0.94), 0.05)
    cellular = _ramp(_noise(y, x, (420, 380), seed + 15) - np.float32(0.05), 0.5)
    eosin = np.maximum(eosin, np.float32(0.05)) * (1 - gap)
    nuclei = _nuclei(y, x, seed, cellular)
    chromatin = np.float32(1.25) + texture * np.float32(0.3) + fine * np.float32(0.25)
    hematoxylin = nuclei * chromatin + (1 - gap) * (np.float32(0.06) + cellular * np.float32(0.22))
    hematoxylin += texture * np.float32(0.05) * (1 - gap)
    return np.maximum(hematoxylin, np.float32(0)), eosin * (1 - nuclei * np.float32(0.5))


def _nuclei(y: NDArray[np.int64], x: NDArray[np.int64], seed: int, cellular: Field) -> Field:
    """Return 1 inside a nucleus and 0 outside with an edge of about a pixel; more of them where `cellular`."""
    cell_y, cell_x = y // _NUCLEUS_SPACING, x // _NUCLEUS_SPACING
    lattice_y = np.arange(cell_y[0] - 1, cell_y[-1] + 2)
    lattice_x = np.arange(cell_x[0] - 1, cell_x[-1] + 2)
    centre_y = (lattice_y[:, None] + _unit(lattice_y, lattice_x, seed + 21)) * np.float32(_NUCLEUS_SPACING)
    centre_x = (lattice_x[None, :] + _unit(lattice_y, lattice_x, seed + 22)) * np.float32(_NUCLEUS_SPACING)
    centre_y, centre_x = centre_y.astype(np.float64), centre_x.astype(np.float64)
    long_axis = 6 + 5 * _unit(lattice_y, lattice_x, seed + 23)
    short_axis = long_axis * (np.float32(0.45) + np.float32(0.45) * _unit(lattice_y, lattice_x, seed + 24))
    slope = 2 * _unit(lattice_y, lattice_x, seed + 25) - 1  # tangent-like, avoids sine and cosine
    presence = _unit(lattice_y, lattice_x, seed + 26)
    index_y, index_x = cell_y - lattice_y[0], cell_x - lattice_x[0]
    threshold = np.float32(0.25) + np.float32(0.6) * cellular
    result = np.zeros(cellular.shape, np.float32)
    for step_y in (-1, 0, 1):
        for step_x in (-1, 0, 1):
            at = np.ix_(index_y + step_y, index_x + step_x)
            down = (y[:, None] - centre_y[at]).astype(np.float32)
            right = (x[None, :] - centre_x[at]).astype(np.float32)
            along = right + slope[at] * down
            across = down - slope[at] * right
            norm = 1 + slope[at] * slope[at]
            distance = (along * along / (long_axis[at] ** 2) + across * across / (short_axis[at] ** 2)) / norm
            shape = _ramp(1 - distance, 0.25)
            np.maximum(result, shape * (presence[at] < threshold), out=result)
    return result


def _ramp(value: Field, width: float) -> Field:
    """Return 0 below 0, 1 above `width`, linear between."""
    share: Field = np.clip(value * np.float32(1 / width), np.float32(0), np.float32(1))
    return share


def _noise(y: NDArray[np.int64], x: NDArray[np.int64], period: tuple[int, int], seed: int) -> Field:
    """Return smooth noise in -1..1 with lattice points every `period` (rows, columns)."""
    cell_y, cell_x = y // period[0], x // period[1]
    lattice_y = np.arange(cell_y[0], cell_y[-1] + 2)
    lattice_x = np.arange(cell_x[0], cell_x[-1] + 2)
    lattice = _unit(lattice_y, lattice_x, seed) * 2 - 1
    index_y, index_x = cell_y - cell_y[0], cell_x - cell_x[0]
    part_x = _fade((x - cell_x * period[1]).astype(np.float32) / np.float32(period[1]))
    part_y = _fade((y - cell_y * period[0]).astype(np.float32) / np.float32(period[0]))[:, None]
    across = lattice[:, index_x] * (1 - part_x) + lattice[:, index_x + 1] * part_x
    value: Field = across[index_y] * (1 - part_y) + across[index_y + 1] * part_y
    return value


def _grain(y: NDArray[np.int64], x: NDArray[np.int64], seed: int) -> Field:
    """Return noise in -1..1 that differs at every pixel."""
    return _unit(y, x, seed) * 2 - 1


def _fade(part: Field) -> Field:
    return part * part * (3 - 2 * part)


def _unit(y: NDArray[np.int64], x: NDArray[np.int64], seed: int) -> Field:
    """Return a hash of (y, x, seed) in 0..1."""
    down, across = y.astype(np.uint32) * np.uint32(0x9E3779B1), x.astype(np.uint32) * np.uint32(0x85EBCA77)
    key = down[:, None] ^ across
    key ^= np.uint32(seed * 0x27D4EB2F & 0xFFFFFFFF)
    for multiplier in _MIX:
        key ^= key >> np.uint32(16)
        key *= multiplier
    key ^= key >> np.uint32(15)
    return (key >> np.uint32(8)).astype(np.float32) * np.float32(1 / (1 << 24))


_TRANSMITTANCE = np.exp(-np.arange(4 * _OD_STEPS) * (np.log(10) / _OD_STEPS)).astype(np.float32)
