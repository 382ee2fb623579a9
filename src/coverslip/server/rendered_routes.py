"""Pictures over DICOMweb: rendered instances and frames, and thumbnails (PS3.18 8.3.5, 10.4.1.1.3, 10.4.1.1.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Path, Query, Request
from starlette.responses import Response

from coverslip.errors import UsageError
from coverslip.server.caching import answer_cached, not_modified
from coverslip.server.color import as_srgb
from coverslip.server.dicomweb_routes import PREFIX, Uid
from coverslip.server.frame_coding import decode_frame
from coverslip.server.negotiation import choose_media_type
from coverslip.server.rendering import Region, Style, encode_picture
from coverslip.server.responses import FAILURES, FAILURES_OF_FORMS
from coverslip.server.service import Service
from coverslip.server.viewport import Viewport, fit_within, parse_viewport, parse_window

if TYPE_CHECKING:
    from coverslip.server.archive import IndexedInstance
    from coverslip.server.slide_image import SlideImage
    from coverslip.tiler.codecs.base import Pixels

__all__ = ["rendered_router"]

_TYPES = ("image/jpeg", "image/png")
_THUMBNAIL_SIDE = 256
_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {}, "image/png": {}}},
    304: {"description": "Not changed."},
    **FAILURES_OF_FORMS,
}

FrameNumber = Annotated[str, Path(pattern=r"^[1-9][0-9]{0,8}$", description="From 1.")]
ViewportText = Annotated[str, Query(max_length=200, description="width,height[,x,y,width,height]")]
WindowText = Annotated[str, Query(max_length=100, description="center,width,linear")]
Quality = Annotated[int, Query(ge=1, le=100, description="Of JPEG.")]
Profile = Annotated[str, Query(pattern="^(no|yes|srgb)$", description="Whether colours become sRGB.")]


def rendered_router(service: Service) -> APIRouter:
    """Return the routes of pictures."""
    router = APIRouter(prefix=PREFIX, tags=["DICOMweb"], responses=FAILURES)
    _add_rendered(router, service)
    _add_thumbnails(router, service)
    return router


def _add_rendered(router: APIRouter, service: Service) -> None:
    place = "/studies/{study}/series/{series}/instances/{instance}"

    @router.get(f"{place}/rendered", responses=_PICTURE, summary="A whole level as a picture")
    def rendered_instance(
        request: Request,
        study: Uid,
        series: Uid,
        instance: Uid,
        viewport: ViewportText = "",
        window: WindowText = "",
        quality: Quality = 85,
        iccprofile: Profile = "srgb",
    ) -> Response:
        media_type = _media_type(request)
        found = service.instances(study, series, instance)[0]
        slide, size = _slide_of(service, found)
        etag = f"{slide.etag}-r-{instance}-{media_type}-{request.url.query}"
        if (unchanged := not_modified(request, _tag(etag))) is not None:
            return unchanged
        view = parse_viewport(viewport) if viewport else Viewport(*_within_limit(service, size), 0, 0, size[1], size[0])
        style = Style(window=parse_window(window), icc=iccprofile != "no")
        pixels = _view(service, slide, size, view, style)
        return answer_cached(encode_picture(pixels, media_type, quality), media_type, _tag(etag))

    @router.get(f"{place}/frames/{{frame}}/rendered", responses=_PICTURE, summary="A frame as a picture")
    def rendered_frame(
        request: Request,
        study: Uid,
        series: Uid,
        instance: Uid,
        frame: FrameNumber,
        window: WindowText = "",
        quality: Quality = 85,
        iccprofile: Profile = "srgb",
    ) -> Response:
        media_type = _media_type(request)
        opened = service.instance(study, series, instance)
        index = int(frame) - 1
        if index >= opened.number_of_frames:
            raise HTTPException(404, f"the instance has {opened.number_of_frames} frames")
        etag = f"{opened.etag}-p{index}-{media_type}-{request.url.query}"
        if (unchanged := not_modified(request, _tag(etag))) is not None:
            return unchanged
        with service.rendering():
            pixels = decode_frame(opened, index)
            slide = service.slides.get([opened.indexed])
            if pixels.shape[2] == 1:
                pixels = _windowed(
                    pixels, parse_window(window) or service.renderer.window(slide, slide.paths[0].identifier)
                )
            elif iccprofile != "no" and slide.icc_profile:
                pixels = as_srgb(pixels, slide.icc_profile)
            return answer_cached(encode_picture(pixels, media_type, quality), media_type, _tag(etag))


def _add_thumbnails(router: APIRouter, service: Service) -> None:
    def answer(request: Request, viewport: str, study: str, series: str = "", instance: str = "") -> Response:
        media_type = _media_type(request)
        found = service.instances(study, series, instance)
        slide = service.slides.get(_shown(found))
        etag = f"{slide.etag}-t-{media_type}-{request.url.query}"
        if (unchanged := not_modified(request, _tag(etag))) is not None:
            return unchanged
        size = slide.rows, slide.columns
        side = _THUMBNAIL_SIDE
        asked = parse_viewport(viewport) if viewport else Viewport(side, side, 0, 0, size[1], size[0])
        pixels = _view(service, slide, size, asked, Style())
        return answer_cached(encode_picture(pixels, media_type), media_type, _tag(etag))

    @router.get("/studies/{study}/thumbnail", responses=_PICTURE, summary="A small picture of a study")
    def study_thumbnail(request: Request, study: Uid, viewport: ViewportText = "") -> Response:
        return answer(request, viewport, study)

    @router.get("/studies/{study}/series/{series}/thumbnail", responses=_PICTURE, summary="A small picture of a series")
    def series_thumbnail(request: Request, study: Uid, series: Uid, viewport: ViewportText = "") -> Response:
        return answer(request, viewport, study, series)

    @router.get(
        "/studies/{study}/series/{series}/instances/{instance}/thumbnail",
        responses=_PICTURE,
        summary="A small picture of an instance",
    )
    def instance_thumbnail(
        request: Request, study: Uid, series: Uid, instance: Uid, viewport: ViewportText = ""
    ) -> Response:
        return answer(request, viewport, study, series, instance)


def _media_type(request: Request) -> str:
    found = choose_media_type(request.headers.get("accept", ""), _TYPES)
    if found is None:
        raise HTTPException(406, f"given are {' and '.join(_TYPES)}")
    return found


def _tag(text: str) -> str:
    """Return a tag that may stand in a header, whatever was asked for."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _shown(instances: list[IndexedInstance]) -> list[IndexedInstance]:
    """Return the instances of the first series that has a slide's levels, else all."""
    for each in instances:
        if each.flavor == "VOLUME":
            return [one for one in instances if one.series_instance_uid == each.series_instance_uid]
    return instances


