"""The tasks service: what people have to do, each their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import chassis
from chassis import ApiVersion, Clock, Runtime, load_settings
from tasks import metrics
from tasks.api import router
from tasks.due_soon import due_soon_worker
from tasks.emptying import bin_worker
from tasks.settings import Settings

_DESCRIPTION = """
What people have to do. Everybody sees and changes their own tasks only; those of others do not
exist for them.

A change needs the `ETag` of the state that it is based on in `If-Match`, so that two devices of
one person do not overwrite each other. Times are RFC 3339 with their offset; answers are in UTC.
Whoever has a task that falls due within a day is notified of it once. A deleted task can be
restored for thirty days.
"""


@asynccontextmanager
async def _setup(runtime: Runtime) -> AsyncIterator[None]:
    metrics.register(runtime)
    yield


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Return the application; the settings come from the environment unless given.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    return chassis.create_app(
        settings or load_settings(Settings),
        title="Tasks",
        description=_DESCRIPTION,
        versions=[ApiVersion("v1", router)],
        outbox=True,
        idempotency=True,
        workers={"due-soon": due_soon_worker, "bin": bin_worker},
        setup=_setup,
        clock=clock,
    )
