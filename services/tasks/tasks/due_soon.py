"""Tells the owners of tasks that fall due soon, once for each due time.

The mark on the task and the event in the outbox are one transaction: neither is there without the
other, whatever dies. Any number of replicas may look at once.
"""

from datetime import datetime, timedelta

from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import run_transaction
from chassis.events.publish import publish
from chassis.runtime import Runtime
from tasks import store
from tasks.domain import Task
from tasks.metrics import metrics_of
from tasks.settings import Settings

EVENT = "task.due-soon"


async def due_soon_worker(runtime: Runtime) -> None:
    """Tell what falls due, for ever. Safe in every replica at once."""
    settings = runtime.settings
    assert isinstance(settings, Settings)
    while True:
        if await tell(runtime, settings) < settings.due_soon_batch:
            await runtime.clock.sleep(settings.due_soon_poll_seconds)


async def tell(runtime: Runtime, settings: Settings) -> int:
    """Tell the owners of one batch of tasks; return how many tasks there were."""
    now = runtime.clock.now()
    until = now + timedelta(hours=settings.due_soon_hours)
    async with runtime.database.reading() as session:
        if not await store.any_due(session, until):
            return 0

    async def mark_and_publish(session: AsyncSession) -> int:
        due = await store.mark_due(session, until, settings.due_soon_batch)
        for task in due:
            await publish(session, EVENT, task.id, _data(task, task.content.due_at), now=now)
        metrics_of(runtime).count(session, "due_soon", len(due))
        return len(due)

    return await run_transaction(runtime.database, mark_and_publish)


def _data(task: Task, due_at: datetime | None) -> dict[str, str]:
    assert due_at is not None  # it fell due
    return {
        "task_id": task.id,
        "owner": task.owner,
        "title": task.content.title,
        "priority": task.content.priority.value,
        "due_at": due_at.isoformat().replace("+00:00", "Z"),
    }
