"""DICOMweb: searches, metadata, instances, frames and bulk data (PS3.18 chapter 10)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Request
from starlette.concurrency import iterate_in_threadpool
from starlette.responses import Response, StreamingResponse

from coverslip.server import multipart
from coverslip.server.caching import answer_cached, not_modified
from coverslip.server.frame_coding import encode_frame
from coverslip.server.metadata import BASE_PLACEHOLDER, make_metadata, read_bulk
from coverslip.server.negotiation import (
    FrameForm,
    choose_bulk_form,
    choose_frame_form,
    choose_media_type,
    parse_accept,
)
from coverslip.server.qido import SearchAnswer, parse_query, search
from coverslip.server.responses import FAILURES, FAILURES_OF_FORMS
from coverslip.server.service import Service, base_url

if TYPE_CHECKING:
    from coverslip.server.archive import IndexedInstance
    from coverslip.server.open_instances import OpenInstance

__all__ = ["DICOM_JSON", "Uid", "dicomweb_router"]

DICOM_JSON = "application/dicom+json"
PREFIX = "/dicomweb"
_JSON_TYPES = (DICOM_JSON, "application/json")

Uid = Annotated[str, Path(pattern=r"^[0-9.]{1,64}$", description="Unique identifier.", examples=["1.2.840.1"])]
FrameList = Annotated[
    str, Path(pattern=r"^[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*$", max_length=10_000, description="Numbers from 1.")
]
BulkPath = Annotated[
    str, Path(pattern=r"^[0-9A-F]{8}(/[0-9]{1,6}/[0-9A-F]{8}){0,8}$", description="Tags and 0-based items.")
]
_JSON_ANSWER: dict[int | str, dict[str, Any]] = {200: {"content": {DICOM_JSON: {"schema": {"type": "array"}}}}}


def dicomweb_router(service: Service) -> APIRouter:
    """Return the routes of the service but for rendering and storing."""
    router = APIRouter(prefix=PREFIX, tags=["DICOMweb"], responses=FAILURES)
    _add_searches(router, service)
    _add_metadata(router, service)
    _add_instances(router, service)
    _add_frames(router, service)
    return router


def _add_searches(router: APIRouter, service: Service) -> None:
    answers = {**_JSON_ANSWER, 204: {"description": "Nothing was found."}, **FAILURES_OF_FORMS}

    def add(path: str, level: str) -> None:
        def answer(request: Request, study: str = "", series: str = "") -> Response:
            _require_json(request)
            query = parse_query(level, request.query_params.multi_items(), service.settings.limits.results)
            if study:
                service.instances(study, series)
            url = base_url(request, PREFIX)
            return _search_answer(search(service.archive, query, url, service.read_header, study, series))

        def search_all(request: Request) -> Response:
            return answer(request)

        def search_study(request: Request, study: Uid) -> Response:
            return answer(request, study)

        def search_series(request: Request, study: Uid, series: Uid) -> Response:
            return answer(request, study, series)

        endpoints: list[Callable[..., Response]] = [search_all, search_study, search_series]
        steps = path.count("{")
        router.add_api_route(
            path,
            endpoints[steps],
            methods=["GET"],
            name=f"search_{level}_{steps}",
            responses=answers,
            summary=f"Search for {level} (QIDO-RS)",
        )

    add("/studies", "studies")
    add("/series", "series")
    add("/instances", "instances")
    add("/studies/{study}/series", "series")
    add("/studies/{study}/instances", "instances")
    add("/studies/{study}/series/{series}/instances", "instances")


def _search_answer(found: SearchAnswer) -> Response:
    headers = {"Cache-Control": "no-cache"}
    response = (
        Response(json.dumps(found.results, separators=(",", ":")), 200, headers, DICOM_JSON)
        if found.results
        else Response(None, 204, headers)
    )
    for warning in found.warnings:
        response.headers.append("Warning", f'299 coverslip "{warning}"')
    return response


def _require_json(request: Request) -> None:
    if choose_media_type(request.headers.get("accept", ""), _JSON_TYPES) is None:
        raise HTTPException(406, f"given are {' and '.join(_JSON_TYPES)}")


def _add_metadata(router: APIRouter, service: Service) -> None:
    responses = {**_JSON_ANSWER, 304: {"description": "Not changed."}, **FAILURES_OF_FORMS}

    def answer(request: Request, study: str, series: str = "", instance: str = "") -> Response:
        _require_json(request)
        found = service.instances(study, series, instance)
        url = base_url(request, PREFIX).encode()
        if len(found) == 1:
            etag = service.opened.open(found[0]).etag
            if (unchanged := not_modified(request, f"{etag}-m", revalidate=True)) is not None:
                return unchanged
            return answer_cached(_models(service, found, url), DICOM_JSON, f"{etag}-m", revalidate=True)
        pieces = iterate_in_threadpool(_iter_models(service, found, url))
        return StreamingResponse(pieces, media_type=DICOM_JSON, headers={"Cache-Control": "no-cache"})

    @router.get("/studies/{study}/metadata", responses=responses, summary="Headers of a study (WADO-RS)")
    def study_metadata(request: Request, study: Uid) -> Response:
        return answer(request, study)

    @router.get("/studies/{study}/series/{series}/metadata", responses=responses, summary="Headers of a series")
    def series_metadata(request: Request, study: Uid, series: Uid) -> Response:
        return answer(request, study, series)

    @router.get(
        "/studies/{study}/series/{series}/instances/{instance}/metadata",
        responses=responses,
        summary="Header of an instance",
    )
    def instance_metadata(request: Request, study: Uid, series: Uid, instance: Uid) -> Response:
        return answer(request, study, series, instance)


def _models(service: Service, found: Iterable[IndexedInstance], url: bytes) -> bytes:
    return b"".join(_iter_models(service, list(found), url))


def _iter_models(service: Service, found: list[IndexedInstance], url: bytes) -> Iterator[bytes]:
    start = b"["
    for each in found:
        opened = service.opened.open(each)
        place = (
            f"/studies/{each.study_instance_uid}/series/{each.series_instance_uid}/instances/{each.sop_instance_uid}"
        )
        yield start + make_metadata(opened.header, place).replace(BASE_PLACEHOLDER.encode(), url)
        start = b","
    yield b"]"


def _add_instances(router: APIRouter, service: Service) -> None:
    responses: dict[int | str, dict[str, Any]] = {
        200: {"content": {"multipart/related": {}, "application/dicom": {}}},
        304: {"description": "Not changed."},
        **FAILURES_OF_FORMS,
    }

    def answer(request: Request, study: str, series: str = "", instance: str = "") -> Response:
        found = service.instances(study, series, instance)
        form = _instance_form(request, service, found)
        if len(found) == 1:
            opened = service.opened.open(found[0])
            if (unchanged := not_modified(request, f"{opened.etag}-i", revalidate=True)) is not None:
                return unchanged
            headers = {"ETag": f'"{opened.etag}-i"', "Cache-Control": "private, no-cache"}
        else:
            headers = {"Cache-Control": "no-cache"}
        if form == "single":
            if opened.file_size is not None:
                headers["Content-Length"] = str(opened.file_size)
            return StreamingResponse(
                iterate_in_threadpool(opened.iter_file()), media_type="application/dicom", headers=headers
            )
        parts = (service.opened.open(each).iter_file() for each in found)
        pieces = iterate_in_threadpool(multipart.iter_multipart("application/dicom", "", parts))
        return StreamingResponse(
            pieces, headers={**headers, "Content-Type": multipart.content_type("application/dicom")}
        )

    @router.get("/studies/{study}", responses=responses, summary="Instances of a study (WADO-RS)")
    def study_instances(request: Request, study: Uid) -> Response:
        return answer(request, study)

    @router.get("/studies/{study}/series/{series}", responses=responses, summary="Instances of a series")
    def series_instances(request: Request, study: Uid, series: Uid) -> Response:
        return answer(request, study, series)

    @router.get("/studies/{study}/series/{series}/instances/{instance}", responses=responses, summary="An instance")
    def one_instance(request: Request, study: Uid, series: Uid, instance: Uid) -> Response:
        return answer(request, study, series, instance)


def _instance_form(request: Request, service: Service, found: list[IndexedInstance]) -> str:
    """Return ``multipart`` or ``single``: files are given as they are stored, whatever their transfer syntax."""
    for wanted in parse_accept(request.headers.get("accept", "")):
        syntax = wanted.parameters.get("transfer-syntax", "*")
        if syntax != "*" and any(service.opened.open(each).transfer_syntax_uid != syntax for each in found):
            continue
        if wanted.media_type == "*/*" or (wanted.is_multipart and wanted.inner in ("application/dicom", "*/*")):
            return "multipart"
        if wanted.covers("application/dicom") and len(found) == 1:
            return "single"
    raise HTTPException(406, 'given is multipart/related; type="application/dicom", in the stored transfer syntax')


def _add_frames(router: APIRouter, service: Service) -> None:
    place = "/studies/{study}/series/{series}/instances/{instance}"
    responses: dict[int | str, dict[str, Any]] = {
        200: {"content": {"multipart/related": {}, "application/octet-stream": {}, "image/jpeg": {}, "image/jp2": {}}},
        304: {"description": "Not changed."},
        **FAILURES_OF_FORMS,
    }

    @router.get(f"{place}/frames/{{frames}}", responses=responses, summary="Frames (WADO-RS)")
    def get_frames(request: Request, study: Uid, series: Uid, instance: Uid, frames: FrameList) -> Response:
        opened = service.instance(study, series, instance)
        indices = [int(each) - 1 for each in frames.split(",")]
        if len(indices) > service.settings.limits.frames_per_request:
            raise HTTPException(400, f"at most {service.settings.limits.frames_per_request} frames in one request")
        if max(indices) >= opened.number_of_frames:
            raise HTTPException(404, f"the instance has {opened.number_of_frames} frames")
        form = choose_frame_form(
            request.headers.get("accept", ""),
            opened.transfer_syntax_uid,
            len(indices) == 1,
            opened.encodable_syntaxes,
        )
        if form is None:
            raise HTTPException(406, "frames cannot be given in a form that is accepted")
        return _frames_answer(request, service, opened, indices, form)

    @router.get(
        f"{place}/bulkdata/{{path:path}}",
        responses={**responses, 200: {"content": {"multipart/related": {}, "application/octet-stream": {}}}},
        summary="A large value of a header (WADO-RS)",
    )
    def get_bulk(request: Request, study: Uid, series: Uid, instance: Uid, path: BulkPath) -> Response:
        opened = service.instance(study, series, instance)
        data = read_bulk(opened.header, path)
        if data is None:
            raise HTTPException(404, "the instance has no such bulk data")
        form = choose_bulk_form(request.headers.get("accept", ""))
        if form is None:
            raise HTTPException(406, "given is application/octet-stream, alone or as multipart/related")
        etag = f"{opened.etag}-b{path.replace('/', '.')}"
        if (unchanged := not_modified(request, etag)) is not None:
            return unchanged
        if form == "single":
            return answer_cached(data, "application/octet-stream", etag)
        body = b"".join(multipart.iter_multipart("application/octet-stream", "", [[data]]))
        return answer_cached(body, multipart.content_type("application/octet-stream"), etag)


def _frames_answer(
    request: Request, service: Service, opened: OpenInstance, indices: list[int], form: FrameForm
) -> Response:
    etag = f"{opened.etag}-f{indices[0]}-{form.transfer_syntax_uid}-{form.media_type}-{form.multipart:d}"
    if len(indices) == 1 and (unchanged := not_modified(request, etag)) is not None:
        return unchanged

    def read(index: int) -> bytes:
        if form.stored:
            return opened.read_frame(index)
        with service.rendering():
            return encode_frame(opened, index, form.transfer_syntax_uid)

    media, syntax = form.media_type, form.transfer_syntax_uid
    if not form.multipart:
        return answer_cached(read(indices[0]), f"{media}; transfer-syntax={syntax}", etag)
    if len(indices) == 1:
        body = b"".join(multipart.iter_multipart(media, syntax, [[read(indices[0])]]))
        return answer_cached(body, multipart.content_type(media, syntax), etag)
    pieces = iterate_in_threadpool(multipart.iter_multipart(media, syntax, ([read(each)] for each in indices)))
    headers = {"Content-Type": multipart.content_type(media, syntax), "Cache-Control": "no-cache"}
    return StreamingResponse(pieces, headers=headers)
