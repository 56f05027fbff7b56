"""Random commands, by Hypothesis: the live read model is the one that a rebuild makes."""

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)
from prometheus_client import CollectorRegistry
from sqlalchemy import func, select

from chassis.database import run_transaction
from chassis.migrations import migrate
from chassis.runtime import Runtime
from chassis.testing import FakeClock
from chassis.testing.databases import hermetic_settings, sqlite_url
from trainers import commands, projector
from trainers.events import TYPES
from trainers.models import READ_MODEL, calendar, events, log_head, occupied, profiles, sessions
from trainers.models import trainers as written_trainers
from trainers.refusals import Refusal
from trainers.service import ReadSide, WriteSide
from trainers.settings import Settings
from trainers.slots import DAYS, Slot, Week
from trainers.store import WEEK

MONDAY = datetime(2026, 11, 30, 6, tzinfo=UTC)
HAPPENED = Counter()
"""Which events there were, in all runs: a machine that books nothing would prove nothing."""
HOURS = st.integers(8, 11)


@st.composite
def weeks(draw):
    """A week of few slots, so that members meet at them."""
    hours = draw(st.sets(HOURS, min_size=1, max_size=3))
    zone = draw(st.sampled_from(["UTC", "Asia/Kathmandu"]))
    return Week(zone, tuple(Slot(day, time(at), time(at + 1)) for day in DAYS for at in hours))


class Everything(RuleBasedStateMachine):
    """Sends commands, projects now and then, and compares."""

    trainers = Bundle("trainers")
    booked = Bundle("booked")

    def __init__(self):
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = TemporaryDirectory()
        self.clock = FakeClock(MONDAY)
        path = Path(self.folder.name, "t.db")
        values = {"environment": "test", "database_url": sqlite_url(path), "projector_batch": 3}
        self.settings = hermetic_settings(Settings, values)
        self.runner.run(migrate("trainers", self.settings))
        self.runtime = Runtime(self.settings, clock=self.clock, registry=CollectorRegistry())
        self.writes, self.reads = WriteSide(self.runtime), ReadSide(self.runtime)
        self.database = self.runtime.database

    def teardown(self):
        """Compare at the end, and let go of everything."""
        HAPPENED.update(self.runner.run(self._compare()))
        self.runner.run(self.runtime.close())
        self.runner.close()
        self.folder.cleanup()

    def send(self, command):
        """Carry out a command, or None when it is refused."""

        async def work():
            async with self.database.session() as session:
                return await self.writes.commands.dispatch(session, command)

        with suppress(Refusal):
            return self.runner.run(work())
        return None

    @initialize(target=trainers, week=weeks())
    def open_the_gym(self, week):
        """One trainer who can be booked."""
        return self._hire("Zoe", week)

    @rule(target=trainers, name=st.sampled_from(["Ada", "Bea"]), week=weeks())
    def register(self, name, week):
        """A new trainer."""
        return self._hire(name, week)

    def _hire(self, name, week):
        trainer = self.send(commands.RegisterTrainer(name, "")).trainer_id
        self.send(commands.SetAvailability(trainer, week))
        return trainer

    @rule(trainer=trainers, name=st.sampled_from(["Cem", "Dov"]))
    def present(self, trainer, name):
        """Another name."""
        self.send(commands.ChangeProfile(trainer, name, "bio"))

    @rule(trainer=trainers, taught=st.lists(st.sampled_from(["judo", "yoga", "chess"])))
    def assign(self, trainer, taught):
        """Other specialities."""
        self.send(commands.AssignSpecialities(trainer, tuple(taught)))

    @rule(trainer=trainers, week=weeks())
    def schedule(self, trainer, week):
        """Other slots."""
        self.send(commands.SetAvailability(trainer, week))

    @rule(target=booked, trainer=trainers, member=st.sampled_from("ab"), number=st.integers(0, 9))
    def book(self, trainer, member, number):
        """A slot of the next days, also one that is taken; or a time without one."""
        spans = self.runner.run(self._offered(trainer))
        at = spans[number % len(spans)] if spans else self.clock.now() + timedelta(minutes=15)
        done = self.send(commands.BookSession(trainer, member, at))
        if done is None:
            return multiple()
        return trainer, done.session_id, member

    @rule(session=booked, by_staff=st.booleans())
    def cancel(self, session, by_staff):
        """A session given back."""
        trainer, session_id, member = session
        self.send(commands.CancelSession(trainer, session_id, None if by_staff else member))

    @rule(session=booked, stars=st.integers(1, 5))
    def rate(self, session, stars):
        """Stars, where they may be given."""
        trainer, session_id, member = session
        self.send(commands.RateSession(trainer, session_id, member, stars))

    @precondition(lambda self: self.clock.now() > MONDAY + timedelta(days=1))
    @rule(trainer=trainers)
    def retire(self, trainer):
        """The end of a career."""
        self.send(commands.RetireTrainer(trainer))

    @rule(hours=st.integers(1, 30))
    def pass_time(self, hours):
        """Sessions come and go."""
        self.clock.advance(3600 * hours)

    @rule()
    def project_a_batch(self):
        """The projector gets a turn."""
        self.runner.run(self.reads.projector.step())

    @invariant()
    def the_log_is_whole(self):
        """Positions are 1, 2, 3...; revisions too, for each trainer."""

        async def look():
            async with self.database.reading() as session:
                head = await session.scalar(select(log_head.c.position))
                count = await session.scalar(select(func.count()).select_from(events))
                by_trainer = select(func.max(events.c.revision), func.count()).group_by(
                    events.c.trainer_id
                )
                return head, count, (await session.execute(by_trainer)).all()

        head, count, revisions = self.runner.run(look())
        assert head == count
        assert all(highest == number for highest, number in revisions)

    async def _offered(self, trainer):
        """The beginnings of the slots of the next four days."""
        async with self.database.reading() as session:
            week = await session.scalar(
                select(written_trainers.c.week).where(written_trainers.c.id == trainer)
            )
        today = self.clock.now().date()
        return (
            []
            if week is None
            else [s.starts_at for s in WEEK.validate_python(week).spans(today, 4)]
        )

    async def _rows(self):
        async with self.database.reading() as session:
            return {
                table.name: sorted(map(repr, (await session.execute(select(table))).all()))
                for table in READ_MODEL
            }

    async def _compare(self):
        while await self.reads.projector.step():
            pass
        live = await self._rows()
        await run_transaction(self.database, lambda session: projector.rebuild(session, 7))
        assert await self._rows() == live
        async with self.database.reading() as session:
            # The read model is about the same world as the write model.
            for written, shown in (
                (sessions, calendar),
                (written_trainers, profiles),
            ):
                keys = [column.name for column in written.c if column.name in shown.c]
                both = []
                for table in (written, shown):
                    query = select(*(table.c[key] for key in keys))
                    both.append(sorted(map(repr, (await session.execute(query)).all())))
                assert both[0] == both[1]
            taken = select(occupied.c.session_id).distinct()
            held = select(sessions.c.id).where(sessions.c.status == "booked")
            assert set(await session.scalars(taken)) == set(await session.scalars(held))
            return Counter(await session.scalars(select(events.c.type)))


@pytest.mark.timeout(600)
def test_a_rebuilt_read_model_is_the_live_one():
    hypothesis.stateful.run_state_machine_as_test(
        Everything,
        settings=hypothesis.settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
    assert set(HAPPENED) == set(TYPES), HAPPENED
    assert HAPPENED["session.booked"] > 20
