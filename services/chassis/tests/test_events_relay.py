"""The outbox and its relay: nothing lost, one bad subscriber harms nobody else."""

import asyncio
import json
import os
import sys
from datetime import timedelta

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry
from sqlalchemy import create_engine, select, update

from chassis.clock import SystemClock
from chassis.database import Database, async_url
from chassis.events import cli
from chassis.events.publish import publish
from chassis.events.relay import Relay
from chassis.events.schema import create_outbox_v1
from chassis.events.tables import DEAD, DELIVERED, PENDING, outbox
from chassis.runtime import Runtime
from chassis.settings import DatabaseSettings, EventSettings
from chassis.testing import FaultyPeer
from chassis.workers import STOP_SECONDS


def create_outbox(url):
    """Create the table as a migration does."""
    parsed = async_url(url)
    driver = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg"
    engine = create_engine(parsed.set(drivername=driver))
    with engine.begin() as connection:
        create_outbox_v1(Operations(MigrationContext.configure(connection)))
    engine.dispose()


@pytest.fixture
def outbox_url(database_url):
    create_outbox(database_url)
    return database_url


@pytest.fixture
async def make_runtime(make_settings, outbox_url):
    """A function that makes a runtime on the test's database; sinks are the subscribers."""
    made = []

    def make(*sinks, clock=None, tracer_provider=None, **settings):
        values = {
            "service_name": "shop",
            "database_url": outbox_url,
            "subscribers": {"thing.made": [f"{sink.url}/events" for sink in sinks]},
            "peer_timeout_seconds": 5,
            "outbox_poll_seconds": 0.05,
            "outbox_backoff_seconds": 0.001,
            "outbox_backoff_cap_seconds": 0.002,
            "breaker_failures": 1000,
            **settings,
        }
        runtime = Runtime(
            make_settings(EventSettings, **values),
            clock=clock or SystemClock(),
            registry=CollectorRegistry(),
            tracer_provider=tracer_provider,
        )
        made.append(runtime)
        return runtime

    yield make
    for runtime in made:
        await runtime.close()


async def rows(runtime):
    async with runtime.database.reading() as session:
        return (await session.execute(select(outbox).order_by(outbox.c.seq))).all()


async def states(runtime):
    return [row.state for row in await rows(runtime)]


async def send(runtime, *subjects, **options):
    options = {"now": runtime.clock.now(), **options}
    async with runtime.database.session() as session:
        return [
            await publish(session, "thing.made", each, {"n": each}, **options) for each in subjects
        ]


async def settle(relay, runtime, seconds=60):
    """Run the relay until nothing is pending."""
    async with asyncio.timeout(seconds):
        while PENDING in await states(runtime):
            if not await relay.run_once():
                await asyncio.sleep(0.002)


class Running:
    """A relay at work in the background."""

    def __init__(self, runtime):
        self.task = asyncio.create_task(Relay(runtime).run())

    async def stop(self):
        """Stop it as a service does."""
        self.task.cancel()
        await asyncio.wait([self.task])
        assert self.task.cancelled()


async def until(condition, seconds=20):
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  (the state is in a database)
            await asyncio.sleep(0.005)


async def test_an_event_is_delivered_as_a_cloudevent_with_a_token(make_runtime, faulty_peer):
    """Structured JSON by POST, the service's own token, the attributes of CloudEvents 1.0."""
    runtime = make_runtime(faulty_peer)
    (event_id,) = await send(runtime, "t-1")
    assert await Relay(runtime).run_once() == 1
    (request,) = faulty_peer.requests
    assert (request.method, request.target) == ("POST", "/events")
    assert request.headers["content-type"] == "application/cloudevents+json"
    assert request.headers["authorization"].startswith("Bearer ")
    event = request.json()
    assert event.pop("time").endswith("Z")
    assert event == {
        "specversion": "1.0",
        "id": event_id,
        "source": "/services/shop",
        "type": "thing.made",
        "subject": "t-1",
        "datacontenttype": "application/json",
        "data": {"n": "t-1"},
    }
    assert await states(runtime) == [DELIVERED]
    assert await Relay(runtime).run_once() == 0


