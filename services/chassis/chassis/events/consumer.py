"""The event sink: `POST /events`, with an inbox that makes every handler idempotent.

The inbox row and the handler's work are one transaction. An event that comes twice, also at the
same time, is handled once; a handler that fails rolls both back, answers an error and is called
again by the next delivery.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

from fastapi import APIRouter, Body, Response
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import SessionDep
from chassis.events.cloudevent import CONTENT_TYPE, CloudEvent
from chassis.events.inbox import receive
from chassis.problems import problems
from chassis.runtime import Runtime, RuntimeDep
from chassis.security.dependencies import requires

EventHandler = Callable[[CloudEvent, AsyncSession, Runtime], Awaitable[None]]

SCOPE = "events:deliver"


def consumer_router(consumers: Mapping[str, EventHandler]) -> APIRouter:
    """Return the router of `POST /events` for these handlers by CloudEvent type.

    An event of a type without a handler is answered 204 and logged: a publisher may tell more
    than this service wants to know, and a retry would not change that.

    A handler works in the given session. If it raises, nothing of it stays: a `Problem` is
    answered as it is (4xx: the sender gives the event up), anything else is 500 (tried again).
    """
    handlers = dict(consumers)
    router = APIRouter(tags=["events"])

    @router.post(
        "/events",
        status_code=204,
        summary="Receive an event",
        dependencies=[requires(SCOPE)],
        responses=problems(401, 403, 503),
    )
    async def receive_event(
        event: Annotated[CloudEvent, Body(media_type=CONTENT_TYPE)],
        session: SessionDep,
        runtime: RuntimeDep,
    ) -> Response:
        """Take a CloudEvent (structured mode); 204 once its work is committed, or was before."""
        handler = handlers.get(event.type)
        if handler is None:
            runtime.log.warning("event.ignored", event_type=event.type, source=event.source)
        elif await receive(session, event, runtime.clock.now()):
            await handler(event, session, runtime)
        return Response(status_code=204)

    return router
