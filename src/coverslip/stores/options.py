"""How a store is reached: credentials, transport, patience. Options hold no secret, only where secrets are found."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from coverslip.errors import UsageError

__all__ = [
    "Anonymous",
    "ApplicationDefault",
    "BasicFromEnvironment",
    "ClientCertificate",
    "Credentials",
    "Naming",
    "RetryPolicy",
    "ServiceAccountFile",
    "StoreDefault",
    "StoreOptions",
    "TokenFromCommand",
    "TokenFromEnvironment",
    "parse_credentials",
]


class Naming(StrEnum):
    """How objects are named below the URL of an object store."""

    UUIDS = "series_uuid/instance_uuid"
    UIDS = "study/series/sop"


@dataclass(frozen=True, slots=True)
class StoreDefault:
    """What the kind of store usually takes.

    Application default credentials for Google, the environment for S3, none for DICOMweb.
    """


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credentials."""


@dataclass(frozen=True, slots=True)
class ApplicationDefault:
    """Google's application default credentials."""


@dataclass(frozen=True, slots=True)
class ServiceAccountFile:
    """Key of a Google service account, in JSON."""

    path: Path


@dataclass(frozen=True, slots=True)
class TokenFromEnvironment:
    """Bearer token, in an environment variable."""

    variable: str


@dataclass(frozen=True, slots=True)
class TokenFromCommand:
    """Bearer token that a command prints; the command runs again when the store takes the token no more.

    Parameters
    ----------
    command : tuple of str
        Program and arguments, without a shell. Arguments may be secret and are not shown.
    """

    command: tuple[str, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class BasicFromEnvironment:
    """Login of HTTP basic authentication, in an environment variable as ``user:password``."""

    variable: str


type Credentials = (
    StoreDefault
    | Anonymous
    | ApplicationDefault
    | ServiceAccountFile
    | TokenFromEnvironment
    | TokenFromCommand
    | BasicFromEnvironment
)

_CREDENTIALS = (
    "default, none, adc, service-account:FILE, token-env:VARIABLE, token-command:COMMAND or basic-env:VARIABLE"
)


def parse_credentials(text: str) -> Credentials:
    """Return the credentials that an option names.

    Raises
    ------
    UsageError
        If it names none. The text is not repeated: it may be a secret that was given in the wrong place.
    """
    kind, colon, value = text.partition(":")
    plain: dict[str, Credentials] = {"default": StoreDefault(), "none": Anonymous(), "adc": ApplicationDefault()}
    if not colon and kind in plain:
        return plain[kind]
    if value:
        match kind:
            case "service-account":
                return ServiceAccountFile(Path(value))
            case "token-env":
                return TokenFromEnvironment(value)
            case "basic-env":
                return BasicFromEnvironment(value)
            case "token-command":
                return TokenFromCommand(_split_command(value))
            case _:
                pass
    raise UsageError(f"credentials: wanted {_CREDENTIALS}")


def _split_command(text: str) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(text))
    except ValueError:
        words = ()
    if not words:
        raise UsageError("credentials: token-command wants a program and arguments, quoted as in a shell")
    return words


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """Certificate that the client shows to a TLS server.

    Parameters
    ----------
    certificate, key : Path
        In PEM form; the key may lie in the file of the certificate.
    key_password_variable : str
        Environment variable that holds the password of the key; empty if it has none.
    """

    certificate: Path
    key: Path | None = None
    key_password_variable: str = ""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently what may pass is tried again: exponential backoff with full jitter.

    Parameters
    ----------
    attempts : int
        In all, the first included.
    first_wait_s, longest_wait_s : float
        Upper limits of the wait before the second and before any attempt; the wait is drawn evenly from zero to the
        limit, so that clients that failed together do not come back together.
    longest_retry_after_s : float
        A store that asks with ``Retry-After`` for a longer wait is given up for this time.
    seed : int or None
        Makes the jitter repeatable.
    """

    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    longest_retry_after_s: float = 300.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """How a store is reached; may be logged as it is.

    Parameters
    ----------
    naming : Naming
        How objects of an object store are named; saves reading headers when one series is listed.
    credentials : Credentials
    client_certificate : ClientCertificate, optional
    ca_file : Path, optional
        Certificates of the authorities to trust in place of the usual ones, in PEM form.
    allow_plain_http : bool
        Whether HTTP without TLS is allowed to other machines than this one.
    connect_timeout_s, read_timeout_s : float
        How long to wait for a connection, and for the next bytes of it.
    connections : int
        How many connections may be open at once: as many as threads that use the store.
    chunk_bytes : int
        How much of an instance is held in memory per upload.
    retry : RetryPolicy
    endpoint_url : str
        Where the service is if not in its usual place: of the Healthcare API, or a server that speaks S3.
    staging_url : str
        For `healthcare://`: a ``gs://`` URL to stage instances under and import them from, in place of STOW-RS.
    operation_timeout_s : float
        How long to wait for an import or the removal of a series.
    """

    naming: Naming = Naming.UUIDS
    credentials: Credentials = StoreDefault()
    client_certificate: ClientCertificate | None = None
    ca_file: Path | None = None
    allow_plain_http: bool = False
    connect_timeout_s: float = 20.0
    read_timeout_s: float = 120.0
    connections: int = 8
    chunk_bytes: int = 8 << 20
    retry: RetryPolicy = RetryPolicy()
    endpoint_url: str = ""
    staging_url: str = ""
    operation_timeout_s: float = 3600.0