async def test_an_event_of_a_rolled_back_transaction_does_not_exist(make_runtime, faulty_peer):
    runtime = make_runtime(faulty_peer)
    with pytest.raises(LookupError):  # noqa: PT012
        async with runtime.database.session() as session:
            await publish(session, "thing.made", "t-1", {}, now=runtime.clock.now())
            raise LookupError
    assert await Relay(runtime).run_once() == 0
    assert await rows(runtime) == []


async def test_a_type_without_subscribers_writes_nothing(make_runtime):
    runtime = make_runtime()
    assert await send(runtime, "t-1")
    assert await rows(runtime) == []


async def test_publishing_needs_event_settings(make_settings, outbox_url):
    """Without subscribers in the settings every event would silently go nowhere."""
    database = Database(make_settings(DatabaseSettings, database_url=outbox_url))
    with pytest.raises(TypeError, match="EventSettings"):
        async with database.session() as session:
            await publish(session, "thing.made", "t-1", {}, now=SystemClock().now())
    await database.close()


async def test_a_commit_wakes_the_relay(make_runtime, faulty_peer):
    """With an hour between polls the event still goes out at once."""
    runtime = make_runtime(faulty_peer, outbox_poll_seconds=3600)
    running = Running(runtime)
    for number in range(1, 4):
        await send(runtime, f"t-{number}")
        await faulty_peer.wait_for_requests(number)
    await running.stop()


async def test_the_poll_finds_what_another_process_wrote(make_runtime, faulty_peer):
    writer, runtime = make_runtime(faulty_peer), make_runtime(faulty_peer)
    running = Running(runtime)
    await send(writer, "t-1")
    await faulty_peer.wait_for_requests(1)
    await running.stop()


@pytest.mark.parametrize("status", [500, 503, 404, 401, 408, 409, 425, 429])
async def test_a_fault_that_may_pass_is_tried_again(make_runtime, faulty_peer, status):
    """Until it is delivered; each try is counted."""
    runtime = make_runtime(faulty_peer)
    faulty_peer.respond(204)
    # A 401 is tried at once with a new token by the client of the peer.
    faulty_peer.respond(status, times=4 if status == 401 else 2)
    await send(runtime, "t-1")
    await settle(Relay(runtime), runtime)
    (row,) = await rows(runtime)
    assert (row.state, row.attempts) == (DELIVERED, 3)


@pytest.mark.parametrize("fault", ["reset", "hang", "garbage", "refuse"])
async def test_a_broken_connection_is_tried_again(make_runtime, faulty_peer, fault):
    runtime = make_runtime(faulty_peer, peer_timeout_seconds=0.1)
    await send(runtime, "t-1")
    relay = Relay(runtime)
    getattr(faulty_peer, fault)()
    assert await relay.run_once() == 1
    (row,) = await rows(runtime)
    assert (row.state, row.attempts) == (PENDING, 1)
    assert row.last_error
    faulty_peer.respond(204)
    await settle(relay, runtime)
    assert await states(runtime) == [DELIVERED]


@pytest.mark.parametrize("status", [400, 410, 413, 415, 422, 301])
async def test_poison_is_dead_at_once(make_runtime, faulty_peer, status):
    """An answer that another try cannot change; and the log of it is in the row."""
    runtime = make_runtime(faulty_peer)
    faulty_peer.respond(status)
    await send(runtime, "t-1")
    assert await Relay(runtime).run_once() == 1
    (row,) = await rows(runtime)
    assert (row.state, row.attempts, row.last_error) == (DEAD, 1, f"answered {status}")
    assert await Relay(runtime).run_once() == 0


async def test_an_event_is_dead_after_its_tries(make_runtime, faulty_peer):
    runtime = make_runtime(faulty_peer, outbox_max_attempts=3)
    faulty_peer.respond(500)
    await send(runtime, "t-1")
    relay = Relay(runtime)
    await settle(relay, runtime)
    assert await states(runtime) == [DEAD]
    assert len(faulty_peer.requests) == 3
    await relay.update_metrics()

    def sample(name, **labels):
        return runtime.registry.get_sample_value(name, labels)

    assert sample("outbox_dead_letters") == 1
    assert sample("outbox_pending") == 0
    assert sample("outbox_deliveries_total", type="thing.made", outcome="retry") == 2
    assert sample("outbox_deliveries_total", type="thing.made", outcome="dead") == 1


