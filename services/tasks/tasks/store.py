"""Tasks in the database. Who changes one has locked it before, as its owner."""

from collections.abc import Collection
from datetime import datetime
from typing import Any

from sqlalchemy import CTE, Row, bindparam, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from tasks.domain import Content, Priority, Status, Task, folded
from tasks.models import BINNED, WAITING, tasks

_c = tasks.c

# Built once: putting a statement together costs more than running it.
_INSERT = insert(tasks)
_SELECT = select(tasks).where(_c.id == bindparam("wanted"), _c.owner == bindparam("wanted_owner"))
_LOCK = _SELECT.with_for_update()
_UPDATE = update(tasks).where(_c.id == bindparam("wanted"))


def to_task(row: Row[Any]) -> Task:
    """Return the task of a row."""
    content = Content(
        title=row.title,
        description=row.description,
        status=Status(row.status),
        priority=Priority.of_rank(row.priority),
        due_at=row.due_at,
    )
    return Task(
        id=row.id,
        owner=row.owner,
        content=content,
        created_at=row.created_at,
        updated_at=row.updated_at,
        version=row.version,
        completed_at=row.completed_at,
        deleted_at=row.deleted_at,
    )


def _values(task: Task) -> dict[str, Any]:
    content = task.content
    return {
        "title": content.title,
        "description": content.description,
        "words": folded(f"{content.title}\n{content.description}"),
        "status": content.status.value,
        "priority": content.priority.rank,
        "due_at": content.due_at,
        "version": task.version,
        "updated_at": task.updated_at,
        "completed_at": task.completed_at,
        "deleted_at": task.deleted_at,
    }


def _nothing_to_tell(task: Task) -> int:
    """Tell whether a task comes with a time that needs no reminder: none, or one in the past."""
    due_at = task.content.due_at
    return int(due_at is None or due_at <= task.updated_at)


def _is_to_do(task: Task) -> bool:
    return task.content.status is Status.OPEN and task.deleted_at is None


async def add(session: AsyncSession, task: Task) -> None:
    """Write a new task."""
    fixed = {"id": task.id, "owner": task.owner, "created_at": task.created_at}
    await session.execute(_INSERT, {**_values(task), **fixed, "reminded": _nothing_to_tell(task)})


async def load(
    session: AsyncSession, task_id: str, owner: str, *, to_change: bool = False
) -> Task | None:
    """Return a task of `owner`, also from the bin; None when they have none with this id.

    One that is loaded to be changed is nobody else's to change until the end of the transaction;
    on SQLite, a session that may write has the database for itself anyway.
    """
    statement = _LOCK if to_change else _SELECT
    found = await session.execute(statement, {"wanted": task_id, "wanted_owner": owner})
    row = found.one_or_none()
    return None if row is None else to_task(row)


async def save(session: AsyncSession, before: Task, after: Task) -> None:
    """Replace `before`, which was loaded to be changed, by `after`.

    A new due time will be told anew. One that passed while the task was done or in the bin will
    not be: nobody waits for it any more.
    """
    values = _values(after)
    if after.content.due_at != before.content.due_at:
        values["reminded"] = _nothing_to_tell(after)
    elif _is_to_do(after) and not _is_to_do(before) and _nothing_to_tell(after):
        values["reminded"] = 1
    await session.execute(_UPDATE, {**values, "wanted": before.id})


async def complete(
    session: AsyncSession, ids: Collection[str], owner: str, now: datetime
) -> tuple[set[str], set[str]]:
    """Complete the tasks of `owner` among `ids` that are not in the bin.

    Returns:
        The ids that were completed, and those that were done before.
    """
    mine = (
        select(_c.id, _c.status)
        .where(_c.id.in_(ids), _c.owner == owner, _c.deleted_at.is_(None))
        .order_by(_c.id)  # two requests lock their rows in the same order, and cannot deadlock
        .with_for_update()
    )
    found = {row.id: row.status for row in await session.execute(mine)}
    todo = {task_id for task_id, status in found.items() if status == Status.OPEN.value}
    if todo:
        done = {"status": Status.DONE.value, "completed_at": now, "updated_at": now}
        await session.execute(
            update(tasks).where(_c.id.in_(todo)).values(**done, version=_c.version + 1)
        )
    return todo, found.keys() - todo


async def purge(session: AsyncSession, before: datetime, limit: int) -> int:
    """Delete up to `limit` tasks for good that were put into the bin before then; return how many.

    PostgreSQL passes over the rows that another replica deletes, or their owner restores.
    """
    old: CTE = (
        select(_c.id)
        .where(BINNED, _c.deleted_at < before)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("old")  # evaluated once, as below
    )
    gone = await session.execute(delete(tasks).where(_c.id.in_(select(old.c.id))).returning(_c.id))
    return len(gone.all())


async def any_due(session: AsyncSession, until: datetime) -> bool:
    """Tell whether a task that falls due by `until` is to be told; costs a look at the index."""
    query = select(_c.id).where(WAITING, _c.due_at <= until).limit(1)
    return (await session.execute(query)).first() is not None


async def mark_due(session: AsyncSession, until: datetime, limit: int) -> list[Task]:
    """Mark up to `limit` open tasks that fall due by `until` as told, and return them.

    PostgreSQL passes over the rows that another replica is just taking; on SQLite the transaction
    holds the only write lock (BEGIN IMMEDIATE). The version stays: nothing that the owner sees
    has changed.
    """
    due: CTE = (
        select(_c.id)
        .where(WAITING, _c.due_at <= until)
        .order_by(_c.due_at)
        .limit(limit)
        .with_for_update(skip_locked=True)
        .cte("due")  # evaluated once: a plain subquery may be run again and lock more rows
    )
    mark = update(tasks).where(_c.id.in_(select(due.c.id))).values(reminded=1).returning(*_c)
    return [to_task(row) for row in await session.execute(mark)]
