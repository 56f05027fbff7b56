"""Pages: opaque cursors, stable while rows come and go, damage found."""

import base64
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated

import pytest
from fastapi import APIRouter, Query
from pydantic import BaseModel
from sqlalchemy import BigInteger, Index, Integer, SmallInteger, String, event, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from chassis import create_app
from chassis.database import Database, ReadSessionDep, UtcDateTime
from chassis.money import ExactDecimal
from chassis.pagination import (
    Cursor,
    CursorParams,
    Page,
    _checksum,
    _encoded,
    decode_cursor,
    encode_cursor,
    paginate,
)
from chassis.problems import Problem
from chassis.settings import DatabaseSettings

START = datetime(2026, 1, 1, tzinfo=UTC)


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
    name: Mapped[str] = mapped_column(String(20))
    price: Mapped[Decimal] = mapped_column(ExactDecimal)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    small: Mapped[int] = mapped_column(SmallInteger)
    big: Mapped[int] = mapped_column(BigInteger)

    __table_args__ = (
        Index("ix_created_at", "created_at", "id"),
        Index("ix_due_at", "due_at", "id"),
        Index("ix_price", "price", "name", "id"),
    )


VALUES = [
    ["a", 1, None],
    [datetime(2026, 5, 4, 12, 0, 0, 123456, UTC), "0197a4f0-3f7e-7c3a-9a53-2f1f6c0a7d11"],
    [Decimal("12.50"), True, False, -(2**60), "\N{SNOWMAN}\x01"],
    [],
]


@pytest.mark.parametrize("values", VALUES)
def test_a_cursor_gives_back_its_values(values):
    """With their types: a time stays aware, a decimal exact."""
    decoded = decode_cursor(encode_cursor(values, scope="s"), scope="s")
    assert decoded == values
    assert [type(each) for each in decoded] == [type(each) for each in values]


def test_a_cursor_needs_no_escaping_in_a_url():
    assert encode_cursor([1, "x" * 100]).replace("-", "").replace("_", "").isalnum()


def test_every_damage_of_one_character_is_found():
    """Each position, replaced, removed or doubled, is 400."""
    cursor = encode_cursor([START, "id-1"])
    for position in range(len(cursor)):
        other = "A" if cursor[position] != "A" else "B"
        for bad in (
            cursor[:position] + other + cursor[position + 1 :],
            cursor[:position] + cursor[position + 1 :],
            cursor[:position] + cursor[position] * 2 + cursor[position + 1 :],
        ):
            if bad != cursor:
                with pytest.raises(Problem) as raised:
                    decode_cursor(bad)
                assert raised.value.status == 400


@pytest.mark.parametrize(
    "cursor",
    ["", "!", "a", "====", "\N{SNOWMAN}", "A" * 5000, base64.b64encode(b"[]" * 20).decode(), " "],
)
def test_nonsense_is_400(cursor):
    with pytest.raises(Problem) as raised:
        decode_cursor(cursor)
    assert raised.value.status == 400


def test_a_cursor_of_another_list_is_400():
    """The scope (filters, order) is part of the checksum."""
    cursor = encode_cursor([1], scope="name=a")
    with pytest.raises(Problem):
        decode_cursor(cursor, scope="name=b")


def forged(payload: object, scope: str = "") -> str:
    """Return a cursor with a right checksum, as anybody can make one who reads this code."""
    raw = json.dumps(payload).encode()
    return _encoded(_checksum(raw, scope) + raw)


HOSTILE = [
    {"a": 1}, 5, None, [1], [["s"]], [["z", "1"]], [["t", "x"]], [["t", "0001-01-01T00:00+23:59"]],
    [["d", "abc"]], [["i", "1.5"]], [["i", str(2**63)]], [["i", "9" * 3000]], [["i", None]],
    [["s", "\x00"]], [["s", "\ud800"]], [["s", 7]],
]  # fmt: skip


@pytest.mark.parametrize("payload", HOSTILE, ids=str)
def test_a_forged_cursor_is_400(payload):
    """The checksum is no secret, so what a cursor holds is input like any other."""
    with pytest.raises(Problem) as raised:
        decode_cursor(forged(payload))
    assert raised.value.status == 400


UNFIT = [
    [["i", "1"]], [["s", "a"], ["i", "1"]], [["i", "1"], ["s", "1"]], [["n", ""], ["i", "1"]],
    [["d", "NaN"], ["i", "1"]], [["d", "1E+40"], ["i", "1"]], [["d", "0.00001"], ["i", "1"]],
    [["t", "2026-01-01T00:00:00+00:00"], ["i", "1"]],
]  # fmt: skip


@pytest.mark.parametrize("payload", UNFIT, ids=str)
async def test_a_forged_sort_key_is_400(database, payload):
    """A value that its column cannot hold does not come as far as the database."""
    order = (Thing.price, Thing.id)
    async with database.reading() as session:
        with pytest.raises(Problem) as raised:
            await paginate(session, select(Thing), order, Cursor(forged(payload), 3))
    assert raised.value.status == 400


