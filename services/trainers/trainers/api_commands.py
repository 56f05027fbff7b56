"""The routes of the write side: each makes one command and says what became of it."""

from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Response
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import SessionDep, after_commit
from chassis.etags import ETAG_HEADER, IfMatch, etag, require_match
from chassis.idempotency import IdempotencyDep
from chassis.problems import problems
from chassis.runtime import Runtime, RuntimeDep
from chassis.security import Principal, requires
from trainers.answers import refuse, viewer
from trainers.commands import (
    AssignSpecialities,
    BookSession,
    CancelSession,
    Changed,
    ChangeProfile,
    RateSession,
    RegisterTrainer,
    RetireTrainer,
    SetAvailability,
)
from trainers.messages import Command
from trainers.refusals import Refusal
from trainers.schemas import (
    BookedOut,
    BookingIn,
    ChangedOut,
    ProfileIn,
    RatingIn,
    SessionId,
    SpecialitiesIn,
    TrainerId,
    WeekBody,
)
from trainers.service import write_side

C = TypeVar("C", bound=Changed)

router = APIRouter(prefix="/trainers", tags=["commands"])

MAY_WRITE = requires("trainers:write")
Member = Annotated[Principal, requires("trainers:book")]

_DONE: dict[int | str, dict[str, Any]] = {
    202: {"description": "Done; queries show it from `version` on.", "headers": ETAG_HEADER}
}
_NEW: dict[int | str, dict[str, Any]] = {
    201: {
        "headers": {
            **ETAG_HEADER,
            "Location": {"description": "Where queries show it.", "schema": {"type": "string"}},
        }
    }
}


async def tell(runtime: Runtime, session: AsyncSession, command: Command[C]) -> C:
    """Hand a command to its handler and count what became of it; a refusal becomes a problem."""
    side = write_side(runtime)
    name = type(command).__name__
    try:
        done = await side.commands.dispatch(session, command)
    except Refusal as refusal:
        side.metrics.commands.labels(name, "refused").inc()
        refuse(refusal)
    outcome = "changed" if done.changed else "unchanged"
    after_commit(session, side.metrics.commands.labels(name, outcome).inc)
    return done


def shown(done: Changed, response: Response) -> ChangedOut:
    """Answer with what a command did."""
    response.headers["ETag"] = etag(done.revision)
    return ChangedOut.of(done)


def based_on(if_match: str | None) -> str | None:
    """Return the precondition of a replacement.

    Raises:
        Problem: 428 without `If-Match`: it would undo what somebody else just wrote.
    """
    if if_match is None:
        require_match(None, "")
    return if_match


@router.post(
    "",
    status_code=201,
    response_model=ChangedOut,
    summary="Register a trainer",
    response_description="Registered; queries show it from `version` on.",
    responses=_NEW | problems(401, 403, 409, 422),
    dependencies=[MAY_WRITE],
)
async def register(
    body: ProfileIn, session: SessionDep, runtime: RuntimeDep, key: IdempotencyDep
) -> Response:
    """Add a trainer. Send an `Idempotency-Key`, so that a repeated request adds one."""
    replay = await key.claim(session)
    if replay is not None:
        return replay.response()
    done = await tell(runtime, session, RegisterTrainer(body.name, body.bio))
    headers = {"ETag": etag(done.revision), "Location": f"/v1/trainers/{done.trainer_id}"}
    return await key.complete(session, 201, ChangedOut.of(done), headers)


@router.put(
    "/{trainer_id}/profile",
    status_code=202,
    summary="Change a profile",
    responses=_DONE | problems(401, 403, 404, 409, 412, 428),
    dependencies=[MAY_WRITE],
)
async def change_profile(
    *,
    trainer_id: TrainerId,
    body: ProfileIn,
    session: SessionDep,
    runtime: RuntimeDep,
    response: Response,
    if_match: IfMatch = None,
) -> ChangedOut:
    """Replace name and biography. Needs `If-Match`."""
    command = ChangeProfile(trainer_id, body.name, body.bio, based_on(if_match))
    return shown(await tell(runtime, session, command), response)


