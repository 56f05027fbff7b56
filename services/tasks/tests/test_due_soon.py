"""Tasks that fall due soon raise an event, once for each due time, whatever dies beside it."""

import asyncio
import re
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta

import httpx2
import pytest
from sqlalchemy import text

import notifications.main
import notifications.settings
from chassis.database import Database
from chassis.ids import new_id
from tasks import domain, due_soon, store
from tasks.domain import Content

HOUR = 3600.0


@pytest.fixture
def look(world):
    """A function: look for due tasks once, as the worker does, and return the tasks told so far."""

    async def once(app):
        while await due_soon.tell(app.state.runtime, world.settings):
            pass
        events = await world.published()
        assert {kind for kind, _ in events} <= {"task.due-soon"}
        return [subject for _, subject in events]

    return once


@pytest.fixture
async def app(world, app_client):
    """A running application; its clock stands still, so its own worker sleeps."""
    app = world.app()
    async with app_client(app):
        yield app


@pytest.fixture
async def client(world, app):
    """A client of it, as Ada; the application runs already."""
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(app), base_url="http://test", headers=world.user("ada")
    ) as client:
        yield client


async def test_only_what_is_open_and_comes_near_is_told(
    *, app, client, world, make, based_on, look
):
    """Not what is later, done, in the bin or without a time, nor what came overdue already."""
    near = await make("near", due_at=world.at(23.9))
    later = await make("later", due_at=world.at(24.1))
    await make("past", due_at=world.at(-1))
    await make("never")
    await make("done", due_at=world.at(2), status="done")
    binned = await make("binned", due_at=world.at(2))
    await client.delete(f"/v1/tasks/{binned['id']}", headers=based_on(binned))
    assert await look(app) == [near["id"]]
    assert await look(app) == [near["id"]]
    # Nothing that the owner sees has changed, so their next change is not stale.
    read = await client.get(f"/v1/tasks/{near['id']}")
    assert (read.json(), read.headers["ETag"]) == (near, '"1"')
    world.clock.advance(0.2 * HOUR)
    assert await look(app) == [near["id"], later["id"]]
    metrics = (await client.get("/metrics")).text
    assert re.search(r'tasks_total\{event="due_soon"\} 2', metrics)
    assert re.search(r'tasks_total\{event="created"\} 6', metrics)


async def test_the_worker_looks_by_itself(app, client, world, make):
    """After its pause, without a request."""
    near = await make(due_at=world.at(1))
    await world.clock.wait_for_sleepers(1)
    async with asyncio.timeout(60):
        while not await world.published():
            world.clock.advance(world.settings.due_soon_poll_seconds)
            await asyncio.sleep(0.02)
    assert await world.published() == [("task.due-soon", near["id"])]


async def test_another_due_time_is_told_anew(*, app, client, world, make, based_on, look):
    """Other changes are not: completing and opening again, the bin and back, another title."""
    task = await make(due_at=world.at(10))
    path = f"/v1/tasks/{task['id']}"
    assert await look(app) == [task["id"]]

    async def change(method, tail="", body=None):
        nonlocal task
        answer = await client.request(method, path + tail, json=body, headers=based_on(task))
        assert answer.status_code in {200, 204}, answer.text
        task = (await client.get(path)).json()

    await change("PATCH", body={"title": "New"})
    await change("POST", "/complete")
    await change("PATCH", body={"status": "open"})
    await change("DELETE")
    await change("POST", "/restore")
    assert len(await look(app)) == 1
    await change("PATCH", body={"due_at": world.at(12)})
    assert len(await look(app)) == 2
    await change("PATCH", body={"due_at": world.at(-1)})
    assert len(await look(app)) == 2
    await change("PATCH", body={"due_at": world.at(100)})
    assert len(await look(app)) == 2
    world.clock.advance(77 * HOUR)
    assert len(await look(app)) == 3
    assert len(await look(app)) == 3


async def test_a_task_that_fell_due_while_nobody_looked_is_told_late(
    *, app, client, world, make, look
):
    """An outage of a day loses no reminder."""
    task = await make(due_at=world.at(30))
    world.clock.advance(48 * HOUR)
    assert await look(app) == [task["id"]]


async def test_what_was_completed_in_time_is_told_once_it_is_open_again(
    *, app, client, world, make, based_on, look
):
    task = await make(due_at=world.at(30))
    path = f"/v1/tasks/{task['id']}"
    done = (await client.post(f"{path}/complete", headers=based_on(task))).json()
    world.clock.advance(10 * HOUR)
    assert await look(app) == []
    await client.patch(path, json={"status": "open"}, headers=based_on(done))
    assert await look(app) == [task["id"]]


