"""The limit: decode every base tile with libjpeg-turbo and do nothing with the pixels.

A program of its own, ``python -m benchmarks.decode_limit SLIDE WORKERS``, that prints seconds without start-up.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import ROOT
from benchmarks.measure import Measurement

__all__ = ["measure_decode_limit"]


def measure_decode_limit(slide: Path, workers: int) -> Measurement:
    """Decode in a process of its own; wall and CPU seconds are those between the first tile and the last."""
    command = [sys.executable, "-m", "benchmarks.decode_limit", str(slide), str(workers)]
    run = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    return Measurement(**json.loads(run.stdout), output_mb=0)


def _decode_all(slide: Path, workers: int) -> dict[str, float]:
    import simplejpeg
    import tifffile
    from tests.factories.jpeg_tiles import merge_tables

    with tifffile.TiffFile(slide) as tiff:
        page = tiff.pages.first
        tiles = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        tables, columns = page.jpegtables or b"", page.imagewidth // page.tilewidth
    file = os.open(slide, os.O_RDONLY)

    def decode(start: int) -> None:
        for offset, size in tiles[start : start + columns]:
            simplejpeg.decode_jpeg(merge_tables(tables, os.pread(file, size, offset)))

    wall, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(decode, range(0, len(tiles), columns)))
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    os.close(file)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall_s": wall, "cpu_s": cpu, "peak_mb": peak_mb}


if __name__ == "__main__":
    print(json.dumps(_decode_all(Path(sys.argv[1]), int(sys.argv[2]))))
