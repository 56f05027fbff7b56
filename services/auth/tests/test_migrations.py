"""The migrations make exactly what the models say."""

from typing import Any

from chassis.migrations import migrate, status


async def test_the_migrations_match_the_models(make_settings: Any, database_url: str) -> None:
    """No drift on either database; a second run finds nothing to do."""
    from auth.settings import Settings

    settings = make_settings(Settings, database_url=database_url)
    await migrate("auth", settings)
    await migrate("auth", settings)
    found = await status("auth", settings)
    assert found.drift == ()
    assert not found.pending
