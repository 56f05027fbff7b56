"""What goes over a stream, both ways; `docs/streaming.md` and `/asyncapi.json` tell it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from stream.topics import PATTERN

Topic = Annotated[str, Field(pattern=PATTERN, examples=["orders", "sensors/greenhouse-1"])]
EventId = Annotated[str, Field(pattern=r"^\d{1,15}-\d{1,15}$", examples=["1767225600000-0"])]
Topics = Annotated[list[Topic], Field(min_length=1, max_length=100)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid")


# From the client.


class Auth(_Message):
    """The access token: the first message of who had none before, or a fresh one to go on."""

    type: Literal["auth"]
    token: str = Field(min_length=1, max_length=8192)


class Subscribe(_Message):
    """Send me these topics; with `last_event_id` first what came after that event."""

    type: Literal["subscribe"]
    topics: Topics
    last_event_id: EventId | None = None


class Unsubscribe(_Message):
    """Send me these topics no more."""

    type: Literal["unsubscribe"]
    topics: Topics


class Ping(_Message):
    """Are you there? For clients that cannot send ping frames; the answer is `pong`."""

    type: Literal["ping"]


ClientMessage = Annotated[Auth | Subscribe | Unsubscribe | Ping, Field(discriminator="type")]
client_message: TypeAdapter[Auth | Subscribe | Unsubscribe | Ping] = TypeAdapter(ClientMessage)


# From the server.


class Event(_Message):
    """Something happened."""

    type: Literal["event"] = "event"
    id: EventId
    topic: Topic
    event: str = Field(
        examples=["order.confirmed"], description="What happened: a CloudEvent type."
    )
    time: str | None = Field(default=None, description="When, RFC 3339.")
    data: Any
    traceparent: str | None = Field(default=None, description="W3C trace context of the cause.")


class Welcome(_Message):
    """The stream is open. The token is good until `expires_at`, seconds since 1970."""

    type: Literal["welcome"] = "welcome"
    expires_at: int


class Authenticated(_Message):
    """The fresh token was taken."""

    type: Literal["authenticated"] = "authenticated"
    expires_at: int


class Expiring(_Message):
    """The token ends soon, and the stream with it, unless a fresh one is sent."""

    type: Literal["expiring"] = "expiring"
    seconds: int


class Subscribed(_Message):
    """These topics come from now on: everything after `last_event_id`."""

    type: Literal["subscribed"] = "subscribed"
    topics: list[Topic]
    last_event_id: EventId


class Reached(_Message):
    """You have everything of your topics up to `last_event_id`: resume there. For quiet streams."""

    type: Literal["position"] = "position"
    last_event_id: EventId


class Unsubscribed(_Message):
    """These topics come no more."""

    type: Literal["unsubscribed"] = "unsubscribed"
    topics: list[Topic]


class Gap(_Message):
    """Events of these topics may be missing before the next one: read the state anew."""

    type: Literal["gap"] = "gap"
    topics: list[Topic]


class Dropped(_Message):
    """You read too slowly: so many events were left out here."""

    type: Literal["dropped"] = "dropped"
    count: int


class Status(_Message):
    """`degraded`: events come later, none is lost; `live`: they come as they happen."""

    type: Literal["status"] = "status"
    state: Literal["live", "degraded"]


class Goodbye(_Message):
    """This process ends; connect again after `retry_ms`, with your last event id."""

    type: Literal["goodbye"] = "goodbye"
    retry_ms: int


class Pong(_Message):
    """I am here."""

    type: Literal["pong"] = "pong"


class Error(_Message):
    """Your message was not taken."""

    type: Literal["error"] = "error"
    code: Literal["bad-message", "too-many-topics", "bad-token", "bad-event-id"]
    detail: str


class Closing(_Message):
    """Why the stream ends, for server-sent events: `code` is what a WebSocket is closed with."""

    type: Literal["closing"] = "closing"
    code: int
    reason: str


ServerMessage = Annotated[
    Event
    | Welcome
    | Authenticated
    | Expiring
    | Subscribed
    | Reached
    | Unsubscribed
    | Gap
    | Dropped
    | Status
    | Goodbye
    | Pong
    | Error,
    Field(discriminator="type"),
]
server_message: TypeAdapter[Any] = TypeAdapter(ServerMessage)