@pytest.mark.parametrize(("column", "bits"), [("small", 16), ("id", 32), ("big", 64)])
async def test_a_forged_integer_is_as_wide_as_its_column(database, column, bits):
    """PostgreSQL refuses a wider one with an error, which would be a 500."""
    order = (getattr(Thing, column),)
    async with database.reading() as session:
        for edge, found in ((2 ** (bits - 1) - 1, 0), (-(2 ** (bits - 1)), 5)):
            cursor = forged([["i", str(edge)]])
            rows, _ = await paginate(session, select(Thing), order, Cursor(cursor, 5))
            assert len(rows) == found
            cursor = forged([["i", str(edge + (1 if edge > 0 else -1))]])
            with pytest.raises(Problem) as raised:
                await paginate(session, select(Thing), order, Cursor(cursor, 5))
            assert raised.value.status == 400


def test_a_value_that_cannot_be_kept_is_refused():
    with pytest.raises(TypeError):
        encode_cursor([1.5])
    with pytest.raises(TypeError):
        encode_cursor([datetime(2026, 1, 1)])  # noqa: DTZ001  (naive on purpose)


@pytest.fixture
async def database(make_settings, database_url):
    database = Database(make_settings(DatabaseSettings, database_url=database_url))
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with database.session() as session:
        # Many equal names and times: the order needs its last column.
        session.add_all(thing(number) for number in range(1, 26))
    yield database
    await database.close()


def thing(number: int) -> Thing:
    return Thing(
        id=number,
        name=f"n{number % 3}",
        price=Decimal(number % 4),
        created_at=START + timedelta(hours=number % 5),
        due_at=START + timedelta(hours=number % 3) if number % 4 else None,
        small=number,
        big=number,
    )


ORDERS = {
    "ascending": (Thing.name.asc(), Thing.id.asc()),
    "descending": (Thing.created_at.desc(), Thing.id.desc()),
    "mixed": (Thing.price.desc(), Thing.name, Thing.id.desc()),
    "nullable": (Thing.due_at.asc().nulls_last(), Thing.id.asc()),
    "nullable, descending": (Thing.due_at.desc().nulls_last(), Thing.name, Thing.id.desc()),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
async def test_pages_together_are_the_list(database, order):
    """Every row once, in order, whatever the directions; the last page has no cursor."""
    async with database.reading() as session:
        expected = [row.id for row in await session.scalars(select(Thing).order_by(*order))]
        seen, cursor, pages = [], None, 0
        while True:
            rows, cursor = await paginate(session, select(Thing), order, Cursor(cursor, 7))
            seen += [row.id for row in rows]
            pages += 1
            if cursor is None:
                break
    assert seen == expected
    assert pages == 4


async def plans(database, order, cursor):
    """How the database finds the page behind a cursor: a plan for each of its statements."""
    found, statements = [], []
    async with database.reading() as session:
        if database.dialect == "postgresql":
            # There are too few rows for an index to be worth it.
            await session.execute(text("SET LOCAL enable_seqscan = off"))
            await session.execute(text("SET LOCAL enable_bitmapscan = off"))
        connection = await session.connection()

        @event.listens_for(connection.sync_connection, "before_cursor_execute")
        def note(_connection, _cursor, statement, parameters, *_):
            statements.append((statement, parameters))

        await paginate(session, select(Thing), order, Cursor(cursor, 25))
        explain = "EXPLAIN" if database.dialect == "postgresql" else "EXPLAIN QUERY PLAN"
        for statement, parameters in statements[:]:
            rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)
            found.append("\n".join(str(row[-1]).strip() for row in rows))
    return found


@pytest.mark.parametrize(
    ("order", "entered"),
    [
        (ORDERS["descending"], [("ROW(created_at, id) < ROW(", "created_at<?")]),
        (
            (Thing.due_at.asc().nulls_last(), Thing.id),
            [("ROW(due_at, id) > ROW(", "due_at>?"), ("due_at IS NULL", "due_at=?")],
        ),
        (
            (Thing.due_at.desc().nulls_last(), Thing.id.desc()),
            [("ROW(due_at, id) < ROW(", "due_at<?"), ("due_at IS NULL", "due_at=?")],
        ),
        ((Thing.price, Thing.name, Thing.id.desc()), [("price >= ", "price>?")]),
    ],
    ids=["one direction", "nullable", "nullable, descending", "mixed"],
)
async def test_a_page_enters_the_index_where_it_begins(database, order, entered):
    """A condition that only filters would read the index from its start for each page."""
    async with database.reading() as session:
        _, cursor = await paginate(session, select(Thing), order, Cursor(None, 10))
    found = await plans(database, order, cursor)
    assert len(found) == len(entered)
    for plan, (postgresql, sqlite) in zip(found, entered, strict=True):
        if database.dialect == "postgresql":
            [condition] = [line for line in plan.splitlines() if line.startswith("Index Cond: ")]
            assert postgresql in condition
        else:
            assert plan.startswith("SEARCH things USING INDEX ")
            assert f"({sqlite})" in plan


