"""What happened to a trainer: the facts that the read model is made of.

Each event is a value with a type name that never changes. A stored event is never rewritten: a new
field needs a default, another meaning another type.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from trainers.slots import Week


class CancelReason(StrEnum):
    """Who ended a session before it began."""

    MEMBER = "member"
    STAFF = "staff"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True)
class TrainerRegistered:
    """Somebody began to work as a trainer."""

    name: str
    bio: str


@dataclass(frozen=True, slots=True)
class ProfileChanged:
    """The trainer is presented otherwise."""

    name: str
    bio: str


@dataclass(frozen=True, slots=True)
class SpecialitiesAssigned:
    """All that the trainer teaches from now on."""

    specialities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AvailabilitySet:
    """When the trainer can be booked from now on; sessions that are booked stay."""

    week: Week


@dataclass(frozen=True, slots=True)
class SessionBooked:
    """A member has a session."""

    session_id: str
    member: str
    starts_at: datetime
    ends_at: datetime


@dataclass(frozen=True, slots=True)
class SessionCancelled:
    """The session will not take place, and its time is free."""

    session_id: str
    reason: CancelReason


@dataclass(frozen=True, slots=True)
class SessionRated:
    """The member says how it was: 1 to 5 stars, in place of what they said before."""

    session_id: str
    stars: int


@dataclass(frozen=True, slots=True)
class TrainerRetired:
    """The trainer is found and booked no more."""


Event = (
    TrainerRegistered
    | ProfileChanged
    | SpecialitiesAssigned
    | AvailabilitySet
    | SessionBooked
    | SessionCancelled
    | SessionRated
    | TrainerRetired
)

TYPES: dict[str, type[Any]] = {
    "trainer.registered": TrainerRegistered,
    "trainer.profile-changed": ProfileChanged,
    "trainer.specialities-assigned": SpecialitiesAssigned,
    "trainer.availability-set": AvailabilitySet,
    "session.booked": SessionBooked,
    "session.cancelled": SessionCancelled,
    "session.rated": SessionRated,
    "trainer.retired": TrainerRetired,
}
_NAMES = {kind: name for name, kind in TYPES.items()}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {name: TypeAdapter(kind) for name, kind in TYPES.items()}


class UnknownEventError(Exception):
    """A stored event that this code cannot read: it was written by newer code, or is damaged."""


def encode(event: Event) -> tuple[str, dict[str, Any]]:
    """Return the type name of an event and its fields as JSON values."""
    name = _NAMES[type(event)]
    data: dict[str, Any] = _ADAPTERS[name].dump_python(event, mode="json")
    return name, data


def decode(name: str, data: dict[str, Any]) -> Event:
    """Return the event that `encode` wrote.

    Raises:
        UnknownEventError: this code has no such type, or the fields are not those of it.
    """
    if name not in _ADAPTERS:
        raise UnknownEventError(f"no event type {name}; deploy the code that wrote it")
    try:
        event: Event = _ADAPTERS[name].validate_python(data)
    except ValueError as error:
        raise UnknownEventError(f"{name}: {error}") from error
    return event
