"""The trainers application: its write side, its read side, or both in one process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from chassis import ApiVersion, Runtime, load_settings
from chassis import create_app as create_chassis_app
from chassis.clock import Clock
from trainers import api_commands, api_queries
from trainers.service import ReadSide, WriteSide, read_side
from trainers.settings import Settings

_DESCRIPTION = """
Trainers, when they work, and the sessions that members book with them.

Commands change the write model and append events to a log in one transaction; queries are answered
from a read model that is made of the log, a moment later. A command answers with a `version`: give
it to a query as `at_least`, and the answer shows the change.
"""


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Build the side that `role` names; settings come from the environment when none are given.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    settings = settings or load_settings(Settings)
    writes, reads = settings.role != "queries", settings.role != "commands"
    router = APIRouter()
    if writes:
        router.include_router(api_commands.router)
    if reads:
        router.include_router(api_queries.router)

    @asynccontextmanager
    async def setup(runtime: Runtime) -> AsyncIterator[None]:
        if writes:
            WriteSide(runtime)
        if reads:
            ReadSide(runtime)
        yield

    return create_chassis_app(
        settings,
        title="Trainers" if settings.role == "all" else f"Trainers: {settings.role}",
        description=_DESCRIPTION,
        versions=[ApiVersion("v1", router)],
        idempotency=writes,
        workers={"projector": _project} if reads else {},
        setup=setup,
        clock=clock,
    )


async def _project(runtime: Runtime) -> None:
    await read_side(runtime).projector.run()
