"""What a task is, and what each change makes of it: plain immutable values, without a database."""

import unicodedata
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum


class Status(StrEnum):
    """Whether there is something left to do."""

    OPEN = "open"
    DONE = "done"


class Priority(StrEnum):
    """How much it matters. Declared from the least to the most; `rank` is what is sorted by."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"
    URGENT = "urgent"

    @property
    def rank(self) -> int:
        """Its place among all of them, from 0."""
        return _PRIORITIES.index(self)

    @classmethod
    def of_rank(cls, rank: int) -> "Priority":
        """Return the priority with this place."""
        return _PRIORITIES[rank]


_PRIORITIES = tuple(Priority)


@dataclass(frozen=True, slots=True)
class Content:
    """What a client writes. `due_at` is in UTC."""

    title: str
    description: str = ""
    status: Status = Status.OPEN
    priority: Priority = Priority.NORMAL
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """A task. `version` counts what its owner changed, and guards each write."""

    id: str
    owner: str
    content: Content
    created_at: datetime
    updated_at: datetime
    version: int = 1
    completed_at: datetime | None = None
    deleted_at: datetime | None = None


def new(task_id: str, owner: str, content: Content, now: datetime) -> Task:
    """Return a new task."""
    return Task(
        task_id,
        owner,
        content,
        created_at=now,
        updated_at=now,
        completed_at=now if content.status is Status.DONE else None,
    )


def with_content(task: Task, content: Content, now: datetime) -> Task:
    """Return the task with other content; the same content is no change.

    The time of completion stays while the task is done, and goes when it is opened again.
    """
    if content == task.content:
        return task
    completed_at = None
    if content.status is Status.DONE:
        completed_at = task.completed_at or now
    return _changed(replace(task, content=content, completed_at=completed_at), now)


def deleted(task: Task, now: datetime) -> Task:
    """Return the task, in the bin. There already, it stays as it is."""
    return task if task.deleted_at else _changed(replace(task, deleted_at=now), now)


def restored(task: Task, now: datetime) -> Task:
    """Return the task, out of the bin. Not in it, it stays as it is."""
    return _changed(replace(task, deleted_at=None), now) if task.deleted_at else task


def _changed(task: Task, now: datetime) -> Task:
    return replace(task, version=task.version + 1, updated_at=now)


def folded(text: str) -> str:
    """Return text as it is searched for: compatibility-normalised and case-folded.

    In the database case would follow its locale on PostgreSQL, and ASCII only on SQLite.
    """
    return unicodedata.normalize("NFKC", text).casefold()
