"""A walk along the cursors, in every order, while tasks come and go: property-based."""

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chassis.ids import new_id
from tasks import domain, store
from tasks.domain import Content, Priority
from tasks.query import Sort

START = datetime(2026, 5, 4, tzinfo=UTC)
FEW = st.integers(0, 3)  # so that many tasks are equal, and only the id tells them apart


@dataclass(frozen=True)
class Row:
    """What a task is sorted by, and what becomes of it while the list is read."""

    created: int
    due: int | None
    priority: int
    vanishes: bool


ROWS = st.lists(st.builds(Row, FEW, st.none() | FEW, FEW, st.booleans()), max_size=25)


def expected_order(rows, sort):
    """Sort (row, id) pairs as the list should, in plain Python."""
    down = sort.value.startswith("-")
    pairs = sorted(rows.items(), key=lambda pair: pair[0], reverse=down)
    match sort.value.removeprefix("-"):
        case "created":
            pairs.sort(key=lambda pair: pair[1].created, reverse=down)
        case "priority":
            pairs.sort(key=lambda pair: pair[1].priority, reverse=down)
        case _:
            pairs.sort(key=lambda pair: pair[1].due or 0, reverse=down)
            pairs.sort(key=lambda pair: pair[1].due is None)
    return [task_id for task_id, _ in pairs]


@pytest.fixture
async def running(world, app_client):
    """A running application and a client of it."""
    app = world.app()
    async with app_client(app) as client:
        yield app.state.runtime.database, client


async def add(database, owner, rows):
    """Store tasks; returns them by id, in which they are not sorted as they were created."""
    tasks = {str(uuid.uuid4()): row for row in rows}
    async with database.session() as session:
        for task_id, row in tasks.items():
            due_at = None if row.due is None else START + timedelta(hours=row.due)
            content = Content("x", priority=Priority.of_rank(row.priority), due_at=due_at)
            now = START + timedelta(seconds=row.created)
            await store.add(session, domain.new(task_id, owner, content, now))
    return tasks


async def remove(database, owner, ids):
    """Put tasks into the bin."""
    async with database.session() as session:
        for task_id in ids:
            task = await store.load(session, task_id, owner, to_change=True)
            await store.save(session, task, domain.deleted(task, START))


@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=ROWS, late=ROWS, sort=st.sampled_from(Sort), limit=st.integers(1, 9))
async def test_every_task_that_stays_is_seen_once_and_in_order(
    *, running, world, rows, late, sort, limit
):
    """Tasks that are deleted or added after the first page move no other one."""
    database, client = running
    owner = f"owner-{new_id()}"
    tasks = await add(database, owner, rows)
    await add(database, "somebody else", late)
    headers = world.user(owner)
    seen, cursor, pages = [], {}, 0
    while True:
        answer = await client.get(
            "/v1/tasks", params={"sort": sort.value, "limit": limit, **cursor}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        page = answer.json()
        seen += [task["id"] for task in page["items"]]
        pages += 1
        if page["next_cursor"] is None:
            break
        assert len(page["items"]) == limit
        cursor = {"cursor": page["next_cursor"]}
        if pages == 1:
            await remove(database, owner, [each for each, row in tasks.items() if row.vanishes])
            await add(database, owner, late)
    assert len(seen) == len(set(seen))
    moved = pages > 1
    staying = {each: row for each, row in tasks.items() if not (moved and row.vanishes)}
    assert [each for each in seen if each in staying] == expected_order(staying, sort)
    if not moved:
        assert len(seen) == len(rows)