async def test_an_open_breaker_uses_up_no_tries(make_runtime, faulty_peer, fake_clock):
    """While the subscriber is away, events wait for it; the breaker's pause is respected."""
    runtime = make_runtime(
        faulty_peer,
        clock=fake_clock,
        breaker_failures=1,
        breaker_reset_seconds=30,
        outbox_backoff_cap_seconds=60,
        outbox_max_attempts=2,
        outbox_batch=1,
    )
    faulty_peer.respond(500)
    await send(runtime, "t-1", "t-2", "t-3", now=fake_clock.now())
    relay = Relay(runtime)
    for _ in range(3):
        assert await relay.run_once() == 1
    assert len(faulty_peer.requests) == 1
    assert [row.attempts for row in await rows(runtime)] == [1, 0, 0]
    faulty_peer.respond(204)
    fake_clock.advance(1)
    assert await relay.run_once() == 1  # t-1 again, whose own pause is over: still not sent
    assert await relay.run_once() == 0
    fake_clock.advance(31)
    for _ in range(3):
        assert await relay.run_once() == 1
    assert await states(runtime) == [DELIVERED] * 3


async def test_backoff_grows_and_is_capped(make_runtime, faulty_peer, fake_clock):
    """Full jitter: between zero and the base times two to the power of the tries."""
    runtime = make_runtime(
        faulty_peer,
        clock=fake_clock,
        outbox_backoff_seconds=10,
        outbox_backoff_cap_seconds=60,
        outbox_max_attempts=50,
    )
    faulty_peer.respond(500)
    await send(runtime, "t-1", now=fake_clock.now())
    relay = Relay(runtime)
    pauses = []
    for _ in range(30):
        assert await relay.run_once() == 1
        (row,) = await rows(runtime)
        pauses.append((row.available_at - fake_clock.now()).total_seconds())
        fake_clock.advance(pauses[-1] + 0.001)
    for number, pause in enumerate(pauses):
        assert 0 <= pause <= min(60, 10 * 2**number)
    assert max(pauses) > 20  # it did grow
    assert len(set(pauses)) > 20  # it is random


async def test_one_bad_subscriber_does_not_block_or_repeat_another(make_runtime, faulty_peer):
    """A subscriber that hangs and one that works: the good one gets all, each once, at once."""
    async with FaultyPeer() as bad:
        bad.hang()
        runtime = make_runtime(faulty_peer, bad, outbox_batch=3, peer_timeout_seconds=5)
        running = Running(runtime)
        await send(runtime, *(f"t-{number}" for number in range(20)))

        async def all_good():
            return len(faulty_peer.requests) >= 20

        await until(all_good)
        assert len(bad.requests) < 20
        bad.close_connections()
        bad.respond(500)
        await running.stop()
    subjects = [request.json()["subject"] for request in faulty_peer.requests]
    assert sorted(subjects) == sorted({f"t-{number}" for number in range(20)})


async def test_events_of_one_key_arrive_in_order(make_runtime, faulty_peer):
    """Whatever fails in between: each subject's events come in the order of publication."""
    runtime = make_runtime(faulty_peer)
    for status in (500, 503, 500, 429):
        faulty_peer.respond(status, times=2)
    faulty_peer.respond(204)
    for number in range(6):
        async with runtime.database.session() as session:
            for key in ("a", "b", "c"):
                await publish(
                    session, "thing.made", key, {"number": number}, now=runtime.clock.now()
                )
    running = Running(runtime)

    async def done():
        return set(await states(runtime)) == {DELIVERED}

    await until(done)
    await running.stop()
    for key in ("a", "b", "c"):
        seen = []
        for request in faulty_peer.requests:
            event = request.json()
            if event["subject"] == key and event["data"]["number"] not in seen:
                seen.append(event["data"]["number"])
        assert seen == list(range(6))


