"""The smallest service: one route behind auth. Copy this package to begin your own."""

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel, Field

from chassis import Clock, load_settings
from chassis import create_app as create_service
from chassis.problems import problems
from info.access import Authenticated
from info.settings import Settings

router = APIRouter(tags=["info"])


class Info(BaseModel):
    """What this service knows."""

    info: str = Field(examples=["The answer is 42."])


@router.get("/info", dependencies=[Authenticated], include_in_schema=False)
@router.get(
    "/info/",
    summary="Read the answer",
    dependencies=[Authenticated],
    responses=problems(401, 503),
)
async def read_info() -> Info:
    """Tell the answer to anybody whom auth knows."""
    return Info(info="The answer is 42.")


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Return the service: the chassis adds probes, metrics, traces, logs, problems and docs."""
    return create_service(
        settings or load_settings(Settings),
        title="info",
        description="Answers the one question, to callers whom auth knows.",
        routers=[router],
        clock=clock,
    )
