"""Who sends a message: the OIDC token that Pub/Sub and Eventarc put into a request.

Reference: https://cloud.google.com/pubsub/docs/authenticate-push-subscriptions
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coverslip.errors import StoreError, UsageError

__all__ = ["GOOGLE_CERTIFICATES", "GOOGLE_ISSUERS", "TokenCheck", "TokenRules"]

GOOGLE_CERTIFICATES = "https://www.googleapis.com/oauth2/v1/certs"
GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
_KEEP_S = 3600.0
_AGAIN_S = 30.0
_TIMEOUT_S = 10
_CLOCKS_DIFFER_S = 10


@dataclass(frozen=True, slots=True)
class TokenRules:
    """Which tokens are taken.

    Parameters
    ----------
    audience : str
        As the subscription or trigger has it.
    account : str
        Email of the service account that sends; empty for any of the issuer's with this audience.
    issuers : tuple of str
    certificates_url : str
        Where the issuer's certificates are, as an object of JSON by key.
    """

    audience: str
    account: str = ""
    issuers: tuple[str, ...] = GOOGLE_ISSUERS
    certificates_url: str = GOOGLE_CERTIFICATES


class TokenCheck:
    """Checks tokens; safe to use from several threads. Certificates are kept for an hour.

    Parameters
    ----------
    rules : TokenRules
    """

    def __init__(self, rules: TokenRules) -> None:
        self._rules = rules
        self._lock = threading.Lock()
        self._certificates: Mapping[str, str] = {}
        self._fetched_at = float("-inf")

    def require(self, authorization: str) -> None:
        """Check the value of an Authorization header.

        Raises
        ------
        UsageError
            If it holds no token that is taken. What it holds is not repeated.
        StoreError
            If the certificates cannot be had.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UsageError("no bearer token")
        claims = self._claims(token.strip())
        if claims.get("iss") not in self._rules.issuers:
            raise UsageError("a token of another issuer")
        if self._rules.account and (claims.get("email") != self._rules.account or not claims.get("email_verified")):
            raise UsageError("a token of another account")

    def _claims(self, token: str) -> Mapping[str, Any]:
        from google.auth import exceptions, jwt

        for is_fresh in (False, True):
            try:
                claims: Mapping[str, Any] = jwt.decode(  # type: ignore[no-untyped-call]
                    token,
                    certs=self._known_certificates(fresh=is_fresh),
                    audience=self._rules.audience,
                    clock_skew_in_seconds=_CLOCKS_DIFFER_S,
                )
                return claims
            except (ValueError, TypeError, exceptions.GoogleAuthError):
                continue  # a key that is not known may be a new one
        raise UsageError("a token that is not valid for this audience")

    def _known_certificates(self, *, fresh: bool) -> Mapping[str, str]:
        with self._lock:
            age_s = time.monotonic() - self._fetched_at
            if age_s > _KEEP_S or (fresh and age_s > _AGAIN_S):
                self._certificates = self._fetch()
                self._fetched_at = time.monotonic()
            return self._certificates

    def _fetch(self) -> Mapping[str, str]:
        import requests

        try:
            answer = requests.get(self._rules.certificates_url, timeout=_TIMEOUT_S, allow_redirects=False)
            told = json.loads(answer.content) if answer.status_code == 200 else None
        except (requests.RequestException, ValueError):
            told = None
        if not isinstance(told, dict) or not all(isinstance(value, str) for value in told.values()):
            raise StoreError("the certificates of the issuer of tokens cannot be had", retryable=True)
        return told
