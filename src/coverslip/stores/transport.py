"""What is common to stores behind HTTP: which URLs are safe, how TLS is set up, what a status means."""

from __future__ import annotations

import ssl
from http import HTTPStatus
from urllib.parse import urlsplit

from coverslip.errors import RejectedError, StoreError, UsageError
from coverslip.stores.authorization import read_secret
from coverslip.stores.options import StoreOptions

__all__ = ["RETRYABLE_STATUSES", "require_safe_url", "status_failure", "tls_context"]

RETRYABLE_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


def require_safe_url(url: str, options: StoreOptions) -> str:
    """Return the URL of a service without a slash at its end.

    Raises
    ------
    UsageError
        If it is no URL, carries more than a place, or would send plain HTTP to another machine.
    """
    try:
        parts = urlsplit(url)
        port_is_number = parts.port is None or parts.port > 0
    except ValueError:
        raise UsageError("URL of a service: not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_number:
        raise UsageError("URL of a service: wanted https:// and a host")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise UsageError(f"URL of a service at {parts.hostname}: a login, query or fragment is not taken")
    if parts.scheme == "http" and not options.allow_plain_http and not _is_this_machine(parts.hostname):
        raise UsageError(f"{parts.hostname}: plain HTTP to another machine is not allowed: wanted https")
    return url.rstrip("/")


def _is_this_machine(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def tls_context(options: StoreOptions) -> ssl.SSLContext:
    """Return what verifies servers and shows the client's certificate.

    Raises
    ------
    UsageError
        If a certificate or key cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=str(options.ca_file) if options.ca_file else None)
    except OSError as error:
        name = options.ca_file.name if options.ca_file else "certificates of this machine"
        reason = "not in PEM form" if isinstance(error, ssl.SSLError) else error.strerror
        raise UsageError(f"{name}: no certificates of authorities: {reason}") from None
    certificate = options.client_certificate
    if certificate is not None:
        variable = certificate.key_password_variable
        password = read_secret(variable) if variable else ""
        try:
            context.load_cert_chain(certificate.certificate, certificate.key, password)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) if not isinstance(error, ssl.SSLError) else None
            raise UsageError(
                f"{certificate.certificate.name}: no usable client certificate: "
                f"{reason or 'certificate, key or its password is wrong'}"
            ) from None
    return context


def status_failure(what: str, status: int, retry_after_s: float | None = None, reason: str = "") -> StoreError:
    """Return the error that a status of HTTP means.

    Parameters
    ----------
    what : str
        The thing that was asked for.
    reason : str
        In words of ours: what a server writes may repeat headers and is not shown.
    """
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "unknown status"
    if not reason:
        reason = {
            401: "the store does not accept the credentials",
            403: "the credentials do not allow this",
            404: "the store does not know this place",
            413: "the store does not take as much",
        }.get(status, "the store refuses" if 400 <= status < 500 else "the store fails")
    message = f"{what}: {reason} ({status} {phrase})"
    if status in RETRYABLE_STATUSES:
        return StoreError(message, retryable=True, retry_after_s=retry_after_s)
    if 400 <= status < 500 and status not in (401, 403, 404):
        return RejectedError(message)
    return StoreError(message)
