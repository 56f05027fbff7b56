"""What was answered stays: kill -9 of the real process, then a new one on the same file."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2

from auth.settings import Settings
from chassis.migrations import migrate

PASSWORD = "seven wet otters hum"
Server = tuple[httpx2.AsyncClient, asyncio.subprocess.Process]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Server]:
    """Run `python -m chassis serve auth` as an operator would, until the block ends."""
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if name[:5] != "AUTH_"}
    environment = {
        **inherited,
        "AUTH_DATABASE_URL": f"sqlite:///{folder}/auth.db",
        "AUTH_PORT": str(port),
        "AUTH_ARGON2_MEMORY_KIB": "8",
    }
    command = (sys.executable, "-m", "chassis", "serve", "auth")
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False
        ) as client:
            async with asyncio.timeout(60):
                await _until_ready(client, process)
            yield client, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _until_ready(client: httpx2.AsyncClient, process: asyncio.subprocess.Process) -> None:
    while process.returncode is None:
        with contextlib.suppress(httpx2.TransportError):
            if (await client.get("/readyz")).status_code == 200:
                return
        await asyncio.sleep(0.05)
    raise AssertionError(f"auth ended with {process.returncode}")


async def sign_up(client: httpx2.AsyncClient, number: int) -> Any:
    body = {"email": f"user{number}@example.com", "password": PASSWORD}
    return await client.post("/v1/users", json=body)


async def test_a_sign_up_that_was_answered_survives_kill_9(
    tmp_path: Path, make_settings: Any
) -> None:
    """Killed under load: every 201 logs in afterwards, and tokens of before still verify."""
    settings = make_settings(Settings, database_url=f"sqlite:///{tmp_path}/auth.db")
    await migrate("auth", settings)
    accepted: list[int] = []
    async with serving(tmp_path) as (client, process):
        assert (await sign_up(client, 0)).status_code == 201
        form = {
            "grant_type": "password",
            "username": "user0@example.com",
            "password": PASSWORD,
        }
        session = (await client.post("/v1/token", data=form)).json()

        async def load(first: int) -> None:
            for number in range(first, 1000, 4):
                try:
                    answer = await sign_up(client, number)
                except httpx2.TransportError:
                    return
                if answer.status_code == 201:
                    accepted.append(number)
                if len(accepted) == 12 and process.returncode is None:
                    process.send_signal(signal.SIGKILL)

        await asyncio.gather(*(load(first) for first in range(1, 5)))
    assert len(accepted) >= 12
    async with serving(tmp_path) as (client, _):
        for number in accepted:
            form["username"] = f"user{number}@example.com"
            assert (await client.post("/v1/token", data=form)).status_code == 200
        headers = {"Authorization": f"Bearer {session['access_token']}"}
        assert (await client.get("/v1/users/me", headers=headers)).status_code == 200
        form = {"grant_type": "refresh_token", "refresh_token": session["refresh_token"]}
        assert (await client.post("/v1/token", data=form)).status_code == 200
