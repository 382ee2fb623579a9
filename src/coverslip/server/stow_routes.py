"""Storing over DICOMweb; there only if the server may write."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from coverslip.server.dicomweb_routes import DICOM_JSON, PREFIX, Uid
from coverslip.server.responses import FAILURES
from coverslip.server.service import Service, base_url

__all__ = ["stow_router"]

_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "Everything is stored.", "content": {DICOM_JSON: {}}},
    202: {"description": "Some of it is stored.", "content": {DICOM_JSON: {}}},
    409: {"description": "Nothing is stored.", "content": {DICOM_JSON: {}}},
    413: {"description": "More than one request may bring."},
    415: {"description": "Neither application/dicom nor parts of it."},
}


def stow_router(service: Service) -> APIRouter:
    """Return the routes that store."""
    router = APIRouter(prefix=PREFIX, tags=["DICOMweb"], responses={**FAILURES, **_ANSWERS})

    async def answer(request: Request, study: str = "") -> Response:
        receiver = service.receiver
        assert receiver is not None
        kind = request.headers.get("content-type", "")
        main = kind.partition(";")[0].strip().lower()
        is_parts = main == "multipart/related" and "application/dicom" in kind
        if not is_parts and main != "application/dicom":
            raise HTTPException(415, 'expected multipart/related; type="application/dicom"')
        with TemporaryDirectory(prefix="coverslip-stow-") as folder:
            body = Path(folder, "body")
            with open(body, "wb") as file:
                async for piece in request.stream():
                    await run_in_threadpool(file.write, piece)
            received = await run_in_threadpool(receiver.receive, body, kind, study)
        return JSONResponse(received.as_json(base_url(request, PREFIX)), received.status, media_type=DICOM_JSON)

    @router.post("/studies", summary="Store instances (STOW-RS)")
    async def store(request: Request) -> Response:
        return await answer(request)

    @router.post("/studies/{study}", summary="Store instances of a study")
    async def store_in_study(request: Request, study: Uid) -> Response:
        return await answer(request, study)

    return router
