"""What goes over the wire: the DTOs of the notifications API."""

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field

from chassis.pagination import Page
from chassis.text import STORABLE
from notifications.models import Notification

Recipient = Annotated[str, Field(min_length=1, max_length=255, pattern=STORABLE)]
Title = Annotated[str, Field(min_length=1, max_length=200, pattern=STORABLE)]
Body = Annotated[str, Field(max_length=4000, pattern=STORABLE)]
Kind = Annotated[str, Field(max_length=64, pattern=r"^[a-z][a-z0-9]*([._-][a-z0-9]+)*$")]

_EXAMPLE: dict[str, Any] = {
    "id": "0197a3c2-7a10-7d3e-8c55-1f0e9b7a6c31",
    "kind": "order.confirmed",
    "title": "Order confirmed",
    "body": "Your order 0197a3c2-6f2b-7b1d-9e43-5a8c7d6e5f40 of 25.00 EUR is confirmed.",
    "data": {"order_id": "0197a3c2-6f2b-7b1d-9e43-5a8c7d6e5f40"},
    "created_at": "2026-01-05T10:15:30Z",
    "read_at": None,
}


class NotifyIn(BaseModel):
    """A direct notification to one user."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "recipient": "0197a3c2-1111-7aaa-8bbb-2c3d4e5f6a7b",
                    "title": "Back in stock",
                    "body": "The blue teapot is available again.",
                    "kind": "stock.back",
                }
            ]
        },
    )

    recipient: Recipient = Field(description="The id of the user to tell.")
    title: Title
    body: Body = ""
    kind: Kind = Field(default="message", description="What it is about, for filters and icons.")


class NotificationOut(BaseModel):
    """A notification as its recipient sees it."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    kind: str
    title: str
    body: str
    data: dict[str, Any] = Field(description="What it is about, for programs.")
    created_at: datetime
    read_at: datetime | None = Field(description="Null until it is marked read.")

    @classmethod
    def of(cls, row: Notification) -> Self:
        """Return what the recipient sees."""
        return cls(
            id=row.id,
            kind=row.kind,
            title=row.title,
            body=row.body,
            data=row.data,
            created_at=row.created_at,
            read_at=row.read_at,
        )


class NotificationPage(Page[NotificationOut]):
    """One page of the caller's notifications, newest first."""
