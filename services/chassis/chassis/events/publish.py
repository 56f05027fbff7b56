"""Publishing: a row per subscriber, written in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import after_commit, database_of
from chassis.events.cloudevent import CloudEvent, source_of
from chassis.events.tables import PENDING, outbox
from chassis.ids import new_id
from chassis.settings import EventSettings

_INSERT = insert(outbox)  # built once: that costs more than running it


async def publish(
    session: AsyncSession,
    type: str,  # noqa: A002  (the attribute's name in CloudEvents)
    subject: str,
    data: Mapping[str, Any],
    *,
    now: datetime,
    key: str | None = None,
) -> str:
    """Write an event to the outbox, in the transaction of `session`; return its id.

    It is sent after the commit, to each URL that the setting `subscribers` has for `type`; a
    type without subscribers writes nothing. The current trace is continued by the delivery.
    `now` is the time of the event by the service's clock, from which on it may be sent.

    Order: a subscriber gets the events of one `key` (by default the subject) one at a time, in
    the order in which they were published, provided that the publishing transactions of that
    key wait for each other (they update the same row, say). A dead one lets the next pass.

    Raises:
        RuntimeError: if the session was not opened by a `Database`.
        TypeError: if the settings of the service are no `EventSettings`.
    """
    database = database_of(session)
    settings = database.settings
    if not isinstance(settings, EventSettings):
        raise TypeError("publishing needs EventSettings")
    trace: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(trace)
    event = CloudEvent(
        id=new_id(),
        source=source_of(settings.service_name),
        type=type,
        subject=subject,
        time=now,
        datacontenttype="application/json",
        traceparent=trace.get("traceparent"),
        tracestate=trace.get("tracestate"),
        data=dict(data),
    )
    subscribers = dict.fromkeys(settings.subscribers.get(type, ()))
    if subscribers:
        text = event.to_json()
        rows = [
            {
                "id": event.id,
                "subscriber": subscriber,
                "type": type,
                "subject": subject,
                "ordering_key": subject if key is None else key,
                "event": text,
                "state": PENDING,
                "attempts": 0,
                "available_at": now,
                "created_at": now,
            }
            for subscriber in subscribers
        ]
        await session.execute(_INSERT, rows)
        after_commit(session, database.outbox_written.set)
    return event.id
