"""The slides that are converted, made once and kept as long as the code that makes them is unchanged."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.factories.aperio import AperioCoding, write_aperio_svs
from tests.factories.big import write_big_svs, write_big_tiff

from benchmarks import CACHE, ROOT

__all__ = ["CODINGS", "SIZES", "aperio_slide", "plain_slide", "tiny_slide"]

SIZES = {"0.05": (6_000, 8_000), "1.2": (30_000, 40_000), "4.8": (60_000, 80_000)}
"""Rows and columns by gigapixels; the smallest is for trying the benchmarks out."""

CODINGS = {
    # 4:2:0 is what the GT 450 and converters based on libjpeg defaults write, and what the published figures of
    # peers and limits were taken on; older scanners (CS, AT2) write RGB 4:4:4.
    "ycbcr420": AperioCoding("jpeg-ycbcr", 75, "420"),
    "ycbcr422": AperioCoding("jpeg-ycbcr", 75, "422"),
    "rgb": AperioCoding("jpeg-rgb", 75, "444"),
}


_FACTORIES = ("aperio", "big", "generic", "jpeg_tiles", "tiff_stream", "tissue")


def aperio_slide(size: str, coding: str) -> Path:
    """Return an Aperio SVS with native levels at 4, 16 and 32."""
    rows, columns = SIZES[size]
    write = partial(write_big_svs, rows=rows, columns=columns, coding=CODINGS[coding])
    return _cached(f"{coding}-{rows}x{columns}", ".svs", write)


def plain_slide() -> Path:
    """Return a deflate TIFF of 16,000 x 12,000 with levels at 4 and 16."""
    return _cached("deflate-12000x16000", ".tif", partial(write_big_tiff, rows=12_000, columns=16_000))


def tiny_slide() -> Path:
    """Return an SVS of one tile: converting it takes the time of starting up."""
    return _cached("tiny", ".svs", _write_tiny)


def _write_tiny(path: Path) -> None:
    write_aperio_svs(path, rows=256, columns=256, compression="jpeg-ycbcr", native_downsamples=())


def _cached(name: str, suffix: str, write: Callable[[Path], None]) -> Path:
    code = b"".join((ROOT / "tests" / "factories" / f"{module}.py").read_bytes() for module in _FACTORIES)
    key = hashlib.sha256(code).hexdigest()[:12]
    folder = CACHE / "slides"
    path = folder / f"{name}-{key}{suffix}"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for outdated in folder.glob(f"{name}-*"):
            outdated.unlink()
        unfinished = folder / f"{name}-unfinished{suffix}"
        write(unfinished)
        unfinished.rename(path)
    return path
