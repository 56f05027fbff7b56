"""`python -m trainers`: what an operator types, and `python -m chassis seed trainers`."""

import pytest

from chassis.seed import seed
from trainers.__main__ import main


@pytest.fixture
def environment(settings, monkeypatch):
    """The settings as variables."""
    monkeypatch.setenv("TRAINERS_DATABASE_URL", settings.database_url)


async def in_thread(function, *arguments):
    """Run a command as a process does: it has an event loop of its own."""
    import anyio.to_thread

    return await anyio.to_thread.run_sync(function, *arguments)


async def test_lag_and_rebuild(environment, settings, capsys, clock):
    """Seeded, the read model is behind; rebuilt, it is not. Seeding again adds nothing."""
    assert await seed("trainers", settings) == 3
    assert await seed("trainers", settings) == 0
    assert await in_thread(main, ["lag"]) == 0
    assert capsys.readouterr().out.startswith("trainers: version 0 of 9, 9 events and ")
    assert await in_thread(main, ["rebuild"]) == 0
    assert capsys.readouterr().out.startswith("trainers: 9 events projected anew in ")
    assert await in_thread(main, ["lag"]) == 0
    assert capsys.readouterr().out == "trainers: version 9 of 9, 0 events and 0.0 s behind\n"


def test_a_database_without_tables_is_said_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("TRAINERS_DATABASE_URL", f"sqlite:///{tmp_path}/new.db")
    assert main(["lag"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "trainers lag: the database is not migrated; run: python -m chassis migrate trainers "
        "(on the local platform: make migrate, and make run SERVICE=trainers-queries)\n"
    )


def test_a_wrong_role_stops_the_start(monkeypatch, capsys):
    monkeypatch.setenv("TRAINERS_ROLE", "both")
    assert main(["lag"]) == 2
    assert capsys.readouterr().err.startswith("trainers lag: TRAINERS_ROLE: ")
