"""How many slides may be worked on at once: cores, memory and disk, and what a slide is expected to need of each.

Estimates rest on measurements (docs/pipeline.md): a conversion streams, so its memory grows with its threads and hardly
with the slide. They are corrected by what processes are seen to take.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coverslip.errors import StoreError
from coverslip.pipeline.fetch import is_remote
from coverslip.pipeline.in_place import CACHE_BYTES, may_be_in_place
from coverslip.pipeline.manifest import Slide

__all__ = ["Budget", "Estimator", "Need", "available_memory", "free_disk", "output_ratio_of"]

_MIB = 1 << 20
_PROCESS_BYTES = 230 * _MIB
"""Of a worker that has loaded what conversion, validation and delivery import."""

_THREAD_BYTES = 16 * _MIB
_MEMORY_SHARE = 0.8
_SIZE_SHARE = 0.02
"""Of the slide's bytes: rows of the upper levels, indexes of tiles."""

_OUTPUT_RATIO = 1.4
"""Bytes written for a byte read: stored tiles are copied, and the levels that lack add a third."""

_MARGIN = 1.1
_SMALL_BYTES = 96 * _MIB
_UNKNOWN_BYTES = 350 * _MIB
"""For a slide of unknown size; the median of published series."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What all slides together may take.

    Parameters
    ----------
    threads : int
    memory_bytes, scratch_bytes : int
    """

    threads: int
    memory_bytes: int
    scratch_bytes: int


@dataclass(frozen=True, slots=True)
class Need:
    """What a slide is expected to take."""

    threads: int
    memory_bytes: int
    scratch_bytes: int
    in_place: bool = False
    """Whether it is read where it lies, because source and output together do not fit."""


class Estimator:
    """Says what slides need, and learns from what they took.

    Parameters
    ----------
    budget : Budget
    frames_bytes : int
        What one conversion may hold of frames.
    output_ratio : float
        Bytes written for a byte read; see `output_ratio_of`.
    """

    def __init__(self, budget: Budget, frames_bytes: int, *, output_ratio: float = _OUTPUT_RATIO) -> None:
        self.budget = budget
        self._frames_bytes = frames_bytes
        self.output_ratio = output_ratio
        self._scale = 1.0

    def need_of(self, slide: Slide) -> Need:
        """Return what a slide is expected to need."""
        size = _UNKNOWN_BYTES if slide.size_bytes is None else slide.size_bytes
        threads = min(self.budget.threads, 1 if size < _SMALL_BYTES else max(2, 1 + size // (512 * _MIB)), 16)
        memory = _PROCESS_BYTES + min(self._frames_bytes, 2 * size) + threads * _THREAD_BYTES + int(_SIZE_SHARE * size)
        output = int(self.output_ratio * size * _MARGIN)
        source = int(size * _MARGIN) if is_remote(slide) else 0
        in_place = source + output > self.budget.scratch_bytes and may_be_in_place(slide)
        memory += CACHE_BYTES if in_place else 0
        return Need(threads, int(memory * self._scale), output + (0 if in_place else source), in_place)

    def learn(self, need: Need, peak_bytes: int) -> None:
        """Note what a slide took; a process that took more than expected makes all later ones expected to."""
        if peak_bytes > need.memory_bytes:
            self._scale *= peak_bytes / need.memory_bytes

    def require_disk(self, slides: Sequence[Slide]) -> None:
        """Refuse to start if the largest slide does not fit into the scratch space.

        Raises
        ------
        StoreError
        """
        needs = [(self.need_of(slide).scratch_bytes, slide.number) for slide in slides]
        most, number = max(needs, default=(0, 0))
        if most > self.budget.scratch_bytes:
            raise StoreError(
                f"slide {number} of the manifest needs {most / 1e6:,.1f} MB of scratch (source, output and a tenth), "
                f"{self.budget.scratch_bytes / 1e6:,.1f} MB are there"
            )


def output_ratio_of(codec: str | None) -> float:
    """Return how many bytes are written for a byte read at the most, by the codec that all frames are encoded with.

    Slides are stored at about a tenth of their pixels' bytes; levels that lack add a third.
    """
    name = (codec or "").lower()
    if name == "none":
        return 14.0
    if name in ("jpeg2000", "htj2k", "jpegls") or name.endswith(":lossless"):
        return 7.0
    return _OUTPUT_RATIO


def available_memory() -> int:
    """Return the bytes of memory that a run may take: a share of what is free here, or what the container may use."""
    limits = [_meminfo("MemAvailable")]
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdigit():
            limits.append(int(text))
    return int(min(limits) * _MEMORY_SHARE)


def _meminfo(name: str) -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def free_disk(folder: Path) -> int:
    """Return the bytes that are free where a folder is, or will be; a tenth is left to others."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return int(shutil.disk_usage(place).free * 0.9)
