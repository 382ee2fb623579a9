"""Failures as BigQuery tells them."""

from __future__ import annotations

__all__ = ["Refused"]


class Refused(Exception):  # noqa: N818
    """A request that is not fulfilled: status of HTTP, reason and message."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message

    def as_json(self) -> dict:
        first = {"message": self.message, "domain": "global", "reason": self.reason}
        return {"error": {"code": self.status, "message": self.message, "errors": [first], "status": "X"}}

    def as_result(self) -> dict:
        return {"reason": self.reason, "message": self.message}


def invalid(message: str) -> Refused:
    return Refused(400, "invalid", message)


def invalid_query(message: str) -> Refused:
    return Refused(400, "invalidQuery", message)
