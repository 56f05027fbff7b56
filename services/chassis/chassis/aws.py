"""Runs a service on AWS Lambda: the handler of an execution environment, by Mangum.

    from chassis.aws import handler_for

    lambda_handler = handler_for("items")

An environment has one event loop and one lifespan, opened at its init and closed at its end.
Between two invocations it is frozen, the loop too. So an invocation leaves nothing behind that
must go on: background loops do not run (a schedule runs those of the chassis, see `JOBS`), and
spans are sent before the answer is given. Under SnapStart nothing is opened before the snapshot:
the clones would share connections and random numbers.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import random
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any, Protocol, cast

import anyio
import anyio.to_thread
from fastapi import FastAPI
from mangum import Mangum
from mangum.adapter import DEFAULT_TEXT_MIME_TYPES
from starlette.types import Message, Receive, Scope, Send

from chassis import logs
from chassis.events.inbox import RETENTION, purge_inbox
from chassis.events.relay import Relay
from chassis.http.deadline import HEADER as DEADLINE_HEADER
from chassis.http.deadline import parse_budget
from chassis.http.errors import DEADLINE_TYPE
from chassis.idempotency import purge_expired
from chassis.problems import Problem, problem_response
from chassis.request_id import HEADER as REQUEST_ID
from chassis.runtime import Runtime
from chassis.settings import load_settings, settings_class

SNAP_START = "snap-start"

RESERVE_SECONDS = 0.3
"""What is kept of an invocation's time for the answer's way back."""

FLUSH_SECONDS = 0.7
"""How long an answer may wait for its spans to be sent; kept of its time as well."""

_LATER_SECONDS = 0.02
_CANCEL_SECONDS = 0.1
_CLOSE_SECONDS = 1.5  # Lambda kills an environment that ends two seconds later at the latest
_BUDGET = DEADLINE_HEADER.lower().encode("ascii")

# What is not in this list goes over the wire in Base64, which not every trigger decodes.
_TEXT = [
    *DEFAULT_TEXT_MIME_TYPES,
    "application/problem+json",
    "application/merge-patch+json",
    "application/cloudevents+json",
    "application/openmetrics-text",
]

_log = logging.getLogger("chassis.aws")


class LambdaError(Exception):
    """A service cannot run on Lambda. Its text is one line."""


class Context(Protocol):
    """What the runtime says about an invocation."""

    aws_request_id: str

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until Lambda ends the invocation."""
        ...


async def _relay(runtime: Runtime) -> None:
    relay = Relay(runtime)
    while await relay.run_once():
        pass
    await relay.purge()


async def _purge_inbox(runtime: Runtime) -> None:
    await purge_inbox(runtime.database, runtime.clock.now() - RETENTION)


async def _purge_keys(runtime: Runtime) -> None:
    await purge_expired(runtime.database, runtime.clock.now())


JOBS: Mapping[str, Callable[[Runtime], Awaitable[None]]] = {
    "outbox-relay": _relay,
    "inbox-purge": _purge_inbox,
    "idempotency-purge": _purge_keys,
}
"""The loops of the chassis as jobs that end: what an EventBridge schedule runs."""

# It measures the event loop, which is frozen between invocations.
_NEEDLESS = frozenset({"event-loop-lag"})


def require_no_loops(runtime: Runtime) -> None:
    """Refuse a service whose own background loops would stand still.

    Raises:
        LambdaError: naming them.
    """
    own = [name for name in runtime.loops if name not in JOBS and name not in _NEEDLESS]
    if own:
        raise LambdaError(
            f"{runtime.settings.service_name}: its background loops ({', '.join(own)}) would "
            "stand still between requests; run it in a pod"
        )


def handler_for(service: str) -> Function:
    """Return the handler of `service`, opened unless SnapStart takes a snapshot first.

    Raises:
        LambdaError: the service has background loops of its own.
        SettingsError: there is no such service, or a setting is missing or wrong.
    """
    settings = load_settings(settings_class(service))
    instance = os.environ.get("AWS_LAMBDA_LOG_STREAM_NAME", settings.instance)
    settings = settings.model_copy(update={"serverless": True, "instance": instance})
    logs.configure(settings)
    for library in ("sqlalchemy", "mangum"):  # they tell of every connection and request
        logging.getLogger(library).setLevel(logging.WARNING)
    function = Function(importlib.import_module(f"{service}.main").create_app(settings))
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, function.terminate)
    if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == SNAP_START:
        # In the snapshot rather than at the first call; `serverless` leaves it out elsewhere.
        importlib.import_module("chassis.http.transport")
        # Part of Lambda's own Python, and there only.
        from snapshot_restore_py import register_after_restore  # noqa: PLC0415

        register_after_restore(function.restored)
    else:
        function.open()
    return function


