"""A built Slim, configured for this server."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from fastapi import APIRouter, HTTPException
from starlette.responses import FileResponse, Response

from coverslip.errors import UsageError

__all__ = ["add_slim"]

_CONFIG = """window.config = {
  path: '/slim',
  servers: [{ id: 'coverslip', url: window.location.origin + '/dicomweb', write: false }],
  preload: true,
  annotations: [],
}
"""


def add_slim(router: APIRouter, folder: Path) -> None:
    """Add the routes of Slim.

    Raises
    ------
    UsageError
        If the folder holds no built Slim.
    """
    root = folder.resolve()
    files = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    if "index.html" not in files:
        raise UsageError(f"--slim {folder}: no index.html in it; expected the folder of a built Slim")

    @router.get("/slim")
    @router.get("/slim/{name:path}")
    def slim(name: str = "") -> Response:
        if name.startswith("config/") and name.endswith(".js"):
            return Response(_CONFIG, media_type="text/javascript", headers={"Cache-Control": "no-cache"})
        path = files.get(name)
        # What looks like a file is one or is missing; anything else is a place within the application.
        if path is None and Path(name).suffix and not name.startswith("studies/"):
            raise HTTPException(404, "there is no such file")
        path = path or files["index.html"]
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        if path.suffix == ".wasm":
            kind = "application/wasm"
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "no-cache"})
