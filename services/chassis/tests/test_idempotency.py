"""Idempotency keys: a retry repeats no work and gets the first answer."""

import asyncio
from datetime import timedelta
from types import SimpleNamespace

import httpx2
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from fastapi import APIRouter, Response
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, func, insert, select

from chassis import create_app
from chassis.clock import SystemClock
from chassis.database import Database, SessionDep, async_url
from chassis.events.schema import create_idempotency_v1
from chassis.idempotency import (
    LEASE,
    RETENTION,
    ClaimLostError,
    Idempotency,
    IdempotencyDep,
    parse_key,
    purge_expired,
)
from chassis.idempotency_table import idempotency_keys
from chassis.problems import Problem
from chassis.runtime import RuntimeDep
from chassis.settings import DatabaseSettings

things = Table(
    "things",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", String(50)),
)


class Thing(BaseModel):
    """The body and the answer of the test's routes."""

    name: str
    id: int = 0


@pytest.fixture
def settings(make_settings, database_url):
    parsed = async_url(database_url)
    driver = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg"
    engine = create_engine(parsed.set(drivername=driver))
    with engine.begin() as connection:
        create_idempotency_v1(Operations(MigrationContext.configure(connection)))
        things.create(connection)
    engine.dispose()
    return make_settings(DatabaseSettings, database_url=database_url)


@pytest.fixture
async def database(settings):
    database = Database(settings)
    yield database
    await database.close()


@pytest.fixture
def gate():
    """Lets a test hold a request in the middle of its work."""
    gate = SimpleNamespace(entered=asyncio.Event(), go=asyncio.Event(), fail=False, executed=0)
    gate.go.set()
    return gate


@pytest.fixture
def app(settings, gate, fake_clock):
    router = APIRouter()

    async def work(session, thing):
        gate.executed += 1
        number = await session.scalar(insert(things).values(name=thing.name).returning(things.c.id))
        gate.entered.set()
        await gate.go.wait()
        if gate.fail:
            raise Problem(409, detail="refused")
        return Thing(name=thing.name, id=number)

    @router.post("/things", status_code=201, response_model=Thing)
    async def make(thing: Thing, session: SessionDep, idempotency: IdempotencyDep) -> Response:
        if replay := await idempotency.claim(session):
            return replay.response()
        made = await work(session, thing)
        return await idempotency.complete(session, 201, made, {"Location": f"/things/{made.id}"})

    @router.post("/sagas", status_code=201, response_model=Thing)
    async def saga(thing: Thing, runtime: RuntimeDep, idempotency: IdempotencyDep) -> Response:
        """Claim and attach in one transaction, the rest in another, as orders does."""
        async with runtime.database.session() as session:
            replay = await idempotency.claim(session)
            if replay and replay.completed:
                return replay.response()
            if replay is None:
                number = await session.scalar(
                    insert(things).values(name=thing.name).returning(things.c.id)
                )
                gate.executed += 1
                await idempotency.attach(session, str(number))
            else:
                now = Thing(name=thing.name, id=int(replay.resource_id))
                return await idempotency.complete(session, 202, now)
        gate.entered.set()
        await gate.go.wait()
        if gate.fail:
            raise RuntimeError("crashed")
        made = Thing(name=thing.name, id=number)
        async with runtime.database.session() as session:
            try:
                return await idempotency.complete(session, 201, made)
            except ClaimLostError:
                return Response(made.model_dump_json(), 201, {"X-Claim": "lost"})

    return create_app(
        settings,
        title="t",
        description="t",
        routers=[router],
        idempotency=True,
        clock=fake_clock,
    )


async def count(database, table):
    async with database.reading() as session:
        return await session.scalar(select(func.count()).select_from(table))


def key(value):
    return {"Idempotency-Key": value}


async def test_a_retry_gets_the_first_answer(app, app_client, database):
    """Status, body, headers, marked as replayed; the work is done once."""
    async with app_client(app) as client:
        first = await client.post("/things", json={"name": "a"}, headers=key("k"))
        again = await client.post("/things", json={"name": "a"}, headers=key("k"))
    assert first.status_code == again.status_code == 201
    assert first.content == again.content
    assert again.headers["location"] == first.headers["location"] == "/things/1"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert await count(database, things) == 1


async def test_without_a_key_each_request_works(app, app_client, database):
    async with app_client(app) as client:
        for _ in range(2):
            assert (await client.post("/things", json={"name": "a"})).status_code == 201
    assert await count(database, things) == 2
    assert await count(database, idempotency_keys) == 0


