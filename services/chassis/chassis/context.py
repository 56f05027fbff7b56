"""What the running code may know of the request that it serves: its id and its trace.

One object per request sits in one context variable; logs, problems and calls to peers read it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class RequestContext(Protocol):
    """The identity of one request."""

    error: type[Exception] | None
    """The class of the exception that nothing handled."""

    @property
    def request_id(self) -> str:
        """Return the id from `X-Request-ID`, or the one made for this request."""
        ...

    @property
    def trace_id(self) -> str:
        """Return the W3C trace id, 32 hexadecimal digits."""
        ...


current: ContextVar[RequestContext | None] = ContextVar("chassis_request", default=None)


def request_id() -> str | None:
    """Return the id of the request being served, or None outside of one."""
    context = current.get()
    return None if context is None else context.request_id


def trace_id() -> str | None:
    """Return the trace id of the request being served, or None outside of one."""
    context = current.get()
    return None if context is None else context.trace_id
