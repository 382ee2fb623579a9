"""The command `coverslip serve`: slides in the browser, over DICOMweb and as tiles."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.errors import UsageError
from coverslip.store_arguments import open_stores, store_arguments

if TYPE_CHECKING:
    from coverslip.server.settings import ServerSettings
    from coverslip.stores.base import Store

__all__ = ["serve"]

_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MOST_SHOWN = 10

EXAMPLES = """
\b
Examples:
  coverslip serve out
  coverslip serve catalog.duckdb --port 8000
  coverslip serve gs://bucket/archive --credentials adc
  coverslip serve out --slim slim/build
  coverslip serve out --writable
  COVERSLIP_TOKEN=... coverslip serve catalog.duckdb --host 0.0.0.0
"""


@click.command(epilog=EXAMPLES, short_help="Show slides in the browser, and serve them over DICOMweb.")
@click.argument("what", metavar="PATH|URL|CATALOG")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, envvar="PORT", help="0: any free one."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--token",
    default="",
    envvar="COVERSLIP_TOKEN",
    metavar="TEXT",
    help="That every request has to show; better given as COVERSLIP_TOKEN, which nobody else on this machine sees.",
)
@click.option(
    "--proxy-user-header",
    default="",
    metavar="NAME",
    help="A proxy in front signs people in and sets this header; requests without it are refused.",
)
@click.option("--allow-anonymous", is_flag=True, help="Let other machines ask without any of these.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A name that this server is reached by.")
@click.option(
    "--allow-origin", multiple=True, metavar="ORIGIN", help="Let pages from there read and store; * lets any read."
)
@click.option("--writable", is_flag=True, help="Take instances by STOW-RS into the folder or store.")
@click.option(
    "--slim",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="A built Slim, at /slim.",
)
@click.option("--ohif", default="", metavar="URL", help="Viewer of radiology to link to; default: that of IDC.")
@click.option("--log-requests", is_flag=True, help="Log every request, not only those that fail.")
@store_arguments
def serve(what: str, host: str, port: int, **options: Any) -> None:
    """Show the slides of a folder, a store or a catalog in the browser, and serve them over DICOMweb and as tiles.

    Nothing is written unless --writable is given, and only this machine can ask unless --host is. Ends with Ctrl-C.
    """  # fmt: skip
    settings = _settings(host, options)
    from coverslip.server.opening import open_service
    from coverslip.server.run import bind, run_server

    with ExitStack() as stack:

        def open_store(url: str) -> Store:
            return stack.enter_context(open_stores([url], options, naming="uids", workers=16))[0]

        listening = stack.enter_context(bind(host, port))
        on_progress = stack.enter_context(_progress())
        service, problems = stack.enter_context(open_service(what, settings, open_store, on_progress))
        for problem in problems[:_MOST_SHOWN]:
            click.echo(f"warning: {problem}", err=True)
        if len(problems) > _MOST_SHOWN:
            click.echo(f"and {len(problems) - _MOST_SHOWN} more that cannot be read", err=True)
        shown = f"[{host}]" if ":" in host else host
        counts = f"{len(service.archive.series)} series, {len(service.archive.instances)} instances"
        url = f"http://{shown}:{listening.getsockname()[1]}/"
        run_server(service, listening, lambda: click.echo(f"{counts}: {url}"))


def _settings(host: str, options: dict[str, Any]) -> ServerSettings:
    from coverslip.server.settings import Access, ServerSettings

    loopback = host in _LOOPBACK
    token, header = options["token"], options["proxy_user_header"]
    if token and header:
        raise UsageError("--token and --proxy-user-header: expected one of them")
    if not (loopback or token or header or options["allow_anonymous"]):
        raise UsageError(
            f"--host {host}: other machines can ask then: wanted --token, --proxy-user-header or --allow-anonymous"
        )
    if token and not (token.isascii() and token.isprintable() and len(token) >= 8 and " " not in token):
        raise UsageError("--token: expected at least 8 printable ASCII characters without spaces")
    return ServerSettings(
        access=Access(token, header, options["allow_host"], options["allow_origin"]),
        loopback=loopback,
        writable=options["writable"],
        slim=options["slim"],
        ohif=options["ohif"],
        log_requests=options["log_requests"],
    )


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """Show how many headers have been read where somebody is looking."""
    if not sys.stderr.isatty():
        yield None
        return
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // total if total else 100
        if percent != shown:
            shown = percent
            click.echo(f"\rheaders read: {percent} %{'' if percent < 100 else chr(10)}", nl=False, err=True)

    yield show
