"""Requests of DICOMweb stores: the only place that touches the network for them, and that knows httpx's errors."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import httpx

from coverslip.errors import StoreError
from coverslip.stores.authorization import Authorization
from coverslip.stores.options import StoreOptions
from coverslip.stores.retrying import Retrier, parse_retry_after
from coverslip.stores.transport import status_failure, tls_context

__all__ = ["Answer", "Body", "HttpClient"]

type Body = tuple[int, Callable[[], Iterator[bytes]]]
"""Length of the body of a request, and what yields it, anew for every attempt."""

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has been read.

    Parameters
    ----------
    status : int
    headers : mapping
        Names are matched whatever their case.
    content : bytes
    """

    status: int
    headers: Mapping[str, str]
    content: bytes


class HttpClient:
    """Sends requests with credentials, each attempt by a policy; safe to use from several threads.

    Parameters
    ----------
    base_url : str
        Credentials go to no other scheme, host and port than this one's.
    options : StoreOptions
    authorization : Authorization
    """

    def __init__(self, base_url: str, options: StoreOptions, authorization: Authorization) -> None:
        self._origin = _origin(base_url)
        self._authorization = authorization
        self.retrier = Retrier(options.retry)
        self._client = httpx.Client(
            verify=tls_context(options) if base_url.startswith("https") else False,
            timeout=httpx.Timeout(options.read_timeout_s, connect=options.connect_timeout_s, pool=None),
            limits=httpx.Limits(max_connections=options.connections, max_keepalive_connections=options.connections),
            headers={"User-Agent": "coverslip"},
        )

    def ask(
        self,
        method: str,
        url: str,
        what: str,
        *,
        expected: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Answer:
        """Send a request until there is an answer that is no passing failure.

        Parameters
        ----------
        what : str
            The thing it is about, for messages.
        expected : collection of int
            Statuses to return; any other is raised.

        Raises
        ------
        StoreError
        """
        return self.retrier.run(
            lambda: self.ask_once(method, url, what, expected=expected, headers=headers, params=params, body=body)
        )

    def ask_once(
        self,
        method: str,
        url: str,
        what: str,
        *,
        expected: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Answer:
        """Make one attempt of `ask`."""
        with self.stream_once(
            method, url, what, expected=expected, headers=headers, params=params, body=body
        ) as response:
            with _told_failures(what):
                content = response.read()
            return Answer(response.status_code, response.headers, content)

    @contextlib.contextmanager
    def stream_once(
        self,
        method: str,
        url: str,
        what: str,
        *,
        expected: Collection[int] = (200,),
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
    ) -> Iterator[httpx.Response]:
        """Make one attempt, and give the answer before its body is read; see `iter_body`."""
        if _origin(url) != self._origin:
            raise StoreError(f"{what}: the store points to another host, which gets no credentials of ours")
        given = dict(headers or {})
        response = None
        for is_last in (False, True):
            authorization = self._authorization.header()
            request = self._request(method, url, given, authorization, params, body)
            with _told_failures(what):
                response = self._client.send(request, stream=True)
            if response.status_code != 401 or is_last:
                break
            response.close()
            if not self._authorization.renew(authorization):
                break
        assert response is not None
        try:
            if response.status_code not in expected:
                retry_after_s = parse_retry_after(response.headers.get("Retry-After"))
                raise status_failure(what, response.status_code, retry_after_s)
            yield response
        finally:
            response.close()

    def _request(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        authorization: str | None,
        params: Mapping[str, str] | None,
        body: Body | None,
    ) -> httpx.Request:
        content = None
        if authorization is not None:
            headers = headers | {"Authorization": authorization}
        if body is not None:
            length, content_of = body
            headers = headers | {"Content-Length": str(length)}
            content = content_of()
        return self._client.build_request(method, url, headers=headers, params=params, content=content)

    def close(self) -> None:
        """Close connections."""
        self._client.close()


def iter_body(response: httpx.Response, what: str) -> Iterator[bytes]:
    """Yield the body of an answer that was not read."""
    with _told_failures(what):
        yield from response.iter_bytes(_CHUNK_BYTES)


@contextlib.contextmanager
def _told_failures(what: str) -> Iterator[None]:
    """Turn failures of httpx into ours; theirs may hold URLs and are not repeated."""
    try:
        yield
    except httpx.HTTPError as error:
        raise _failure(what, error) from None
    except httpx.StreamError:
        raise StoreError(f"{what}: the answer cannot be read", retryable=True) from None
    except httpx.InvalidURL:
        raise StoreError(f"{what}: the store points to what is no URL") from None


def _failure(what: str, error: httpx.HTTPError) -> StoreError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return StoreError(f"{what}: the server's certificate is not accepted: {cause.verify_message}")
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.UnsupportedProtocol | httpx.ProxyError | httpx.TooManyRedirects):
        return StoreError(f"{what}: the server cannot be reached: {type(error).__name__}")
    if isinstance(error, httpx.TimeoutException):
        return StoreError(f"{what}: no answer in time", retryable=True)
    if isinstance(error, httpx.ConnectError):
        return StoreError(f"{what}: no connection to the server", retryable=True)
    return StoreError(f"{what}: the connection failed", retryable=True)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port
