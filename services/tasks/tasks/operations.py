"""What the routes do to a task, in the transaction of the request."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import Response
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.etags import etag, not_modified, require_match
from chassis.idempotency import Idempotency
from chassis.ids import new_id
from chassis.merge_patch import patched
from chassis.problems import Problem
from chassis.runtime import Runtime
from tasks import domain, store
from tasks.domain import Content, Status, Task
from tasks.metrics import Event, metrics_of
from tasks.schemas import CompleteOut, CompletionOut, Outcome, TaskIn, TaskOut

# Nobody else's cache may keep a task; the owner's must ask whether it changed, which costs a 304.
_CACHE = "private, no-cache"


@dataclass(frozen=True, slots=True)
class Target:
    """The task that a request is about. `owner` is the caller: others' tasks are not found.

    With `to_change` it is locked: what is judged of it still holds when it is written.
    """

    session: AsyncSession
    runtime: Runtime
    task_id: str
    owner: str
    to_change: bool = False

    async def load(self) -> Task:
        """Return the task.

        Raises:
            Problem: 404, the caller has no such task. Nothing else is looked at before, so that
                nobody learns from another answer that somebody else has it.
        """
        task = await store.load(self.session, self.task_id, self.owner, to_change=self.to_change)
        if task is None:
            raise Problem(404, detail="You have no task with this id.")
        return task


def shown(task: Task, status: int = HTTPStatus.OK) -> Response:
    """Answer with a task and its ETag; a new one also says where it is."""
    # Written here and not by the framework, which would check again what was just built.
    headers = {"ETag": etag(task.version), "Cache-Control": _CACHE}
    if status == HTTPStatus.CREATED:
        headers["Location"] = f"/v1/tasks/{task.id}"
    body = TaskOut.of(task).model_dump_json()
    return Response(body, status, headers, media_type="application/json")


async def create(
    session: AsyncSession, runtime: Runtime, idempotency: Idempotency, owner: str, body: TaskIn
) -> Response:
    """Add a task, once for each idempotency key."""
    replay = await idempotency.claim(session)
    if replay is not None:
        return replay.response()
    task = domain.new(new_id(), owner, body.content(), runtime.clock.now())
    await store.add(session, task)
    metrics_of(runtime).count(session, "created")
    response = shown(task, HTTPStatus.CREATED)
    kept = {name: response.headers[name] for name in ("ETag", "Cache-Control", "Location")}
    return await idempotency.complete(session, response.status_code, bytes(response.body), kept)


async def read(target: Target, if_none_match: str | None) -> Response:
    """Answer with the task, or 304 if the client has it."""
    task = await target.load()
    if not_modified(if_none_match, task.version):
        headers = {"ETag": etag(task.version), "Cache-Control": _CACHE}
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return shown(task)


async def replace(target: Target, body: TaskIn, if_match: str | None) -> Response:
    """Write other content over what the client has read."""
    task = await _unlocked(target, if_match)
    return shown(await _write(target, task, body.content()))


async def patch(target: Target, change: Mapping[str, Any], if_match: str | None) -> Response:
    """Apply a merge patch to what the client has read."""
    task = await _unlocked(target, if_match)
    document = TaskIn.of(task.content).model_dump()
    body = patched(TaskIn.model_validate, document, change)
    return shown(await _write(target, task, body.content()))


async def complete(target: Target, if_match: str | None) -> Response:
    """Mark the task done."""
    task = await _unlocked(target, if_match)
    return shown(await _write(target, task, dataclasses.replace(task.content, status=Status.DONE)))


async def delete(target: Target, if_match: str | None) -> Response:
    """Put the task into the bin."""
    await _move(target, if_match, domain.deleted, "deleted")
    return Response(status_code=HTTPStatus.NO_CONTENT)


async def restore(target: Target, if_match: str | None) -> Response:
    """Take the task out of the bin."""
    return shown(await _move(target, if_match, domain.restored, "restored"))


async def complete_many(
    session: AsyncSession, runtime: Runtime, owner: str, ids: list[str]
) -> CompleteOut:
    """Mark tasks done, and tell for each id what became of it."""
    wanted = dict.fromkeys(ids)
    done, already = await store.complete(session, wanted, owner, runtime.clock.now())
    metrics_of(runtime).count(session, "completed", len(done))

    def outcome(task_id: str) -> Outcome:
        if task_id in done:
            return Outcome.COMPLETED
        return Outcome.ALREADY if task_id in already else Outcome.NOT_FOUND

    return CompleteOut(results=[CompletionOut(id=each, outcome=outcome(each)) for each in wanted])


async def _unlocked(target: Target, if_match: str | None) -> Task:
    """Return the task that the client has read, if it can be changed."""
    task = await target.load()
    require_match(if_match, task.version)
    if task.deleted_at is not None:
        raise Problem(
            409,
            "Task deleted",
            detail="The task is in the bin; restore it first.",
            type="urn:slipway:problem:task-deleted",
        )
    return task


async def _write(target: Target, before: Task, content: Content) -> Task:
    after = domain.with_content(before, content, target.runtime.clock.now())
    newly_done = after.completed_at is not None and before.completed_at is None
    return await _save(target, before, after, "completed" if newly_done else "changed")


async def _move(
    target: Target, if_match: str | None, change: Callable[..., Task], event: Event
) -> Task:
    task = await target.load()
    require_match(if_match, task.version)
    return await _save(target, task, change(task, target.runtime.clock.now()), event)


async def _save(target: Target, before: Task, after: Task, event: Event) -> Task:
    """Store a change. The same task again is none: its version and its ETag stay."""
    if after is before:
        return before
    await store.save(target.session, before, after)
    metrics_of(target.runtime).count(target.session, event)
    return after