async def test_what_comes_back_after_its_due_time_is_not_told(
    *, app, client, world, make, based_on, look
):
    """Neither what was done nor what was in the bin when it fell due: it is no news that it did."""
    done = await make(due_at=world.at(30), status="done")
    binned = await make(due_at=world.at(30))
    path = f"/v1/tasks/{binned['id']}"
    await client.delete(path, headers=based_on(binned))
    world.clock.advance(48 * HOUR)
    assert await look(app) == []
    back = await client.post(f"{path}/restore", headers={"If-Match": "*"})
    assert back.json()["deleted_at"] is None
    change = {"status": "open"}
    opened = await client.patch(f"/v1/tasks/{done['id']}", json=change, headers=based_on(done))
    assert opened.json()["status"] == "open"
    assert await look(app) == []
    # A new time is a new matter.
    await client.patch(path, json={"due_at": world.at(1)}, headers={"If-Match": "*"})
    assert await look(app) == [binned["id"]]


async def test_an_event_that_cannot_be_written_leaves_the_mark_away(app, world, make, look):
    """One transaction: the task is told by the next look."""
    task = await make(due_at=world.at(1))
    database = app.state.runtime.database
    async with database.session() as session:
        await session.execute(text("ALTER TABLE outbox RENAME TO hidden"))
    with pytest.raises(Exception, match="outbox"):
        await due_soon.tell(app.state.runtime, world.settings)
    async with database.session() as session:
        await session.execute(text("ALTER TABLE hidden RENAME TO outbox"))
    assert await look(app) == [task["id"]]


async def test_many_replicas_tell_each_task_once(world, app_client):
    """Workers of several applications, in small batches, beside owners who change their tasks."""
    count, apps = 120, [world.app(due_soon_batch=7) for _ in range(3)]
    settings = world.settings.model_copy(update={"due_soon_batch": 7})
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(app_client(app, headers=world.user("ada")))
            for app in apps
        ]
        ids = [new_id() for _ in range(count)]
        now = world.clock.now()
        async with apps[0].state.runtime.database.session() as session:
            for number, task_id in enumerate(ids):
                due_at = now + timedelta(hours=number % 20 + 1)
                content = Content(f"n{number}", due_at=due_at)
                await store.add(session, domain.new(task_id, "ada", content, now))

        async def work(app):
            while await due_soon.tell(app.state.runtime, settings):
                pass

        async def rename(client, task_id):
            answer = await client.patch(
                f"/v1/tasks/{task_id}", json={"title": "New"}, headers={"If-Match": '"1"'}
            )
            assert answer.status_code == 200, answer.text

        await asyncio.gather(
            *(work(app) for app in apps * 2),
            *(rename(clients[n % 3], task_id) for n, task_id in enumerate(ids[::4])),
        )
    assert Counter(subject for _, subject in await world.published()) == Counter(ids)


async def test_the_owner_reads_one_notification(
    *, world, app_client, serve_app, migrated_database_url, make_settings
):
    """The whole way: two replicas, their relays, and the real notifications with its inbox."""
    url = migrated_database_url("notifications")
    told = make_settings(notifications.settings.Settings, database_url=url, access_log=False)
    async with serve_app(notifications.main.create_app(told)) as peer, AsyncExitStack() as stack:
        fast = {
            "subscribers": {"task.due-soon": [f"{peer}/events"]},
            "outbox_poll_seconds": 0.05,
            "peer_timeout_seconds": 30.0,
        }
        ada, again = [await stack.enter_async_context(world.client(**fast)) for _ in range(2)]
        reader = await stack.enter_async_context(_client_of(peer, world))
        made = await ada.post("/v1/tasks", json={"title": "Rent", "due_at": world.at(3)})
        task = made.json()
        async with asyncio.timeout(60):
            while not (found := await _notifications(reader)):
                world.clock.advance(1)
                await asyncio.sleep(0.05)
        # Both replicas look on, and deliver what else there is.
        marker = await again.post("/v1/tasks", json={"title": "Milk", "due_at": world.at(3)})
        async with asyncio.timeout(60):
            while len(found := await _notifications(reader)) < 2:
                world.clock.advance(1)
                await asyncio.sleep(0.05)
        assert [each["data"]["task_id"] for each in found] == [marker.json()["id"], task["id"]]
        assert found[1]["kind"] == "task.due-soon"
        assert found[1]["data"]["due_at"] == task["due_at"]
        assert "Rent" in found[1]["body"]


def _client_of(url, world):
    headers = world.user("ada", "notifications:read")
    return httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=30)


async def _notifications(client):
    answer = await client.get("/v1/notifications")
    assert answer.status_code == 200, answer.text
    return answer.json()["items"]


async def test_the_look_reads_its_own_small_index(world, database_dialect):
    """However many tasks are done or told, a look costs only what waits."""
    database = Database(world.settings)
    query = (
        "SELECT id FROM tasks WHERE reminded = 0 AND status = 'open' AND deleted_at IS NULL "
        "AND due_at <= '2026-05-04 12:00:00'"
    )
    explain = "EXPLAIN QUERY PLAN " if database_dialect == "sqlite" else "EXPLAIN "
    try:
        async with database.reading() as session:
            if database_dialect == "postgresql":
                await session.execute(text("SET LOCAL enable_seqscan = off"))
            plan = (await session.execute(text(explain + query))).all()
    finally:
        await database.close()
    assert "ix_tasks_due_soon" in str(plan)
