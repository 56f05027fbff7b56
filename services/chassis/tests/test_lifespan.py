"""The life of a process: probes, waiting for migrations, background loops."""

import asyncio
from pathlib import Path
from typing import Any, ClassVar

import httpx2
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from chassis import DatabaseSettings, ServiceSettings, create_app
from chassis.database import Database
from chassis.migrations import migrate
from chassis.runtime import Runtime


def make(**options: Any) -> FastAPI:
    settings = ServiceSettings(service_name="demo", environment="test", access_log=False)
    return create_app(settings, title="Demo", description="", **options)


async def until(client: httpx2.AsyncClient, path: str, status: int) -> httpx2.Response:
    """Ask until `path` answers `status`."""
    async with asyncio.timeout(60):
        while (response := await client.get(path)).status_code != status:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return response


async def test_probes_of_a_healthy_service(app_client: Any) -> None:
    async with app_client(make()) as client:
        for path in ("/livez", "/readyz", "/startupz"):
            response = await client.get(path)
            assert (response.status_code, response.text) == (200, "ok")
            assert "x-request-id" not in response.headers


async def test_before_its_start_a_service_lives_but_is_not_ready() -> None:
    transport = httpx2.ASGITransport(make())
    async with httpx2.AsyncClient(transport=transport, base_url="http://demo") as client:
        assert (await client.get("/livez")).status_code == 200
        for path in ("/readyz", "/startupz"):
            response = await client.get(path)
            assert response.status_code == 503
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["detail"] == "starting"


async def test_a_draining_service_is_alive_but_not_ready(app_client: Any) -> None:
    app = make()
    async with app_client(app) as client:
        app.state.runtime.lifecycle.draining = True
        assert (await client.get("/livez")).status_code == 200
        assert (await client.get("/startupz")).status_code == 200
        assert (await client.get("/readyz")).json()["detail"] == "draining"


async def test_a_service_waits_for_its_migrations(
    app_client: Any, make_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its process serves probes and says what it waits for; then it sets up by itself."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "programs"))
    from ledger.main import create_app as ledger
    from ledger.settings import Settings

    settings = make_settings(Settings, database_url=f"sqlite:///{tmp_path / 'ledger.db'}")
    app = ledger(settings)
    async with app_client(app) as client:
        assert (await client.get("/livez")).status_code == 200
        response = await client.get("/startupz")
        assert response.status_code == 503
        assert response.json()["detail"] == "database migrations are pending"
        assert (await client.get("/readyz")).status_code == 503
        await migrate("ledger", settings)
        await until(client, "/startupz", 200)
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/rows")).json() == 0
    # The next process finds them done and is warm at once.
    async with app_client(ledger(settings)) as client:
        assert (await client.get("/startupz")).status_code == 200


async def test_a_release_of_another_name_waits_for_the_migrations_of_its_package(
    app_client: Any, make_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two releases run one package; neither may start on tables that are not there."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "programs"))
    from ledger.main import create_app as ledger
    from ledger.settings import Settings

    class Release(Settings):
        package: ClassVar[str] = "ledger"

    url = f"sqlite:///{tmp_path / 'shared.db'}"
    settings = make_settings(Release, database_url=url, service_name="ledger-reads")
    async with app_client(ledger(settings)) as client:
        assert (await client.get("/startupz")).status_code == 503
        await migrate("ledger", settings)
        await until(client, "/startupz", 200)
        build = next(
            line
            for line in (await client.get("/metrics")).text.splitlines()
            if line.startswith("build_info{")
        )
        assert 'service="ledger-reads"' in build


async def test_a_service_that_waits_ends_at_once(
    app_client: Any, make_settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent / "programs"))
    from ledger.main import create_app as ledger
    from ledger.settings import Settings

    url = "postgresql://u:hunter2@127.0.0.1:9/ledger"
    app = ledger(make_settings(Settings, database_url=url))
    async with asyncio.timeout(30), app_client(app) as client:
        response = await client.get("/startupz")
        assert response.status_code == 503
        assert "hunter2" not in response.text


async def test_a_failing_loop_is_started_again_and_shows(app_client: Any, fake_clock: Any) -> None:
    """While it stands still the process is not ready; the wait grows; the metric counts."""
    starts = 0
    steady = asyncio.Event()

    async def loop(runtime: Runtime) -> None:
        nonlocal starts
        starts += 1
        if starts < 4:
            raise RuntimeError("again")
        steady.set()
        await asyncio.Event().wait()

    app = make(workers={"loop": loop}, clock=fake_clock)
    registry = app.state.runtime.registry
    async with app_client(app) as client:
        assert (await until(client, "/readyz", 503)).json()["detail"] == "workers down: loop"
        for wait in (0.5, 1.0, 2.0):
            await fake_clock.wait_for_sleepers()
            before = starts
            fake_clock.advance(wait - 0.1)
            await fake_clock.settle()
            assert starts == before
            fake_clock.advance(0.2)
            await fake_clock.settle()
            assert starts == before + 1
        await steady.wait()
        await until(client, "/readyz", 200)
    count = registry.get_sample_value("background_worker_restarts_total", {"worker": "loop"})
    assert count == 3


async def test_a_loop_without_its_database_leaves_the_process_ready(
    app_client: Any, make_settings: Any, fake_clock: Any
) -> None:
    """An outage of the database must not take every replica out at once; the waits stay short."""
    starts = 0
    away = Database(
        make_settings(DatabaseSettings, database_url="postgresql://u:p@127.0.0.1:9/none")
    )

    async def loop(runtime: Runtime) -> None:
        nonlocal starts
        starts += 1
        async with away.reading() as session:
            await session.execute(text("SELECT 1"))

    app = make(workers={"loop": loop}, clock=fake_clock)
    async with app_client(app) as client:
        for wait in (0.5, 1.0, 2.0, 2.0):
            async with asyncio.timeout(30):
                await fake_clock.wait_for_sleepers()
            assert (await client.get("/readyz")).status_code == 200
            before = starts
            fake_clock.advance(wait)
            async with asyncio.timeout(30):
                while starts == before:  # noqa: ASYNC110  (a bounded poll)
                    await asyncio.sleep(0.01)
    await away.close()


async def test_a_loop_that_returns_is_started_again(app_client: Any) -> None:
    starts = 0

    async def loop(runtime: Runtime) -> None:
        nonlocal starts
        starts += 1

    async with app_client(make(workers={"loop": loop})):
        async with asyncio.timeout(20):
            while starts < 2:  # noqa: ASYNC110  (a bounded poll)
                await asyncio.sleep(0.01)
