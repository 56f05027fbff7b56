"""The routes of tasks."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Response

from chassis.database import ReadSessionDep, SessionDep
from chassis.etags import ETAG_HEADER, NOT_MODIFIED, IfMatch, IfNoneMatch
from chassis.idempotency import IdempotencyDep
from chassis.merge_patch import MEDIA_TYPE, merge_patch_body
from chassis.pagination import CursorParams
from chassis.problems import problems
from chassis.runtime import RuntimeDep
from chassis.security import Principal, requires
from tasks import operations
from tasks.operations import Target
from tasks.query import ListQueryParams, find
from tasks.schemas import CompleteIn, CompleteOut, TaskId, TaskIn, TaskOut, TaskPage, TaskPatch

router = APIRouter(prefix="/tasks", tags=["tasks"])

Reader = Annotated[Principal, requires("tasks:read")]
Writer = Annotated[Principal, requires("tasks:write")]
TaskPath = Annotated[TaskId, Path()]

_LOCATION = {"Location": {"description": "Where the task is.", "schema": {"type": "string"}}}
_SHOWS: dict[int | str, dict[str, Any]] = {
    200: {"description": "The task", "headers": ETAG_HEADER},
}
_CREATES: dict[int | str, dict[str, Any]] = {
    201: {"description": "The new task", "headers": {**ETAG_HEADER, **_LOCATION}},
}
_CHANGE_PROBLEMS = problems(401, 403, 404, 409, 412, 428)


async def _read_target(
    task_id: TaskPath, caller: Reader, session: ReadSessionDep, runtime: RuntimeDep
) -> Target:
    return Target(session, runtime, task_id, caller.subject)


async def _write_target(
    task_id: TaskPath, caller: Writer, session: SessionDep, runtime: RuntimeDep
) -> Target:
    return Target(session, runtime, task_id, caller.subject, to_change=True)


ReadTarget = Annotated[Target, Depends(_read_target)]
WriteTarget = Annotated[Target, Depends(_write_target)]


@router.get("", summary="List your tasks", responses=problems(400, 401, 403, 422))
async def list_tasks(
    caller: Reader, session: ReadSessionDep, query: ListQueryParams, page: CursorParams
) -> TaskPage:
    """List the caller's tasks that fit all filters, newest first unless `sort` says otherwise.

    Pages are stable: what is added or deleted meanwhile neither repeats nor hides other tasks.
    """
    found, cursor = await find(session, caller.subject, query, page)
    return TaskPage(items=[TaskOut.of(task) for task in found], next_cursor=cursor)


@router.post(
    "",
    status_code=201,
    response_model=TaskOut,
    summary="Create a task",
    responses={**_CREATES, **problems(401, 403, 409)},
)
async def create_task(
    body: TaskIn, caller: Writer, session: SessionDep, runtime: RuntimeDep, key: IdempotencyDep
) -> Response:
    """Add a task. Send an `Idempotency-Key`, so that a repeated request adds it once."""
    return await operations.create(session, runtime, key, caller.subject, body)


@router.post("/complete", summary="Complete many tasks", responses=problems(401, 403))
async def complete_tasks(
    body: CompleteIn, caller: Writer, session: SessionDep, runtime: RuntimeDep
) -> CompleteOut:
    """Mark up to 100 tasks done, all in one transaction, whatever state they were read in.

    A repeated request changes nothing more: it tells `already` where it told `completed` before.
    """
    return await operations.complete_many(session, runtime, caller.subject, body.ids)


@router.get(
    "/{task_id}",
    response_model=TaskOut,
    summary="Read a task",
    responses={**_SHOWS, **NOT_MODIFIED, **problems(401, 403, 404)},
)
async def read_task(target: ReadTarget, if_none_match: IfNoneMatch = None) -> Response:
    """Read one of the caller's tasks, also from the bin (`deleted_at` is set then).

    304 if `If-None-Match` names the state that it still has.
    """
    return await operations.read(target, if_none_match)


@router.put(
    "/{task_id}",
    response_model=TaskOut,
    summary="Replace a task",
    responses={**_SHOWS, **_CHANGE_PROBLEMS},
)
async def replace_task(target: WriteTarget, body: TaskIn, if_match: IfMatch = None) -> Response:
    """Write a task anew; what is left out gets its default. Needs `If-Match`."""
    return await operations.replace(target, body, if_match)


@router.patch(
    "/{task_id}",
    response_model=TaskOut,
    summary="Change a task",
    responses={**_SHOWS, **_CHANGE_PROBLEMS},
    openapi_extra=merge_patch_body("TaskPatch"),
)
async def patch_task(
    target: WriteTarget,
    body: Annotated[TaskPatch, Body(media_type=MEDIA_TYPE)],
    if_match: IfMatch = None,
) -> Response:
    """Change some fields by a JSON merge patch (RFC 7396). Needs `If-Match`."""
    return await operations.patch(target, body, if_match)


@router.delete(
    "/{task_id}",
    status_code=204,
    summary="Delete a task",
    responses=problems(401, 403, 404, 412, 428),
)
async def delete_task(target: WriteTarget, if_match: IfMatch = None) -> Response:
    """Put a task into the bin, where `?deleted=true` lists it until it is emptied.

    Needs `If-Match`.
    """
    return await operations.delete(target, if_match)


@router.post(
    "/{task_id}/complete",
    response_model=TaskOut,
    summary="Complete a task",
    responses={**_SHOWS, **_CHANGE_PROBLEMS},
)
async def complete_task(target: WriteTarget, if_match: IfMatch = None) -> Response:
    """Mark a task done. Done already, it stays as it is. Needs `If-Match`."""
    return await operations.complete(target, if_match)


@router.post(
    "/{task_id}/restore",
    response_model=TaskOut,
    summary="Restore a task",
    responses={**_SHOWS, **problems(401, 403, 404, 412, 428)},
)
async def restore_task(target: WriteTarget, if_match: IfMatch = None) -> Response:
    """Take a task out of the bin. Not in it, it stays as it is. Needs `If-Match`."""
    return await operations.restore(target, if_match)
