"""Refuses text that cannot be stored or sent on: NUL characters and lone surrogates.

JSON and URLs can express both; PostgreSQL stores neither and UTF-8 cannot encode the second, so
they would come back as errors from deep inside. Here they are a 422 before any code runs on them.
The check of a body is a search for bytes; only a suspicious one is parsed to be sure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chassis.problems import VALIDATION_TYPE, Problem

MESSAGE = "NUL characters and lone surrogates are not allowed"

_suspicious = re.compile(rb"\\u(?:0000|[dD][89a-fA-F])|%00").search
_TAIL = 5  # one byte less than the longest pattern: it may lie across two chunks


class UnusableTextError(HTTPException):
    """The body holds text that cannot be stored."""

    def __init__(self) -> None:
        super().__init__(422)
        self.problem = refusal("body")


class TextGuard:
    """Pure ASGI middleware that checks bodies."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http":
            receive = guard_body(receive, dict(scope["headers"]))
        await self._app(scope, receive, send)


def refusal(where: str) -> Problem:
    """Return the 422 problem of text found in `where` (body, path or query)."""
    return Problem(
        422,
        detail=f"The {where} holds text that cannot be stored.",
        type=VALIDATION_TYPE,
        errors=[{"loc": [where], "message": MESSAGE, "type": "unusable_text"}],
    )


def check_url(scope: Scope) -> Problem | None:
    """Return the problem of a NUL in path or query, or None."""
    if "\x00" in scope["path"]:
        return refusal("path")
    if b"%00" in scope["query_string"]:
        return refusal("query")
    return None


def guard_body(receive: Receive, headers: Mapping[bytes, bytes]) -> Receive:
    """Return `receive` with a check of a JSON or URL-encoded body; other bodies pass as they are.

    The returned function raises `UnusableTextError` (422) at the chunk that completes a bad body.
    """
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind == b"application/x-www-form-urlencoded":
        sure = _form_is_bad
    elif kind == b"application/json" or kind.endswith(b"+json"):
        sure = _json_is_bad
    else:
        return receive
    chunks: list[bytes] = []
    suspect = False

    async def checked() -> Message:
        nonlocal suspect
        message = await receive()
        if message["type"] != "http.request":
            return message
        chunk = message.get("body", b"")
        if not suspect:
            before = chunks[-1][-_TAIL:] if chunks else b""
            suspect = _suspicious(before + chunk if before else chunk) is not None
        chunks.append(chunk)
        if not message.get("more_body", False) and suspect and sure(b"".join(chunks)):
            raise UnusableTextError
        return message

    return checked


def _form_is_bad(body: bytes) -> bool:
    return b"%00" in body


def _json_is_bad(body: bytes) -> bool:
    try:
        return _is_bad(json.loads(body))
    except (ValueError, RecursionError):
        return False  # malformed: the parser of the application says so


def _is_bad(value: Any) -> bool:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            if "\x00" in item or not _encodable(item):
                return True
        elif isinstance(item, dict):
            stack.extend(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return False


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
