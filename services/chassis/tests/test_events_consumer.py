"""The event sink: each event is handled once, whatever the sender does."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx2
import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert, select

from chassis import create_app
from chassis.database import Database, async_url
from chassis.events.cloudevent import CloudEvent
from chassis.events.inbox import purge_inbox, receive
from chassis.events.publish import publish
from chassis.events.relay import Relay
from chassis.events.schema import create_inbox_v1, create_outbox_v1
from chassis.events.tables import DELIVERED, inbox, outbox
from chassis.problems import Problem
from chassis.settings import EventSettings

handled = Table(
    "handled",
    MetaData(),
    Column("number", Integer, primary_key=True),
    Column("event", String(50)),
)
HEADERS = {"Content-Type": "application/cloudevents+json"}


@pytest.fixture
def inbox_url(database_url):
    parsed = async_url(database_url)
    driver = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg"
    engine = create_engine(parsed.set(drivername=driver))
    with engine.begin() as connection:
        operations = Operations(MigrationContext.configure(connection))
        create_inbox_v1(operations)
        create_outbox_v1(operations)
        handled.create(connection)
    engine.dispose()
    return database_url


@pytest.fixture
def settings(make_settings, inbox_url):
    return make_settings(EventSettings, database_url=inbox_url)


class Handler:
    """Writes one row per call, then fails as told."""

    def __init__(self):
        self.failures = []
        self.calls = 0

    async def __call__(self, event, session, runtime):
        """Handle an event."""
        self.calls += 1
        await session.execute(insert(handled).values(event=event.id))
        if self.failures:
            raise self.failures.pop()


@pytest.fixture
def handler():
    return Handler()


@pytest.fixture
def app(settings, handler):
    return create_app(
        settings, title="t", description="t", inbox=True, consumers={"thing.made": handler}
    )


@pytest.fixture
def auth(token_issuer):
    return token_issuer.authorization("shop", "events:deliver")


@pytest.fixture
def sender(app, app_client, auth):
    """A client of the application that may deliver events and sees the 500s."""
    return app_client(app, headers={**auth, **HEADERS}, raise_app_exceptions=False)


def event(event_id="e-1", **attributes):
    return json.dumps(
        {
            "specversion": "1.0",
            "id": event_id,
            "source": "/services/shop",
            "type": "thing.made",
            "data": {"n": 1},
            **attributes,
        }
    )


async def handled_events(app):
    async with app.state.runtime.database.reading() as session:
        return sorted((await session.scalars(select(handled.c.event))).all())


async def test_an_event_is_handled_once_however_often_it_comes(app, app_client, auth, handler):
    """The same id from another source is another event."""
    async with app_client(app, headers=auth) as client:
        for _ in range(3):
            assert (
                await client.post("/events", content=event(), headers=HEADERS)
            ).status_code == 204
        other = event(source="/services/other")
        assert (await client.post("/events", content=other, headers=HEADERS)).status_code == 204
        assert await handled_events(app) == ["e-1", "e-1"]
    assert handler.calls == 2


async def test_concurrent_duplicates_are_handled_once(app, serve_app, auth):
    """Thirty times at once over real connections: all 204, one row."""
    async with (
        serve_app(app) as base,
        httpx2.AsyncClient(base_url=base, headers={**auth, **HEADERS}, timeout=30) as client,
    ):
        answers = await asyncio.gather(
            *(client.post("/events", content=event()) for _ in range(30))
        )
        assert {answer.status_code for answer in answers} == {204}
        assert await handled_events(app) == ["e-1"]


@pytest.mark.parametrize(
    ("failure", "status"), [(RuntimeError("bug"), 500), (Problem(422), 422), (Problem(503), 503)]
)
async def test_a_handler_that_fails_is_called_again(app, sender, handler, failure, status):
    """Its work and the inbox row are rolled back together; the next delivery does it all."""
    handler.failures = [failure]
    async with sender as client:
        assert (
            await client.post("/events", content=event(), headers=HEADERS)
        ).status_code == status
        assert await handled_events(app) == []
        assert (await client.post("/events", content=event(), headers=HEADERS)).status_code == 204
        assert await handled_events(app) == ["e-1"]
    assert handler.calls == 2


async def test_an_unknown_type_is_accepted_and_ignored(app, app_client, auth, handler):
    """204, because a retry would change nothing; no inbox row, so a later handler would get it."""
    async with app_client(app, headers=auth) as client:
        answer = await client.post("/events", content=event(type="other"), headers=HEADERS)
        assert answer.status_code == 204
        async with app.state.runtime.database.reading() as session:
            assert (await session.execute(select(inbox))).all() == []
    assert handler.calls == 0


async def test_who_may_not_deliver_is_refused(app, app_client, token_issuer, handler):
    """401 without a token, 403 without the scope."""
    async with app_client(app) as client:
        answer = await client.post("/events", content=event(), headers=HEADERS)
        assert answer.status_code == 401
        plain = token_issuer.authorization("u1", "orders:read")
        answer = await client.post("/events", content=event(), headers={**HEADERS, **plain})
        assert answer.status_code == 403
    assert handler.calls == 0


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[]", 422),
        (event(specversion="0.3"), 422),
        (event(event_id=""), 422),
        (event(event_id="x" * 201), 422),
        (event(time="yesterday"), 422),
        (event(time="2026-01-01T00:00:00"), 422),
        (event(source=None), 422),
    ],
)
async def test_what_is_no_cloudevent_is_refused(sender, handler, body, status):
    async with sender as client:
        answer = await client.post("/events", content=body)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
    assert handler.calls == 0


def test_extensions_are_kept():
    """CloudEvents 1.0, section 3.2: unknown attributes are extensions."""
    parsed = CloudEvent.model_validate_json(event(partitionkey="p"))
    assert json.loads(parsed.to_json())["partitionkey"] == "p"


async def test_the_openapi_document_names_the_media_type(app):
    operation = app.openapi()["paths"]["/events"]["post"]
    assert list(operation["requestBody"]["content"]) == ["application/cloudevents+json"]


async def test_from_outbox_to_inbox(app, settings, make_settings, serve_app, inbox_url):
    """One service publishes, the relay delivers over HTTP, the other handles: once each."""
    async with serve_app(app) as base:
        runtime = app.state.runtime
        runtime.database.settings = settings.model_copy(
            update={"subscribers": {"thing.made": [f"{base}/events"]}}
        )
        async with runtime.database.session() as session:
            ids = [
                await publish(session, "thing.made", f"t-{n}", {"n": n}, now=runtime.clock.now())
                for n in range(5)
            ]
        relay = Relay(runtime)
        assert await relay.run_once() == 5
        # Delivered again, as after a crash of the relay.
        async with runtime.database.session() as session:
            await session.execute(outbox.update().values(state="pending"))
        assert await relay.run_once() == 5
        async with runtime.database.reading() as session:
            assert set(await session.scalars(select(outbox.c.state))) == {DELIVERED}
        assert await handled_events(app) == sorted(ids)


async def test_purging_the_inbox(settings):
    database = Database(settings)
    now = datetime.now(UTC)
    async with database.session() as session:
        for number, age in enumerate([1, 40, 50]):
            parsed = CloudEvent.model_validate_json(event(f"e-{number}"))
            assert await receive(session, parsed, now - timedelta(days=age))
    assert await purge_inbox(database, now - timedelta(days=30)) == 2
    async with database.reading() as session:
        assert (await session.scalars(select(inbox.c.id))).all() == ["e-0"]
    await database.close()
