"""Limits: what the libraries need for the work itself, on as many threads, without anything around it.

A program of its own, ``python -m benchmarks.limits KIND SLIDE WORKERS``, that prints seconds without start-up.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import ROOT
from benchmarks.measure import Measurement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["measure_limit"]

_BATCH = 256
_LEVELS = 4


def measure_limit(kind: str, slide: Path, workers: int) -> Measurement:
    """Work in a process of its own; wall and CPU seconds are those between the first tile and the last.

    Parameters
    ----------
    kind : str
        ``decode``: every base tile decoded; ``pyramid``: and halved, the derived tiles encoded, both digests computed;
        ``fast``: the same with half-scale decoding; ``reencode``: decoded and encoded in tiles of twice the side.
    slide : Path
    workers : int
    """
    command = [sys.executable, "-m", "benchmarks.limits", kind, str(slide), str(workers)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT, env=environment)
    return Measurement(**json.loads(run.stdout), output_mb=0)


class _Levels:
    """Means and encoding of the levels above the base, of as many pixels as there are but not in their places."""

    def __init__(self, side: int) -> None:
        import numpy as np

        self._tiles = [np.zeros((side, side, 3), np.uint8) for _ in range(_LEVELS)]
        self._filled = [0] * _LEVELS

    def add(self, pixels: NDArray[np.uint8], level: int = 0) -> None:
        """Halve a tile of the level below, unless it is half a tile already, into the next quadrant of `level`."""
        import cv2
        import simplejpeg

        tile = self._tiles[level]
        half = tile.shape[0] // 2
        row, column = divmod(self._filled[level] % 4, 2)
        quadrant = tile[row * half : (row + 1) * half, column * half : (column + 1) * half]
        if pixels.shape[0] == half:
            quadrant[...] = pixels
        else:
            cv2.resize(pixels, (half, half), dst=quadrant, interpolation=cv2.INTER_AREA)
        self._filled[level] += 1
        if self._filled[level] % 4 == 0:
            simplejpeg.encode_jpeg(tile, 80, "RGB", "420", False)
            if level + 1 < _LEVELS:
                self.add(tile, level + 1)


class _Stitched:
    """Tiles of twice the side, each encoded when its four parts are there."""

    def __init__(self, side: int) -> None:
        import numpy as np

        self._tile = np.zeros((2 * side, 2 * side, 3), np.uint8)
        self._filled = 0

    def add(self, pixels: NDArray[np.uint8]) -> None:
        """Put a tile into the next quadrant."""
        import simplejpeg

        side = pixels.shape[0]
        row, column = divmod(self._filled % 4, 2)
        self._tile[row * side : (row + 1) * side, column * side : (column + 1) * side] = pixels
        self._filled += 1
        if self._filled % 4 == 0:
            simplejpeg.encode_jpeg(self._tile, 80, "RGB", "420", False)


def _work(kind: str, slide: Path, workers: int) -> dict[str, float]:
    import cv2
    import simplejpeg
    import tifffile
    from tests.factories.jpeg_tiles import merge_tables

    cv2.setNumThreads(1)
    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages.first
        tiles = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        tables, side = page.jpegtables or b"", page.tilewidth
    file = os.open(slide, os.O_RDONLY)
    options: dict[str, Any] = (
        {"min_height": side // 2, "min_width": side // 2, "min_factor": 2} if kind == "fast" else {}
    )

    def work(start: int) -> None:
        use: Callable[[Any], None] = lambda _pixels: None  # noqa: E731 - decoding alone
        if kind in ("pyramid", "fast"):
            use = _Levels(side).add
        elif kind == "reencode":
            use = _Stitched(side).add
        for offset, size in tiles[start : start + _BATCH]:
            use(simplejpeg.decode_jpeg(merge_tables(tables, os.pread(file, size, offset)), **options))

    digests = ["sha256", "md5"] if kind in ("pyramid", "fast") else []
    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(workers) as pool:
        hashed = [pool.submit(_digest, slide, name) for name in digests]
        list(pool.map(work, range(0, len(tiles), _BATCH)))
        for each in hashed:
            each.result()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    os.close(file)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak_mb}


def _digest(path: Path, name: str) -> None:
    with path.open("rb", buffering=0) as file:
        hashlib.file_digest(file, name)


if __name__ == "__main__":
    print(json.dumps(_work(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))))
