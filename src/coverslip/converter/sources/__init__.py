"""Open slides of every vendor behind one contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coverslip.converter.sources.registry import open_slide

__all__ = ["open_slide"]


def __getattr__(name: str) -> Any:
    """Load the registry on first use, so that importing the package loads no library."""
    if name == "open_slide":
        from coverslip.converter.sources.registry import open_slide

        return open_slide
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
