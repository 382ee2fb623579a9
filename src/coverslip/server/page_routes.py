"""Pages for people, and the files that they need."""

from __future__ import annotations

import hmac
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, HTTPException, Path, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from coverslip.server.caching import answer_cached, not_modified
from coverslip.server.dicomweb_routes import Uid
from coverslip.server.front import COOKIE, session_of
from coverslip.server.page import answer_page, make_page, message, read_static
from coverslip.server.search_page import search_page
from coverslip.server.service import Service
from coverslip.server.slide_page import slide_page
from coverslip.server.slim import add_slim
from coverslip.server.viewer_files import viewer_file

__all__ = ["page_router"]

_TYPES = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_LOGIN = """<section class="message"><h1>Sign in</h1>{problem}
<form action="/login" method="post"><p><label for="token">Token of this server</label>
<input id="token" name="token" type="password" autocomplete="current-password" required></p>
<p><button>Sign in</button></p></form></section>"""

FileName = Annotated[str, Path(max_length=200)]


def page_router(service: Service) -> APIRouter:
    """Return the routes of pages; they are not part of the OpenAPI description."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    def results(request: Request) -> Response:
        if service.search is None:
            raise HTTPException(404, "there is no catalog to search")
        return answer_page(*search_page(service.search, service.archive, request.query_params.multi_items()))

    @router.get("/slides/{series}")
    def one_slide(series: Uid) -> Response:
        found = service.archive.series.get(series)
        if found is None:
            title, text = "No such slide", "This slide is not here: it was removed, or the address is wrong."
            return answer_page(make_page(title, message(title, text)), 404)
        return answer_page(slide_page(service, found))

    @router.get("/static/{name}")
    def static(request: Request, name: FileName) -> Response:
        data = read_static(name)
        if data is None:
            raise HTTPException(404, "there is no such file")
        return _file(request, data, _TYPES[name.rpartition(".")[2]])

    @router.get("/viewer/{name:path}")
    def viewer(name: FileName) -> Response:
        found = viewer_file(name)
        if found is None:
            raise HTTPException(404, "there is no such file; make viewer fetches the viewer")
        return FileResponse(found[0], headers={"Cache-Control": "private, max-age=3600"}, media_type=found[1])

    _add_login(router, service)
    if service.settings.slim is not None:
        add_slim(router, service.settings.slim)
    return router


def _file(request: Request, data: bytes, media_type: str) -> Response:
    import hashlib

    etag = hashlib.sha256(data).hexdigest()[:20]
    return not_modified(request, etag) or answer_cached(data, media_type, etag)


def _add_login(router: APIRouter, service: Service) -> None:
    token = service.settings.access.token

    @router.get("/login")
    def ask() -> Response:
        return answer_page(make_page("Sign in", _LOGIN.format(problem="")))

    @router.post("/login")
    async def sign_in(request: Request) -> Response:
        shown = parse_qs((await request.body()).decode("latin-1")).get("token", [""])[0]
        if not token or not hmac.compare_digest(shown.encode(), token.encode()):
            problem = '<p role="alert">That is not the token of this server.</p>'
            return answer_page(make_page("Sign in", _LOGIN.format(problem=problem)), 401)
        answer = RedirectResponse("/", 303)
        secure = request.headers.get("x-forwarded-proto", request.url.scheme) == "https"
        answer.set_cookie(COOKIE, session_of(token), httponly=True, samesite="strict", secure=secure)
        return answer
