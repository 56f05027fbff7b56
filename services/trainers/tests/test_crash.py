"""The projector's process is killed in the middle of a batch; the read model must not notice."""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, time, timedelta

import pytest
from sqlalchemy import func, select

from chassis.database import Database, run_transaction
from chassis.testing import FakeClock
from chassis.testing.processes import end_with_parent
from trainers import booking, commands, progress, staff
from trainers.models import calendar, events, profiles
from trainers.projector import rebuild
from trainers.slots import DAYS, Slot, Week

KILLS = 3
BATCH = 20


@pytest.fixture
def start(settings, token_issuer, tmp_path):
    """A function that starts a real process of the read side; all of them end."""
    processes = []

    def launch():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        environment = {
            **os.environ,
            "TRAINERS_ENVIRONMENT": "test",
            "TRAINERS_ROLE": "queries",
            "TRAINERS_DATABASE_URL": settings.database_url,
            "TRAINERS_PROJECTOR_BATCH": str(BATCH),
            "TRAINERS_PORT": str(port),
            "TRAINERS_JWKS_URL": token_issuer.jwks_url,
        }
        with (tmp_path / "server.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "chassis", "serve", "trainers"],
                env=environment,
                stdout=log,
                stderr=log,
                preexec_fn=end_with_parent(),  # noqa: PLW1509  (made before the fork)
            )
        processes.append(process)
        return process

    yield launch
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


async def trade(database, trainers=3):
    """Trainers with sessions that are booked and rated: some hundred events."""
    clock = FakeClock(datetime(2026, 11, 30, tzinfo=UTC))
    slots = tuple(Slot(day, time(hour), time(hour + 1)) for day in DAYS for hour in range(8, 16))
    week = Week("UTC", slots)
    held = []
    for number in range(trainers):
        async with database.session() as session:
            done = await staff.Register(clock).handle(
                session, commands.RegisterTrainer(f"T{number}", "")
            )
            set_ = commands.SetAvailability(done.trainer_id, week)
            await staff.Schedule(clock).handle(session, set_)
            for span in week.spans(clock.now().date(), 7):
                command = commands.BookSession(done.trainer_id, "m", span.starts_at)
                booked = await booking.Book(clock, 60).handle(session, command)
                held.append((done.trainer_id, booked.session_id))
    clock.advance(timedelta(days=8).total_seconds())
    for chunk in range(0, len(held), 50):
        async with database.session() as session:
            for trainer, each in held[chunk : chunk + 50]:
                command = commands.RateSession(trainer, each, "m", 1 + len(each + trainer) % 5)
                await booking.Rate(clock).handle(session, command)


async def counted(database):
    """Hold what the read model counts against the events up to its position; the position."""
    async with database.reading() as session:
        # One snapshot for all: the position and the rows are of one moment.
        rows = (
            await session.execute(
                select(
                    progress._POSITION.label("position"),
                    select(func.count()).select_from(calendar).scalar_subquery().label("booked"),
                    select(func.coalesce(func.sum(profiles.c.ratings), 0))
                    .scalar_subquery()
                    .label("ratings"),
                    select(func.count()).select_from(profiles).scalar_subquery().label("profiles"),
                )
            )
        ).one()
        query = select(events.c.type, func.count()).where(events.c.position <= rows.position)
        told = dict((await session.execute(query.group_by(events.c.type))).all())
    assert rows.booked == told.get("session.booked", 0)
    assert rows.ratings == told.get("session.rated", 0)
    assert rows.profiles == told.get("trainer.registered", 0)
    return rows.position


@pytest.mark.timeout(600)  # it starts several processes
async def test_kill_9_in_the_middle_of_batches_counts_each_event_once(
    *, start, settings, read_model
):
    """Wherever it dies, position and read model are of one moment; the next process goes on.

    Ratings are sums, so an event that was projected twice, or half, would be seen.
    """
    database = Database(settings)
    await trade(database)
    async with database.reading() as session:
        head = (await progress.read(session)).head
    assert head > 10 * BATCH
    stops = []
    for number in range(KILLS):
        process = start()
        goal = head * number // KILLS
        async with asyncio.timeout(150):
            while await counted(database) <= goal:
                assert process.poll() is None
                await asyncio.sleep(0.02)
        await asyncio.sleep(random.uniform(0, 0.03))
        process.send_signal(signal.SIGKILL)
        process.wait()
        stops.append(await counted(database))
    assert stops == sorted(stops)
    assert any(0 < stop < head for stop in stops), f"no kill hit the work: {stops} of {head}"
    last = start()
    async with asyncio.timeout(150):
        while await counted(database) < head:
            assert last.poll() is None
            await asyncio.sleep(0.02)
    live = await read_model(database)
    last.kill()
    last.wait()
    await run_transaction(database, lambda session: rebuild(session, 100))
    assert await read_model(database) == live
    await database.close()
    print(f"\nkilled at {stops} of {head} events")
