"""What a call to a peer raises, and the problems that these become when nobody handles them."""

from __future__ import annotations

import httpx2
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from chassis.http.retry import whole_seconds
from chassis.problems import Problem, problem_response

UNAVAILABLE_TYPE = "urn:slipway:problem:peer-unavailable"
FAULT_TYPE = "urn:slipway:problem:peer-fault"
DEADLINE_TYPE = "urn:slipway:problem:deadline-exceeded"
DEFAULT_RETRY_AFTER = 1.0


class ClosedBeforeResponseError(httpx2.ReadError):
    """The connection was lost before the first byte of a response: a stale one, or a crash."""


class ResponseTooLargeError(httpx2.RemoteProtocolError):
    """The body is longer than the transport's limit."""


class PeerError(Exception):
    """A call to a peer failed. `peer` is its name."""

    def __init__(self, peer: str, message: str) -> None:
        self.peer = peer
        super().__init__(f"{peer}: {message}")


class PeerUnavailable(PeerError):  # noqa: N818  (reads as what happened)
    """The peer gave no answer: no connection, a lost one, a timeout, or an open breaker.

    `retry_after` is in seconds, when known.
    """

    def __init__(self, peer: str, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(peer, message)


class PeerFault(PeerError):  # noqa: N818  (reads as what happened)
    """The peer answered, but with a server error or 429 (or with more than may be read).

    `retry_after` is what the peer asked for, in seconds, or None.
    """

    def __init__(
        self,
        peer: str,
        status: int,
        message: str | None = None,
        *,
        retry_after: float | None = None,
    ) -> None:
        self.status = status
        self.retry_after = retry_after
        super().__init__(peer, message or f"answered {status}")


class DeadlineExceeded(PeerError):  # noqa: N818  (reads as what happened)
    """The caller's budget is spent. `sent` is False when the peer was not called at all."""

    def __init__(self, peer: str, *, sent: bool) -> None:
        self.sent = sent
        what = "gave no answer within the time left" if sent else "not called, no time left"
        super().__init__(peer, what)


def peer_problem(error: PeerError) -> Problem:
    """Return the problem that tells a client of `error`: 503 with Retry-After, or 504."""
    if isinstance(error, DeadlineExceeded):
        return Problem(
            504,
            detail="The time given for this request was not enough.",
            type=DEADLINE_TYPE,
            peer=error.peer,
        )
    retry_after = getattr(error, "retry_after", None) or DEFAULT_RETRY_AFTER
    unavailable = isinstance(error, PeerUnavailable)
    return Problem(
        503,
        detail=f"{error.peer} is {'unavailable' if unavailable else 'failing'}; try again later.",
        type=UNAVAILABLE_TYPE if unavailable else FAULT_TYPE,
        headers={"Retry-After": whole_seconds(retry_after)},
        peer=error.peer,
    )


def install_peer_error_handlers(app: FastAPI) -> None:
    """Make every `PeerError` that a handler lets through the problem of `peer_problem`."""
    app.add_exception_handler(PeerError, _on_peer_error)


async def _on_peer_error(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, PeerError)
    return problem_response(peer_problem(exc), request.scope)
