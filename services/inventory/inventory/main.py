"""The inventory application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from chassis import ApiVersion, Runtime, load_settings
from chassis import create_app as create_chassis_app
from chassis.clock import Clock
from inventory import api_reservations, api_stock
from inventory.expiry import expiry_worker
from inventory.metrics import Metrics, gauge_worker
from inventory.settings import Settings

DESCRIPTION = """\
How many units of each item there are, and who they are promised to.

An order *reserves* units, and then *confirms* or *releases* them; a promise that is neither
*expires*. Under any number of concurrent requests the stock is never negative and never oversold.
"""


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Build the application; settings come from the environment when none are given.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    router = APIRouter()
    router.include_router(api_stock.router)
    router.include_router(api_reservations.router)
    return create_chassis_app(
        settings or load_settings(Settings),
        title="Inventory",
        description=DESCRIPTION,
        versions=[ApiVersion("v1", router)],
        idempotency=True,
        workers={"expiry": expiry_worker, "gauges": gauge_worker},
        setup=_setup,
        clock=clock,
    )


@asynccontextmanager
async def _setup(runtime: Runtime) -> AsyncIterator[None]:
    runtime.extras["metrics"] = Metrics.register(runtime.registry)
    yield
