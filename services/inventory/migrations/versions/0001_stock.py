"""Stock, reservations and the ledger of movements."""

import sqlalchemy as sa
from alembic import op

from chassis.database import UtcDateTime
from chassis.events.schema import create_idempotency_v1, drop_idempotency_v1

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stock",
        sa.Column("item_id", sa.String(63), nullable=False),
        sa.Column("on_hand", sa.BigInteger, nullable=False),
        sa.Column("held", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("item_id", name="pk_stock"),
        sa.CheckConstraint("on_hand >= 0", name="ck_stock_on_hand"),
        sa.CheckConstraint("held >= 0 AND held <= on_hand", name="ck_stock_held"),
    )
    op.create_index(
        "ix_stock_out_of_stock",
        "stock",
        ["item_id"],
        postgresql_where=sa.text("on_hand = held"),
        sqlite_where=sa.text("on_hand = held"),
    )
    op.create_table(
        "reservations",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reservations"),
        sa.CheckConstraint(
            "state IN ('held', 'confirmed', 'released', 'expired', 'returned')",
            name="ck_reservations_state",
        ),
    )
    op.create_index(
        "ix_reservations_expires_at_held",
        "reservations",
        ["expires_at"],
        postgresql_where=sa.text("state = 'held'"),
        sqlite_where=sa.text("state = 'held'"),
    )
    op.create_table(
        "reservation_lines",
        sa.Column("reservation_id", sa.String(64), nullable=False),
        sa.Column("item_id", sa.String(63), nullable=False),
        sa.Column("quantity", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("reservation_id", "item_id", name="pk_reservation_lines"),
        sa.ForeignKeyConstraint(
            ["reservation_id"],
            ["reservations.id"],
            name="fk_reservation_lines_reservation_id_reservations",
        ),
        sa.ForeignKeyConstraint(
            ["item_id"], ["stock.item_id"], name="fk_reservation_lines_item_id_stock"
        ),
        sa.CheckConstraint("quantity > 0", name="ck_reservation_lines_quantity"),
    )
    op.create_index("ix_reservation_lines_item_id", "reservation_lines", ["item_id"])
    op.create_table(
        "movements",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("item_id", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("on_hand_change", sa.BigInteger, nullable=False),
        sa.Column("held_change", sa.BigInteger, nullable=False),
        sa.Column("reservation_id", sa.String(64)),
        sa.Column("actor", sa.String(255)),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_movements"),
        sa.ForeignKeyConstraint(["item_id"], ["stock.item_id"], name="fk_movements_item_id_stock"),
        sa.CheckConstraint(
            "kind IN ('set', 'restock', 'hold', 'confirm', 'release', 'expire', 'return')",
            name="ck_movements_kind",
        ),
    )
    op.create_index("ix_movements_item_id_id", "movements", ["item_id", "id"])
    op.create_index(
        "uq_movements_reservation_id_item_id_kind",
        "movements",
        ["reservation_id", "item_id", "kind"],
        unique=True,
    )
    create_idempotency_v1(op)


def downgrade() -> None:
    drop_idempotency_v1(op)
    for table in ("movements", "reservation_lines", "reservations", "stock"):
        op.drop_table(table)
