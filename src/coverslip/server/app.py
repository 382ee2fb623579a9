"""Put the server together: routes, errors, and the front before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from coverslip import __version__
from coverslip.errors import CoverslipError
from coverslip.server.dicomweb_routes import dicomweb_router
from coverslip.server.front import Front
from coverslip.server.page_routes import page_router
from coverslip.server.rendered_routes import rendered_router
from coverslip.server.responses import answer_error
from coverslip.server.service import Service
from coverslip.server.stow_routes import stow_router
from coverslip.server.tile_routes import tile_router

__all__ = ["make_app"]

_THREADS = 64
"""Requests that wait for a disk, a store or a decoder at the same time; others wait for these."""


def make_app(service: Service) -> Front:
    """Return the ASGI application of a service."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        import anyio.to_thread

        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield

    app = FastAPI(
        title="coverslip",
        version=__version__,
        summary="Whole slide images over DICOMweb, as tiles and as pages",
        docs_url=None,  # they load scripts from other hosts
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.include_router(dicomweb_router(service))
    app.include_router(rendered_router(service))
    app.include_router(tile_router(service))
    app.include_router(page_router(service))
    if service.receiver is not None:
        app.include_router(stow_router(service))
    _add_health(app, service)
    for error in (HTTPException, CoverslipError, Exception):
        app.add_exception_handler(error, answer_error)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return Front(app, service)


def _add_health(app: FastAPI, service: Service) -> None:
    """Add what tells of health; it needs no thread, for all may wait for a store while the server is well."""

    @app.get("/healthz", tags=["Health"], summary="Whether the server runs")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", tags=["Health"], summary="Whether there is something to serve")
    async def readyz() -> dict[str, Any]:
        return {"status": "ok", "studies": len(service.archive.studies), "instances": len(service.archive.instances)}


async def _answer_invalid(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    names = sorted({str(each["loc"][-1]) for each in error.errors()})
    return JSONResponse({"error": f"not as it should be: {', '.join(names)}"}, 400)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the description of all routes; what is not valid is answered with 400 here, not with 422."""
    if app.openapi_schema is None:
        found = FastAPI.openapi(app)
        for path in found["paths"].values():
            for operation in path.values():
                operation["responses"].pop("422", None)
        app.openapi_schema = found
    return app.openapi_schema
