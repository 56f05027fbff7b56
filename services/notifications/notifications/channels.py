"""How a notification reaches its reader. The one channel today is the store that they read from."""

from collections.abc import Mapping
from typing import Any, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from chassis.events.cloudevent import CloudEvent
from chassis.events.publish import publish
from chassis.ids import new_id
from chassis.runtime import Runtime
from notifications.models import Notification
from notifications.schemas import NotificationOut

CREATED = "notification.created"


class Channel(Protocol):
    """A way to deliver.

    `deliver` runs inside the transaction that also records the event as consumed, so it must not
    talk to the network: a channel that does (mail, push) writes to the outbox here and sends from
    there, at least once, with the notification's id as its deduplication key.
    """

    async def deliver(self, session: AsyncSession, notification: Notification) -> None:
        """Deliver, or queue for delivery, one notification."""
        ...


class InApp:
    """Stores the notification; its recipient reads it at `/v1/notifications`, or hears it live."""

    async def deliver(self, session: AsyncSession, notification: Notification) -> None:
        """Add the notification, and the event that tells of it, to the caller's transaction."""
        session.add(notification)
        await session.flush()
        told = NotificationOut.of(notification).model_dump(mode="json")
        await publish(
            session,
            CREATED,
            notification.id,
            {"recipient": notification.recipient, **told},
            now=notification.created_at,
            key=notification.recipient,
        )


async def tell(
    session: AsyncSession,
    runtime: Runtime,
    event: CloudEvent,
    *,
    recipient: str,
    title: str,
    body: str,
    data: Mapping[str, Any],
) -> None:
    """Tell `recipient` of an event; its type is the kind of the notification."""
    channel: Channel = runtime.extras.get("channel") or InApp()
    await channel.deliver(
        session,
        Notification(
            id=new_id(),
            recipient=recipient,
            kind=event.type,
            title=title,
            body=body,
            data=dict(data),
            event_id=event.id,
            created_at=runtime.clock.now(),
            read_at=None,
        ),
    )
