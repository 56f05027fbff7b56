"""A service that tells of its own life, and that can be slow."""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

import chassis
from chassis import Runtime, RuntimeDep
from demo.settings import Settings

router = APIRouter()
STATE = random.getstate()


class Life(BaseModel):
    """Where a request is served."""

    process: int
    loop: int
    opened: int
    instance: str
    reseeded: bool


@router.get("/life")
async def life(runtime: RuntimeDep) -> Life:
    return Life(
        process=os.getpid(),
        loop=id(asyncio.get_running_loop()),
        opened=runtime.extras["opened"],
        instance=runtime.settings.instance,
        reseeded=runtime.extras["reseeded"],
    )


@router.get("/slow")
async def slow(seconds: float, stubborn: bool = False) -> None:
    ends = time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        try:
            await asyncio.sleep(left)
        except asyncio.CancelledError:
            if not stubborn:
                raise


@router.get("/half")
async def half(seconds: float) -> StreamingResponse:
    async def parts() -> AsyncIterator[bytes]:
        yield b"the first half"
        await asyncio.sleep(seconds)

    return StreamingResponse(parts())


@router.get("/crash")
async def crash() -> None:
    raise RuntimeError("on purpose")


@asynccontextmanager
async def _setup(runtime: Runtime) -> AsyncIterator[None]:
    settings = runtime.settings
    assert isinstance(settings, Settings)
    runtime.extras["opened"] = runtime.extras.get("opened", 0) + 1
    runtime.extras["reseeded"] = random.getstate() != STATE
    _mark(settings, "opened")
    yield
    _mark(settings, "closed")


def _mark(settings: Settings, text: str) -> None:
    if settings.marks:
        with Path(settings.marks).open("a") as file:
            file.write(f"{text}\n")


async def _work(_: Runtime) -> None:
    await asyncio.Event().wait()


def create_app(settings: Settings) -> FastAPI:
    return chassis.create_app(
        settings,
        title="demo",
        description="d",
        routers=[router],
        workers={"own-loop": _work} if settings.worker else {},
        setup=_setup,
    )
