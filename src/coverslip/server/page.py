"""What all pages have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from html import escape
from importlib.resources import files

from starlette.responses import HTMLResponse

__all__ = ["answer_page", "definitions", "make_page", "message", "read_static", "static_url"]


@lru_cache(32)
def read_static(name: str) -> bytes | None:
    """Return one of the pages' own files, None if there is none of that name."""
    known = {"app.css", "search.js", "slide.js", "viewer-base.js", "icon.svg"}
    return (files("coverslip.server") / "static" / name).read_bytes() if name in known else None


@lru_cache(32)
def static_url(name: str) -> str:
    """Return the URL of one of the pages' own files, which changes with its content."""
    return f"/static/{name}?v={hashlib.sha256(read_static(name) or b'').hexdigest()[:10]}"


def make_page(
    title: str, body: str, *, scripts: Iterable[tuple[str, bool]] = (), kind: str = "", text: str = ""
) -> str:
    """Return a whole page.

    Parameters
    ----------
    title, body : str
        Plain text, and HTML.
    scripts : iterable of tuple
        URL of each, and whether it is a module.
    kind : str
        Class of the body.
    text : str
        That stands in the search field.
    """
    tags = "".join(f'<script src="{url}"{" type=module" if module else " defer"}></script>' for url, module in scripts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)} · coverslip</title>
<link rel="icon" href="{static_url("icon.svg")}">
<link rel="stylesheet" href="{static_url("app.css")}">
{tags}
</head>
<body class="{kind}">
<a class="skip" href="#main">Skip to content</a>
<header class="bar">
<a class="brand" href="/">coverslip</a>
<form action="/" method="get" role="search">
<label class="unseen" for="text">Words in the descriptions of slides</label>
<input id="text" name="q" type="search" value="{escape(text, quote=True)}" placeholder="Search slides"
 autocomplete="off">
<button>Search</button>
</form>
</header>
<main id="main" tabindex="-1">
{body}
</main>
</body>
</html>
"""


def message(title: str, text: str) -> str:
    """Return the body of a page that says one thing; the text is HTML."""
    return f'<section class="message"><h1>{escape(title)}</h1><p>{text}</p><p><a href="/">All slides</a></p></section>'


def answer_page(html: str, status: int = 200) -> HTMLResponse:
    """Return a page as an answer that is asked for anew each time."""
    return HTMLResponse(html, status, {"Cache-Control": "no-cache"})


def definitions(pairs: Iterable[tuple[str, str]]) -> str:
    """Return names and values as a list; those without a value are left out."""
    rows = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs if value)
    return f"<dl>{rows}</dl>" if rows else ""
