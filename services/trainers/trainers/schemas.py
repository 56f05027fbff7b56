"""What goes over the wire: the DTOs of commands and queries."""

from datetime import datetime, time
from decimal import Decimal
from functools import cache
from typing import Annotated, Any, Self
from zoneinfo import available_timezones

from fastapi import Path
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from chassis import ids
from chassis.moments import Moment
from chassis.pagination import Page
from chassis.text import ONE_LINE, STORABLE
from trainers.commands import Booked, Changed
from trainers.queries import Entry, Profile, SessionView
from trainers.slots import Day, Slot, Week, ordered

_TRAINER = "0197a3c2-1c00-7a4e-9f10-3c5d7e9f1a2b"
_SESSION = "0197a3c2-2d11-7b5f-8a21-4d6e8f0a2b3c"

TrainerId = Annotated[str, Path(pattern=ids.PATTERN, examples=[_TRAINER])]
SessionId = Annotated[str, Path(pattern=ids.PATTERN, examples=[_SESSION])]
Name = Annotated[
    str,
    StringConstraints(max_length=120, pattern=ONE_LINE),
    Field(examples=["Ada Park"]),
]
Bio = Annotated[
    str,
    StringConstraints(max_length=4000, pattern=STORABLE),
    Field(examples=["Twelve years of strength training, for beginners too."]),
]
Speciality = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,39}$"), Field(examples=["strength"])
]
MAX_SPECIALITIES = 20
MAX_SLOTS = 100


@cache  # it walks the whole database of zones in the file system
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def _known_zone(name: str) -> str:
    if name not in _zones():
        raise ValueError("no time zone of the IANA database; give one such as Europe/Berlin")
    return name


TimeZone = Annotated[
    str,
    StringConstraints(max_length=64),
    AfterValidator(_known_zone),
    Field(description="A name of the IANA database.", examples=["Europe/Berlin"]),
]


class Body(BaseModel):
    """A body that refuses fields it does not know, so that a misspelt one is no silence."""

    model_config = ConfigDict(extra="forbid")


class ProfileIn(Body):
    """How a trainer is presented."""

    name: Name
    bio: Bio = ""


class SpecialitiesIn(Body):
    """All that a trainer teaches; kept sorted, each once."""

    specialities: list[Speciality] = Field(
        max_length=MAX_SPECIALITIES, examples=[["mobility", "strength"]]
    )


class SlotBody(Body):
    """One bookable time of every week, in the trainer's time zone."""

    day: Day
    starts: time = Field(description="On a quarter of an hour.", examples=["09:00:00"])
    ends: time = Field(description="Later on the same day.", examples=["10:00:00"])


class WeekBody(Body):
    """What a trainer offers every week; slots do not overlap."""

    time_zone: TimeZone
    slots: list[SlotBody] = Field(max_length=MAX_SLOTS)

    @model_validator(mode="after")
    def _no_overlap(self) -> Self:
        self.week()
        return self

    def week(self) -> Week:
        """Return it as the domain has it."""
        slots = [Slot(each.day, each.starts, each.ends) for each in self.slots]
        return Week(self.time_zone, ordered(slots))

    @classmethod
    def of(cls, week: Week) -> "WeekBody":
        """Show what is stored."""
        slots = [
            SlotBody.model_construct(day=each.day, starts=each.starts, ends=each.ends)
            for each in week.slots
        ]
        return WeekBody.model_construct(time_zone=week.time_zone, slots=slots)


class BookingIn(Body):
    """Which slot to book."""

    starts_at: Moment = Field(
        description="When a slot of the trainer begins, with an offset.",
        examples=["2026-12-07T09:00:00+01:00"],
    )


class RatingIn(Body):
    """How a session was."""

    stars: int = Field(ge=1, le=5, examples=[5])


