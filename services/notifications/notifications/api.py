"""The routes of notifications."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.database import ReadSessionDep, SessionDep
from chassis.idempotency import IdempotencyDep
from chassis.ids import new_id
from chassis.pagination import CursorParams, paginate
from chassis.problems import Problem, problems
from chassis.runtime import RuntimeDep
from chassis.security import Principal, requires
from notifications.channels import InApp
from notifications.models import Notification
from notifications.schemas import NotificationOut, NotificationPage, NotifyIn

router = APIRouter(tags=["notifications"])

Reader = Annotated[Principal, requires("notifications:read")]
Sender = Annotated[Principal, requires("notifications:send")]
NotificationId = Annotated[
    str,
    Path(
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
        examples=["0197a3c2-7a10-7d3e-8c55-1f0e9b7a6c31"],
    ),
]


@router.post(
    "/notify",
    status_code=201,
    response_model=NotificationOut,
    summary="Notify a user",
    tags=["sending"],
    responses=problems(401, 403, 409, 422),
)
async def notify(
    body: NotifyIn, caller: Sender, session: SessionDep, runtime: RuntimeDep, key: IdempotencyDep
) -> Response:
    """Send a notification to one user. Needs the scope `notifications:send`.

    Send an `Idempotency-Key` to repeat the request safely: one key makes one notification.
    """
    del caller  # the scope is all that matters
    replay = await key.claim(session)
    if replay is not None:
        return replay.response()
    row = Notification(
        id=new_id(),
        recipient=body.recipient,
        kind=body.kind,
        title=body.title,
        body=body.body,
        data={},
        event_id=None,
        created_at=runtime.clock.now(),
        read_at=None,
    )
    await InApp().deliver(session, row)
    return await key.complete(session, 201, NotificationOut.of(row))


@router.get("/notifications", summary="List your notifications", responses=problems(400, 401, 403))
async def list_notifications(
    caller: Reader,
    session: ReadSessionDep,
    page: CursorParams,
    unread: Annotated[
        bool | None, Query(description="true: only unread ones; false: only read ones.")
    ] = None,
) -> NotificationPage:
    """Return the caller's notifications, newest first."""
    query = select(Notification).where(Notification.recipient == caller.subject)
    if unread is not None:
        is_unread = Notification.read_at.is_(None)
        query = query.where(is_unread if unread else ~is_unread)
    rows, cursor = await paginate(
        session,
        query,
        [Notification.id.desc()],
        page,
        scope=f"notifications:{caller.subject}:{unread}",
    )
    return NotificationPage(items=[NotificationOut.of(row) for row in rows], next_cursor=cursor)


@router.get(
    "/notifications/{notification_id}",
    summary="Read a notification",
    responses=problems(401, 403, 404),
)
async def read_notification(
    notification_id: NotificationId, caller: Reader, session: ReadSessionDep
) -> NotificationOut:
    """Return one of the caller's notifications. Reading it does not mark it read."""
    return NotificationOut.of(await _own(session, notification_id, caller))


@router.post(
    "/notifications/{notification_id}/read",
    summary="Mark a notification read",
    responses=problems(401, 403, 404),
)
async def mark_read(
    notification_id: NotificationId, caller: Reader, session: SessionDep, runtime: RuntimeDep
) -> NotificationOut:
    """Mark one of the caller's notifications read. Again changes nothing: the first time stays."""
    await session.execute(
        update(Notification)
        .where(
            Notification.id == notification_id,
            Notification.recipient == caller.subject,
            Notification.read_at.is_(None),
        )
        .values(read_at=runtime.clock.now())
    )
    return NotificationOut.of(await _own(session, notification_id, caller))


async def _own(session: AsyncSession, notification_id: str, caller: Principal) -> Notification:
    row = await session.get(Notification, notification_id)
    if row is None or row.recipient != caller.subject:
        raise Problem(404, detail="You have no notification with this id.")
    return row