def _slide_of(service: Service, instance: IndexedInstance) -> tuple[SlideImage, tuple[int, int]]:
    """Return the slide that shows an instance, coarser levels of it too, with (rows, columns) of the instance."""
    alone = service.slides.get([instance])
    size = alone.rows, alone.columns
    if instance.flavor == "VOLUME":
        slide = service.slides.get(list(service.series(instance.series_instance_uid).instances.values()))
        own = {path.identifier for path in alone.paths}
        if size in {(level.rows, level.columns) for level in slide.levels} and own == {
            path.identifier for path in slide.paths
        }:
            return slide, size
    return alone, size


def _within_limit(service: Service, size: tuple[int, int]) -> tuple[float, float]:
    """Return (width, height) of a picture no larger than the limit."""
    most = service.settings.limits.output_pixels
    scale = min(1.0, (most / (size[0] * size[1])) ** 0.5)
    return max(1.0, size[1] * scale), max(1.0, size[0] * scale)


def _view(service: Service, slide: SlideImage, size: tuple[int, int], view: Viewport, style: Style) -> Pixels:
    """Render a viewport of an instance of a size, which may be a coarser level of the slide."""
    width, height = abs(view.source_width) or size[1] - view.x, abs(view.source_height) or size[0] - view.y
    if not (0 <= view.x < size[1] and 0 <= view.y < size[0] and width > 0 and height > 0):
        raise UsageError("viewport: expected a region that begins within the picture")
    width, height = min(width, size[1] - view.x), min(height, size[0] - view.y)
    columns, rows = fit_within(width, height, view.width, view.height)
    by_row, by_column = slide.rows / size[0], slide.columns / size[1]
    region = Region(view.x * by_column, view.y * by_row, width * by_column, height * by_row)
    with service.rendering():
        pixels = service.renderer.render(slide, region, (rows, columns), style)
    if view.source_width < 0:
        pixels = pixels[:, ::-1]
    return pixels[::-1] if view.source_height < 0 else pixels


def _windowed(pixels: Pixels, window: tuple[float, float]) -> Pixels:
    low, high = window
    scaled = (pixels.astype(np.float32) - low) * (255 / max(high - low, 1e-6))
    shown: Pixels = np.clip(scaled + 0.5, 0, 255).astype(np.uint8)
    return shown
