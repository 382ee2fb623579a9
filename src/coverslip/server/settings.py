"""What a server may do and how much: frozen, made once from the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Access", "Limits", "ServerSettings"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one request or client may ask for; beyond it a request is refused, not served slowly.

    Parameters
    ----------
    output_pixels : int
        Of one rendered picture.
    decoded_pixels : int
        Of the frames that one rendered picture may need.
    frames_per_request : int
        In one list of frames.
    results : int
        Of one search; what is more is told by a Warning header.
    upload_bytes : int
        Of one STOW-RS request.
    request_bytes : int
        Of any other body.
    connections : int
    renderings : int
        At the same time; more wait, and are refused with 503 when as many again as this times eight wait.
    header_s, stall_s, request_s : float
        Until a request's head has come; that a client may take nothing of an answer; that an answer may take to begin.
    """

    output_pixels: int = 4 << 20
    decoded_pixels: int = 80 << 20
    frames_per_request: int = 1000
    results: int = 1000
    upload_bytes: int = 8 << 30
    request_bytes: int = 64 << 10
    connections: int = 512
    renderings: int = 4
    header_s: float = 15.0
    stall_s: float = 30.0
    request_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Access:
    """Who may ask.

    Parameters
    ----------
    token : str
        That every request has to show; empty for none.
    user_header : str
        Set by an authenticating proxy in front; requests without it are refused. Empty for no proxy.
    hosts : tuple of str
        Names that a request's Host may have, besides those of loopback; empty for any, where others may ask at all.
    origins : tuple of str
        Of pages elsewhere that may read answers (CORS); ``*`` for any.
    """

    token: str = ""
    user_header: str = ""
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """All that a server is told.

    Parameters
    ----------
    access : Access
    limits : Limits
    loopback : bool
        Whether only this machine can ask.
    writable : bool
        Whether STOW-RS puts instances into the store.
    slim : Path or None
        Folder of a built Slim.
    ohif : str
        Where radiology series are looked at.
    log_requests : bool
    """

    access: Access = Access()
    limits: Limits = Limits()
    loopback: bool = True
    writable: bool = False
    slim: Path | None = None
    ohif: str = ""
    log_requests: bool = False
