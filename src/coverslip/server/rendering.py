"""Regions of slides as RGB pixels, from the nearest level, with colours and windows of channels."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import cv2
import numpy as np

from coverslip.errors import UsageError
from coverslip.server.color import as_srgb
from coverslip.server.frame_coding import decode_frame

if TYPE_CHECKING:
    from coverslip.server.archive import IndexedInstance
    from coverslip.server.open_instances import OpenInstances
    from coverslip.server.settings import Limits
    from coverslip.server.slide_image import Level, SlideImage
    from coverslip.tiler.codecs.base import Pixels

__all__ = ["ChannelStyle", "Region", "Renderer", "Style", "encode_picture", "parse_channels"]

_CACHE_BYTES = 96 << 20
_TOLERANCE = 1.01
_CHANNEL = re.compile(r"(?P<id>[^,:]{1,64})(?::(?P<color>[0-9A-Fa-f]{6}))?(?::(?P<low>\d{1,5})-(?P<high>\d{1,5}))?")
_WHITE, _BLACK = 255, 0
_STATISTICS_SIDE = 512


@dataclass(frozen=True, slots=True)
class ChannelStyle:
    """How a monochrome channel is shown.

    Parameters
    ----------
    identifier : str
        Of the optical path.
    color : str
        Six hexadecimal digits; empty for its own.
    window : tuple of float or None
        Values that become black and full colour; None for what suits the slide.
    """

    identifier: str
    color: str = ""
    window: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """How a slide is shown.

    Parameters
    ----------
    channels : tuple of ChannelStyle
        Of a monochrome slide; empty for the first eight.
    window : tuple of float or None
        Of all channels that have none of their own.
    icc : bool
        Whether the profile of a colour slide is applied.
    """

    channels: tuple[ChannelStyle, ...] = ()
    window: tuple[float, float] | None = None
    icc: bool = True


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the base in pixels; it may go beyond the slide."""

    x: float
    y: float
    width: float
    height: float


def parse_channels(text: str) -> tuple[ChannelStyle, ...]:
    """Read ``ID[:RRGGBB][:LOW-HIGH],...``.

    Raises
    ------
    UsageError
        If it is none.
    """
    if not text:
        return ()
    found: list[ChannelStyle] = []
    for each in text.split(","):
        match = _CHANNEL.fullmatch(each)
        if match is None or len(found) == 16:
            raise UsageError("channels: expected at most 16 of ID:RRGGBB:LOW-HIGH, with commas between")
        window = None
        if match["low"] is not None:
            window = float(match["low"]), float(match["high"])
            if window[0] >= window[1]:
                raise UsageError("channels: expected a window whose second number is larger")
        found.append(ChannelStyle(match["id"], match["color"] or "", window))
    return tuple(found)