async def test_the_same_key_with_another_request_is_422(app, app_client):
    """Another body, or another query."""
    async with app_client(app) as client:
        await client.post("/things", json={"name": "a"}, headers=key("k"))
        for target, name in (("/things", "b"), ("/things?x=1", "a")):
            answer = await client.post(target, json={"name": name}, headers=key("k"))
            assert answer.status_code == 422
            assert answer.json()["type"] == "urn:slipway:problem:idempotency-key-reused"


async def test_a_key_belongs_to_caller_method_and_path(app, app_client, database, token_issuer):
    """Two callers, or two paths, may use the same key: neither sees the other's answer."""
    async with app_client(app) as client:
        for subject in ("u1", "u2"):
            for path in ("/things", "/sagas"):
                headers = {**key("k"), **token_issuer.authorization(subject)}
                answer = await client.post(path, json={"name": subject}, headers=headers)
                assert answer.status_code == 201
                assert answer.json()["name"] == subject
                assert "idempotency-replayed" not in answer.headers
    assert await count(database, things) == 4


async def test_a_failure_leaves_no_claim(app, app_client, gate, database):
    """What was rolled back may be tried again with the same key."""
    gate.fail = True
    async with app_client(app) as client:
        answer = await client.post("/things", json={"name": "a"}, headers=key("k"))
        assert answer.status_code == 409
        assert await count(database, idempotency_keys) == 0
        gate.fail = False
        answer = await client.post("/things", json={"name": "a"}, headers=key("k"))
        assert answer.status_code == 201
    assert await count(database, things) == 1


@pytest.mark.parametrize("path", ["/things", "/sagas"])
async def test_fifty_at_once_are_one_execution_and_fifty_equal_answers(
    app, serve_app, gate, database, path
):
    """Over real connections, in one transaction and in a saga of two."""
    async with (
        serve_app(app) as base,
        httpx2.AsyncClient(base_url=base, timeout=60) as client,
    ):
        answers = await asyncio.gather(
            *(client.post(path, json={"name": "a"}, headers=key("k")) for _ in range(50))
        )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 49
    assert gate.executed == 1
    assert await count(database, things) == 1


@pytest.mark.parametrize("path", ["/things", "/sagas"])
async def test_a_duplicate_waits_for_the_first(app, app_client, gate, path):
    """It gets the same answer once the first request is done."""
    gate.go.clear()
    async with app_client(app) as client:
        first = asyncio.create_task(client.post(path, json={"name": "a"}, headers=key("k")))
        await gate.entered.wait()
        second = asyncio.create_task(client.post(path, json={"name": "a"}, headers=key("k")))
        done, _ = await asyncio.wait({second}, timeout=0.3)
        assert not done
        gate.go.set()
        assert (await second).content == (await first).content
        assert (await second).headers["idempotency-replayed"] == "true"


async def test_a_duplicate_does_not_wait_for_ever(app, app_client, gate, database):
    """After two seconds it is told to come back: 409 (one transaction on SQLite: see below)."""
    gate.go.clear()
    async with app_client(app) as client:
        first = asyncio.create_task(client.post("/things", json={"name": "a"}, headers=key("k")))
        await gate.entered.wait()
        async with asyncio.timeout(20):
            answer = await client.post("/things", json={"name": "a"}, headers=key("k"))
        if database.dialect == "sqlite":
            # The first one holds the only write transaction; the pool gives up on the second.
            assert answer.status_code == 503
        else:
            assert answer.status_code == 409
            assert answer.json()["type"] == "urn:slipway:problem:idempotency-in-progress"
        assert answer.headers["retry-after"] == "1"
        gate.go.set()
        assert (await first).status_code == 201


async def test_duplicates_of_a_slow_saga_are_answered_from_its_resource(
    app, app_client, gate, database
):
    """One takes the claim over, the others repeat its answer; the slow one is told that it lost."""
    gate.go.clear()
    async with app_client(app) as client:

        async def post():
            return await client.post("/sagas", json={"name": "a"}, headers=key("k"))

        first = asyncio.create_task(post())
        await gate.entered.wait()
        async with asyncio.timeout(60):
            answers = await asyncio.gather(*(post() for _ in range(10)))
        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.content for answer in answers}) == 1
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 9
        gate.go.set()
        assert (await first).headers["x-claim"] == "lost"
        assert (await post()).content == answers[0].content
    assert gate.executed == 1
    assert await count(database, things) == 1


