"""Pages by opaque cursor (keyset): stable while rows are inserted, as fast on page 1000 as on 1.

A cursor is the sort key of the last row, with a checksum. The checksum finds damage and a cursor
of another list; it is no secret and guards nothing: a query must restrict rows to what the
caller may see whatever the cursor says, and what a forged one holds is checked like any input.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Integer,
    Select,
    SmallInteger,
    UnaryExpression,
    and_,
    literal,
    or_,
    tuple_,
)
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.operators import desc_op, nulls_last_op
from sqlalchemy.types import TypeDecorator, TypeEngine

from chassis.problems import Problem

T = TypeVar("T")

DEFAULT_LIMIT = 20
MAX_LIMIT = 100
_CHECKSUM_BYTES = 8
_MAX_CURSOR = 4096
_MAX_INTEGER = 2**63


class Page(BaseModel, Generic[T]):
    """A page of a list; `next_cursor` asks for the next one and is null on the last."""

    items: list[T]
    next_cursor: str | None = Field(
        default=None, description="Give it as `cursor` for the next page; null on the last page."
    )


@dataclass(frozen=True)
class Cursor:
    """What a caller asks of a list: where to go on and how many."""

    cursor: str | None
    limit: int


# Async, although it awaits nothing: FastAPI runs a plain function in another thread.
async def _cursor_params(
    cursor: Annotated[
        str | None, Query(description="The `next_cursor` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Rows per page.")] = DEFAULT_LIMIT,
) -> Cursor:
    return Cursor(cursor, limit)


CursorParams = Annotated[Cursor, Depends(_cursor_params)]


def bad_cursor() -> Problem:
    """Return the problem for a cursor that this list did not give."""
    return Problem(
        400,
        type="urn:slipway:problem:bad-cursor",
        title="Bad cursor",
        detail="The cursor is damaged or of another list; start again without one.",
    )


def encode_cursor(values: Sequence[Any], *, scope: str = "") -> str:
    """Return an opaque cursor of a sort key: strings, integers, decimals, times, None.

    `scope` names the list (its filters and order); decoding asks for the same.

    Raises:
        TypeError: for a value of another type.
        ValueError: for a text or integer that no column can hold.
    """
    payload = json.dumps([_pack(value) for value in values], separators=(",", ":")).encode()
    return _encoded(_checksum(payload, scope) + payload)


def decode_cursor(cursor: str, *, scope: str = "") -> list[Any]:
    """Return the sort key in `cursor`.

    Raises:
        Problem: 400, if it was not made by `encode_cursor` for the same scope.
    """
    if len(cursor) > _MAX_CURSOR or not cursor.isascii():
        raise bad_cursor()
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raise bad_cursor() from None
    checksum, payload = raw[:_CHECKSUM_BYTES], raw[_CHECKSUM_BYTES:]
    # The last character has bits that no byte uses: one cursor has one spelling.
    if checksum != _checksum(payload, scope) or _encoded(raw) != cursor:
        raise bad_cursor()
    try:
        return [_unpack(tag, text) for tag, text in json.loads(payload)]
    except (ValueError, TypeError, ArithmeticError, RecursionError):
        raise bad_cursor() from None


def _encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _checksum(payload: bytes, scope: str) -> bytes:
    text = f"chassis.pagination:{len(scope)}:{scope}:".encode() + payload
    return hashlib.sha256(text).digest()[:_CHECKSUM_BYTES]


def _pack(value: Any) -> tuple[str, str]:
    match value:
        case None:
            return "n", ""
        case bool():
            return "b", str(int(value))
        case str():
            return "s", _storable(value)
        case int():
            return "i", str(_of_64_bits(value))
        case Decimal():
            return "d", str(value)
        case datetime() if value.tzinfo is not None:
            return "t", value.astimezone(UTC).isoformat()
    raise TypeError(f"{type(value).__name__} cannot be in a cursor")


def _unpack(tag: str, text: str) -> Any:
    match tag:
        case "n":
            return None
        case "b":
            return text == "1"
        case "s":
            return _storable(text)
        case "i":
            return _of_64_bits(int(text))
        case "d":
            return Decimal(text)
        case "t":
            return datetime.fromisoformat(text).astimezone(UTC)
    raise ValueError(tag)


def _storable(text: str) -> str:
    if "\x00" in text:
        raise ValueError("no database stores a NUL character")
    text.encode()  # a UnicodeEncodeError, which is a ValueError, for a lone surrogate
    return text


def _of_64_bits(number: int) -> int:
    if not -_MAX_INTEGER <= number < _MAX_INTEGER:
        raise ValueError("no column holds an integer of more than 64 bits")
    return number


def require_fit(values: Sequence[Any], order: Sequence[ColumnElement[Any]]) -> None:
    """Refuse a decoded sort key that cannot be one of these columns.

    Raises:
        Problem: 400, for another number of values or one that its column cannot hold.
    """
    if len(values) != len(order):
        raise bad_cursor()
    for value, key in zip(values, map(_key, order), strict=True):
        if value is None and key.nulls_last:
            continue
        kind = key.column.type
        try:
            while isinstance(kind, TypeDecorator):
                kind.process_bind_param(value, DefaultDialect())
                kind = kind.impl_instance
        except (ValueError, TypeError, ArithmeticError, AttributeError):
            raise bad_cursor() from None
        if not isinstance(value, kind.python_type) or not _is_wide_enough(kind, value):
            raise bad_cursor()


def _is_wide_enough(kind: TypeEngine[Any], value: Any) -> bool:
    """Tell whether PostgreSQL takes a value for one of this type; SQLite has one width."""
    match kind:
        case SmallInteger():
            bits = 16
        case BigInteger():
            bits = 64
        case Integer():
            bits = 32
        case _:
            return True
    edge = 1 << (bits - 1)
    return -edge <= int(value) < edge


@dataclass(frozen=True)
class _Key:
    """An element of ORDER BY."""

    column: ColumnElement[Any]
    descending: bool
    nulls_last: bool

    def beyond(self, value: Any) -> ColumnElement[bool]:
        """Tell which rows come after this value, but for those without one."""
        typed = self.typed(value)
        return self.column < typed if self.descending else self.column > typed

    def not_before(self, value: Any) -> ColumnElement[bool]:
        """Tell which rows have this value or one after it."""
        typed = self.typed(value)
        return self.column <= typed if self.descending else self.column >= typed

    def typed(self, value: Any) -> ColumnElement[Any]:
        return literal(value, type_=self.column.type)


def _key(order: ColumnElement[Any]) -> _Key:
    """Take an ORDER BY element apart."""
    modifiers = set()
    while isinstance(order, UnaryExpression) and order.modifier is not None:
        modifiers.add(order.modifier)
        order = order.element
    return _Key(order, desc_op in modifiers, nulls_last_op in modifiers)


def keyset(
    query: Select[Any], order: Sequence[ColumnElement[Any]], after: Sequence[Any] | None
) -> list[Select[Any]]:
    """Order `query` and let it begin after the row with the sort key `after`.

    `order` are columns (plain, `.asc()` or `.desc()`); one that may be null needs `.nulls_last()`
    as well, because databases differ. Together they must be unique, so the last one is usually
    the primary key.

    Returns:
        Queries whose rows, one after the other, are the list. If the first column may be null,
        rows without it have queries of their own: no index finds them and those beyond a value in
        one go, and read backwards it has them first on PostgreSQL.
    """
    keys = [*map(_key, order)]
    first = keys[0]
    query = query.order_by(first.column.desc() if first.descending else first.column, *order[1:])
    if after is not None:
        require_fit(after, order)
        return [query.where(each) for each in _beyond([*zip(keys, after, strict=True)])]
    if first.nulls_last:
        return [query.where(first.column.is_not(None)), query.where(first.column.is_(None))]
    return [query]


def _beyond(pairs: Sequence[tuple[_Key, Any]]) -> list[ColumnElement[bool]]:
    """Tell which rows come after a sort key, by conditions that follow each other in the order."""
    if not pairs:
        return []
    key, value = pairs[0]
    if value is None:
        return [and_(key.column.is_(None), each) for each in _beyond(pairs[1:])]
    found = [_beyond_value(pairs)]
    return [*found, key.column.is_(None)] if key.nulls_last else found


def _beyond_value(pairs: Sequence[tuple[_Key, Any]]) -> ColumnElement[bool]:
    """Tell which rows with a first value come after a sort key.

    An index is entered at the first of them: by a comparison of rows, or, where the columns do not
    run alike, by the bound on the first one. Without, it would be read from its start.
    """
    (key, value), rest = pairs[0], pairs[1:]
    if not rest:
        return key.beyond(value)
    if all(each.descending == key.descending and not each.nulls_last for each, _ in rest):
        columns = tuple_(*(each.column for each, _ in pairs))
        values = tuple_(*(each.typed(its) for each, its in pairs))
        return columns < values if key.descending else columns > values
    return and_(key.not_before(value), or_(key.beyond(value), *_beyond(rest)))


async def paginate(
    session: AsyncSession,
    query: Select[Any],
    order: Sequence[ColumnElement[Any]],
    params: Cursor,
    *,
    scope: str = "",
) -> tuple[list[Any], str | None]:
    """Return the rows of one page of `query` and the cursor of the next page.

    A query for an entity gives entities; any other gives rows, in which the columns of `order`
    must be selected.

    Raises:
        Problem: 400, for a cursor of another list.
    """
    after = None if params.cursor is None else decode_cursor(params.cursor, scope=scope)
    names = [str(_key(item).column.key) for item in order]
    single = len(query.column_descriptions) == 1
    rows: list[Any] = []
    for part in keyset(query, order, after):
        result = await session.execute(part.limit(params.limit + 1 - len(rows)))
        rows += result.scalars() if single else result
        if len(rows) > params.limit:
            break
    if len(rows) <= params.limit:
        return rows, None
    rows = rows[: params.limit]
    last = rows[-1]
    return rows, encode_cursor([getattr(last, name) for name in names], scope=scope)
