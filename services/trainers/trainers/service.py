"""What one process holds: the dispatchers of its side, with a handler for each message."""

from typing import cast

from chassis.runtime import Runtime
from trainers import booking, commands, queries, staff
from trainers.messages import Dispatcher
from trainers.metrics import CommandMetrics, ProjectionMetrics
from trainers.projector import Projector
from trainers.settings import Settings

_WRITE = "trainers.write"
_READ = "trainers.read"


class WriteSide:
    """Commands and what counts them."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        assert isinstance(settings, Settings)
        clock = runtime.clock
        self.metrics = CommandMetrics(runtime.registry)
        self.commands = Dispatcher()
        self.commands.register(commands.RegisterTrainer, staff.Register(clock))
        self.commands.register(commands.ChangeProfile, staff.Present(clock))
        self.commands.register(commands.AssignSpecialities, staff.Assign(clock))
        self.commands.register(commands.SetAvailability, staff.Schedule(clock))
        self.commands.register(commands.RetireTrainer, staff.Retire(clock))
        self.commands.register(commands.BookSession, booking.Book(clock, settings.booking_days))
        self.commands.register(commands.CancelSession, booking.Cancel(clock))
        self.commands.register(commands.RateSession, booking.Rate(clock))
        runtime.extras[_WRITE] = self


class ReadSide:
    """Queries and the projector behind them."""

    def __init__(self, runtime: Runtime) -> None:
        settings = runtime.settings
        assert isinstance(settings, Settings)
        self.settings = settings
        self.queries = Dispatcher()
        self.queries.register(queries.GetProfile, queries.Profiles())
        self.queries.register(queries.SearchTrainers, queries.Search())
        schedule = queries.Schedule(runtime.clock, settings.booking_days)
        self.queries.register(queries.GetSchedule, schedule)
        self.queries.register(queries.GetSession, queries.Sessions())
        self.projector = Projector(runtime, settings, ProjectionMetrics(runtime.registry))
        runtime.extras[_READ] = self


def write_side(runtime: Runtime) -> WriteSide:
    """Return the write side of this process."""
    return cast("WriteSide", runtime.extras[_WRITE])


def read_side(runtime: Runtime) -> ReadSide:
    """Return the read side of this process."""
    return cast("ReadSide", runtime.extras[_READ])
