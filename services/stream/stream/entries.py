"""Events on their way: a draft before the log took it, an entry after; and what clients are sent.

An entry is encoded once, however many clients get it: what is sent to each is the same text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from stream.positions import Position
from stream.topics import Kind, kind_of, shown_name


@dataclass(frozen=True, slots=True)
class Draft:
    """An event that the log has not taken yet.

    Attributes:
        topic: the name it is stored under.
        body: its JSON object as clients get it, without `type` and `id`.
        key: the same event has the same key; empty for events that are not deduplicated.
        trace: the W3C `traceparent` of its publishing, or empty.
    """

    topic: str
    body: str
    key: str = ""
    trace: str = ""


def draft(
    topic: str,
    event: str,
    data: Any,
    *,
    time: str | None,
    key: str = "",
    trace: str = "",
) -> Draft:
    """Return the draft of an event of the type `event`."""
    told: dict[str, Any] = {"topic": shown_name(topic), "event": event}
    if time is not None:
        told["time"] = time
    told["data"] = data
    if trace:
        told["traceparent"] = trace
    return Draft(topic, json.dumps(told, separators=(",", ":")), key, trace)


class Entry:
    """An event of the log. `text` is its WebSocket message, `lines` its server-sent event."""

    __slots__ = ("__dict__", "kind", "position", "text", "topic", "trace")

    def __init__(self, position: Position, topic: str, body: str, trace: str = "") -> None:
        self.position = position
        self.topic = topic
        self.kind: Kind = kind_of(topic)
        self.trace = trace
        self.text = f'{{"type":"event","id":"{position}",{body[1:]}'

    @property
    def size(self) -> int:
        """Bytes of the text, which is ASCII."""
        return len(self.text)

    @cached_property
    def lines(self) -> bytes:
        """The entry as `text/event-stream` has it; made when the first such client needs it."""
        return f"id: {self.position}\ndata: {self.text}\n\n".encode()


class Control:
    """A message about the stream itself."""

    __slots__ = ("kind", "position", "retry", "text")

    def __init__(self, message: BaseModel, *, position: Position | None = None) -> None:
        self.text = message.model_dump_json()
        self.kind: str = message.type  # type: ignore[attr-defined]  # every server message has one
        self.position = position
        self.retry: int | None = getattr(message, "retry_ms", None)

    @property
    def lines(self) -> bytes:
        """The message as `text/event-stream` has it.

        `subscribed` and `position` carry the position, so that a browser that reconnects before its
        next event names it; `goodbye` sets the time after which it does.
        """
        head = "" if self.position is None else f"id: {self.position}\n"
        if self.retry is not None:
            head += f"retry: {self.retry}\n"
        return f"{head}event: {self.kind}\ndata: {self.text}\n\n".encode()


class Heartbeat:
    """A comment of a server-sent event stream, which clients skip."""

    __slots__ = ()
    lines = b":\n\n"
    text = ""
    position = None


def fields(entry: Draft) -> Mapping[str, str]:
    """Return what the log stores of a draft."""
    return {"t": entry.topic, "m": entry.body, "p": entry.trace}
