"""The query parameters of the list of items."""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Annotated

from fastapi import Depends, Query
from fastapi.exceptions import RequestValidationError

from items.domain import Status
from items.schemas import Slug
from items.search import Filters, Sort

MAX_IDS = 100
_ID = r"[a-z0-9][a-z0-9-]{0,62}"

Amount = Annotated[Decimal, Query(ge=0, max_digits=18, decimal_places=4, examples=["19.99"])]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """What a client asks of the list: some items by id, or those that fit the filters."""

    ids: list[str] | None
    filters: Filters
    sort: Sort


async def _list_query(
    *,
    ids: Annotated[
        str | None,
        Query(
            pattern=rf"^{_ID}(,{_ID}){{0,{MAX_IDS - 1}}}$",
            description=(
                f"Up to {MAX_IDS} ids, separated by commas. All that exist are answered in this "
                "order, on one page; no other parameter may be given."
            ),
            examples=["walnut-desk,wool-throw"],
        ),
    ] = None,
    q: Annotated[
        str | None,
        Query(
            max_length=100,
            description=(
                "Words that an item has, or their beginnings: in the name, the SKU, the "
                "description, the category or the tags."
            ),
            examples=["walnut des"],
        ),
    ] = None,
    category: Annotated[Slug | None, Query(examples=["furniture"])] = None,
    tag: Annotated[
        list[Slug],
        Query(max_length=10, description="Repeat it for items that have all of the tags."),
    ] = [],  # noqa: B006  (FastAPI copies it)
    status: Annotated[Status | None, Query()] = None,
    currency: Annotated[
        str | None,
        Query(
            pattern="^[A-Z]{3}$",
            description="Items with a price in this currency.",
            examples=["EUR"],
        ),
    ] = None,
    price_min: Annotated[Amount | None, Query(description="Needs `currency`.")] = None,
    price_max: Annotated[Amount | None, Query(description="Needs `currency`.")] = None,
    sort: Annotated[
        Sort,
        Query(description="A minus sign means descending. By price needs `currency`."),
    ] = Sort.CREATED_DESC,
) -> ListQuery:
    filters = Filters(
        text=q or None,
        category=category,
        tags=tuple(sorted(set(tag))),
        status=status,
        currency=currency,
        price_min=price_min,
        price_max=price_max,
    )
    if ids is not None and filters != Filters():
        raise invalid("ids", "ids cannot be combined with filters")
    if currency is None and (sort.by_price or price_min is not None or price_max is not None):
        raise invalid("currency", "prices can be compared in one currency only; give currency")
    return ListQuery(ids.split(",") if ids else None, filters, sort)


ListQueryParams = Annotated[ListQuery, Depends(_list_query)]


def base_prices(query: ListQuery) -> ListQuery:
    """Let a query look at base prices only, as v1 must, which shows no others."""
    return replace(query, filters=replace(query.filters, base_only=True))


def invalid(parameter: str, message: str) -> RequestValidationError:
    """Return the 422 for a query parameter."""
    error = {"type": "value_error", "loc": ("query", parameter), "msg": message, "input": None}
    return RequestValidationError([error])
