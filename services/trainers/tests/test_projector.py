"""The projector: each event once, one process at a time, and how old an answer may be."""

import asyncio
import math
from contextlib import asynccontextmanager

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import delete, select, update

from chassis.database import Database, run_transaction
from chassis.telemetry import build_provider
from trainers.events import UnknownEventError, decode
from trainers.models import READ_MODEL, events, profiles, projections
from trainers.projector import rebuild
from trainers.service import read_side


@pytest.fixture
def open_asleep(open_gym, eventually):
    """A function like `open_gym`; the projector looks again only when asked for a version."""

    @asynccontextmanager
    async def run(**changes):
        async with open_gym(projector_poll_seconds=3600.0, **changes) as gym:

            async def looked():
                return not math.isnan((await metrics(gym))["projection_lag_events"])

            # Its first look could come late, and find what the test wrote meanwhile.
            await eventually(looked)
            yield gym

    return run


async def metrics(gym):
    """The values of the metrics without labels."""
    told = (await gym.client.get("/metrics")).text
    families = text_string_to_metric_families(told)
    return {sample.name: sample.value for each in families for sample in each.samples}


@asynccontextmanager
async def held(settings):
    """The projection's row is held by somebody, as while another process projects."""
    database = Database(settings)
    try:
        async with database.session() as session:
            await session.execute(update(projections).values(name=projections.c.name))
            yield
            await session.rollback()
    finally:
        await database.close()


async def test_a_command_is_shown_a_moment_later(gym, eventually):
    """Without asking for a version too."""
    trainer = await gym.register()

    async def shown():
        return (await gym.ask(f"/{trainer}")).status_code == 200

    await eventually(shown)


async def test_an_answer_says_how_old_it_is(open_asleep):
    """The version that answers, and for how long the next one has waited."""
    async with open_asleep() as gym:
        await gym.register()
        gym.clock.advance(7)
        answer = await gym.ask("")
        assert answer.json()["items"] == []
        assert answer.headers["X-Projection-Version"] == "0"
        assert answer.headers["X-Projection-Lag-Seconds"] == "7.000"
        projector = read_side(gym.runtime).projector
        assert await projector.step() == 2
        found = await metrics(gym)
        assert (found["projection_lag_events"], found["projection_lag_seconds"]) == (2.0, 7.0)
        assert await projector.step() == 0
        found = await metrics(gym)
        assert (found["projection_lag_events"], found["projection_lag_seconds"]) == (0.0, 0.0)
        assert found["projection_events_total"] == 2.0
        answer = await gym.ask("")
        assert answer.headers["X-Projection-Version"] == "2"
        assert answer.headers["X-Projection-Lag-Seconds"] == "0.000"


async def test_at_least_shows_ones_own_write(open_asleep):
    """Who asks for the version of a command gets it, though the projector was asleep."""
    async with open_asleep() as gym:
        for number in range(1, 4):
            done = await gym.command("POST", "", {"name": f"T{number}"})
            version = done.json()["version"]
            answer = await gym.ask(f"/{done.json()['trainer_id']}", at_least=version)
            assert answer.status_code == 200, answer.text
            assert int(answer.headers["X-Projection-Version"]) >= version


async def test_at_least_waits_for_a_bound_and_says_when_to_come_back(
    open_asleep, settings, problem, eventually
):
    """The projector cannot work; whoever needs the version is told so, the others are served."""
    async with open_asleep(read_wait_seconds=0.2) as gym:
        await gym.register()
        async with held(settings):
            answer = await gym.ask("", at_least=2)
            problem(answer, 503, "projection-behind")
            assert answer.headers["Retry-After"] == "1"
            assert answer.headers["X-Projection-Version"] == "0"
            assert (await gym.ask("")).status_code == 200

        async def reached():
            return (await gym.ask("", at_least=2)).status_code == 200

        await eventually(reached)
        assert (await gym.ask("")).json()["items"]


async def test_a_version_that_no_command_gave_is_refused_at_once(gym, problem):
    """Nobody waits for what never comes."""
    problem(await gym.ask("", at_least=1), 400, "unknown-version")
    problem(await gym.ask("", at_least=-1), 422, "validation")
    problem(await gym.ask("", at_least=2**63), 422, "validation")
    assert (await gym.ask("", at_least=0)).status_code == 200


