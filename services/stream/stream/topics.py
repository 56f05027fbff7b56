"""Topics: the names that clients use, and those that events are stored under.

A client says `orders`, `notifications`, `sensors/<id>` or `sensors/*`. Events are stored under
`orders/<owner>`, `notifications/<recipient>` and `sensors/<id>`: nobody can name what belongs to
somebody else, because the owner comes from the token.
"""

from __future__ import annotations

import re
from typing import Literal

Kind = Literal["orders", "notifications", "sensors"]

ORDERS: Kind = "orders"
NOTIFICATIONS: Kind = "notifications"
SENSORS: Kind = "sensors"
KINDS: tuple[Kind, ...] = (ORDERS, NOTIFICATIONS, SENSORS)

SENSOR_ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
PATTERN = rf"^(orders|notifications|sensors/(\*|{SENSOR_ID}))$"
EVERY_SENSOR = "sensors/*"

_topic = re.compile(PATTERN)


def stored_name(topic: str, subject: str) -> str:
    """Return the name under which the events of the client's `topic` are stored.

    Raises:
        ValueError: there is no such topic.
    """
    if not _topic.fullmatch(topic):
        raise ValueError("no topic; there are orders, notifications, sensors/<id> and sensors/*")
    return f"{topic}/{subject}" if topic in {ORDERS, NOTIFICATIONS} else topic


def kind_of(stored: str) -> Kind:
    """Return the kind of a stored topic."""
    kind = stored.partition("/")[0]
    assert kind in KINDS, stored
    return kind


def shown_name(stored: str) -> str:
    """Return the name that clients know a stored topic by."""
    kind = stored.partition("/")[0]
    return stored if kind == SENSORS else kind
