"""Tiles: DeepZoom, the IIIF Image API 3 and XYZ with TileJSON, rendered from the nearest level."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Path, Query, Request
from starlette.responses import RedirectResponse, Response

from coverslip.server.caching import answer_cached, not_modified
from coverslip.server.dicomweb_routes import Uid
from coverslip.server.iiif import parse_image_request
from coverslip.server.negotiation import choose_media_type
from coverslip.server.rendering import Region, Style, encode_picture, parse_channels
from coverslip.server.responses import FAILURES
from coverslip.server.service import Service, base_url
from coverslip.server.slide_image import SlideImage
from coverslip.tiler.codecs.base import Pixels

__all__ = ["tile_router"]

_FORMATS = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png"}
_IIIF_CONTEXT = "http://iiif.io/api/image/3/context.json"
_LD_JSON = f'application/ld+json;profile="{_IIIF_CONTEXT}"'

Channels = Annotated[
    str,
    Query(max_length=1000, description="Of a monochrome slide: ID[:RRGGBB][:LOW-HIGH] of each, with commas between."),
]
Number = Annotated[str, Path(pattern=r"^[0-9]{1,7}$")]
TileFormat = Annotated[str, Path(pattern=r"^(jpg|jpeg|png)$")]
Part = Annotated[str, Path(max_length=100, pattern=r"^[A-Za-z0-9:,.!^%]+$")]
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}, "image/png": {}}},
    304: {"description": "Not changed."},
}
_JSON: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}}}}


@dataclass(frozen=True, slots=True)
class _Grid:
    """Halved sizes of a slide, tile by tile, the largest last."""

    columns: int
    rows: int
    side: int
    levels: int

    def size(self, level: int) -> tuple[int, int, int]:
        """Return (pixels of the base for one, columns, rows) of a level."""
        step = 1 << (self.levels - 1 - level)
        return step, -(-self.columns // step), -(-self.rows // step)

    def tile(self, level: int, column: int, row: int) -> tuple[Region, tuple[int, int]] | None:
        """Return the region of a tile and its (rows, columns); None if it lies beside the slide."""
        if not 0 <= level < self.levels:
            return None
        step, columns, rows = self.size(level)
        x, y = column * self.side, row * self.side
        if x >= columns or y >= rows:
            return None
        width, height = min(self.side, columns - x), min(self.side, rows - y)
        return Region(x * step, y * step, width * step, height * step), (height, width)


def tile_router(service: Service) -> APIRouter:
    """Return the routes of tiles."""
    router = APIRouter(tags=["Tiles"], responses=FAILURES)
    _add_deep_zoom(router, service)
    _add_iiif(router, service)
    _add_xyz(router, service)
    return router


def _slide(service: Service, series: str) -> SlideImage:
    return service.slides.get(list(service.series(series).instances.values()))


def _etag(slide: SlideImage, request: Request) -> str:
    return hashlib.sha256(f"{slide.etag} {request.url.path}?{request.url.query}".encode()).hexdigest()[:24]


def _tile(
    request: Request,
    service: Service,
    slide: SlideImage,
    place: tuple[Region, tuple[int, int]],
    form: str,
    channels: str,
) -> Response:
    etag = _etag(slide, request)
    if (unchanged := not_modified(request, etag)) is not None:
        return unchanged
    with service.rendering():
        pixels = service.renderer.render(slide, *place, Style(parse_channels(channels)))
        return answer_cached(encode_picture(pixels, _FORMATS[form]), _FORMATS[form], etag)


def _add_deep_zoom(router: APIRouter, service: Service) -> None:
    def grid(slide: SlideImage) -> _Grid:
        levels = math.ceil(math.log2(max(slide.columns, slide.rows, 1))) + 1
        return _Grid(slide.columns, slide.rows, slide.tile_side, levels)

    @router.get("/deepzoom/{series}.dzi", responses={200: {"content": {"application/xml": {}}}}, summary="DeepZoom")
    def describe(series: Uid, form: Annotated[str, Query(pattern="^(jpg|png)$")] = "jpg") -> Response:
        found = _slide(service, series)
        text = (
            '<?xml version="1.0" encoding="UTF-8"?>\n<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" '
            f'Format="{form}" Overlap="0" TileSize="{found.tile_side}">'
            f'<Size Width="{found.columns}" Height="{found.rows}"/></Image>\n'
        )
        return answer_cached(text.encode(), "application/xml", f"{found.etag}-dzi-{form}", revalidate=True)

    @router.get(
        "/deepzoom/{series}_files/{level}/{column}_{row}.{form}", responses=_PICTURE, summary="A tile of DeepZoom"
    )
    def tile(
        request: Request,
        series: Uid,
        level: Number,
        column: Number,
        row: Number,
        form: TileFormat,
        channels: Channels = "",
    ) -> Response:
        found = _slide(service, series)
        place = grid(found).tile(int(level), int(column), int(row))
        if place is None:
            raise HTTPException(404, "there is no such tile")
        return _tile(request, service, found, place, form, channels)


def _add_xyz(router: APIRouter, service: Service) -> None:
    def grid(slide: SlideImage) -> _Grid:
        side = slide.tile_side
        levels = max(0, math.ceil(math.log2(max(slide.columns, slide.rows) / side))) + 1
        return _Grid(slide.columns, slide.rows, side, levels)

    @router.get("/xyz/{series}/tilejson.json", responses=_JSON, summary="TileJSON 3")
    def describe(request: Request, series: Uid) -> Response:
        found = _slide(service, series)
        tiling = grid(found)
        place = f"{base_url(request)}/xyz/{series}"
        told = {
            "tilejson": "3.0.0",
            "scheme": "xyz",
            "tiles": [f"{place}/{{z}}/{{x}}/{{y}}.jpg"],
            "minzoom": 0,
            "maxzoom": tiling.levels - 1,
            # A slide lies nowhere on Earth: clients use a plane of pixels (CRS.Simple in Leaflet).
            "bounds": [-180, -85.05112877980659, 180, 85.0511287798066],
            "vector_layers": [],
            "width": found.columns,
            "height": found.rows,
            "tileSize": tiling.side,
        }
        body = json.dumps(told).encode()
        return answer_cached(body, "application/json", f"{_etag(found, request)}-{place}", revalidate=True)

    @router.get("/xyz/{series}/{z}/{x}/{y}.{form}", responses=_PICTURE, summary="A tile, filled up to its full size")
    def tile(
        request: Request, series: Uid, z: Number, x: Number, y: Number, form: TileFormat, channels: Channels = ""
    ) -> Response:
        found = _slide(service, series)
        tiling = grid(found)
        place = tiling.tile(int(z), int(x), int(y))
        if place is None:
            raise HTTPException(404, "there is no such tile")
        region, (rows, columns) = place
        step = tiling.size(int(z))[0]
        whole = Region(region.x, region.y, tiling.side * step, tiling.side * step)
        if (rows, columns) == (tiling.side, tiling.side):
            whole = region
        return _tile(request, service, found, (whole, (tiling.side, tiling.side)), form, channels)


def _add_iiif(router: APIRouter, service: Service) -> None:
    @router.get("/iiif/{series}", status_code=303, response_class=RedirectResponse, summary="IIIF: to info.json")
    def redirect(request: Request, series: Uid) -> Response:
        service.series(series)
        return RedirectResponse(f"{base_url(request)}/iiif/{series}/info.json", 303)

    @router.get("/iiif/{series}/info.json", responses=_JSON, summary="IIIF Image API 3: the slide")
    def info(request: Request, series: Uid) -> Response:
        found = _slide(service, series)
        told = _info(found, f"{base_url(request)}/iiif/{series}", service.settings.limits.output_pixels)
        wants_ld = choose_media_type(request.headers.get("accept", ""), ("application/json", "application/ld+json"))
        kind = _LD_JSON if wants_ld == "application/ld+json" else "application/json"
        return answer_cached(json.dumps(told).encode(), kind, f"{_etag(found, request)}-{kind[12:14]}", revalidate=True)

    @router.get(
        "/iiif/{series}/{region}/{size}/{rotation}/{quality}.{form}", responses=_PICTURE, summary="IIIF Image API 3"
    )
    def image(
        request: Request,
        series: Uid,
        region: Part,
        size: Part,
        rotation: Part,
        quality: Part,
        form: Part,
        channels: Channels = "",
    ) -> Response:
        found = _slide(service, series)
        most = service.settings.limits.output_pixels
        asked = parse_image_request(
            found.columns, found.rows, most, region=region, size=size, rotation=rotation, quality=quality, form=form
        )
        etag = _etag(found, request)
        if (unchanged := not_modified(request, etag)) is not None:
            return unchanged
        with service.rendering():
            pixels = service.renderer.render(found, asked.region, asked.size, Style(parse_channels(channels)))
            body = encode_picture(_turned(pixels, asked.mirrored, asked.quarter_turns, asked.quality), asked.media_type)
        answer = answer_cached(body, asked.media_type, etag)
        answer.headers["Link"] = '<http://iiif.io/api/image/3/level2.json>;rel="profile"'
        return answer


def _turned(pixels: Pixels, mirrored: bool, quarter_turns: int, quality: str) -> Pixels:
    if mirrored:
        pixels = pixels[:, ::-1]
    pixels = np.rot90(pixels, -quarter_turns)
    if quality in ("gray", "bitonic"):
        weights = np.array([0.299, 0.587, 0.114], np.float32)
        pixels = (pixels @ weights + 0.5).astype(np.uint8)[:, :, None]
    if quality == "bitonic":
        pixels = np.where(pixels < 128, 0, 255).astype(np.uint8)
    return pixels


def _info(slide: SlideImage, url: str, most: int) -> dict[str, Any]:
    factors = [1 << power for power in range(max(1, math.ceil(math.log2(max(slide.columns, slide.rows) / 128))))]
    sizes = [
        {"width": -(-slide.columns // factor), "height": -(-slide.rows // factor)}
        for factor in reversed(factors)
        if -(-slide.columns // factor) * -(-slide.rows // factor) <= most
    ]
    return {
        "@context": _IIIF_CONTEXT,
        "id": url,
        "type": "ImageService3",
        "protocol": "http://iiif.io/api/image",
        "profile": "level2",
        "width": slide.columns,
        "height": slide.rows,
        "maxArea": most,
        "sizes": sizes,
        "tiles": [{"width": slide.tile_side, "scaleFactors": factors}],
        "preferredFormats": ["jpg"],
        "extraQualities": ["color", "gray", "bitonic"],
        "extraFeatures": ["mirroring", "rotationBy90s", "sizeUpscaling", "profileLinkHeader", "jsonldMediaType"],
    }