async def test_a_crashed_saga_is_taken_over_at_once(app, app_client, gate, database):
    """A retry waits no longer than for any slow request; the lease of the dead one says nothing."""
    gate.fail = True
    async with app_client(app, raise_app_exceptions=False) as client:
        answer = await client.post("/sagas", json={"name": "a"}, headers=key("k"))
        assert answer.status_code == 500
        gate.fail = False
        answer = await client.post("/sagas", json={"name": "a"}, headers=key("k"))
        assert answer.status_code == 202
        again = await client.post("/sagas", json={"name": "a"}, headers=key("k"))
        assert again.content == answer.content
        assert again.headers["idempotency-replayed"] == "true"
    assert gate.executed == 1
    assert await count(database, things) == 1


async def test_who_lost_the_lease_cannot_complete(database, fake_clock):
    """The slow first request must not overwrite the answer of the one that took over."""
    first = Idempotency("k", fingerprint="f", clock=fake_clock)
    second = Idempotency("k", fingerprint="f", clock=fake_clock)
    async with database.session() as session:
        assert await first.claim(session) is None
        await first.attach(session, "r-1")
    fake_clock.advance(LEASE.total_seconds() + 1)
    async with database.session() as session:
        replay = await second.claim(session)
        assert not replay.completed
        assert replay.resource_id == "r-1"
        with pytest.raises(RuntimeError):
            replay.response()
    with pytest.raises(Problem) as raised:
        async with database.session() as session:
            await first.complete(session, 201, b"late")
    assert raised.value.status == 409
    async with database.session() as session:
        await second.complete(session, 202, b"right")
    async with database.session() as session:
        replay = await Idempotency("k", fingerprint="f", clock=fake_clock).claim(session)
        assert replay.body == b"right"


async def test_a_crashed_claim_without_a_resource_starts_anew(database, fake_clock):
    async with database.session() as session:
        assert await Idempotency("k", clock=fake_clock).claim(session) is None
    fake_clock.advance(LEASE.total_seconds() + 1)
    async with database.session() as session:
        assert await Idempotency("k", clock=fake_clock).claim(session) is None


async def test_late_in_a_transaction_a_claim_does_not_wait(database, fake_clock):
    """Waiting would roll back what the transaction did before; so it is 409 at once."""
    async with database.session() as session:
        assert await Idempotency("k", clock=fake_clock).claim(session) is None
    with pytest.raises(Problem) as raised:  # noqa: PT012
        async with database.session() as session:
            await session.execute(insert(things).values(name="before"))
            await Idempotency("k", clock=fake_clock).claim(session)
    assert raised.value.status == 409


async def test_an_expired_key_is_as_new_and_is_purged(database, fake_clock):
    """After 24 hours the key may be used for another request."""
    async with database.session() as session:
        used = Idempotency("k", fingerprint="old", clock=fake_clock)
        assert await used.claim(session) is None
        await used.complete(session, 201, b"{}")
    fake_clock.advance(RETENTION.total_seconds() + 1)
    async with database.session() as session:
        fresh = Idempotency("k", fingerprint="new", clock=fake_clock)
        assert await fresh.claim(session) is None
        await fresh.complete(session, 201, b"{}")
    assert await purge_expired(database, fake_clock.now()) == 0
    assert await purge_expired(database, fake_clock.now() + RETENTION + timedelta(1)) == 1
    assert await count(database, idempotency_keys) == 0


async def test_an_answer_without_a_body_has_no_content_type(database):
    idempotency = Idempotency("k", clock=SystemClock())
    async with database.session() as session:
        await idempotency.claim(session)
        response = await idempotency.complete(session, 204, b"")
    assert "content-type" not in response.headers


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
        ('"8e03978e"', "8e03978e"),  # the draft's form, an RFC 8941 string
        ('"a b"', "a b"),
        ('"a\\"b\\\\"', 'a"b\\'),
        ("x" * 255, "x" * 255),
    ],
)
def test_keys_bare_and_quoted(header, parsed):
    assert parse_key(header) == parsed


@pytest.mark.parametrize(
    "header", ["", '""', "a b", "x" * 256, '"a', 'a"b', "\xe9", '"a\\c"', "\t"]
)
def test_bad_keys_are_400(header):
    with pytest.raises(Problem) as raised:
        parse_key(header)
    assert raised.value.status == 400


async def test_a_bad_key_is_a_problem(app, app_client, gate):
    async with app_client(app) as client:
        for headers in (key(""), key("x" * 256), [("Idempotency-Key", "a")] * 2):
            answer = await client.post("/things", json={"name": "a"}, headers=headers)
            assert answer.status_code == 400
            assert answer.headers["content-type"] == "application/problem+json"
    assert gate.executed == 0
