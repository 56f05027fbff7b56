"""Its one route: answers after some time, with the id of the process."""

import asyncio
import os

from fastapi import APIRouter, FastAPI

from chassis import create_app as chassis_app
from chassis import load_settings
from demo.settings import Settings

router = APIRouter()


@router.get("/slow")
async def slow(seconds: float = 0.0) -> dict[str, int]:
    await asyncio.sleep(seconds)
    return {"pid": os.getpid()}


@router.get("/secret")
async def secret() -> None:
    raise RuntimeError("postgresql://demo:hunter2hunter2@db/demo refused Bearer abcdefghijkl")


def create_app(settings: Settings | None = None) -> FastAPI:
    return chassis_app(
        settings or load_settings(Settings), title="Demo", description="", routers=[router]
    )
