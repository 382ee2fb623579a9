"""The one table of coded concepts, with their meanings exactly as the Imaging Data Commons publishes them.

IDC's queries filter on the meaning as well as the code, so a synonym is a miss. The table is
``codes.toml``, read when a code is first asked for; the constants that the converter uses are its entries.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import NamedTuple

from coverslip.errors import UsageError

__all__ = ["Code", "code", "read_codes"]


class Code(NamedTuple):
    """A coded concept (PS3.3 8): value, designator of its scheme, meaning."""

    value: str
    scheme_designator: str
    meaning: str


@cache
def read_codes() -> Mapping[str, Code]:
    """Return every code by its name."""
    table = tomllib.loads(files(__package__).joinpath("codes.toml").read_text(encoding="utf-8"))
    return MappingProxyType({name: Code(*entry) for name, entry in table.items()})


def code(name: str) -> Code:
    """Return the code of a name such as ``paraffin-wax``.

    Raises
    ------
    UsageError
        No code has that name.
    """
    try:
        return read_codes()[name]
    except KeyError:
        raise UsageError(f"no code is named {name!r}; the names are those of codes.toml") from None


def __getattr__(name: str) -> Code:
    """Return the code of a constant (``codes.SLIDE`` is ``code("slide")``), so that importing reads no file."""
    if name.isupper():
        return code(name.lower().replace("_", "-"))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
