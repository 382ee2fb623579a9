"""What goes into the Authorization header, and where a fresh one comes from when the store takes it no more.

Secrets live here alone: they are read when they are needed, are no part of any `repr`, and errors name the variable,
the program or the kind of failure, never what was read.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import threading
from typing import Protocol

from coverslip.errors import StoreError, UsageError
from coverslip.stores.options import (
    Anonymous,
    ApplicationDefault,
    BasicFromEnvironment,
    Credentials,
    ServiceAccountFile,
    StoreDefault,
    TokenFromCommand,
    TokenFromEnvironment,
)

__all__ = ["Authorization", "open_authorization", "read_secret"]

_COMMAND_TIMEOUT_S = 120


class Authorization(Protocol):
    """Gives the header of a request; safe to use from several threads."""

    def header(self) -> str | None:
        """Return the value of the Authorization header, or None for none."""
        ...

    def renew(self, refused: str | None) -> bool:
        """Get another header in place of one that the store has refused; False if there is no other."""
        ...


def open_authorization(credentials: Credentials) -> Authorization:
    """Return what gives the header by these credentials; Google's are loaded when they are first used.

    Raises
    ------
    UsageError
        If what the credentials name is not there.
    """
    match credentials:
        case StoreDefault() | Anonymous():
            return _Constant(None)
        case TokenFromEnvironment(variable):
            return _Constant(f"Bearer {_require_token(read_secret(variable), f'environment variable {variable}')}")
        case BasicFromEnvironment(variable):
            login = read_secret(variable)
            if ":" not in login:
                raise UsageError(f"environment variable {variable}: wanted user:password")
            return _Constant(f"Basic {base64.b64encode(login.encode()).decode()}")
        case TokenFromCommand(command):
            return _TokenCommand(command)
        case ApplicationDefault() | ServiceAccountFile():
            from coverslip.stores.google_credentials import GoogleAuthorization

            return GoogleAuthorization(credentials)


def read_secret(variable: str) -> str:
    """Return what an environment variable holds.

    Raises
    ------
    UsageError
        If it is not set or empty.
    """
    secret = os.environ.get(variable, "")
    if not secret:
        # A secret that was given in place of a name is not shown.
        name = variable if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,40}", variable) else "of that name"
        raise UsageError(f"environment variable {name} is not set")
    return secret


def _require_token(text: str, origin: str) -> str:
    """Return a token; what cannot be one could show up in errors of the HTTP library."""
    token = text.strip()
    if not re.fullmatch(r"[\x21-\x7e]+", token):
        raise UsageError(f"{origin}: holds no bearer token: wanted one line of printable signs")
    return token


class _Constant:
    """A header that stays what it is."""

    def __init__(self, value: str | None) -> None:
        self._value = value

    def header(self) -> str | None:
        return self._value

    def renew(self, refused: str | None) -> bool:
        return False


class _TokenCommand:
    """A bearer token that a program prints."""

    def __init__(self, command: tuple[str, ...]) -> None:
        self._command = command
        self._value: str | None = None
        self._lock = threading.Lock()

    def header(self) -> str | None:
        with self._lock:
            if self._value is None:
                self._value = self._ask()
            return self._value

    def renew(self, refused: str | None) -> bool:
        with self._lock:
            if self._value == refused:  # otherwise another thread has renewed it
                self._value = self._ask()
            return self._value != refused

    def _ask(self) -> str:
        origin = f"token command {os.path.basename(self._command[0])}"  # noqa: PTH119 - not necessarily a path
        try:
            done = subprocess.run(
                self._command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMMAND_TIMEOUT_S, check=False
            )
        except OSError as error:
            raise UsageError(f"{origin}: cannot be run: {error.strerror}") from None
        except subprocess.TimeoutExpired:
            raise StoreError(f"{origin}: no answer within {_COMMAND_TIMEOUT_S} s", retryable=True) from None
        if done.returncode:
            raise StoreError(f"{origin}: ended with exit code {done.returncode}")
        return f"Bearer {_require_token(done.stdout.decode('ascii', 'replace'), origin)}"
