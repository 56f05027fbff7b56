"""The routes of the read side: queries, answered from the read model."""

from datetime import date
from decimal import Decimal
from typing import Annotated, TypeVar

from fastapi import APIRouter, Query, Response
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import ReadSessionDep
from chassis.etags import etag
from chassis.pagination import CursorParams
from chassis.problems import problems
from chassis.runtime import Runtime, RuntimeDep
from chassis.security import Principal, requires
from trainers import messages
from trainers.answers import Fresh, refuse, shows, viewer
from trainers.progress import Progress
from trainers.queries import GetProfile, GetSchedule, GetSession, SearchTrainers, Sort
from trainers.refusals import Refusal
from trainers.schemas import (
    EntryOut,
    ProfileOut,
    ProfilePage,
    ScheduleOut,
    SessionId,
    SessionOut,
    Speciality,
    TrainerId,
)
from trainers.service import read_side
from trainers.slots import Day

R = TypeVar("R")

router = APIRouter(prefix="/trainers", tags=["queries"])

Reader = Annotated[Principal, requires("trainers:read")]
_MAX_DAYS = 31


async def ask(
    runtime: Runtime, session: AsyncSession, fresh: Progress, query: messages.Query[R]
) -> R:
    """Hand a query to its handler; a refusal becomes a problem."""
    try:
        return await read_side(runtime).queries.dispatch(session, query)
    except Refusal as refusal:
        refuse(refusal, fresh.headers(runtime.clock.now()))


@router.get("", summary="Search trainers", responses=shows("Trainers who work and fit."))
async def search(
    *,
    caller: Reader,
    fresh: Fresh,
    session: ReadSessionDep,
    runtime: RuntimeDep,
    page: CursorParams,
    speciality: Annotated[Speciality | None, Query(description="What they teach.")] = None,
    day: Annotated[
        Day | None, Query(description="A day on which they have slots, in their time zone.")
    ] = None,
    min_rating: Annotated[
        Decimal | None,
        Query(ge=1, le=5, max_digits=3, decimal_places=2, description="Stars on average."),
    ] = None,
    sort: Annotated[Sort, Query(description="A minus sign means descending.")] = Sort.RATING_DESC,
) -> ProfilePage:
    """Find trainers by what they teach, when they work and how they are rated."""
    del caller  # the scope is all that matters
    query = SearchTrainers(
        page=page,
        speciality=speciality,
        day=day,
        min_rating=0 if min_rating is None else int(min_rating.scaleb(2)),
        sort=sort,
    )
    found, cursor = await ask(runtime, session, fresh, query)
    return ProfilePage(items=[ProfileOut.of(each) for each in found], next_cursor=cursor)


@router.get(
    "/{trainer_id}",
    summary="Read a profile",
    responses=shows("The trainer.", tagged=True) | problems(404),
)
async def read_profile(
    *,
    trainer_id: TrainerId,
    caller: Reader,
    fresh: Fresh,
    session: ReadSessionDep,
    runtime: RuntimeDep,
    response: Response,
) -> ProfileOut:
    """Return how a trainer is presented, also one who retired."""
    del caller
    found = await ask(runtime, session, fresh, GetProfile(trainer_id))
    response.headers["ETag"] = etag(found.revision)
    return ProfileOut.of(found)


@router.get(
    "/{trainer_id}/schedule",
    summary="Read a schedule",
    responses=shows("Free slots to come, and booked times.") | problems(404),
)
async def read_schedule(
    *,
    trainer_id: TrainerId,
    caller: Reader,
    fresh: Fresh,
    session: ReadSessionDep,
    runtime: RuntimeDep,
    first: Annotated[
        date | None,
        Query(
            alias="from",
            ge=date(2000, 1, 1),
            le=date(2999, 1, 1),
            description="The first day, in the trainer's time zone; by default today.",
            examples=["2026-12-07"],
        ),
    ] = None,
    days: Annotated[int, Query(ge=1, le=_MAX_DAYS, description="How many days.")] = 7,
) -> ScheduleOut:
    """Return what can be booked, and what is. Who has booked is told to nobody but them."""
    query = GetSchedule(trainer_id, first, days, viewer(caller))
    found = await ask(runtime, session, fresh, query)
    return ScheduleOut(entries=[EntryOut.of(entry) for entry in found])


@router.get(
    "/{trainer_id}/sessions/{session_id}",
    summary="Read a session",
    responses=shows("Your session.") | problems(404),
)
async def read_session(
    *,
    trainer_id: TrainerId,
    session_id: SessionId,
    caller: Reader,
    fresh: Fresh,
    session: ReadSessionDep,
    runtime: RuntimeDep,
) -> SessionOut:
    """Return one of your sessions; staff sees those of all."""
    query = GetSession(trainer_id, session_id, viewer(caller))
    return SessionOut.of(await ask(runtime, session, fresh, query))
