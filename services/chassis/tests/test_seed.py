"""`chassis.seed`: example data, added once and whole."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from chassis.database import Database
from chassis.migrations import migrate
from chassis.seed import SeedError, seed
from chassis.settings import DatabaseSettings

PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_settings: Any
) -> DatabaseSettings:
    """Settings of the ledger program, on a database of its own."""
    monkeypatch.syspath_prepend(str(PROGRAMS))
    found: DatabaseSettings = make_settings(
        DatabaseSettings, database_url=f"sqlite:///{tmp_path / 'ledger.db'}"
    )
    return found


async def rows(settings: DatabaseSettings) -> list[int]:
    """Return what the table holds."""
    database = Database(settings)
    try:
        async with database.reading() as session:
            return list((await session.execute(text("SELECT id FROM t"))).scalars())
    finally:
        await database.close()


async def test_examples_are_added_once(settings: DatabaseSettings) -> None:
    """The second time there is nothing left to add."""
    await migrate("ledger", settings)
    assert await seed("ledger", settings) == 1
    assert await seed("ledger", settings) == 0
    assert await rows(settings) == [1]


async def test_before_the_migration_it_says_what_to_run(settings: DatabaseSettings) -> None:
    with pytest.raises(SeedError, match=r"^ledger: .* run python -m chassis migrate ledger$"):
        await seed("ledger", settings)


async def test_a_service_without_examples_adds_none(settings: DatabaseSettings) -> None:
    """The demo program has no seed module; nothing is opened, so nothing need be migrated."""
    assert await seed("demo", settings) == 0


async def test_a_refused_row_leaves_nothing_behind(
    settings: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One transaction, and the reason in one line."""
    await migrate("ledger", settings)

    async def twice(session: Any, _: object) -> int:
        for _ in range(2):
            await session.execute(text("INSERT INTO t (id) VALUES (7)"))
        return 2

    import ledger.seed as module

    monkeypatch.setattr(module, "seed", twice)
    with pytest.raises(SeedError) as caught:
        await seed("ledger", settings)
    assert "UNIQUE constraint failed" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert await rows(settings) == []
