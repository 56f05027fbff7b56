"""What Prometheus is told about tasks."""

from typing import Literal, cast, get_args

from prometheus_client import CollectorRegistry, Counter
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import after_commit
from chassis.runtime import Runtime

Event = Literal["created", "changed", "completed", "deleted", "restored", "purged", "due_soon"]
EVENTS: tuple[Event, ...] = get_args(Event)
_KEY = "metrics"


class TaskMetrics:
    """The counter of one process: `tasks_total` counts once what was committed."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._events = Counter(
            "tasks_total", "What happened to tasks.", ["event"], registry=registry
        )
        for event in EVENTS:
            self._events.labels(event)

    def count(self, session: AsyncSession, event: Event, number: int = 1) -> None:
        """Count `number` of `event` once the transaction of `session` is committed."""
        after_commit(session, lambda: self._events.labels(event).inc(number))


def register(runtime: Runtime) -> None:
    """Create the instruments of this application."""
    runtime.extras[_KEY] = TaskMetrics(runtime.registry)


def metrics_of(runtime: Runtime) -> TaskMetrics:
    """Return the instruments of this application."""
    return cast("TaskMetrics", runtime.extras[_KEY])
