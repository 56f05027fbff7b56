"""The orders service: places orders as a saga over items and inventory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

import chassis
from chassis import ApiVersion, Clock, Runtime, load_settings
from orders.api import router
from orders.service import Orders, orders_of
from orders.settings import Settings
from orders.worker import watch

_DESCRIPTION = """
Places orders. An order is priced from the catalogue, its stock is set aside at inventory, and its
owner is notified once it is confirmed. Every accepted order ends confirmed, rejected or cancelled,
whatever fails meanwhile: the steps are stored, repeatable, and finished by any instance.
"""


@asynccontextmanager
async def _setup(runtime: Runtime) -> AsyncIterator[None]:
    Orders(runtime)
    yield


async def _recover(runtime: Runtime) -> None:
    await orders_of(runtime).recovery.run()


async def _watch(runtime: Runtime) -> None:
    await watch(runtime, orders_of(runtime).metrics)


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Return the application; the settings come from the environment unless given."""
    return chassis.create_app(
        settings or load_settings(Settings),
        title="Orders",
        description=_DESCRIPTION,
        versions=[ApiVersion("v1", router)],
        outbox=True,
        idempotency=True,
        workers={"saga-recovery": _recover, "saga-gauges": _watch},
        setup=_setup,
        clock=clock,
    )
