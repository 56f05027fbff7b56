"""What an item is, apart from how any API version shows it and how it is stored."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from chassis.money import Money

_WORD = re.compile(r"[^\W_]+")
WORD_LENGTH = 64
"""Longer words are cut to this many characters, when stored and when searched for."""


class Status(StrEnum):
    """Whether an item can be sold; how many there are is known to inventory only."""

    AVAILABLE = "available"
    COMING_SOON = "coming_soon"
    DISCONTINUED = "discontinued"


@dataclass(frozen=True, slots=True)
class Content:
    """What a client writes: everything about an item that is not assigned by the service.

    `prices` has one price for each currency; the first is the base price. `tags` are sorted.
    """

    sku: str
    name: str
    description: str
    category: str
    tags: tuple[str, ...]
    status: Status
    prices: tuple[Money, ...]

    @property
    def base_price(self) -> Money:
        """The first price, which is all that v1 knows of."""
        return self.prices[0]

    def words(self) -> set[str]:
        """Return the words that this item is found by."""
        return set(
            words_of(" ".join((self.name, self.sku, self.description, self.category, *self.tags)))
        )


@dataclass(frozen=True, slots=True)
class Item:
    """An item of the catalogue. `revision` changes with every write and never repeats."""

    id: str
    revision: str
    content: Content
    created_at: datetime
    updated_at: datetime


def words_of(text: str) -> Iterator[str]:
    """Split text into words: compatibility-normalised, case-folded, letters and digits only."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return (word[:WORD_LENGTH] for word in _WORD.findall(folded))


def with_base_price(old: tuple[Money, ...], base: Money) -> tuple[Money, ...]:
    """Replace the first price and keep the others; one in the new currency gives way.

    This is what a v1 client means by writing `price`: it cannot see the other prices, so it must
    not lose them.
    """
    return (base, *(price for price in old[1:] if price.currency != base.currency))
