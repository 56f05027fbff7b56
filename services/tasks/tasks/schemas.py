"""What goes over the wire: the DTOs of the tasks API, with examples for the OpenAPI document."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    with_config,
)
from typing_extensions import TypedDict

from chassis import ids
from chassis.moments import Moment
from chassis.pagination import Page
from chassis.text import ONE_LINE, STORABLE
from tasks.domain import Content, Priority, Status, Task

MAX_IDS = 100

TaskId = Annotated[
    str,
    StringConstraints(pattern=ids.PATTERN),
    Field(examples=["0197a3c2-6f2b-7b1d-9e43-5a8c7d6e5f40"]),
]
Title = Annotated[
    str,
    StringConstraints(max_length=200, pattern=ONE_LINE),
    Field(examples=["Pay the rent"]),
]
Description = Annotated[
    str,
    StringConstraints(max_length=4000, pattern=STORABLE),
    Field(examples=["The new landlord has another account."]),
]
TaskPriority = Annotated[Priority, Field(description="From the least to the most: as listed.")]
TaskStatus = Annotated[Status, Field(description="`done` also sets `completed_at`.")]
DueAt = Annotated[
    Moment,
    Field(
        description=(
            "When it should be done: a time with its offset (RFC 3339). Answered in UTC. Its owner "
            "is notified once when it comes near, and again if it is moved."
        ),
        examples=["2026-05-04T12:00:00+02:00"],
    ),
]

_WRITTEN: dict[str, Any] = {
    "title": "Pay the rent",
    "description": "The new landlord has another account.",
    "status": "open",
    "priority": "high",
    "due_at": "2026-05-04T12:00:00+02:00",
}
_SHOWN: dict[str, Any] = {
    **_WRITTEN,
    "id": "0197a3c2-6f2b-7b1d-9e43-5a8c7d6e5f40",
    "due_at": "2026-05-04T10:00:00Z",
    "version": 1,
    "created_at": "2026-05-01T09:30:00Z",
    "updated_at": "2026-05-01T09:30:00Z",
    "completed_at": None,
    "deleted_at": None,
}


class TaskIn(BaseModel):
    """All that a client writes of a task. What is left out gets its default."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": _WRITTEN})

    title: Title
    description: Description = ""
    status: TaskStatus = Status.OPEN
    priority: TaskPriority = Priority.NORMAL
    due_at: DueAt | None = None

    def content(self) -> Content:
        """Return what is to be stored."""
        return Content(self.title, self.description, self.status, self.priority, self.due_at)

    @classmethod
    def of(cls, content: Content) -> "TaskIn":
        """Return the document that a merge patch applies to; what is stored is valid."""
        return TaskIn.model_construct(
            title=content.title,
            description=content.description,
            status=content.status,
            priority=content.priority,
            due_at=content.due_at,
        )


@with_config(ConfigDict(extra="forbid", json_schema_extra={"example": {"priority": "urgent"}}))
class TaskPatch(TypedDict, total=False):
    """A merge patch (RFC 7396): the fields to change; null puts back the default of a field."""

    title: Title
    description: Description | None
    status: TaskStatus | None
    priority: TaskPriority | None
    due_at: DueAt | None


class TaskOut(BaseModel):
    """A task as its owner sees it. All times are in UTC."""

    model_config = ConfigDict(json_schema_extra={"example": _SHOWN})

    id: str
    title: str
    description: str
    status: Status
    priority: Priority
    due_at: datetime | None
    version: int = Field(description="Counts the changes; in quotes it is the `ETag`.")
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = Field(description="Since when it is done.")
    deleted_at: datetime | None = Field(description="Since when it is in the bin.")

    @classmethod
    def of(cls, task: Task) -> "TaskOut":
        """Show a task; what is stored needs no validation."""
        content = task.content
        return TaskOut.model_construct(
            id=task.id,
            title=content.title,
            description=content.description,
            status=content.status,
            priority=content.priority,
            due_at=content.due_at,
            version=task.version,
            created_at=task.created_at,
            updated_at=task.updated_at,
            completed_at=task.completed_at,
            deleted_at=task.deleted_at,
        )


class TaskPage(Page[TaskOut]):
    """One page of the caller's tasks."""


class CompleteIn(BaseModel):
    """Which tasks are done."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"ids": [_SHOWN["id"]]}}
    )

    ids: Annotated[list[TaskId], Field(min_length=1, max_length=MAX_IDS)]


class Outcome(StrEnum):
    """What a bulk completion did to a task."""

    COMPLETED = "completed"
    ALREADY = "already"
    NOT_FOUND = "not_found"


class CompletionOut(BaseModel):
    """What was done to one of the tasks."""

    id: str
    outcome: Outcome = Field(
        description=(
            "completed: by this request; already: it was done before; not_found: you have no such "
            "task, or it is in the bin."
        )
    )


class CompleteOut(BaseModel):
    """The outcome for each id, in the order in which they were given, each once."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"results": [{"id": _SHOWN["id"], "outcome": "completed"}]}}
    )

    results: list[CompletionOut]
