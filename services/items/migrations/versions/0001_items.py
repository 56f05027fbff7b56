"""Items with their prices, tags and words."""

import sqlalchemy as sa
from alembic import op

from chassis.database import UtcDateTime
from chassis.events.schema import create_idempotency_v1, drop_idempotency_v1
from chassis.money import ExactDecimal

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "items",
        sa.Column("id", sa.String(63), nullable=False),
        sa.Column("sku", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("category", sa.String(63), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("revision", sa.String(36), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_items"),
        sa.UniqueConstraint("sku", name="uq_items_sku"),
        sa.CheckConstraint(
            "status IN ('available', 'coming_soon', 'discontinued')", name="ck_items_status"
        ),
    )
    op.create_index("ix_items_created_at_id", "items", ["created_at", "id"])
    op.create_index("ix_items_name_id", "items", ["name", "id"])
    op.create_index("ix_items_category_created_at_id", "items", ["category", "created_at", "id"])
    op.create_table(
        "item_prices",
        sa.Column("item_id", sa.String(63), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("amount", ExactDecimal, nullable=False),
        sa.Column("rank", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("item_id", "currency", name="pk_item_prices"),
        _of_item("item_prices"),
        sa.CheckConstraint("amount >= 0", name="ck_item_prices_amount"),
    )
    op.create_index("uq_item_prices_item_id_rank", "item_prices", ["item_id", "rank"], unique=True)
    op.create_index(
        "ix_item_prices_currency_amount_item_id",
        "item_prices",
        ["currency", "amount", "item_id"],
    )
    op.create_table(
        "item_tags",
        sa.Column("tag", sa.String(63), nullable=False),
        sa.Column("item_id", sa.String(63), nullable=False),
        sa.PrimaryKeyConstraint("tag", "item_id", name="pk_item_tags"),
        _of_item("item_tags"),
    )
    op.create_index("ix_item_tags_item_id", "item_tags", ["item_id"])
    word = sa.String(64).with_variant(sa.String(64, collation="C"), "postgresql")
    op.create_table(
        "item_words",
        sa.Column("word", word, nullable=False),
        sa.Column("item_id", sa.String(63), nullable=False),
        sa.PrimaryKeyConstraint("word", "item_id", name="pk_item_words"),
        _of_item("item_words"),
    )
    op.create_index("ix_item_words_item_id", "item_words", ["item_id"])
    create_idempotency_v1(op)


def _of_item(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["item_id"], ["items.id"], name=f"fk_{table}_item_id_items", ondelete="CASCADE"
    )


def downgrade() -> None:
    drop_idempotency_v1(op)
    for table in ("item_words", "item_tags", "item_prices", "items"):
        op.drop_table(table)
