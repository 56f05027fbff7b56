"""How refusals and the state of the read model are said over HTTP."""

from typing import Annotated, Any, NoReturn

from fastapi import Depends, Query, Response

from chassis.database import ReadSessionDep
from chassis.etags import ETAG_HEADER, etag
from chassis.problems import Problem, problems
from chassis.runtime import RuntimeDep
from chassis.security import Principal
from trainers import progress
from trainers.progress import Progress
from trainers.refusals import Conflict, NotFound, Refusal, Stale
from trainers.service import read_side

STAFF = "trainers:write"
_RETRY_AFTER = "1"
_MAX = 2**63 - 1

_PROJECTION: dict[str, Any] = {
    "X-Projection-Version": {
        "description": "The version of the read model that answered.",
        "schema": {"type": "integer"},
    },
    "X-Projection-Lag-Seconds": {
        "description": "How long the oldest change that it does not show has waited.",
        "schema": {"type": "number"},
    },
}


def viewer(caller: Principal) -> str | None:
    """Return whose sessions the caller may see and cancel: their own, or as staff all (None)."""
    return None if caller.has(STAFF) else caller.subject


def shows(description: str, *, tagged: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the `responses=` of a query: its answer, and the problems of waiting for it."""
    headers = {**_PROJECTION, **(ETAG_HEADER if tagged else {})}
    ok: dict[int | str, dict[str, Any]] = {200: {"description": description, "headers": headers}}
    return ok | problems(400, 401, 403, 422, 503)


def refuse(refusal: Refusal, headers: dict[str, str] | None = None) -> NoReturn:
    """End the request with what a handler refused.

    Raises:
        Problem: always: 404, 412 or 409.
    """
    match refusal:
        case NotFound():
            raise Problem(404, detail=str(refusal), headers=headers)
        case Stale():
            raise Problem(
                412,
                type="urn:slipway:problem:precondition-failed",
                detail=str(refusal),
                headers={"ETag": etag(refusal.revision)},
            )
        case Conflict():
            raise Problem(
                409,
                refusal.title,
                type=f"urn:slipway:problem:{refusal.code}",
                detail=str(refusal),
            )
    raise TypeError(f"{type(refusal).__name__} is no known refusal")


async def _fresh(
    response: Response,
    runtime: RuntimeDep,
    session: ReadSessionDep,
    at_least: Annotated[
        int | None,
        Query(
            ge=0,
            le=_MAX,
            description=(
                "The `version` of a command: wait until the answer shows it. 503 with "
                "`Retry-After` when that takes too long."
            ),
            examples=[57],
        ),
    ] = None,
) -> Progress:
    """Wait for the version that the caller needs, and say which one answers."""
    if at_least is not None:
        await _reach(runtime, at_least)
    found = await progress.read(session)
    response.headers.update(found.headers(runtime.clock.now()))
    return found


async def _reach(runtime: RuntimeDep, version: int) -> None:
    async with runtime.database.reading() as session:
        now = await progress.read(session)
    if now.position >= version:
        return
    if now.head < version:
        raise Problem(
            400,
            "Unknown version",
            type="urn:slipway:problem:unknown-version",
            detail=f"No command has answered with version {version}; the last is {now.head}.",
        )
    side = read_side(runtime)
    if not await side.projector.wait_for(version, side.settings.read_wait_seconds):
        raise Problem(
            503,
            "Not there yet",
            type="urn:slipway:problem:projection-behind",
            detail=f"The read model does not show version {version} yet; ask again, or without.",
            headers={"Retry-After": _RETRY_AFTER, **now.headers(runtime.clock.now())},
        )


Fresh = Annotated[Progress, Depends(_fresh, scope="function")]
"""Put it before anything that reads: the session of the request begins with it."""
