"""Lambda's side of the chassis, as far as it needs no runtime; the rest is in tests/aws."""

import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
import pytest

from chassis import create_app
from chassis.aws import LambdaError, handler_for, require_no_loops
from chassis.settings import EventSettings, SettingsError


def test_only_loops_of_a_services_own_are_refused(make_settings):
    """What the chassis runs in loops has jobs; a service's own would stand still."""

    async def own(_):
        await anyio.sleep_forever()

    settings = make_settings(EventSettings)
    everything = {"title": "t", "description": "d", "outbox": True, "inbox": True}
    app = create_app(settings, idempotency=True, **everything)
    require_no_loops(app.state.runtime)
    app = create_app(settings, workers={"own-loop": own}, **everything)
    with pytest.raises(LambdaError, match=r"\(own-loop\) would stand still") as refused:
        require_no_loops(app.state.runtime)
    assert "\n" not in str(refused.value)


def test_a_service_that_is_not_there_is_told_in_one_line():
    with pytest.raises(SettingsError, match="nothing: no such service"):
        handler_for("nothing")


async def test_a_serverless_process_has_no_loops_and_waits_for_nothing(
    make_settings, app_client, database_url
):
    """Not for migrations either: the lifespan of an empty database begins all the same."""
    ran = []

    async def own(_):
        ran.append("own-loop")
        await anyio.sleep_forever()

    @asynccontextmanager
    async def setup(runtime):
        ran.append("setup")
        yield
        ran.append("end")

    settings = make_settings(
        EventSettings, service_name="orders", serverless=True, database_url=database_url
    )
    app = create_app(
        settings, title="t", description="d", outbox=True, workers={"own-loop": own}, setup=setup
    )
    assert set(app.state.runtime.loops) == {"event-loop-lag", "own-loop", "outbox-relay"}
    async with app_client(app) as client:
        assert (await client.get("/readyz")).status_code == 200
        await anyio.sleep(0.05)
    assert ran == ["setup", "end"]


def test_a_function_imports_no_server_and_no_migrations():
    """Each of them is slow to import, and in no zip; the HTTP client comes with its first call."""
    program = (
        "import sys; import chassis.aws, items.main; from items.settings import Settings; "
        "items.main.create_app(Settings(serverless=True)); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True
    )
    loaded = set(done.stdout.split())
    assert "mangum" in loaded
    assert not loaded & {
        "aiohttp",
        "alembic",
        "gunicorn",
        "opentelemetry.exporter.otlp.proto.http",
        "opentelemetry.instrumentation.sqlalchemy",
        "uvicorn",
        "uvloop",
    }


def test_a_server_has_the_client_of_its_peers_from_the_start():
    """Its import would hold the event loop up at the first call."""
    program = (
        "import sys; from chassis import create_app, ServiceSettings; "
        "create_app(ServiceSettings(), title='t', description='d'); print('aiohttp' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout == "True\n"
