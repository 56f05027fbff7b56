"""Version 2 of the API: an item has a price for each currency it is sold in."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import AfterValidator, ConfigDict, Field, with_config

from chassis.money import Money
from items.domain import Content, Item
from items.schemas import (
    EXAMPLE_PRICE,
    EXAMPLE_TIMES,
    ItemBody,
    ItemFields,
    ItemId,
    PatchFields,
    Price,
    with_example,
)

MAX_PRICES = 20
EXAMPLE_PRICES = [EXAMPLE_PRICE, {"amount": "595.00", "currency": "USD"}]


def _one_each(prices: list[Money]) -> list[Money]:
    currencies = [price.currency for price in prices]
    if len(set(currencies)) < len(currencies):
        raise ValueError("each currency may appear once")
    return prices


Prices = Annotated[
    list[Price],
    Field(
        min_length=1,
        max_length=MAX_PRICES,
        description="One price for each currency; the first is the one that v1 shows.",
    ),
    AfterValidator(_one_each),
]


class ItemV2(ItemFields):
    """An item of the catalogue."""

    model_config = with_example(id="walnut-desk", prices=EXAMPLE_PRICES, **EXAMPLE_TIMES)

    id: ItemId
    prices: Prices
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, item: Item) -> "ItemV2":
        """Show an item as v2 does; what is stored needs no validation."""
        content = item.content
        return ItemV2.model_construct(
            id=item.id,
            sku=content.sku,
            name=content.name,
            description=content.description,
            category=content.category,
            tags=list(content.tags),
            status=content.status,
            prices=list(content.prices),
            created_at=item.created_at,
            updated_at=item.updated_at,
        )


class ItemWriteV2(ItemBody):
    """All that a client writes of an item."""

    model_config = with_example(forbid=True, prices=EXAMPLE_PRICES)

    prices: Prices

    def content(self, old: Content | None = None) -> Content:  # noqa: ARG002  (v1 needs it)
        """Return what is to be stored; v2 says everything, so nothing of `old` stays."""
        return Content(
            sku=self.sku,
            name=self.name,
            description=self.description,
            category=self.category,
            tags=tuple(self.tags),
            status=self.status,
            prices=tuple(self.prices),
        )

    @classmethod
    def of(cls, content: Content) -> Self:
        """Return the document that a merge patch of v2 applies to."""
        return cls(
            sku=content.sku,
            name=content.name,
            description=content.description,
            category=content.category,
            tags=list(content.tags),
            status=content.status,
            prices=list(content.prices),
        )


class ItemCreateV2(ItemWriteV2):
    """A new item. Without an `id` the service chooses a UUID."""

    model_config = with_example(forbid=True, id="walnut-desk", prices=EXAMPLE_PRICES)

    id: ItemId | None = None


@with_config(ConfigDict(extra="forbid", json_schema_extra={"example": {"status": "discontinued"}}))
class ItemPatchV2(PatchFields, total=False):
    """A merge patch (RFC 7396): the fields to change; null puts back the default of a field.

    Prices are an array, which a merge patch replaces as a whole.
    """

    prices: Prices