async def test_a_dead_event_lets_the_next_of_its_key_pass(make_runtime, faulty_peer):
    runtime = make_runtime(faulty_peer)
    faulty_peer.respond(400, times=1)
    await send(runtime, "t-1", "t-1")
    await settle(Relay(runtime), runtime)
    assert await states(runtime) == [DEAD, DELIVERED]


@pytest.mark.parametrize(
    "values",
    [
        {"subscriber": "http://[x/events"},
        {"subscriber": "ftp://sink/events"},
        {"event": "no JSON"},
        {"event": "{}"},
    ],
)
async def test_a_row_that_cannot_be_sent_is_dead_after_its_tries(make_runtime, faulty_peer, values):
    """Whatever its delivery raises; the reason is kept, and others are delivered meanwhile."""
    runtime = make_runtime(faulty_peer, outbox_max_attempts=3)
    await send(runtime, "t-1", "t-2")
    async with runtime.database.session() as session:
        await session.execute(update(outbox).where(outbox.c.subject == "t-1").values(**values))
    await settle(Relay(runtime), runtime)
    bad, good = await rows(runtime)
    assert (bad.state, bad.attempts, good.state) == (DEAD, 3, DELIVERED)
    assert bad.last_error


async def test_a_row_that_kills_its_relays_is_dead_after_its_tries(make_runtime, faulty_peer):
    """It is taken as often as it may be tried, never recorded, and then given up unsent."""
    runtime = make_runtime(faulty_peer, outbox_max_attempts=3)
    await send(runtime, "t-1", "t-1")
    relay = Relay(runtime)
    for _ in range(3):
        [claim] = await relay._claim()
        async with runtime.database.session() as session:  # its relay dies and its lease runs out
            early = runtime.clock.now() - timedelta(seconds=1)
            await session.execute(
                update(outbox).where(outbox.c.seq == claim.seq).values(available_at=early)
            )
    await settle(relay, runtime)
    killer, following = await rows(runtime)
    assert (killer.state, killer.attempts) == (DEAD, 3)
    assert killer.last_error == "the outcome of its last try was never recorded"
    assert killer.finished_at is not None
    assert following.state == DELIVERED
    assert len(faulty_peer.requests) == 1
    labels = {"type": "thing.made", "outcome": "dead"}
    assert runtime.registry.get_sample_value("outbox_deliveries_total", labels) == 1


async def test_two_relays_on_one_outbox_deliver_each_row_once(make_runtime, faulty_peer):
    """Two runtimes, two pools, one table of 100 events."""
    # Time enough for every answer: on a busy machine a timeout would be a repetition.
    first = make_runtime(faulty_peer, peer_timeout_seconds=30)
    second = make_runtime(faulty_peer, peer_timeout_seconds=30)
    await send(first, *(f"t-{number}" for number in range(100)))
    relays = [Running(first), Running(second)]

    async def done():
        return set(await states(first)) == {DELIVERED}

    await until(done, 60)
    for relay in relays:
        await relay.stop()
    subjects = [request.json()["subject"] for request in faulty_peer.requests]
    assert len(subjects) == len(set(subjects)) == 100


async def test_a_stopped_relay_lets_its_deliveries_end(make_runtime, faulty_peer):
    """SIGTERM during a delivery: the answer is still written down, so nothing is repeated."""
    runtime = make_runtime(faulty_peer, peer_timeout_seconds=5)
    faulty_peer.slow(0.3, 204)
    running = Running(runtime)
    await send(runtime, "t-1")
    await faulty_peer.wait_for_requests(1)
    await running.stop()
    assert await states(runtime) == [DELIVERED]


async def test_a_stopped_relay_waits_no_longer_than_its_supervisor(
    make_runtime, faulty_peer, monkeypatch
):
    """A delivery that hangs is cut off before its loop counts as stuck; its row stays pending."""
    monkeypatch.setattr("chassis.events.relay._STOP_MARGIN_SECONDS", STOP_SECONDS - 0.1)
    runtime = make_runtime(faulty_peer, peer_timeout_seconds=60, peer_connect_timeout_seconds=60)
    faulty_peer.hang()
    running = Running(runtime)
    await send(runtime, "t-1")
    await faulty_peer.wait_for_requests(1)
    async with asyncio.timeout(30):
        await running.stop()
    assert await states(runtime) == [PENDING]


