"""Google's credentials, and other credentials for Google's client library."""

from __future__ import annotations

import threading
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

import google.auth
import google.auth.credentials
import google.auth.exceptions
import google.auth.transport
import google.auth.transport.requests
from google.oauth2 import service_account

from coverslip.errors import StoreError, UsageError
from coverslip.stores.authorization import Authorization, open_authorization
from coverslip.stores.options import Anonymous, ApplicationDefault, Credentials, ServiceAccountFile, StoreDefault

__all__ = ["CLOUD_PLATFORM", "GoogleAuthorization", "auth_failure", "load_google_credentials"]

CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"


def load_google_credentials(credentials: Credentials) -> google.auth.credentials.Credentials:
    """Return what Google's libraries take as credentials.

    Raises
    ------
    UsageError
        If they are not there or not usable.
    """
    if isinstance(credentials, Anonymous):
        return google.auth.credentials.AnonymousCredentials()  # type: ignore[no-untyped-call]
    if isinstance(credentials, ServiceAccountFile):
        return _load_service_account(credentials)
    if isinstance(credentials, StoreDefault | ApplicationDefault):
        try:
            found, _ = google.auth.default(scopes=[CLOUD_PLATFORM])
        except google.auth.exceptions.GoogleAuthError:
            raise UsageError(
                "no application default credentials: run gcloud auth application-default login, set "
                "GOOGLE_APPLICATION_CREDENTIALS, or name other credentials"
            ) from None
        return found
    return _Bridge(open_authorization(credentials))


def _load_service_account(credentials: ServiceAccountFile) -> google.auth.credentials.Credentials:
    path = credentials.path
    try:
        loaded = service_account.Credentials.from_service_account_file(  # type: ignore[no-untyped-call]
            str(path), scopes=[CLOUD_PLATFORM]
        )
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read: {error.strerror}") from None
    except (ValueError, TypeError, KeyError, google.auth.exceptions.GoogleAuthError):
        raise UsageError(f"{path.name}: not the key file of a service account") from None
    return cast("google.auth.credentials.Credentials", loaded)


def auth_failure(error: google.auth.exceptions.GoogleAuthError) -> StoreError:
    """Return what is said of a failure to get a token; the answer of the token server is not repeated."""
    kind = type(error).__name__
    return StoreError(f"Google credentials cannot be refreshed: {kind}", retryable=bool(error.retryable))


class GoogleAuthorization:
    """Bearer tokens of Google's credentials; see `coverslip.stores.authorization.Authorization`."""

    def __init__(self, credentials: Credentials) -> None:
        self._wanted = credentials
        self._credentials: google.auth.credentials.Credentials | None = None
        self._lock = threading.Lock()

    def header(self) -> str | None:
        """Return the value of the Authorization header."""
        with self._lock:
            if self._credentials is None:
                self._credentials = load_google_credentials(self._wanted)
            if not self._credentials.valid:
                self._refresh(self._credentials)
            return f"Bearer {self._credentials.token}"

    def renew(self, refused: str | None) -> bool:
        """Get another token if none of the threads has done so."""
        with self._lock:
            if self._credentials is None:
                return True
            if f"Bearer {self._credentials.token}" == refused:
                self._refresh(self._credentials)
            return f"Bearer {self._credentials.token}" != refused

    @staticmethod
    def _refresh(credentials: google.auth.credentials.Credentials) -> None:
        try:
            credentials.refresh(google.auth.transport.requests.Request())  # type: ignore[no-untyped-call]
        except google.auth.exceptions.GoogleAuthError as error:
            raise auth_failure(error) from None


class _Bridge(google.auth.credentials.Credentials):
    """Other credentials in the form that Google's libraries take."""

    def __init__(self, authorization: Authorization) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._authorization = authorization
        self._sent = threading.local()

    @property
    def valid(self) -> bool:
        """Whether requests may be sent: whether the store takes the token is seen then."""
        return True

    def before_request(
        self,
        request: google.auth.transport.Request,
        method: str,
        url: str,
        headers: MutableMapping[str, str],
    ) -> None:
        """Add the header to a request."""
        self.apply(headers)

    def apply(self, headers: MutableMapping[str, str], token: str | None = None) -> None:
        """Add the header."""
        value = self._authorization.header()
        self._sent.value = value
        if value is not None:
            headers["authorization"] = value

    def refresh(self, request: google.auth.transport.Request) -> None:
        """Get another token in place of the one that this thread has sent last."""
        if not self._authorization.renew(getattr(self._sent, "value", None)):
            raise StoreError("the store does not accept the credentials (401 Unauthorized)")

    def __getstate__(self) -> Mapping[str, Any]:
        raise TypeError("credentials are not copied")