@pytest.mark.parametrize("column", [Thing.created_at, Thing.due_at])
async def test_one_index_serves_both_directions(database, column):
    """Read backwards it has nulls first on PostgreSQL, and last on SQLite."""
    up, down = column.asc(), column.desc()
    if column is Thing.due_at:
        up, down = up.nulls_last(), down.nulls_last()
    for order in ((up, Thing.id), (down, Thing.id.desc())):
        for plan in await plans(database, order, None):
            assert "Index Scan" in plan or "USING INDEX" in plan
            assert "Sort" not in plan
            assert "TEMP B-TREE" not in plan


async def test_nulls_come_last_in_both_directions(database):
    """PostgreSQL and SQLite put them in different places unless they are told."""
    async with database.reading() as session:
        for due in (Thing.due_at.asc(), Thing.due_at.desc()):
            order = (due.nulls_last(), Thing.id)
            rows, _ = await paginate(session, select(Thing), order, Cursor(None, 25))
            assert [row.due_at is None for row in rows] == [False] * 19 + [True] * 6


async def test_only_a_nullable_column_takes_a_null(database):
    """A forged null for another column would end the list early."""
    order = (Thing.due_at.asc().nulls_last(), Thing.id)
    async with database.reading() as session:
        cursor = forged([["n", ""], ["i", "8"]])
        rows, _ = await paginate(session, select(Thing), order, Cursor(cursor, 25))
        assert [row.id for row in rows] == [12, 16, 20, 24]
        cursor = forged([["n", ""], ["n", ""]])
        with pytest.raises(Problem):
            await paginate(session, select(Thing), order, Cursor(cursor, 25))


async def test_an_exact_last_page_has_no_cursor(database):
    """25 rows by 5 are five pages, not six."""
    cursor, pages = None, 0
    async with database.reading() as session:
        while True:
            _, cursor = await paginate(session, select(Thing), (Thing.id,), Cursor(cursor, 5))
            pages += 1
            if cursor is None:
                break
    assert pages == 5


async def test_rows_that_come_and_go_between_pages_shift_nothing(database):
    """A row inserted or deleted before the cursor neither repeats nor hides another."""
    order = (Thing.id.desc(),)
    async with database.reading() as session:
        first, cursor = await paginate(session, select(Thing), order, Cursor(None, 10))
    async with database.session() as session:
        session.add(thing(100))
        await session.delete(await session.get_one(Thing, 20))
        await session.delete(await session.get_one(Thing, 16))  # the row of the cursor itself
    async with database.reading() as session:
        second, _ = await paginate(session, select(Thing), order, Cursor(cursor, 10))
    assert [row.id for row in first] == list(range(25, 15, -1))
    assert [row.id for row in second] == list(range(15, 5, -1))


async def test_columns_instead_of_entities(database):
    """Rows of columns page as well."""
    query = select(Thing.id, Thing.name)
    async with database.reading() as session:
        rows, cursor = await paginate(session, query, (Thing.name, Thing.id), Cursor(None, 3))
        assert [row.id for row in rows] == [3, 6, 9]
        rows, _ = await paginate(session, query, (Thing.name, Thing.id), Cursor(cursor, 3))
        assert [row.id for row in rows] == [12, 15, 18]


async def test_a_cursor_of_another_order_is_400(database):
    """A cursor with fewer values than the order has columns."""
    async with database.reading() as session:
        _, cursor = await paginate(session, select(Thing), (Thing.id,), Cursor(None, 3))
        with pytest.raises(Problem) as raised:
            await paginate(session, select(Thing), ORDERS["mixed"], Cursor(cursor, 3))
        assert raised.value.status == 400


class ThingOut(BaseModel):
    id: int


async def test_a_route_with_pages(app_client, make_settings, database):
    """The limit is 1 to 100, 20 by default; a bad cursor is a 400 problem."""
    router = APIRouter()

    @router.get("/things")
    async def list_things(
        session: ReadSessionDep, params: CursorParams, name: Annotated[str, Query()] = ""
    ) -> Page[ThingOut]:
        query = select(Thing).where(Thing.name == name) if name else select(Thing)
        rows, cursor = await paginate(session, query, (Thing.id,), params, scope=name)
        return Page(items=[ThingOut(id=row.id) for row in rows], next_cursor=cursor)

    settings = make_settings(DatabaseSettings, database_url=database.settings.database_url)
    app = create_app(settings, title="t", description="t", routers=[router])
    async with app_client(app) as client:
        first = (await client.get("/things")).json()
        assert [item["id"] for item in first["items"]] == list(range(1, 21))
        second = await client.get("/things", params={"cursor": first["next_cursor"]})
        assert second.json() == {
            "items": [{"id": each} for each in range(21, 26)],
            "next_cursor": None,
        }
        foreign = await client.get("/things", params={"cursor": first["next_cursor"], "name": "n1"})
        assert foreign.status_code == 400
        assert foreign.headers["content-type"] == "application/problem+json"
        assert foreign.json()["type"] == "urn:slipway:problem:bad-cursor"
        for limit in (0, 101):
            assert (await client.get("/things", params={"limit": limit})).status_code == 422
        assert len((await client.get("/things", params={"limit": 100})).json()["items"]) == 25