async def test_a_relay_that_outlived_its_lease_does_not_overwrite_the_next_one(
    make_runtime, faulty_peer, fake_clock
):
    """Its late result is ignored: the row belongs to who took it afterwards."""
    runtime = make_runtime(faulty_peer, clock=fake_clock)
    await send(runtime, "t-1", now=fake_clock.now())
    slow, next_one = Relay(runtime), Relay(runtime)
    (late,) = await slow._claim()
    assert await next_one._claim() == []
    fake_clock.advance(60)
    (current,) = await next_one._claim()
    assert current.lease != late.lease
    faulty_peer.respond(400)
    await slow._finish(late)
    assert await states(runtime) == [PENDING]
    faulty_peer.respond(204)
    await next_one._finish(current)
    assert await states(runtime) == [DELIVERED]


RELAY = """
import asyncio, sys
from chassis.clock import SystemClock
from chassis.events.relay import Relay
from chassis.runtime import Runtime
from chassis.settings import EventSettings
from prometheus_client import CollectorRegistry

settings = EventSettings.model_validate_json(sys.argv[1])
asyncio.run(Relay(Runtime(settings, clock=SystemClock(), registry=CollectorRegistry())).run())
"""


@pytest.mark.timeout(300)
async def test_a_relay_killed_during_a_delivery_loses_nothing(
    make_runtime, make_settings, faulty_peer, token_issuer
):
    """A real process, kill -9 while its POST is unanswered: another one delivers it again."""
    faulty_peer.hang()
    runtime = make_runtime(faulty_peer)
    await send(runtime, "t-1", "t-2")
    settings = {
        **json.loads(runtime.settings.model_dump_json()),
        "client_secret": "only-for-tests",
        "peer_timeout_seconds": 1.0,
        "log_level": "error",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", RELAY, json.dumps(settings), env={**os.environ}
    )
    try:
        await faulty_peer.wait_for_requests(2, within=240)
    finally:
        process.kill()
        await process.wait()
    faulty_peer.respond(204)
    assert await Relay(runtime).run_once() == 0  # the dead one's lease still stands
    running = Running(runtime)

    async def done():
        return set(await states(runtime)) == {DELIVERED}

    await until(done, 60)
    await running.stop()
    assert len(faulty_peer.requests) == 4
    assert [row.attempts for row in await rows(runtime)] == [2, 2]


async def test_the_trace_of_the_publisher_goes_on(make_runtime, faulty_peer):
    """The delivery is in the publisher's trace, and the event names it too."""
    provider = TracerProvider()
    runtime = make_runtime(faulty_peer, tracer_provider=provider)
    with provider.get_tracer("test").start_as_current_span("request") as span:
        await send(runtime, "t-1")
    trace_id = f"{span.get_span_context().trace_id:032x}"
    assert await Relay(runtime).run_once() == 1
    (request,) = faulty_peer.requests
    assert request.headers["traceparent"].split("-")[1] == trace_id
    assert request.json()["traceparent"].split("-")[1] == trace_id
    provider.shutdown()


async def test_purging_keeps_what_is_young_pending_or_dead(make_runtime, faulty_peer, fake_clock):
    runtime = make_runtime(faulty_peer, clock=fake_clock, outbox_retention_seconds=3600)
    await send(runtime, "old", "dead", "new", "pending", now=fake_clock.now())
    async with runtime.database.session() as session:
        for subject, state, age in (
            ("old", DELIVERED, 7200),
            ("dead", DEAD, 7200),
            ("new", DELIVERED, 60),
        ):
            await session.execute(
                update(outbox)
                .where(outbox.c.subject == subject)
                .values(state=state, finished_at=fake_clock.now() - timedelta(seconds=age))
            )
    assert await Relay(runtime).purge() == 1
    assert [row.subject for row in await rows(runtime)] == ["dead", "new", "pending"]


