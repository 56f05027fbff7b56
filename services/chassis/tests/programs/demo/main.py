"""Its routes answer after some time; its stream says goodbye some time after the signal."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, WebSocket

from chassis import Runtime, RuntimeDep, load_settings
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


@router.websocket("/stream")
async def stream(socket: WebSocket, runtime: RuntimeDep, seconds: float = 0.0) -> None:
    lifecycle = runtime.lifecycle
    lifecycle.streams += 1
    try:
        await socket.accept()
        while not lifecycle.draining:  # noqa: ASYNC110  (as a service looks at it)
            await asyncio.sleep(0.01)
        await asyncio.sleep(seconds)
        await socket.send_text("goodbye")
        await socket.close(1012)
    finally:
        lifecycle.streams -= 1


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
