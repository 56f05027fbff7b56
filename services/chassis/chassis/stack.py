"""The layers between the request middleware and FastAPI's router.

`guarded` is FastAPI's own stack with the chassis' outer end: the body limit, and problems instead
of Starlette's re-raise. `FastStack` is the short way for the common request, one without a body
that is not recorded: the same router, exception handlers and exit stack in one layer. What goes
wrong there outside of a route is handed to Starlette's own middleware.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from starlette.middleware.errors import ServerErrorMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, ExceptionHandler, Receive, Scope, Send

from chassis.body_limit import BodyLimit
from chassis.problems import UnhandledMiddleware
from chassis.text_guard import TextGuard


def guarded(stack: ASGIApp, max_body_bytes: int) -> ASGIApp:
    """Return FastAPI's middleware `stack` with problems at its outer end.

    The body limit is applied once, here; FastAPI's own `max_body_size` on the application would
    wrap it three times around each request. A route's own `max_body_size` still overrides it.
    """
    inner = stack.app if isinstance(stack, ServerErrorMiddleware) else stack
    return UnhandledMiddleware(BodyLimit(TextGuard(inner), max_body_bytes))


class FastStack:
    """Serves HTTP requests that have no body."""

    def __init__(
        self,
        app: Any,
        router: ASGIApp,
        handlers: Mapping[Any, ExceptionHandler],
    ) -> None:
        self._app = app
        self._router = router
        self._handlers = {
            key: handler for key, handler in handlers.items() if key not in (500, Exception)
        }
        # What ExceptionMiddleware puts there for the routes, by class and by status.
        self._tables = (
            {key: value for key, value in self._handlers.items() if not isinstance(key, int)},
            {key: value for key, value in self._handlers.items() if isinstance(key, int)},
        )
        self._unhandled = UnhandledMiddleware(self._run)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["app"] = self._app
        await self._unhandled(scope, receive, send)

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["starlette.exception_handlers"] = self._tables
        files = scope["fastapi_middleware_astack"] = AsyncExitStack()
        try:
            await self._router(scope, receive, send)
        except Exception as exc:  # noqa: BLE001  (handed on whole)
            await self._handle(exc, scope, receive, send)
        finally:
            if files._exit_callbacks:  # type: ignore[attr-defined]  # noqa: SLF001  (closing an empty stack costs more than the rest)
                await files.aclose()

    async def _handle(self, exc: Exception, scope: Scope, receive: Receive, send: Send) -> None:
        async def again(*_: object) -> None:
            raise exc

        await ExceptionMiddleware(again, self._handlers)(scope, receive, send)
