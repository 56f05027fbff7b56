"""What both versions of the API share: the fields of an item and their rules."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from typing_extensions import TypedDict

from chassis.money import Money
from chassis.text import ONE_LINE, STORABLE
from items.domain import Status

MAX_TAGS = 20

ItemId = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$"),
    Field(
        description="A readable name or a UUID: lower-case letters, digits and hyphens.",
        examples=["walnut-desk"],
    ),
]
Sku = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
    Field(description="Stock-keeping unit; unique in the catalogue.", examples=["DSK-WAL-140"]),
]
Name = Annotated[
    str,
    StringConstraints(max_length=200, pattern=ONE_LINE),
    Field(examples=["Walnut desk"]),
]
Description = Annotated[
    str,
    StringConstraints(max_length=4000, pattern=STORABLE),
    Field(examples=["A desk of solid walnut, 140 by 70 cm, oiled."]),
]
Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Category = Annotated[Slug, Field(examples=["furniture"])]
Tags = Annotated[
    list[Annotated[Slug, Field(examples=["wood"])]],
    Field(
        max_length=MAX_TAGS,
        description="Kept sorted, each once.",
        examples=[["office", "wood"]],
    ),
    AfterValidator(lambda tags: sorted(set(tags))),
]
ItemStatus = Annotated[
    Status,
    Field(description="Whether it can be ordered. How many there are is known to inventory."),
]


def _not_negative(money: Money) -> Money:
    if money.amount < 0:
        raise ValueError("a price cannot be negative")
    return money


Price = Annotated[Money, AfterValidator(_not_negative)]


class ItemFields(BaseModel):
    """The fields that are the same in every version."""

    sku: Sku
    name: Name
    description: Description = ""
    category: Category
    tags: Tags = Field(default_factory=list)
    status: ItemStatus = Status.AVAILABLE


class ItemBody(ItemFields):
    """A body that refuses fields it does not know, so that a misspelt one is no silence."""

    model_config = ConfigDict(extra="forbid")


class PatchFields(TypedDict, total=False):
    """The fields that a merge patch may have; null puts back the default of a field."""

    sku: Sku
    name: Name
    description: Description | None
    category: Category
    tags: Tags | None
    status: ItemStatus | None


EXAMPLE: dict[str, Any] = {
    "sku": "DSK-WAL-140",
    "name": "Walnut desk",
    "description": "A desk of solid walnut, 140 by 70 cm, oiled.",
    "category": "furniture",
    "tags": ["office", "wood"],
    "status": "available",
}
EXAMPLE_PRICE = {"amount": "549.00", "currency": "EUR"}
EXAMPLE_TIMES: dict[str, Any] = {
    "created_at": "2026-03-01T09:30:00Z",
    "updated_at": "2026-03-01T09:30:00Z",
}


def with_example(*, forbid: bool = False, **fields: Any) -> ConfigDict:
    """Return the configuration of a model whose example is the desk and `fields`."""
    extra: dict[str, Any] = {"example": {**EXAMPLE, **fields}}
    if forbid:
        return ConfigDict(extra="forbid", json_schema_extra=extra)
    return ConfigDict(json_schema_extra=extra)
