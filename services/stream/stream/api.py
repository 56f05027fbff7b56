"""The routes of version 1 over plain HTTP."""

from typing import Annotated

from fastapi import APIRouter, Header, Query
from pydantic import BaseModel, Field

from chassis.problems import problems
from chassis.security import Principal, requires
from stream import ingest
from stream.credentials import SCOPE, grant
from stream.log import LogUnavailableError
from stream.messages import EventId, Topics
from stream.service import StreamsDep, unavailable
from stream.sse import MEDIA_TYPE, EventStream

router = APIRouter()
router.include_router(ingest.sensors)

Listener = Annotated[Principal, requires(SCOPE)]


class Ticket(BaseModel):
    """A ticket for one stream, as `?ticket=`."""

    ticket: str = Field(examples=["p3Jm1VbX9o2Qw7Yt5Rk8Ls6Nd4Fh0Gc1Za2Xe3Uv4Ti"])
    expires_in: int = Field(description="Seconds until it is worthless.", examples=[30])


@router.post(
    "/stream/tickets",
    status_code=201,
    summary="Get a ticket for a stream",
    tags=["streams"],
    responses=problems(401, 403, 503),
)
async def sell_ticket(caller: Listener, streams: StreamsDep) -> Ticket:
    """For browsers, which cannot send a token with a WebSocket or an EventSource.

    A ticket opens one stream within 30 seconds, with the rights and until the end of this token.
    """
    try:
        ticket = await streams.tickets.sell(grant(caller))
    except LogUnavailableError as error:
        raise unavailable("Tickets cannot be kept now; try again.") from error
    return Ticket(ticket=ticket, expires_in=streams.tickets.seconds)


@router.get(
    "/events",
    status_code=200,
    summary="Listen to topics",
    tags=["streams"],
    response_class=EventStream,
    responses={
        200: {
            "description": "Server-sent events, without end.",
            "content": {
                MEDIA_TYPE: {
                    "schema": {"type": "string"},
                    "example": 'id: 1767225600000-0\ndata: {"type":"event", …}\n\n',
                }
            },
        },
        **problems(400, 401, 403, 422, 429, 503),
    },
)
async def listen(
    streams: StreamsDep,
    topics: Annotated[Topics, Query(description="`orders`, `sensors/*`, …")],
    ticket: Annotated[
        str | None, Query(max_length=200, description="In place of a token; good once.")
    ] = None,
    last_event_id: Annotated[
        EventId | None, Query(description="As the header, for who cannot send one.")
    ] = None,
    last_event_id_header: Annotated[EventId | None, Header(alias="Last-Event-ID")] = None,
) -> EventStream:
    """Server-sent events (text/event-stream) of `topics`, from now on or after a last event.

    Needs the scope `stream:read`, by a bearer token or a ticket. The stream ends with the token.
    """
    del ticket  # read with the other credentials
    return EventStream(streams, topics, last_event_id_header or last_event_id)
