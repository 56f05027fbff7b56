"""The bin is emptied: what was deleted long ago is gone, and nothing else."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest
from sqlalchemy import func, select, text

from chassis.database import Database, run_transaction
from chassis.ids import new_id
from tasks import domain, emptying, store
from tasks.domain import Content
from tasks.models import tasks

DAY = 86_400.0


@pytest.fixture
async def databases(world):
    """Two, as two replicas have them."""
    async with AsyncExitStack() as stack:
        found = [Database(world.settings) for _ in range(2)]
        for each in found:
            stack.push_async_callback(each.close)
        yield found


async def test_what_lay_in_the_bin_for_thirty_days_is_gone(
    *, world, app_client, make, client, based_on
):
    """What was restored, or deleted later, stays, and so does what is in use."""
    kept = await make("kept")
    old = [await make(f"old {number}") for number in range(3)]
    for task in old:
        await client.delete(f"/v1/tasks/{task['id']}", headers=based_on(task))
    back = await client.post(f"/v1/tasks/{old[2]['id']}/restore", headers={"If-Match": "*"})
    world.clock.advance(2 * DAY)
    late = await make("late")
    await client.delete(f"/v1/tasks/{late['id']}", headers=based_on(late))
    world.clock.advance(28 * DAY)
    client.headers.update(world.user("ada"))

    async def binned():
        answer = await client.get("/v1/tasks", params={"deleted": "true", "sort": "created"})
        return [task["title"] for task in answer.json()["items"]]

    # The worker of the application looks as well, whenever the clock moves.
    app = world.app()
    async with app_client(app):
        await emptying.empty(app.state.runtime, world.settings)
        assert await binned() == ["old 0", "old 1", "late"], "not a moment early"
        world.clock.advance(1)
        async with asyncio.timeout(60):
            while await binned() != ["late"]:
                await emptying.empty(app.state.runtime, world.settings)
    for task in old[:2]:
        assert (await client.get(f"/v1/tasks/{task['id']}")).status_code == 404
    assert (await client.get(f"/v1/tasks/{kept['id']}")).json() == kept
    assert (await client.get(f"/v1/tasks/{old[2]['id']}")).json() == back.json()


async def test_the_worker_empties_it_by_itself(client, world, make, based_on):
    """After its pause, without a request; and what it deleted is counted."""
    task = await make()
    await client.delete(f"/v1/tasks/{task['id']}", headers=based_on(task))
    world.clock.advance(31 * DAY)
    async with asyncio.timeout(60):
        while 'tasks_total{event="purged"} 1' not in (await client.get("/metrics")).text:
            world.clock.advance(600)
            await asyncio.sleep(0.02)


async def test_replicas_that_empty_it_at_once_delete_each_task_once(world, databases):
    """In small batches, each in a transaction of its own."""
    now = world.clock.now()
    async with databases[0].session() as session:
        for number in range(50):
            task = domain.new(new_id(), "ada", Content(f"n{number}"), now)
            await store.add(session, domain.deleted(task, now) if number % 5 else task)

    async def empty(database):
        total = 0
        while gone := await run_transaction(
            database, lambda session: store.purge(session, now + timedelta(seconds=1), 7)
        ):
            assert gone <= 7
            total += gone
        return total

    counts = await asyncio.gather(*(empty(each) for each in databases * 3))
    # Who passed over the rows of the others may have ended before they did.
    assert sum(counts) + await empty(databases[0]) == 40
    async with databases[0].reading() as session:
        assert await session.scalar(select(func.count()).select_from(tasks)) == 10


async def test_emptying_reads_its_own_small_index(databases):
    """However many tasks there are, a look costs only what lies in the bin."""
    query = "SELECT id FROM tasks WHERE deleted_at IS NOT NULL AND deleted_at < '2026-05-04'"
    explain = "EXPLAIN QUERY PLAN" if databases[0].dialect == "sqlite" else "EXPLAIN"
    async with databases[0].reading() as session:
        if databases[0].dialect == "postgresql":
            await session.execute(text("SET LOCAL enable_seqscan = off"))
        plan = (await session.execute(text(f"{explain} {query}"))).all()
    assert "ix_tasks_deleted_at" in str(plan)