@router.put(
    "/{trainer_id}/specialities",
    status_code=202,
    summary="Assign specialities",
    responses=_DONE | problems(401, 403, 404, 409, 412, 428),
    dependencies=[MAY_WRITE],
)
async def assign_specialities(
    *,
    trainer_id: TrainerId,
    body: SpecialitiesIn,
    session: SessionDep,
    runtime: RuntimeDep,
    response: Response,
    if_match: IfMatch = None,
) -> ChangedOut:
    """Replace all that a trainer teaches. Needs `If-Match`."""
    command = AssignSpecialities(trainer_id, tuple(body.specialities), based_on(if_match))
    return shown(await tell(runtime, session, command), response)


@router.put(
    "/{trainer_id}/availability",
    status_code=202,
    summary="Set the availability",
    responses=_DONE | problems(401, 403, 404, 409, 412, 428),
    dependencies=[MAY_WRITE],
)
async def set_availability(
    *,
    trainer_id: TrainerId,
    body: WeekBody,
    session: SessionDep,
    runtime: RuntimeDep,
    response: Response,
    if_match: IfMatch = None,
) -> ChangedOut:
    """Replace the weekly slots. Sessions that are booked stay. Needs `If-Match`."""
    command = SetAvailability(trainer_id, body.week(), based_on(if_match))
    return shown(await tell(runtime, session, command), response)


@router.post(
    "/{trainer_id}/retire",
    status_code=202,
    summary="Retire a trainer",
    responses=_DONE | problems(401, 403, 404, 412),
    dependencies=[MAY_WRITE],
)
async def retire(
    *,
    trainer_id: TrainerId,
    session: SessionDep,
    runtime: RuntimeDep,
    response: Response,
    if_match: IfMatch = None,
) -> ChangedOut:
    """End a trainer's work and cancel the sessions to come. Again changes nothing."""
    command = RetireTrainer(trainer_id, if_match)
    return shown(await tell(runtime, session, command), response)


@router.post(
    "/{trainer_id}/sessions",
    status_code=201,
    response_model=BookedOut,
    summary="Book a session",
    response_description="Booked; queries show it from `version` on.",
    responses=_NEW | problems(401, 403, 404, 409, 412, 422),
)
async def book(
    *,
    trainer_id: TrainerId,
    body: BookingIn,
    caller: Member,
    session: SessionDep,
    runtime: RuntimeDep,
    key: IdempotencyDep,
    if_match: IfMatch = None,
) -> Response:
    """Book the slot that begins at `starts_at`.

    409 `urn:slipway:problem:slot-taken`, `...:no-such-slot`, `...:not-bookable-now` or
    `...:trainer-retired`. Send an `Idempotency-Key` to repeat the request safely.
    """
    replay = await key.claim(session)
    if replay is not None:
        return replay.response()
    command = BookSession(trainer_id, caller.subject, body.starts_at, if_match)
    done = await tell(runtime, session, command)
    headers = {
        "ETag": etag(done.revision),
        "Location": f"/v1/trainers/{trainer_id}/sessions/{done.session_id}",
    }
    return await key.complete(session, 201, BookedOut.of_booking(done), headers)


@router.post(
    "/{trainer_id}/sessions/{session_id}/cancel",
    status_code=202,
    summary="Cancel a session",
    responses=_DONE | problems(401, 403, 404, 409, 412),
)
async def cancel(
    *,
    trainer_id: TrainerId,
    session_id: SessionId,
    caller: Member,
    session: SessionDep,
    runtime: RuntimeDep,
    response: Response,
    if_match: IfMatch = None,
) -> ChangedOut:
    """Give your session back before it begins; staff may cancel any. Again changes nothing."""
    command = CancelSession(trainer_id, session_id, viewer(caller), if_match)
    return shown(await tell(runtime, session, command), response)


@router.put(
    "/{trainer_id}/sessions/{session_id}/rating",
    status_code=202,
    summary="Rate a session",
    responses=_DONE | problems(401, 403, 404, 409, 412),
)
async def rate(
    *,
    trainer_id: TrainerId,
    session_id: SessionId,
    body: RatingIn,
    caller: Member,
    session: SessionDep,
    runtime: RuntimeDep,
    response: Response,
    if_match: IfMatch = None,
) -> ChangedOut:
    """Say how your session was, once it is over. Again replaces what you said."""
    command = RateSession(trainer_id, session_id, caller.subject, body.stars, if_match)
    return shown(await tell(runtime, session, command), response)
