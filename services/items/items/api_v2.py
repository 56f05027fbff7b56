"""Version 2 of the API: an item has a price for each currency it is sold in."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Response

from chassis.database import ReadSessionDep, SessionDep
from chassis.etags import NOT_MODIFIED, IfMatch, IfNoneMatch
from chassis.idempotency import IdempotencyDep
from chassis.merge_patch import MEDIA_TYPE, merge_patch_body
from chassis.pagination import CursorParams, Page
from chassis.problems import problems
from chassis.runtime import RuntimeDep
from chassis.security import requires
from items import operations
from items.openapi import creates_item, shows_item
from items.query import ListQueryParams
from items.schemas import ItemId
from items.schemas_v2 import ItemCreateV2, ItemPatchV2, ItemV2, ItemWriteV2

VERSION = operations.Version("/v2/items", view=ItemV2, write=ItemWriteV2)

ItemPath = Annotated[ItemId, Path()]
MAY_WRITE = requires("items:write")

router = APIRouter(prefix="/items", tags=["items"])


@router.get("", summary="List items", responses=problems(400, 422))
async def list_items(
    query: ListQueryParams, page: CursorParams, session: ReadSessionDep
) -> Page[ItemV2]:
    """List items that fit all filters, newest first unless `sort` says otherwise.

    Pages are stable: what is added or deleted meanwhile neither repeats nor hides other items.
    `ids` reads up to 100 items at once; those that do not exist are left out.
    """
    items, cursor = await operations.find(session, query, page)
    return Page[ItemV2](items=[ItemV2.of(item) for item in items], next_cursor=cursor)


@router.post(
    "",
    summary="Create an item",
    status_code=201,
    response_model=ItemV2,
    responses={**creates_item(ItemV2), **problems(401, 403, 409)},
    dependencies=[MAY_WRITE],
)
async def create_item(
    body: ItemCreateV2, session: SessionDep, runtime: RuntimeDep, idempotency: IdempotencyDep
) -> Response:
    """Add an item. Send an `Idempotency-Key`, so that a repeated request adds it once."""
    now = runtime.clock.now()
    return await operations.create(session, idempotency, body, now, VERSION)


@router.get(
    "/{item_id}",
    summary="Read an item",
    response_model=ItemV2,
    responses={**shows_item(), **NOT_MODIFIED, **problems(404)},
)
async def read_item(
    item_id: ItemPath, session: ReadSessionDep, if_none_match: IfNoneMatch = None
) -> Response:
    """Read one item; 304 if `If-None-Match` names the state that it still has."""
    return await operations.read(session, item_id, if_none_match, VERSION)


@router.put(
    "/{item_id}",
    summary="Create or replace an item",
    response_model=ItemV2,
    responses={**shows_item(), **creates_item(ItemV2), **problems(401, 403, 409, 412, 428)},
    dependencies=[MAY_WRITE],
)
async def put_item(
    *,
    item_id: ItemPath,
    body: ItemWriteV2,
    session: SessionDep,
    runtime: RuntimeDep,
    if_match: IfMatch = None,
    if_none_match: IfNoneMatch = None,
) -> Response:
    """Create an item under an id of your choice, or replace the one that you have read.

    Replacing needs `If-Match` with the ETag that was read. `If-None-Match: *` only creates.
    """
    return await operations.put(
        session,
        item_id,
        body,
        runtime.clock.now(),
        VERSION,
        if_match=if_match,
        if_none_match=if_none_match,
    )


@router.patch(
    "/{item_id}",
    summary="Change an item",
    response_model=ItemV2,
    responses={**shows_item(), **problems(401, 403, 404, 409, 412, 428)},
    openapi_extra=merge_patch_body("ItemPatchV2"),
    dependencies=[MAY_WRITE],
)
async def patch_item(
    item_id: ItemPath,
    body: Annotated[ItemPatchV2, Body(media_type=MEDIA_TYPE)],
    session: SessionDep,
    runtime: RuntimeDep,
    if_match: IfMatch = None,
) -> Response:
    """Change some fields by a JSON merge patch (RFC 7396). Needs `If-Match`."""
    return await operations.patch(
        session, item_id, body, runtime.clock.now(), VERSION, if_match=if_match
    )


@router.delete(
    "/{item_id}",
    summary="Delete an item",
    status_code=204,
    responses=problems(401, 403, 404, 412, 428),
    dependencies=[MAY_WRITE],
)
async def delete_item(item_id: ItemPath, session: SessionDep, if_match: IfMatch = None) -> Response:
    """Delete an item. Needs `If-Match`. Orders keep the name and price that they were made with."""
    return await operations.remove(session, item_id, if_match=if_match)
