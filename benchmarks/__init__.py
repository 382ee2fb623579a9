"""Speed and memory of a conversion, as ratios to a peer and to limits measured in the same run."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".bench"
"""Slides, the peer's environment and the output of the run going on; not kept in git."""
