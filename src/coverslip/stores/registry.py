"""Which kinds of store there are, and what each needs; a store's module is loaded on first use."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import cast
from urllib.parse import urlsplit

from coverslip.errors import MissingDependencyError, UsageError
from coverslip.stores.base import Store
from coverslip.stores.options import StoreOptions

__all__ = ["STORE_KINDS", "StoreKind", "open_store"]


@dataclass(frozen=True, slots=True)
class StoreKind:
    """One line of the table of stores.

    Parameters
    ----------
    scheme, example : str
        Of the URL.
    module : str
        Where ``open_store_at(url, options)`` is.
    extra : str
        Of coverslip, that brings the libraries; empty for none.
    dependencies : tuple of str
        Top-level modules that the extra brings.
    """

    scheme: str
    example: str
    module: str
    extra: str = ""
    dependencies: tuple[str, ...] = ()

    def open(self, url: str, options: StoreOptions) -> Store:
        """Open the store at a URL of this scheme."""
        try:
            module = import_module(self.module)
            return cast("Store", module.open_store_at(url, options))
        except ImportError as error:
            missing = (error.name or "").split(".")[0]
            if missing not in self.dependencies:
                raise
            raise MissingDependencyError(
                f"{self.scheme}:// needs {missing}: pip install 'coverslip[{self.extra}]'"
            ) from error


_DEFAULTS = StoreOptions()
_GOOGLE = ("google", "google_crc32c", "requests")

STORE_KINDS = (
    StoreKind("file", "the path of a folder, or file:// before its absolute path", "coverslip.stores.local"),
    StoreKind("gs", "gs://bucket/prefix", "coverslip.stores.gcs", "cloud", _GOOGLE),
    StoreKind("dicomweb+https", "dicomweb+https://host/path", "coverslip.stores.dicomweb", "cloud", ("httpx",)),
    StoreKind("dicomweb+http", "dicomweb+http://localhost/path", "coverslip.stores.dicomweb", "cloud", ("httpx",)),
    StoreKind(
        "healthcare",
        "healthcare://project/location/dataset/store",
        "coverslip.stores.healthcare",
        "cloud",
        ("httpx", *_GOOGLE),
    ),
    StoreKind("s3", "s3://bucket/prefix", "coverslip.stores.s3", "s3", ("obstore",)),
)


def open_store(url: str, options: StoreOptions = _DEFAULTS) -> Store:
    """Open the store at a URL; what has no scheme is the path of a folder.

    Nothing is sent before the store is used.

    Raises
    ------
    UsageError
        If the URL or an option is wrong, or plain HTTP would leave this machine without being allowed to.
    MissingDependencyError
        If the store needs an extra that is not installed.
    """
    scheme, found, _ = url.partition("://")
    if not found or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        scheme = "file"
    for kind in STORE_KINDS:
        if kind.scheme == scheme.lower():
            if kind.scheme != "file":
                _require_no_secret(url, kind)
            return kind.open(url, options)
    wanted = ", ".join(f"{kind.scheme}://" for kind in STORE_KINDS)
    raise UsageError(f"{scheme}:// is not the URL of a store: wanted one of {wanted} or a folder")


def _require_no_secret(url: str, kind: StoreKind) -> None:
    """Refuse what a URL may carry besides a place; such URLs end up in logs and ledgers."""
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(
            f"{kind.scheme}:// URL with a login, query or fragment: wanted {kind.example}; "
            "credentials are given by an option"
        )
