"""Take instances into the store behind the server (STOW-RS, PS3.18 10.5)."""

from __future__ import annotations

__all__ = ["Receiver"]


class Receiver:
    """Puts instances into a store."""
