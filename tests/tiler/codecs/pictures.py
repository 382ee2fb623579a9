"""Pixels to encode."""

import numpy as np


def picture(rows: int, columns: int, seed: int = 0, samples: int = 3) -> np.ndarray:
    """A smooth gradient with some noise, so that every coefficient is in use."""
    row, column = np.mgrid[:rows, :columns]
    noise = np.random.default_rng(seed).integers(0, 40, (rows, columns, samples))
    base = np.stack([row * 3 % 200, column * 2 % 200, (row + column) % 200], axis=-1)[..., :samples]
    return np.ascontiguousarray((base + noise).astype(np.uint8))
