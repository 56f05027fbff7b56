"""The tables of the catalogue: an item, its prices, its tags and the words it is found by."""

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
)

from chassis.database import NAMING, UtcDateTime
from chassis.money import ExactDecimal

metadata = MetaData(naming_convention=NAMING)

# A range over a prefix needs plain code-point order, whatever the database's locale is.
_Word = String(64).with_variant(String(64, collation="C"), "postgresql")

items = Table(
    "items",
    metadata,
    Column("id", String(63), primary_key=True),
    Column("sku", String(64), nullable=False, unique=True),
    Column("name", String(200), nullable=False),
    Column("description", Text, nullable=False),
    Column("category", String(63), nullable=False),
    Column("status", String(16), nullable=False),
    # Changes with every write and never repeats: an item made anew under an old id has a new ETag.
    Column("revision", String(36), nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
    CheckConstraint("status IN ('available', 'coming_soon', 'discontinued')", name="status"),
    # One index for each order of the list; the id breaks ties.
    Index("ix_items_created_at_id", "created_at", "id"),
    Index("ix_items_name_id", "name", "id"),
    Index("ix_items_category_created_at_id", "category", "created_at", "id"),
)

prices = Table(
    "item_prices",
    metadata,
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Column("currency", String(3), primary_key=True),
    Column("amount", ExactDecimal, nullable=False),
    # 0 is the base price, which is the one price that v1 shows.
    Column("rank", SmallInteger, nullable=False),
    CheckConstraint("amount >= 0", name="amount"),
    Index("uq_item_prices_item_id_rank", "item_id", "rank", unique=True),
    Index("ix_item_prices_currency_amount_item_id", "currency", "amount", "item_id"),
)

tags = Table(
    "item_tags",
    metadata,
    Column("tag", String(63), primary_key=True),
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Index("ix_item_tags_item_id", "item_id"),
)

words = Table(
    "item_words",
    metadata,
    Column("word", _Word, primary_key=True),
    Column("item_id", ForeignKey("items.id", ondelete="CASCADE"), primary_key=True),
    Index("ix_item_words_item_id", "item_id"),
)
