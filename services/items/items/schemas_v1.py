"""Version 1 of the API: an item has one price, which is the first of its prices."""

from datetime import datetime
from typing import Annotated, Self

from pydantic import ConfigDict, Field, StringConstraints, with_config
from typing_extensions import TypedDict

from items.domain import Content, Item, with_base_price
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


class ItemV1(ItemFields):
    """An item of the catalogue."""

    model_config = with_example(id="walnut-desk", price=EXAMPLE_PRICE, **EXAMPLE_TIMES)

    id: ItemId
    price: Price
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, item: Item) -> "ItemV1":
        """Show an item as v1 does; what is stored needs no validation."""
        content = item.content
        return ItemV1.model_construct(
            id=item.id,
            sku=content.sku,
            name=content.name,
            description=content.description,
            category=content.category,
            tags=list(content.tags),
            status=content.status,
            price=content.base_price,
            created_at=item.created_at,
            updated_at=item.updated_at,
        )


class ItemWriteV1(ItemBody):
    """All that a client writes of an item."""

    model_config = with_example(forbid=True, price=EXAMPLE_PRICE)

    price: Price

    def content(self, old: Content | None = None) -> Content:
        """Return what is to be stored. Further prices of `old` stay: v1 cannot see them."""
        return Content(
            sku=self.sku,
            name=self.name,
            description=self.description,
            category=self.category,
            tags=tuple(self.tags),
            status=self.status,
            prices=with_base_price(old.prices, self.price) if old else (self.price,),
        )

    @classmethod
    def of(cls, content: Content) -> Self:
        """Return the document that a merge patch of v1 applies to."""
        return cls(
            sku=content.sku,
            name=content.name,
            description=content.description,
            category=content.category,
            tags=list(content.tags),
            status=content.status,
            price=content.base_price,
        )


class ItemCreateV1(ItemWriteV1):
    """A new item. Without an `id` the service chooses a UUID."""

    model_config = with_example(forbid=True, id="walnut-desk", price=EXAMPLE_PRICE)

    id: ItemId | None = None


@with_config(ConfigDict(extra="forbid"))
class PricePatchV1(TypedDict, total=False):
    """A change of the price: the amount, the currency or both."""

    amount: Annotated[str, StringConstraints(max_length=40), Field(examples=["499.00"])]
    currency: Annotated[str, StringConstraints(max_length=3), Field(examples=["EUR"])]


@with_config(ConfigDict(extra="forbid", json_schema_extra={"example": {"status": "discontinued"}}))
class ItemPatchV1(PatchFields, total=False):
    """A merge patch (RFC 7396): the fields to change; null puts back the default of a field."""

    price: PricePatchV1
