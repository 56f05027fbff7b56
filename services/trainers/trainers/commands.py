"""The commands: what can be asked of the write side, and what a done one tells.

`if_match` is the precondition of the caller: the entity tags (RFC 9110) of the revisions of the
trainer that the command may be based on; with None it holds for any.
"""

from dataclasses import dataclass
from datetime import datetime

from trainers.messages import Command
from trainers.slots import Week


@dataclass(frozen=True, slots=True)
class Changed:
    """A command was carried out.

    `version` is that of the read model which shows it: the position of its last event in the log.
    A command that changed nothing tells the revision and version that were there before.
    """

    trainer_id: str
    revision: int
    version: int
    changed: bool = True


@dataclass(frozen=True, slots=True)
class Booked(Changed):
    """A session was booked."""

    session_id: str = ""
    starts_at: datetime | None = None
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RegisterTrainer(Command[Changed]):
    """Somebody begins to work as a trainer."""

    name: str
    bio: str


@dataclass(frozen=True, slots=True)
class ChangeProfile(Command[Changed]):
    """Present a trainer otherwise."""

    trainer_id: str
    name: str
    bio: str
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class AssignSpecialities(Command[Changed]):
    """Say all that a trainer teaches."""

    trainer_id: str
    specialities: tuple[str, ...]
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class SetAvailability(Command[Changed]):
    """Say when a trainer can be booked; what is booked stays."""

    trainer_id: str
    week: Week
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class RetireTrainer(Command[Changed]):
    """End a trainer's work: the sessions to come are cancelled."""

    trainer_id: str
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class BookSession(Command[Booked]):
    """Take the slot of a trainer that begins at `starts_at`."""

    trainer_id: str
    member: str
    starts_at: datetime
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class CancelSession(Command[Changed]):
    """Give a session back before it begins. `member` is None for staff, who may cancel any."""

    trainer_id: str
    session_id: str
    member: str | None
    if_match: str | None = None


@dataclass(frozen=True, slots=True)
class RateSession(Command[Changed]):
    """Say how a session was, 1 to 5 stars; again replaces what was said."""

    trainer_id: str
    session_id: str
    member: str
    stars: int
    if_match: str | None = None
