"""Failures between muster and the API server, as exceptions named after the API's own reasons.

ApiError: the server answered with a failure, and its Status object says why. Unreachable: there was no whole answer, so
whether a write took effect is unknown. LeaseLost: nothing was sent. Nothing else leaves `muster.kube` because of the network
or the server.
"""

from typing import Final

import msgspec


class KubeError(Exception):
    """Base of all failures in talking to the API server."""


class Unreachable(KubeError):
    """No connection, no answer in time, or an answer cut short: a write may or may not have taken effect."""


class LeaseLost(KubeError):
    """The lease could not be renewed in time, or another process has it: the former leader must write nothing more."""


class ApiError(KubeError):
    """The API server refused: HTTP status, machine reason, its own words, and the seconds it asks to wait (or None)."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after


class Forbidden(ApiError):
    """403: refused by RBAC, quota or an admission policy."""


class NotFound(ApiError):
    """404: no such object, or no such resource (CRD not installed)."""


class Conflict(ApiError):
    """409: the object changed since it was read, or the uid precondition failed."""


class AlreadyExists(Conflict):
    """409 on create: an object of that name exists."""


class Gone(ApiError):
    """410: the resource version or continue token is too old; list again."""


class Invalid(ApiError):
    """422: the object breaks its schema or a validation rule; the message names the field."""


class TooMany(ApiError):
    """429: not processed; try again later."""


_BY_STATUS: Final[dict[int, type[ApiError]]] = {
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    422: Invalid,
    429: TooMany,
}


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: float | None = None


class _Status(msgspec.Struct):
    message: str | None = None
    reason: str | None = None
    code: int | None = None
    details: _Details | None = None


_decode_status: Final = msgspec.json.Decoder(_Status).decode


def api_error(body: bytes, status: int | None = None, retry_after: str | None = None) -> ApiError:
    """Build the error of a Status object (also the object of a watch's ERROR frame) or of any other body.

    `status` is the HTTP status where there is one, `retry_after` the header's text; a proxy's HTML or an empty body is quoted.
    The server's words are to stand within sentences, so they lose a full stop at their end.
    """
    try:
        parsed = _decode_status(body)
    except msgspec.MsgspecError:
        parsed = _Status(message=body[:200].decode(errors="replace").strip() or "no body")
    code = status or parsed.code or 500
    wait = _seconds(retry_after)
    if wait is None and parsed.details is not None:
        wait = parsed.details.retry_after_seconds
    kind = AlreadyExists if parsed.reason == "AlreadyExists" else _BY_STATUS.get(code, ApiError)
    return kind(code, parsed.reason or "Unknown", (parsed.message or "no message").strip().rstrip("."), wait)


def _seconds(header: str | None) -> float | None:
    """Read Retry-After in seconds; its date form is not used by API servers and counts as absent."""
    return float(header) if header and header.isascii() and header.isdigit() else None
