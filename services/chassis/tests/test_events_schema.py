"""What migrations create is what the code uses."""

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import create_engine, inspect

from chassis.database import async_url, chassis_metadata
from chassis.events import schema, tables
from chassis.idempotency_table import idempotency_keys


@pytest.fixture
def engine(database_url):
    parsed = async_url(database_url)
    driver = "sqlite" if parsed.get_backend_name() == "sqlite" else "postgresql+psycopg"
    engine = create_engine(parsed.set(drivername=driver))
    yield engine
    engine.dispose()


def test_the_frozen_schema_is_the_tables_of_today(engine):
    """Types, nullability, indexes and constraints: Alembic finds no difference."""
    assert {tables.outbox, tables.inbox, idempotency_keys} == set(chassis_metadata.tables.values())
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        operations = Operations(context)
        schema.create_outbox_v1(operations)
        schema.create_inbox_v1(operations)
        schema.create_idempotency_v1(operations)
    with engine.begin() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, chassis_metadata) == []
        keys = inspect(connection).get_pk_constraint("outbox")
        assert keys["constrained_columns"] == ["seq"]
        operations = Operations(context)
        schema.drop_outbox_v1(operations)
        schema.drop_inbox_v1(operations)
        schema.drop_idempotency_v1(operations)
    assert inspect(engine).get_table_names() == []
