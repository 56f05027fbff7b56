"""The limit of a request body: 413 as a problem, counted while it arrives when its size is unknown.

Starlette's limiter does the counting. This wraps it so that a request that cannot have a body
(HTTP/1 without Content-Length and Transfer-Encoding, RFC 9112 section 6.3) costs nothing, and so
that its plain-text answer becomes a problem.
"""

from __future__ import annotations

from collections.abc import Mapping

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.problems import MEDIA_TYPE, Problem, problem_response


def has_no_body(scope: Scope, headers: Mapping[bytes, bytes]) -> bool:
    """Say whether the HTTP request of `scope` certainly has no body."""
    return (
        b"content-length" not in headers
        and b"transfer-encoding" not in headers
        and scope["http_version"][:1] == "1"
    )


class BodyLimit:
    """Pure ASGI middleware; `limit` in bytes."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self._app = app
        self._limited = RequestBodyLimitMiddleware(app, limit)
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or has_no_body(scope, dict(scope["headers"])):
            await self._app(scope, receive, send)
            return
        refused = False

        async def send_problem(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] == 413:  # noqa: PLR2004
                refused = (b"content-type", MEDIA_TYPE.encode()) not in message["headers"]
                if refused:
                    problem = Problem(413, detail="The body is larger than this service takes.")
                    await problem_response(problem, scope)(scope, receive, send)
            if not refused:
                await send(message)

        await self._limited(scope, receive, send_problem)
