"""The notifications service: what was told to whom, once each."""

from fastapi import FastAPI

import chassis
from chassis import ApiVersion, Clock, load_settings
from notifications.api import router
from notifications.consumers import (
    order_cancelled,
    order_confirmed,
    order_rejected,
    task_due_soon,
)
from notifications.settings import Settings

_DESCRIPTION = """
Keeps what users were told. Events of orders and tasks become notifications of their owner, one for
each event however often it is delivered; services and administrators send others directly. Each is
an event itself, `notification.created`.
"""


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Return the application; the settings come from the environment unless given."""
    return chassis.create_app(
        settings or load_settings(Settings),
        title="Notifications",
        description=_DESCRIPTION,
        versions=[ApiVersion("v1", router)],
        outbox=True,
        inbox=True,
        idempotency=True,
        consumers={
            "order.confirmed": order_confirmed,
            "order.rejected": order_rejected,
            "order.cancelled": order_cancelled,
            "task.due-soon": task_due_soon,
        },
        clock=clock,
    )