async def test_many_projectors_bring_in_each_event_once(
    open_gym, open_asleep, settings, read_model, eventually
):
    """Three processes at one log: what is counted is counted once."""
    async with open_asleep() as gym:
        trainer = await gym.register()
        session_ids = [
            await gym.session(trainer, at=f"2026-11-30T{hour}:00:00+01:00") for hour in ("09", "10")
        ]
        gym.clock.advance(86_400)
        for number in range(30):
            await gym.rate(trainer, session_ids[number % 2], "m1", 1 + number // 2 % 5)
        async with open_gym(projector_batch=3) as one, open_gym(projector_batch=4) as other:
            done = await gym.ask(f"/{trainer}", at_least=32)
            assert done.json()["ratings"] == 2
            for each in (one, other):
                assert (await each.ask(f"/{trainer}", at_least=32)).json() == done.json()

            async def each_counted_once():
                told = [await metrics(each) for each in (gym, one, other)]
                return sum(each["projection_events_total"] for each in told) == 34.0

            await eventually(each_counted_once)
    database = Database(settings)
    live = await read_model(database)
    await run_transaction(database, lambda session: rebuild(session, 5))
    assert await read_model(database) == live
    await database.close()


async def test_whoever_finds_the_row_held_stands_by(open_asleep, settings, database_dialect):
    """On PostgreSQL a second projector passes at once; SQLite has one writer anyway."""
    if database_dialect == "sqlite":
        pytest.skip("there the second one waits for the lock of the file")
    async with open_asleep() as gym:
        await gym.register()
        async with held(settings):
            async with asyncio.timeout(60):
                assert await read_side(gym.runtime).projector.step() == 0
        assert await read_side(gym.runtime).projector.step() == 2


async def test_an_event_that_cannot_be_projected_stops_the_projection_and_not_the_queries(
    open_asleep, eventually
):
    """All before it are shown. Every replica meets it, so none may call itself unready."""
    async with open_asleep(read_wait_seconds=0.5) as gym:
        made = [await gym.register(f"T{number}", week=None) for number in range(6)]
        async with gym.runtime.database.session() as session:
            of_the_fifth = events.c.position == 5
            await session.execute(update(events).where(of_the_fifth).values(type="trainer.v9"))
        waiting = asyncio.create_task(gym.ask("", at_least=6))

        async def failed(times):
            return (await metrics(gym))["projection_failures_total"] == times

        # The whole batch first, then one by one up to the event itself.
        for times in (1, 2):
            await eventually(lambda times=times: failed(times))
            gym.clock.advance(5)
        await eventually(lambda: failed(3))
        assert (await waiting).status_code == 503
        assert (await gym.client.get("/readyz")).status_code == 200
        answer = await gym.ask("", sort="name")
        assert answer.headers["X-Projection-Version"] == "4"
        assert [each["id"] for each in answer.json()["items"]] == made[:4]
        async with gym.runtime.database.session() as session:
            right = update(events).where(of_the_fifth).values(type="trainer.registered")
            await session.execute(right)
        gym.clock.advance(5)

        async def shown():
            return (await gym.ask(f"/{made[5]}")).status_code == 200

        await eventually(shown)


def test_an_event_of_another_shape_is_refused_with_its_type():
    with pytest.raises(UnknownEventError, match=r"no event type trainer\.cloned"):
        decode("trainer.cloned", {})
    with pytest.raises(UnknownEventError, match=r"session\.rated"):
        decode("session.rated", {"session_id": "x"})


async def test_queries_answer_while_the_read_model_is_rebuilt(open_gym, settings, read_model):
    """They show the old one until the new one is whole, and never an empty one."""
    async with open_gym() as gym:
        for number in range(5):
            await gym.register(f"T{number}")
        assert len((await gym.ask("", at_least=10)).json()["items"]) == 5
        before = await read_model(gym.runtime.database)
        database = Database(settings)
        async with database.session() as session:
            assert await rebuild(session, 2) == 10
            assert len((await gym.ask("")).json()["items"]) == 5, "not committed yet"
        await database.close()
        assert await read_model(gym.runtime.database) == before
        answer = await gym.ask("")
        assert answer.headers["X-Projection-Version"] == "10"


async def test_a_rebuild_mends_a_read_model_that_is_wrong(gym, read_model):
    """Whatever is in there, afterwards it is what the events say."""
    trainer = await gym.register()
    await gym.ask("", at_least=2)
    right = await read_model(gym.runtime.database)
    async with gym.runtime.database.session() as session:
        await session.execute(update(profiles).values(name="Somebody else", rating=500))
        for table in READ_MODEL[1:]:
            await session.execute(delete(table))
    assert (await gym.ask(f"/{trainer}")).json()["name"] == "Somebody else"
    await run_transaction(gym.runtime.database, lambda session: rebuild(session, 100))
    assert await read_model(gym.runtime.database) == right


async def test_each_side_has_its_own_routes(open_gym):
    """A process of one side knows nothing of the other."""
    async with open_gym(role="commands") as writes, open_gym(role="queries") as reads:
        made = await writes.command("POST", "", {"name": "A"})
        assert made.status_code == 201
        assert (await writes.ask("")).status_code == 405
        found = await reads.ask("", at_least=made.json()["version"])
        assert [each["name"] for each in found.json()["items"]] == ["A"]
        assert (await reads.command("POST", "", {"name": "A"})).status_code == 405


async def test_the_trace_of_a_command_is_kept_with_its_events(gym):
    """So that its projection is seen in the same trace."""
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    await gym.command("POST", "", {"name": "A"}, traceparent=parent)
    async with gym.runtime.database.reading() as session:
        stored = await session.scalar(select(events.c.trace))
    assert stored is not None
    assert stored.split("-")[1] == "4bf92f3577b34da6a3ce929d0e0e4736"


async def test_the_projection_is_a_part_of_the_commands_trace(open_asleep, settings):
    """However late it is: the span hangs below the request that wrote the event."""
    exporter = InMemorySpanExporter()
    async with open_asleep() as gym:
        gym.runtime.tracer_provider = build_provider(settings, exporter)
        trace_id, span_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
        parent = f"00-{trace_id}-{span_id}-01"
        await gym.command("POST", "", {"name": "A"}, traceparent=parent)
        assert (await gym.ask("", at_least=1)).status_code == 200
        gym.runtime.tracer_provider.force_flush()
    [span] = [each for each in exporter.get_finished_spans() if each.name.startswith("project ")]
    assert span.name == "project trainer.registered"
    assert f"{span.context.trace_id:032x}" == trace_id
    assert span.parent is not None