class Function:
    """An application in one execution environment; call it with an event and its context."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._runtime: Runtime = app.state.runtime
        require_no_loops(self._runtime)
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)  # where Mangum looks for it
        self._lifespan = AsyncExitStack()
        self._mangum = Mangum(self._serve, lifespan="off", text_mime_types=_TEXT)

    def open(self) -> None:
        """Run the start of the lifespan, once.

        Raises:
            Exception: whatever the start raises; Lambda is told that the init failed.
        """
        entering = self._lifespan.enter_async_context(self._app.router.lifespan_context(self._app))
        self._loop.run_until_complete(entering)

    def restored(self) -> None:
        """Go on from a snapshot: with random numbers of one's own, and connections of one's own."""
        random.seed()
        self.open()

    def close(self) -> None:
        """Run the end of the lifespan: connections are closed, spans are sent. Bounded."""

        async def leave() -> None:
            with anyio.move_on_after(_CLOSE_SECONDS):
                await self._lifespan.aclose()

        self._loop.run_until_complete(leave())

    def terminate(self, *_: object) -> None:
        """End the environment (SIGTERM, which Lambda sends where an extension is registered)."""
        if not self._loop.is_running():
            self.close()
        sys.stdout.flush()
        os._exit(0)  # the runtime's thread waits for an invocation, and for ever

    def __call__(self, event: dict[str, Any], context: Context) -> dict[str, Any]:
        """Serve an HTTP event of API Gateway (v1, v2), a load balancer or a function URL.

        A scheduled event of EventBridge runs the jobs that are loops elsewhere.

        Raises:
            ExceptionGroup: of the jobs that failed, so that Lambda counts an error and tries again.
            RuntimeError: an event of another kind.
        """
        try:
            return self._handle(event, context)
        finally:
            self._flush(context)

    def _handle(self, event: dict[str, Any], context: Context) -> dict[str, Any]:
        if event.get("source") == "aws.events" or event.get("detail-type") == "Scheduled Event":
            return self._loop.run_until_complete(self._run_jobs(context))
        answer: dict[str, Any] = self._mangum(event, cast("Any", context))
        return answer

    async def _run_jobs(self, context: Context) -> dict[str, Any]:
        """Run every job; one that fails, or takes longer than its share, keeps no other from it.

        Raises:
            ExceptionGroup: of what failed.
        """
        names = [name for name in self._runtime.loops if name in JOBS]
        failures: list[Exception] = []
        for done, name in enumerate(names):
            share = self._seconds(context) / (len(names) - done)
            try:
                async with asyncio.timeout(share):
                    await JOBS[name](self._runtime)
            except Exception as error:  # noqa: BLE001  (raised below, with the others)
                _log.exception("job failed", extra={"job": name})
                failures.append(error)
        if failures:
            raise ExceptionGroup("jobs failed", failures)
        return {"jobs": names}

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request within the time of its invocation; over it, answer 504.

        Raises:
            TimeoutError: it was over in the middle of an answer; Mangum makes a 500 of that.
        """
        context: Context = scope["aws.context"]
        seconds = self._seconds(context)
        scope["headers"] = _with_budget(scope, seconds, context.aws_request_id)
        answer = _Answer(send)
        serving = asyncio.ensure_future(self._app(scope, receive, answer.send))
        # A little later than the application's own deadline, by which it knows why it is cancelled.
        done, _ = await asyncio.wait({serving}, timeout=seconds + _LATER_SECONDS)
        if not done:
            serving.cancel()
            done, _ = await asyncio.wait({serving}, timeout=_CANCEL_SECONDS)
            if not done:
                _log.error("a request cannot be cancelled", extra={"path": scope["path"]})
        if not answer.begun:
            await problem_response(_too_slow(), scope)(scope, receive, answer.send)
        answer.closed = True
        if done and not serving.cancelled():
            serving.result()
        elif not answer.ended:
            raise TimeoutError("the time was over in the middle of an answer")

    def _seconds(self, context: Context) -> float:
        """Return how long the application may work for an invocation."""
        kept = RESERVE_SECONDS
        if self._runtime.tracer_provider is not None:
            kept += FLUSH_SECONDS
        return max(0.0, context.get_remaining_time_in_millis() / 1000 - kept)

    def _flush(self, context: Context) -> None:
        """Send the spans of this invocation: once it is answered, the process is frozen."""
        provider = self._runtime.tracer_provider
        if provider is None:
            return
        left = context.get_remaining_time_in_millis() / 1000 - RESERVE_SECONDS
        seconds = min(FLUSH_SECONDS, left)

        async def flush() -> bool:
            with anyio.move_on_after(seconds):
                await anyio.to_thread.run_sync(provider.force_flush, abandon_on_cancel=True)
                return True
            return False

        if seconds <= 0 or not self._loop.run_until_complete(flush()):
            _log.warning("spans wait for the next invocation: the collector is slow")


class _Answer:
    """What an application sends, until its time is over."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False
        self.ended = False
        self.closed = False

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        if not self.closed:
            self.begun = True
            await self._send(message)
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.ended = True


def _with_budget(scope: Scope, seconds: float, request_id: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a request with the time that it has, and its id if it has none."""
    headers = [(bytes(name), bytes(value)) for name, value in scope["headers"]]
    given = dict(headers)
    budget = int(parse_budget(given.get(_BUDGET), cap=seconds) * 1000)
    kept = [(name, value) for name, value in headers if name != _BUDGET]
    if REQUEST_ID not in given:
        kept.append((REQUEST_ID, request_id.encode("ascii")))
    return [*kept, (_BUDGET, str(budget).encode("ascii"))]


def _too_slow() -> Problem:
    return Problem(
        504,
        detail="The function's time was over before the request was done; its outcome is unknown.",
        type=DEADLINE_TYPE,
    )
