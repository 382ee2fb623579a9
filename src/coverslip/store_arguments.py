"""Options of the command line by which stores are reached: the same for every command that needs one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coverslip.errors import UsageError

if TYPE_CHECKING:
    from coverslip.stores.base import Store

__all__ = ["open_stores", "store_arguments"]

_file = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = (
    click.option(
        "--credentials",
        multiple=True,
        metavar="HOW",
        help="Where credentials are found: default, none, adc, service-account:FILE, token-env:VARIABLE, "
        "token-command:COMMAND, basic-env:VARIABLE. One for all stores, or one for each in their order.",
    ),
    click.option("--client-certificate", type=_file, metavar="FILE", help="Certificate to show to a server, PEM."),
    click.option("--client-key", type=_file, metavar="FILE", help="Its key, if it lies in another file."),
    click.option("--client-key-password-env", default="", metavar="VARIABLE", help="Holds the password of the key."),
    click.option("--ca-file", type=_file, metavar="FILE", help="Authorities to trust in place of the usual ones, PEM."),
    click.option("--allow-plain-http", is_flag=True, help="Allow HTTP without TLS to other machines than this one."),
    click.option(
        "--endpoint-url",
        multiple=True,
        metavar="URL",
        help="Where the service is, if not in its usual place; given as --credentials is.",
    ),
    click.option(
        "--staging-url",
        default="",
        metavar="gs://...",
        help="For healthcare://: put instances there first and import them, instead of STOW-RS.",
    ),
)


def store_arguments[F: Callable[..., Any]](command: F) -> F:
    """Give a command the options by which stores are reached."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@contextmanager
def open_stores(urls: Sequence[str], options: Mapping[str, Any], *, naming: str, workers: int) -> Iterator[list[Store]]:
    """Open the stores at URLs as the options of `store_arguments` say, and close them.

    Raises
    ------
    UsageError
        If a URL or option is wrong, or a store is named twice.
    """
    from coverslip.stores.options import ClientCertificate, Naming, StoreOptions, parse_credentials
    from coverslip.stores.registry import open_store

    credentials = [parse_credentials(text) for text in _each("--credentials", options["credentials"], len(urls))]
    endpoints = _each("--endpoint-url", options["endpoint_url"], len(urls))
    certificate = None
    if options["client_certificate"]:
        certificate = ClientCertificate(
            options["client_certificate"], options["client_key"], options["client_key_password_env"]
        )
    elif options["client_key"] or options["client_key_password_env"]:
        raise UsageError("--client-key: wanted with --client-certificate")
    shared = StoreOptions(
        naming=Naming.UUIDS if naming == "uuid" else Naming.UIDS,
        client_certificate=certificate,
        ca_file=options["ca_file"],
        allow_plain_http=options["allow_plain_http"],
        connections=workers + 2,
        staging_url=options["staging_url"],
    )
    with ExitStack() as stack:
        stores = []
        for index, url in enumerate(urls):
            own = replace(
                shared,
                credentials=credentials[index] if credentials else shared.credentials,
                endpoint_url=endpoints[index] if endpoints else "",
            )
            stores.append(stack.enter_context(open_store(url, own)))
        if len({store.url for store in stores}) < len(stores):
            raise UsageError("a store is named twice")
        yield stores


def _each(name: str, values: Sequence[str], stores: int) -> Sequence[str]:
    """Return a value for each store, or none if none is given."""
    if len(values) not in (0, 1, stores):
        raise UsageError(f"{name} is given {len(values)} times: wanted once, or once for each of {stores} stores")
    return list(values) * stores if len(values) == 1 else values