async def test_gauges_describe_the_table(make_runtime, faulty_peer, fake_clock):
    runtime = make_runtime(faulty_peer, clock=fake_clock)
    relay = Relay(runtime)
    await send(runtime, "t-1", now=fake_clock.now())
    fake_clock.advance(90)
    await send(runtime, "t-2", now=fake_clock.now())
    await relay.update_metrics()
    assert runtime.registry.get_sample_value("outbox_pending") == 2
    assert runtime.registry.get_sample_value("outbox_oldest_age_seconds") == pytest.approx(90)


async def test_the_relay_works_again_after_the_database_was_locked(make_runtime, faulty_peer):
    """An outage of the database ends no relay."""
    runtime = make_runtime(faulty_peer, statement_timeout_seconds=0.05)
    if runtime.database.dialect == "postgresql":
        pytest.skip("a lock that keeps out everybody is SQLite's")
    await send(runtime, "t-1")
    async with runtime.database.session() as session:
        await session.execute(update(outbox).values(attempts=0))
        other = make_runtime(faulty_peer, statement_timeout_seconds=0.05)
        running = Running(other)
        await asyncio.sleep(0.3)  # several failed claims; the condition is that it lives on
        assert not running.task.done()
    await faulty_peer.wait_for_requests(1)
    await running.stop()


def parse(*arguments):
    import argparse

    parser = argparse.ArgumentParser()
    cli.add_arguments(parser)
    return parser.parse_args(arguments)


async def test_dead_letters_are_listed_and_replayed(make_runtime, faulty_peer, capsys):
    """One line per message; replay by id, or all; an unknown id is exit code 2."""
    runtime = make_runtime(faulty_peer)
    faulty_peer.respond(422)
    first, second = await send(runtime, "t-1", "t-2")
    relay = Relay(runtime)
    await settle(relay, runtime)
    capsys.readouterr()
    assert await cli.run(parse("list"), runtime.settings) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [first, second]
    assert "answered 422" in lines[0]
    assert faulty_peer.url in lines[0]
    faulty_peer.respond(204)
    assert await cli.run(parse("replay", first), runtime.settings) == 0
    assert await relay.run_once() == 1
    assert await states(runtime) == [DELIVERED, DEAD]
    assert await cli.run(parse("replay", first, "unknown"), runtime.settings) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 2
    assert await cli.run(parse("replay", "--all"), runtime.settings) == 0
    assert await relay.run_once() == 1
    assert await states(runtime) == [DELIVERED, DELIVERED]
    assert await cli.run(parse("list", "--state", "delivered"), runtime.settings) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


async def test_replay_without_ids_is_bad_input(make_runtime, capsys):
    runtime = make_runtime()
    assert await cli.run(parse("replay"), runtime.settings) == 2
    assert await cli.run(parse("replay", "x", "--all"), runtime.settings) == 2
    assert capsys.readouterr().err.count("\n") == 2


async def test_events_follow_a_subscriber_that_moved(make_runtime, faulty_peer, capsys):
    """Pending and dead ones, not those that it has had; NEW must be a subscriber."""
    async with FaultyPeer() as gone:
        gone.respond(204)
        before = make_runtime(gone)
        relay = Relay(before)
        await send(before, "had")
        await settle(relay, before)
        gone.respond(422)
        await send(before, "dead")
        await settle(relay, before)
        old = f"{gone.url}/events"
    await send(before, "pending")
    runtime = make_runtime(faulty_peer)
    new = f"{faulty_peer.url}/events"
    assert await cli.run(parse("redirect", old, "http://typo/events"), runtime.settings) == 2
    capsys.readouterr()
    assert await cli.run(parse("redirect", old, new), runtime.settings) == 0
    assert capsys.readouterr().out == "redirected 2\n"
    assert await cli.run(parse("replay", "--all"), runtime.settings) == 0
    await settle(Relay(runtime), runtime)
    assert await states(runtime) == [DELIVERED] * 3
    assert sorted(each.json()["subject"] for each in faulty_peer.requests) == ["dead", "pending"]


async def test_a_database_without_an_outbox_is_one_line(make_settings, tmp_path, capsys):
    settings = make_settings(EventSettings, database_url=f"sqlite:///{tmp_path / 'empty.db'}")
    assert await cli.run(parse("list"), settings) == 1
    assert capsys.readouterr().err == "outbox list: no such table: outbox\n"
