"""What the routes of every API version do; a version only chooses how an item looks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Protocol, Self

from fastapi import Response
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from chassis.etags import etag, not_modified, require_match
from chassis.idempotency import Idempotency
from chassis.ids import new_id
from chassis.merge_patch import patched
from chassis.pagination import Cursor, decode_cursor, encode_cursor, require_fit
from chassis.problems import Problem
from items import search, store
from items.domain import Content, Item
from items.query import ListQuery
from items.search import Position
from items.store import ItemExistsError, SkuTakenError, StaleError

# A cache may keep an item but must ask whether it changed, which costs a 304.
_CACHE = "no-cache"


class View(Protocol):
    """How a version shows an item."""

    @classmethod
    def of(cls, item: Item) -> BaseModel:
        """Show an item."""


class Write(Protocol):
    """How a version writes an item."""

    def content(self, old: Content | None = None) -> Content:
        """Return what is to be stored in place of `old`."""

    @classmethod
    def of(cls, content: Content) -> Self:
        """Return the document of an item that is stored."""

    @classmethod
    def model_validate(cls, obj: Any) -> Self:
        """Check a document."""

    def model_dump(self, *, mode: str) -> dict[str, Any]:
        """Return the document as JSON values."""


class WriteNew(Write, Protocol):
    """How a version writes a new item."""

    id: str | None


@dataclass(frozen=True, slots=True)
class Version:
    """What a version of the API chooses: where items are and how they look."""

    path: str
    view: type[View]
    write: type[Write]


def shown(item: Item, version: Version, status: int = 200) -> Response:
    """Answer with an item and its ETag; a new one also says where it is."""
    # Written here and not by the framework, which would check again what was just built.
    headers = {"ETag": etag(item.revision), "Cache-Control": _CACHE}
    if status == HTTPStatus.CREATED:
        headers["Location"] = f"{version.path}/{item.id}"
    body = version.view.of(item).model_dump_json()
    return Response(body, status, headers, media_type="application/json")


async def read(
    session: AsyncSession, item_id: str, if_none_match: str | None, version: Version
) -> Response:
    """Answer with one item, or 304 if the client has it."""
    item = await _found(session, item_id)
    if not_modified(if_none_match, item.revision):
        headers = {"ETag": etag(item.revision), "Cache-Control": _CACHE}
        return Response(status_code=304, headers=headers)
    return shown(item, version)


async def find(
    session: AsyncSession, query: ListQuery, page: Cursor
) -> tuple[list[Item], str | None]:
    """Return the items of one page and the cursor of the next."""
    if query.ids is not None:
        return await store.get_many(session, query.ids), None
    # A cursor holds for the list that it came from: the same filters in the same order.
    scope = f"{query.sort.value} {query.filters}"
    after = None
    if page.cursor is not None:
        values = decode_cursor(page.cursor, scope=scope)
        require_fit(values, search.sort_key(query.sort))
        after = Position(*values)
    ids, more = await search.find(session, query.filters, query.sort, after, page.limit)
    items = await store.get_many(session, ids)
    return items, encode_cursor((more.value, more.item_id), scope=scope) if more else None


async def create(
    session: AsyncSession,
    idempotency: Idempotency,
    body: WriteNew,
    now: datetime,
    version: Version,
) -> Response:
    """Add an item, once for each idempotency key."""
    replay = await idempotency.claim(session)
    if replay is not None and replay.completed:
        return replay.response()
    item = await _create(session, body.id or new_id(), body.content(), now)
    response = shown(item, version, 201)
    kept = {name: response.headers[name] for name in ("ETag", "Cache-Control", "Location")}
    return await idempotency.complete(session, 201, bytes(response.body), kept)


async def put(
    session: AsyncSession,
    item_id: str,
    body: Write,
    now: datetime,
    version: Version,
    *,
    if_match: str | None,
    if_none_match: str | None,
) -> Response:
    """Create an item under a chosen id, or replace the one that the client has read."""
    old = await store.get(session, item_id)
    if old is None:
        if if_match is not None:
            raise _precondition_failed("There is no such item.")
        item = await _create(session, item_id, body.content(), now)
        return shown(item, version, 201)
    if not_modified(if_none_match, old.revision):
        raise _precondition_failed("The item exists.")
    require_match(if_match, old.revision)
    return shown(await _replace(session, old, body.content(old.content), now), version)


async def patch(
    session: AsyncSession,
    item_id: str,
    change: Mapping[str, Any],
    now: datetime,
    version: Version,
    *,
    if_match: str | None,
) -> Response:
    """Apply a merge patch to the item as this version shows it."""
    old = await _found(session, item_id)
    require_match(if_match, old.revision)
    document = version.write.of(old.content).model_dump(mode="json")
    body = patched(version.write.model_validate, document, change)
    return shown(await _replace(session, old, body.content(old.content), now), version)


async def remove(session: AsyncSession, item_id: str, *, if_match: str | None) -> Response:
    """Delete the item that the client has read."""
    old = await _found(session, item_id)
    require_match(if_match, old.revision)
    try:
        await store.delete(session, old)
    except StaleError:
        raise _changed() from None
    return Response(status_code=204)


async def _found(session: AsyncSession, item_id: str) -> Item:
    item = await store.get(session, item_id)
    if item is None:
        raise Problem(404, detail=f"There is no item {item_id}.")
    return item


async def _create(session: AsyncSession, item_id: str, content: Content, now: datetime) -> Item:
    try:
        return await store.create(session, item_id, content, now)
    except ItemExistsError:
        raise Problem(
            409,
            "The id is taken",
            detail=f"There is an item {item_id} already.",
            type="urn:slipway:problem:item-exists",
        ) from None
    except SkuTakenError:
        raise _sku_taken(content.sku) from None


async def _replace(session: AsyncSession, old: Item, content: Content, now: datetime) -> Item:
    try:
        return await store.replace(session, old, content, now)
    except StaleError:
        raise _changed() from None
    except SkuTakenError:
        raise _sku_taken(content.sku) from None


def _sku_taken(sku: str) -> Problem:
    return Problem(
        409,
        "The SKU is taken",
        detail=f"Another item has the SKU {sku}.",
        type="urn:slipway:problem:sku-taken",
    )


def _changed() -> Problem:
    return _precondition_failed("It has changed since; read it again and repeat the change.")


def _precondition_failed(detail: str) -> Problem:
    return Problem(412, type="urn:slipway:problem:precondition-failed", detail=detail)
