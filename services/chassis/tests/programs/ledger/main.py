"""Counts the rows of its table when it starts."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI
from sqlalchemy import text

from chassis import Runtime, RuntimeDep, load_settings
from chassis import create_app as chassis_app
from ledger.settings import Settings

router = APIRouter()


@router.get("/rows")
async def rows(runtime: RuntimeDep) -> int:
    return int(runtime.extras["rows"])


@asynccontextmanager
async def setup(runtime: Runtime) -> AsyncIterator[None]:
    async with runtime.database.reading() as session:
        runtime.extras["rows"] = (await session.execute(text("SELECT count(*) FROM t"))).scalar()
    yield


def create_app(settings: Settings | None = None) -> FastAPI:
    return chassis_app(
        settings or load_settings(Settings),
        title="Ledger",
        description="",
        routers=[router],
        setup=setup,
    )
