"""Colours of slides as screens show them: sRGB, by their ICC profiles."""

from __future__ import annotations

import hashlib
import threading
from functools import lru_cache
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np

from coverslip.metadata_maps.icc import srgb_input_profile

if TYPE_CHECKING:
    from coverslip.tiler.codecs.base import Pixels

__all__ = ["as_srgb"]

_RAMP = np.stack(np.meshgrid(*[np.arange(0, 256, 51)] * 3), axis=-1).reshape(1, -1, 3).astype(np.uint8)
_lock = threading.Lock()
_known: dict[str, bool] = {}


def as_srgb(pixels: Pixels, profile: bytes) -> Pixels:
    """Return RGB pixels in sRGB; as they are if the profile says that they are, or cannot be used."""
    key = hashlib.sha256(profile).hexdigest()
    if key not in _known:
        with _lock:
            if len(_known) > 1024:
                _known.clear()
            changed = _transform(_RAMP, profile)
            # A profile that changes nothing by more than rounding is not worth the time.
            _known[key] = changed is not None and int(np.abs(changed.astype(int) - _RAMP).max()) > 1
    if not _known[key]:
        return pixels
    changed = _transform(pixels, profile)
    return pixels if changed is None else changed


def _transform(pixels: Pixels, profile: bytes) -> Pixels | None:
    if profile == srgb_input_profile():
        return None
    try:
        found: Pixels = imagecodecs.cms_transform(
            np.ascontiguousarray(pixels), profile, _srgb(), intent=imagecodecs.CMS.INTENT.RELATIVE_COLORIMETRIC
        )
    except (imagecodecs.CmsError, ValueError, RuntimeError):
        return None
    return found


@lru_cache(1)
def _srgb() -> bytes:
    profile: bytes = imagecodecs.cms_profile("srgb")
    return profile
