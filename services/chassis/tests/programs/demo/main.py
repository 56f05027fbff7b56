"""Its one route: answers after some time, with the id of the process."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

from chassis import Runtime, load_settings
from chassis import create_app as chassis_app
from chassis.settings import SettingsError
from demo.settings import Settings

router = APIRouter()


@router.get("/slow")
async def slow(seconds: float = 0.0) -> dict[str, int]:
    await asyncio.sleep(seconds)
    return {"pid": os.getpid()}


@router.get("/secret")
async def secret() -> None:
    raise RuntimeError("postgresql://demo:hunter2hunter2@db/demo refused Bearer abcdefghijkl")


@asynccontextmanager
async def _setup(runtime: Runtime) -> AsyncIterator[None]:
    match os.environ.get("DEMO_SETUP"):
        case "refuses":
            raise SettingsError("DEMO_KEY: does not open the store; give the key it was made with")
        case "fails":
            raise RuntimeError("a mistake of ours")
    yield


def create_app(settings: Settings | None = None) -> FastAPI:
    return chassis_app(
        settings or load_settings(Settings),
        title="Demo",
        description="",
        routers=[router],
        setup=_setup,
    )
