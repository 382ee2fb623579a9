"""The least that a server does: an ASGI application that answers any request with the same bytes from memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

_BODY = Path(os.environ["BARE_BODY"]).read_bytes()
_HEADERS = [(name.encode(), value.encode()) for name, value in json.loads(os.environ["BARE_HEADERS"])]


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        await send({"type": "http.response.body", "body": _BODY})
