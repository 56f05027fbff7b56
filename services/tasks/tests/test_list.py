"""The list: one's own tasks, filters, orders and pages."""

import pytest
from sqlalchemy import event, text

from chassis.database import Database
from chassis.pagination import Cursor
from tasks.query import ListQuery, Sort, find


@pytest.fixture
def listed(client):
    """A function that lists with these parameters and returns the titles."""

    async def titles(**params):
        answer = await client.get("/v1/tasks", params=params)
        assert answer.status_code == 200, answer.text
        return [task["title"] for task in answer.json()["items"]]

    return titles


@pytest.fixture
async def week(client, world, make):
    """Five tasks of Ada, created a second apart, and one of Bob."""
    rows = [
        ("Rent", "To the new landlord", "urgent", 24, "open"),
        ("Milk", "100%_oat", "low", None, "open"),
        ("Taxes", "\u00dcberweisung an das FINANZAMT", "high", 48, "done"),
        ("Dentist", "", "high", 2, "open"),
        ("Stra\u00dfe fegen", "", "normal", None, "done"),
    ]
    for title, description, priority, hours, status in rows:
        due_at = None if hours is None else world.at(hours)
        await make(title, description=description, priority=priority, due_at=due_at, status=status)
        world.clock.advance(1)
    his = await client.post("/v1/tasks", json={"title": "Bob's"}, headers=world.user("bob"))
    assert his.status_code == 201
    return [row[0] for row in rows]


async def test_the_orders(week, listed):
    """Priorities by rank and not by name; without a due time last, whatever the direction."""
    rent, milk, taxes, dentist, sweep = week
    assert await listed() == week[::-1]
    assert await listed(sort="created") == week
    assert await listed(sort="due") == [dentist, rent, taxes, milk, sweep]
    assert await listed(sort="-due") == [taxes, rent, dentist, sweep, milk]
    assert await listed(sort="priority") == [milk, sweep, taxes, dentist, rent]
    assert await listed(sort="-priority") == [rent, dentist, taxes, sweep, milk]


async def test_filters_narrow_the_list(week, world, listed):
    """Each alone and together; text that looks like a pattern is only text."""
    rent, milk, taxes, dentist, sweep = week
    everything = set(week)
    at = {hours: world.at(hours - 5 / 3600) for hours in (2, 24, 48)}
    at[24] = world.at(24 - 5 / 3600)
    for params, found in (
        ({"status": "open"}, {rent, milk, dentist}),
        ({"status": "done"}, {taxes, sweep}),
        ({"priority": "high"}, {taxes, dentist}),
        ({"priority": ["low", "urgent"]}, {rent, milk}),
        ({"priority": ["high", "high"], "status": "done"}, {taxes}),
        ({"due_after": at[24]}, {rent, taxes}),
        ({"due_before": at[24]}, {dentist}),
        ({"due_after": at[2], "due_before": at[48]}, {rent, dentist, taxes} - {taxes}),
        ({"due_after": at[48], "due_before": at[2]}, set()),
        ({"q": "rent"}, {rent}),
        ({"q": "LANDLORD rent"}, {rent}),
        ({"q": "andlo"}, {rent}),
        ({"q": "rent oat"}, set()),
        ({"q": "\u00fcberweisung finanzamt"}, {taxes}),
        ({"q": "STRASSE"}, {sweep}),
        ({"q": "100%_"}, {milk}),
        ({"q": "%"}, {milk}),
        ({"q": "_"}, {milk}),
        ({"q": "/"}, set()),
        ({"q": "\\"}, set()),
        ({"q": "' OR 1=1 --"}, set()),
        ({"q": "  "}, everything),
        ({"deleted": "true"}, set()),
        ({"deleted": "false"}, everything),
    ):
        assert set(await listed(**params)) == found, params


async def test_the_ends_of_a_range_meet(world, make, listed):
    """A task at the very moment is after it and not before it: ranges side by side share none."""
    await make("Now", due_at=world.at(1))
    assert await listed(due_after=world.at(1)) == ["Now"]
    assert await listed(due_before=world.at(1)) == []
    assert await listed(due_before="2999-01-01T00:00:00+14:00") == ["Now"]


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"sort": "title"}, "sort"),
        ({"sort": "id; DROP TABLE tasks"}, "sort"),
        ({"status": "gone"}, "status"),
        ({"priority": "medium"}, "priority"),
        ({"priority": ["low"] * 5}, "priority"),
        ({"due_before": "2026-05-04T12:00:00"}, "due_before"),
        ({"due_after": "2026-05-04"}, "due_after"),
        ({"due_after": "0001-01-01T00:00:00+14:00"}, "due_after"),
        ({"deleted": "perhaps"}, "deleted"),
        ({"q": "x" * 101}, "q"),
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
    ],
)
async def test_bad_parameters_are_refused_by_name(client, problem, params, field):
    answer = await client.get("/v1/tasks", params=params)
    errors = problem(answer, 422, "validation")["errors"]
    assert errors[0]["loc"][:2] == ["query", field]


async def test_a_plus_that_became_a_space_is_explained(client, problem):
    """The commonest mistake with times in URLs."""
    answer = await client.get("/v1/tasks?due_after=2026-05-04T12:00:00+02:00")
    [error] = problem(answer, 422, "validation")["errors"]
    assert "%2B" in error["message"]


async def test_a_cursor_belongs_to_its_list_and_its_owner(client, world, make, problem):
    for _ in range(3):
        await make()
    first = await client.get("/v1/tasks", params={"limit": 1, "sort": "due"})
    cursor = first.json()["next_cursor"]
    good = {"cursor": cursor, "sort": "due"}
    assert len((await client.get("/v1/tasks", params=good)).json()["items"]) == 2
    for params in (
        {"cursor": cursor},
        {"cursor": cursor, "sort": "-due"},
        {**good, "status": "open"},
        {**good, "deleted": "true"},
        {**good, "cursor": cursor[:-1]},
    ):
        problem(await client.get("/v1/tasks", params=params), 400, "bad-cursor")
    his = await client.get("/v1/tasks", params=good, headers=world.user("bob"))
    problem(his, 400, "bad-cursor")


@pytest.mark.parametrize("sort", Sort)
async def test_an_index_has_each_order(world, sort):
    """No page sorts the tasks of its owner, however many they are."""
    query = ListQuery(
        status=None,
        priorities=(),
        due_after=None,
        due_before=None,
        words=(),
        deleted=False,
        sort=sort,
    )
    statements = []
    database = Database(world.settings)
    try:
        async with database.reading() as session:
            if database.dialect == "postgresql":
                await session.execute(text("SET LOCAL enable_seqscan = off"))
                await session.execute(text("SET LOCAL enable_bitmapscan = off"))
            connection = await session.connection()

            @event.listens_for(connection.sync_connection, "before_cursor_execute")
            def note(_connection, _cursor, statement, parameters, *_):
                statements.append((statement, parameters))

            await find(session, "ada", query, Cursor(None, 20))
            explain = "EXPLAIN" if database.dialect == "postgresql" else "EXPLAIN QUERY PLAN"
            for statement, parameters in statements[:]:
                rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)
                plan = str(rows.all())
                assert f"ix_tasks_owner_{sort.strip('-')}" in plan
                assert "Sort" not in plan
                assert "TEMP B-TREE" not in plan
    finally:
        await database.close()