class ChangedOut(BaseModel):
    """A command was carried out. Queries show it from `version` on."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"trainer_id": _TRAINER, "revision": 2, "version": 57}]}
    )

    trainer_id: str
    revision: int = Field(description="Of the trainer; also the `ETag`.")
    version: int = Field(description="Give it to a query as `at_least` to see this change.")

    @classmethod
    def of(cls, done: Changed) -> Self:
        """Say what was done."""
        return cls(trainer_id=done.trainer_id, revision=done.revision, version=done.version)


class BookedOut(ChangedOut):
    """A session was booked."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "trainer_id": _TRAINER,
                    "revision": 3,
                    "version": 58,
                    "session_id": _SESSION,
                    "starts_at": "2026-12-07T08:00:00Z",
                    "ends_at": "2026-12-07T09:00:00Z",
                }
            ]
        }
    )

    session_id: str
    starts_at: datetime
    ends_at: datetime

    @classmethod
    def of_booking(cls, done: Booked) -> Self:
        """Say what was booked."""
        return cls.model_validate(done, from_attributes=True)


_PROFILE: dict[str, Any] = {
    "id": _TRAINER,
    "revision": 4,
    "status": "active",
    "name": "Ada Park",
    "bio": "Twelve years of strength training, for beginners too.",
    "specialities": ["mobility", "strength"],
    "availability": {
        "time_zone": "Europe/Berlin",
        "slots": [{"day": "monday", "starts": "09:00:00", "ends": "10:00:00"}],
    },
    "rating": "4.67",
    "ratings": 3,
    "registered_at": "2026-01-05T10:15:30Z",
}


class ProfileOut(BaseModel):
    """A trainer, as the read model shows them."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PROFILE]})

    id: str
    revision: int
    status: str = Field(description="active or retired.")
    name: str
    bio: str
    specialities: list[str]
    availability: WeekBody | None
    rating: Decimal | None = Field(description="Stars on average; null without ratings.")
    ratings: int
    registered_at: datetime

    @classmethod
    def of(cls, profile: Profile) -> "ProfileOut":
        """Show a profile; what is stored needs no validation."""
        return ProfileOut.model_construct(
            id=profile.id,
            revision=profile.revision,
            status=profile.status,
            name=profile.name,
            bio=profile.bio,
            specialities=list(profile.specialities),
            availability=None if profile.week is None else WeekBody.of(profile.week),
            rating=Decimal(profile.rating).scaleb(-2) if profile.ratings else None,
            ratings=profile.ratings,
            registered_at=profile.registered_at,
        )


class ProfilePage(Page[ProfileOut]):
    """One page of the trainers who were found."""


class EntryOut(BaseModel):
    """A time of a trainer's calendar, in UTC."""

    starts_at: datetime
    ends_at: datetime
    free: bool
    session_id: str | None = Field(description="Of your own session; null otherwise.")

    @classmethod
    def of(cls, entry: Entry) -> Self:
        """Show an entry."""
        return cls(
            starts_at=entry.span.starts_at,
            ends_at=entry.span.ends_at,
            free=entry.free,
            session_id=entry.session_id,
        )


class ScheduleOut(BaseModel):
    """What is free and what is booked, in the order of time."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "entries": [
                        {
                            "starts_at": "2026-12-07T08:00:00Z",
                            "ends_at": "2026-12-07T09:00:00Z",
                            "free": True,
                            "session_id": None,
                        }
                    ]
                }
            ]
        }
    )

    entries: list[EntryOut]


class SessionOut(BaseModel):
    """A session, as its member sees it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": _SESSION,
                    "trainer_id": _TRAINER,
                    "starts_at": "2026-12-07T08:00:00Z",
                    "ends_at": "2026-12-07T09:00:00Z",
                    "status": "booked",
                    "stars": None,
                }
            ]
        }
    )

    id: str
    trainer_id: str
    starts_at: datetime
    ends_at: datetime
    status: str = Field(description="booked or cancelled.")
    stars: int | None = Field(description="How its member rated it.")

    @classmethod
    def of(cls, session: SessionView) -> Self:
        """Show a session."""
        return cls.model_validate(session, from_attributes=True)
