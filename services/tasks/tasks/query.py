"""The list: its query parameters, and the rows of one page."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from fastapi import Depends, Query
from sqlalchemy import ColumnElement, Select, select
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.moments import Moment
from chassis.pagination import Cursor, paginate
from tasks.domain import Priority, Status, Task, folded
from tasks.models import tasks
from tasks.store import to_task

_c = tasks.c


class Sort(StrEnum):
    """The orders of the list; a minus sign means descending."""

    CREATED = "created"
    CREATED_DESC = "-created"
    DUE = "due"
    DUE_DESC = "-due"
    PRIORITY = "priority"
    PRIORITY_DESC = "-priority"


# The id makes each order total. What is not due at all comes last either way.
_ORDERS: dict[Sort, tuple[ColumnElement[Any], ...]] = {
    Sort.CREATED: (_c.created_at.asc(), _c.id.asc()),
    Sort.CREATED_DESC: (_c.created_at.desc(), _c.id.desc()),
    Sort.DUE: (_c.due_at.asc().nulls_last(), _c.id.asc()),
    Sort.DUE_DESC: (_c.due_at.desc().nulls_last(), _c.id.desc()),
    Sort.PRIORITY: (_c.priority.asc(), _c.id.asc()),
    Sort.PRIORITY_DESC: (_c.priority.desc(), _c.id.desc()),
}


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a client asks of the list."""

    status: Status | None
    priorities: tuple[Priority, ...]
    due_after: datetime | None
    due_before: datetime | None
    words: tuple[str, ...]
    deleted: bool
    sort: Sort


async def _list_query(
    *,
    status: Annotated[Status | None, Query(description="Only tasks with this status.")] = None,
    priority: Annotated[
        list[Priority],
        Query(max_length=4, description="Repeat it for tasks with any of several priorities."),
    ] = [],  # noqa: B006  (FastAPI copies it)
    due_after: Annotated[
        Moment | None,
        Query(
            description="Due at this time or later: RFC 3339 with its offset, `+` as `%2B`.",
            examples=["2026-05-04T00:00:00+02:00"],
        ),
    ] = None,
    due_before: Annotated[
        Moment | None,
        Query(
            description="Due before this time, which itself is not meant.",
            examples=["2026-05-05T00:00:00+02:00"],
        ),
    ] = None,
    q: Annotated[
        str | None,
        Query(
            max_length=100,
            description="Pieces of text, all of which stand in the title or the description.",
            examples=["rent landlord"],
        ),
    ] = None,
    deleted: Annotated[bool, Query(description="The tasks in the bin, instead of the others.")] = (
        False
    ),
    sort: Annotated[
        Sort,
        Query(description="A minus sign means descending. Tasks without a due time come last."),
    ] = Sort.CREATED_DESC,
) -> ListQuery:
    return ListQuery(
        status=status,
        priorities=tuple(sorted(set(priority))),
        due_after=due_after,
        due_before=due_before,
        words=tuple(folded(q or "").split()),
        deleted=deleted,
        sort=sort,
    )


ListQueryParams = Annotated[ListQuery, Depends(_list_query)]


async def find(
    session: AsyncSession, owner: str, query: ListQuery, page: Cursor
) -> tuple[list[Task], str | None]:
    """Return one page of the tasks of `owner`, and the cursor of the next.

    Raises:
        Problem: 400, for a cursor of another list.
    """
    # A cursor holds for the list that it came from: the same filters in the same order.
    rows, cursor = await paginate(
        session,
        _filtered(select(tasks).where(_c.owner == owner), query),
        _ORDERS[query.sort],
        page,
        scope=f"tasks {owner} {query}",
    )
    return [to_task(row) for row in rows], cursor


def _filtered(rows: Select[Any], query: ListQuery) -> Select[Any]:
    rows = rows.where(_c.deleted_at.is_not(None) if query.deleted else _c.deleted_at.is_(None))
    if query.status is not None:
        rows = rows.where(_c.status == query.status.value)
    if query.priorities:
        rows = rows.where(_c.priority.in_([priority.rank for priority in query.priorities]))
    if query.due_after is not None:
        rows = rows.where(_c.due_at >= query.due_after)
    if query.due_before is not None:
        rows = rows.where(_c.due_at < query.due_before)
    for word in query.words:
        rows = rows.where(_c.words.contains(word, autoescape=True))
    return rows