class Renderer:
    """Renders regions; safe in any thread.

    Parameters
    ----------
    opened : OpenInstances
    limits : Limits
    """

    def __init__(self, opened: OpenInstances, limits: Limits) -> None:
        self._opened = opened
        self._limits = limits
        self._lock = threading.Lock()
        self._frames: OrderedDict[tuple[str, str, int], Pixels] = OrderedDict()
        self._bytes = 0
        self._windows: dict[tuple[str, str], tuple[float, float]] = {}

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="decode")

    def render(self, slide: SlideImage, region: Region, size: tuple[int, int], style: Style) -> Pixels:
        """Return (rows, columns, 3) of RGB.

        Parameters
        ----------
        size : tuple of int
            (rows, columns) of the result.

        Raises
        ------
        UsageError
            If more is asked for than limits allow, or the region lies beside the slide.
        """
        if size[0] * size[1] > self._limits.output_pixels:
            raise UsageError(f"{size[1]} x {size[0]} pixels, expected at most {self._limits.output_pixels} in all")
        if slide.is_color:
            path = slide.paths[0].identifier
            pixels = self._plane(slide, path, region, size, _WHITE)
            return as_srgb(pixels, slide.icc_profile) if style.icc and slide.icc_profile else pixels
        return self._composite(slide, region, size, style)

    def _composite(self, slide: SlideImage, region: Region, size: tuple[int, int], style: Style) -> Pixels:
        known = {path.identifier: path for path in slide.paths}
        channels = style.channels or tuple(ChannelStyle(path.identifier) for path in slide.paths[:8])
        single = len(slide.paths) == 1 and not style.channels
        summed = np.zeros((*size, 3), np.float32)
        for channel in channels:
            path = known.get(channel.identifier)
            if path is None:
                raise UsageError("channels: the slide has no such optical path")
            low, high = channel.window or style.window or self._window(slide, path.identifier)
            gray = self._plane(slide, path.identifier, region, size, _BLACK)[:, :, 0].astype(np.float32)
            gray = np.clip((gray - low) / max(high - low, 1e-6), 0, 1)
            color = channel.color or ("ffffff" if single else path.color)
            summed += gray[:, :, None] * np.frombuffer(bytes.fromhex(color), np.uint8).astype(np.float32)
        shown: Pixels = np.clip(summed + 0.5, 0, 255).astype(np.uint8)
        return shown

    def window(self, slide: SlideImage, path: str) -> tuple[float, float]:
        """Return the window in which a channel is shown if none is asked for."""
        return self._window(slide, path)

    def _window(self, slide: SlideImage, path: str) -> tuple[float, float]:
        key = slide.etag, path
        if key not in self._windows:
            level = slide.levels[-1]
            rows, columns = min(level.rows, _STATISTICS_SIDE), min(level.columns, _STATISTICS_SIDE)
            whole = Region(0, 0, slide.columns, slide.rows)
            values = self._plane(slide, path, whole, (rows, columns), _BLACK)
            low, high = np.percentile(values, (1, 99.7))
            if len(self._windows) > 4096:
                self._windows.clear()
            self._windows[key] = float(low), float(max(high, low + 1))
        return self._windows[key]

    def _plane(self, slide: SlideImage, path: str, region: Region, size: tuple[int, int], fill: int) -> Pixels:
        """Return one optical path of a region, scaled to a size."""
        wanted = min(region.width / size[1], region.height / size[0]) * _TOLERANCE
        levels = [each for each in slide.levels if path in each.tiles]
        if not levels:
            raise UsageError("the slide has no such optical path")
        level = next((each for each in reversed(levels) if max(each.scale) <= max(wanted, 1.0)), levels[0])
        row_scale, column_scale = level.scale
        left, top = region.x / column_scale, region.y / row_scale
        right, bottom = left + region.width / column_scale, top + region.height / row_scale
        # Whole pixels around the region; what halving has rounded up belongs to the last one.
        box = (round(top), round(left), max(round(top) + 1, round(bottom)), max(round(left) + 1, round(right)))
        pixels = self._assemble(level, path, box, fill)
        if pixels.shape[:2] == size:
            return pixels
        smaller = pixels.shape[0] >= size[0] and pixels.shape[1] >= size[1]
        scaled = cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
        return scaled.reshape(*size, -1)

    def _assemble(self, level: Level, path: str, box: tuple[int, int, int, int], fill: int) -> Pixels:
        """Return a rectangle of a level (top, left, bottom, right) from its tiles."""
        top, left, bottom, right = box
        rows = range(max(0, top) // level.tile_rows, (min(level.rows, bottom) - 1) // level.tile_rows + 1)
        columns = range(max(0, left) // level.tile_columns, (min(level.columns, right) - 1) // level.tile_columns + 1)
        pixels = len(rows) * len(columns) * level.tile_rows * level.tile_columns
        pixels = max(pixels, (bottom - top) * (right - left))
        if pixels > self._limits.decoded_pixels:
            raise UsageError(
                f"the region takes {pixels} stored pixels, expected at most {self._limits.decoded_pixels}: "
                "ask for a smaller region, or for a smaller picture of it"
            )
        found = (((row, column), level.find(path, row, column)) for row in rows for column in columns)
        frames = [(place, where) for place, where in found if where is not None]
        decode = map if len(frames) < 2 else self._pool.map
        tiles = list(decode(lambda frame: self._decode(*frame[1]), frames))
        samples, dtype = (tiles[0].shape[2], tiles[0].dtype) if tiles else (3 if fill else 1, np.dtype(np.uint8))
        whole = np.full((bottom - top, right - left, samples), fill, dtype)
        for ((row, column), _where), tile in zip(frames, tiles, strict=True):
            y, x = row * level.tile_rows, column * level.tile_columns
            y_from, y_to = max(top, y), min(bottom, y + level.tile_rows, level.rows)
            x_from, x_to = max(left, x), min(right, x + level.tile_columns, level.columns)
            cut = tile[y_from - y : y_to - y, x_from - x : x_to - x]
            whole[y_from - top : y_to - top, x_from - left : x_to - left] = cut
        return whole

    def _decode(self, instance: IndexedInstance, index: int) -> Pixels:
        opened = self._opened.open(instance)
        key = opened.etag, instance.sop_instance_uid, index
        with self._lock:
            if key in self._frames:
                self._frames.move_to_end(key)
                return self._frames[key]
        pixels = decode_frame(opened, index)
        with self._lock:
            if key not in self._frames and pixels.nbytes <= _CACHE_BYTES // 8:
                self._frames[key] = pixels
                self._bytes += pixels.nbytes
            while self._bytes > _CACHE_BYTES:
                self._bytes -= self._frames.popitem(last=False)[1].nbytes
        return pixels


def encode_picture(pixels: Pixels, media_type: str, quality: int = 85) -> bytes:
    """Return RGB or gray pixels as ``image/jpeg`` or ``image/png``."""
    pixels = np.ascontiguousarray(pixels)
    if media_type == "image/jpeg":
        import simplejpeg

        gray = pixels.shape[2] == 1
        coding = ("GRAY", "Gray") if gray else ("RGB", "420")
        encoded: bytes = simplejpeg.encode_jpeg(pixels, quality, *coding)
        return encoded
    # OpenCV wants blue first.
    good, data = cv2.imencode(".png", pixels[:, :, ::-1] if pixels.shape[2] == 3 else pixels)
    assert good
    return data.tobytes()
