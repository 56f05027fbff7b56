"""The commands of auth, as an operator runs them: real processes on each database."""

import asyncio
import base64
import io
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import anyio.to_thread
import pytest

from auth.__main__ import main

KEY = "mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8BI0Vng="
PASSWORD = "eleven green lanterns"
Command = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def url(migrated_database_url: Callable[[str], str]) -> str:
    """A migrated database."""
    return migrated_database_url("auth")


@pytest.fixture
def run(url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in this process; return its exit code, stdout and stderr."""

    async def command(
        *arguments: str, stdin: str = "", **variables: str | None
    ) -> tuple[int, str, str]:
        capsys.readouterr()
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AUTH_")]:
                patch.delenv(name)
            for name, value in {**environment(url), **variables}.items():
                if value is not None:
                    patch.setenv(name, value)
            patch.setattr("sys.stdin", io.StringIO(stdin))
            code = await anyio.to_thread.run_sync(main, arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return command


def environment(url: str) -> dict[str, str]:
    """What an operator sets."""
    return {
        "AUTH_DATABASE_URL": url,
        "AUTH_KEY_ENCRYPTION_KEY": KEY,
        "AUTH_ARGON2_MEMORY_KIB": "8",
    }


async def test_a_command_is_a_process_that_says_one_line(url: str) -> None:
    """`python -m auth` reads stdin, and ends with the exit code of bad input."""
    inherited = {name: value for name, value in os.environ.items() if name[:5] != "AUTH_"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "auth", "create-admin", "--password-stdin"),
        *("--email", "root@example.com"),
        env={**inherited, **environment(url)},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(b"short\n")
    assert (process.returncode, out) == (2, b"")
    assert err == b"the password must have 12 to 128 characters\n"


async def test_the_first_administrator_is_made_once(
    run: Command, url: str, make_settings: Any, app_client: Any
) -> None:
    """A second run changes nothing; the account logs in with the scopes of an administrator."""
    arguments = ("create-admin", "--email", "Root@Example.com", "--password-stdin")
    code, out, err = await run(*arguments, stdin=f"{PASSWORD}\n")
    assert (code, err) == (0, "")
    assert out.startswith("created administrator ")
    code, out, _ = await run(*arguments, stdin="another password here\n")
    assert code == 0
    assert "is an administrator already; the password is unchanged" in out
    from auth.main import create_app
    from auth.settings import Settings

    settings = make_settings(
        Settings, database_url=url, key_encryption_key=KEY, argon2_memory_kib=8
    )
    async with app_client(create_app(settings)) as client:
        form = {"grant_type": "password", "username": "root@example.com", "password": PASSWORD}
        scope = (await client.post("/v1/token", data=form)).json()["scope"].split()
    assert {"profile", "items:write", "inventory:write", "keys:admin"} <= set(scope)


async def test_an_account_that_was_broken_into_is_closed_to_whoever_holds_its_tokens(
    run: Command, url: str, make_settings: Any, app_client: Any
) -> None:
    """Sessions and API keys end, by address or by id; others' go on, and so does the password."""
    from auth.main import create_app
    from auth.settings import Settings

    settings = make_settings(
        Settings,
        database_url=url,
        key_encryption_key=KEY,
        argon2_memory_kib=8,
        api_key_cache_seconds=0,
    )
    async with app_client(create_app(settings)) as client:

        async def log_in(email: str) -> dict[str, str]:
            form = {"grant_type": "password", "username": email, "password": PASSWORD}
            return (await client.post("/v1/token", data=form)).json()

        async def works(token: dict[str, str], key: str) -> tuple[int, int]:
            form = {"grant_type": "refresh_token", "refresh_token": token["refresh_token"]}
            refreshed = await client.post("/v1/token", data=form)
            token.update(refreshed.json())
            exchanged = await client.post("/internal/exchange", headers={"X-API-Key": key})
            return refreshed.status_code, exchanged.status_code

        held = {}
        for email in ("ada@example.com", "bob@example.com"):
            body = {"email": email, "password": PASSWORD}
            user = (await client.post("/v1/users", json=body)).json()["id"]
            token = await log_in(email)
            bearer = {"Authorization": f"Bearer {token['access_token']}"}
            made = await client.post(
                "/v1/keys", headers=bearer, json={"name": "x", "scopes": ["profile"]}
            )
            held[email] = (user, token, made.json()["key"])
        (ada, *of_ada), (bob, *of_bob) = held.values()
        assert await works(*of_ada) == (200, 200)
        code, out, err = await run("revoke", "--email", "Ada@Example.com")
        assert (code, err) == (0, "")
        assert out == (
            f"{ada}: sessions ended: 1, API keys revoked: 1; "
            "access tokens end by themselves within 15 minutes\n"
        )
        assert await works(*of_ada) == (400, 401)
        assert await works(*of_bob) == (200, 200)
        code, out, _ = await run("revoke", "--user", bob)
        assert (code, out.startswith(f"{bob}: sessions ended: 1, API keys revoked: 1;")) == (
            0,
            True,
        )
        assert await works(*of_bob) == (400, 401)
        assert "refresh_token" in await log_in("ada@example.com")
        assert "sessions ended: 1, API keys revoked: 0" in (await run("revoke", "--user", ada))[1]


async def test_bad_input_is_one_line_and_exit_code_2(run: Command) -> None:
    """Never a traceback."""
    admin = ("create-admin", "--email", "root@example.com", "--password-stdin")
    for arguments, stdin, variables, says in (
        (("create-admin", "--email", "root", "--password-stdin"), PASSWORD, {}, "--email: not an"),
        (admin, "short", {}, "12 to 128 characters"),
        (admin, "password1234", {}, "too easy to guess"),
        (admin, "", {}, "12 to 128 characters"),
        (admin, "a" * 129, {}, "12 to 128 characters"),
        (admin, PASSWORD, {"AUTH_PASSWORD_MIN_LENGTH": "24"}, "24 to 128 characters"),
        (admin[:3], PASSWORD, {}, "--password-stdin"),
        (("revoke", "--email", "root"), "", {}, "--email: not an"),
        (("revoke", "--email", "nobody@example.com"), "", {}, "no such account"),
        (("revoke", "--user", "nobody"), "", {}, "no such account"),
        (("rotate-keys", "--withdraw"), "", {}, "--withdraw needs --now"),
        (("rotate-keys",), "", {"AUTH_KEY_ENCRYPTION_KEY": "x"}, "AUTH_KEY_ENCRYPTION_KEY: "),
        (("clients",), "", {"AUTH_CLIENTS": "{"}, "AUTH_CLIENTS: "),
        (admin, PASSWORD, {"AUTH_DATABASE_URL": "mysql://x"}, "AUTH_DATABASE_URL: "),
    ):
        code, out, err = await run(*arguments, stdin=f"{stdin}\n", **variables)
        assert (code, out) == (2, ""), (arguments, err)
        assert says in err
        assert err.count("\n") == 1


async def test_an_unmigrated_database_is_one_line(run: Command, tmp_path: Any) -> None:
    """It says what to run."""
    empty = f"sqlite:///{tmp_path}/empty.db"
    code, _, err = await run("rotate-keys", AUTH_DATABASE_URL=empty)
    assert code == 2
    assert "python -m chassis migrate auth" in err
    assert "make migrate" in err
    assert err.count("\n") == 1


async def test_a_made_up_key_that_opens_nothing_names_the_way_to_the_right_one(
    run: Command, url: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand a command has no key of the local platform; a key that was given is only refused."""
    monkeypatch.chdir(tmp_path)
    assert (await run("rotate-keys"))[0] == 0
    other = base64.b64encode(bytes(range(32))).decode()
    for key, hint in ((None, True), (other, False)):
        code, _, err = await run("rotate-keys", AUTH_KEY_ENCRYPTION_KEY=key)
        assert code == 2
        assert err.startswith("AUTH_KEY_ENCRYPTION_KEY: does not open the stored signing keys")
        assert err.endswith("(the local platform: make run SERVICE=auth)\n") is hint


async def test_keys_rotate_by_command(run: Command) -> None:
    """One line with the key and the time; a second in a row is refused; --now overtakes."""
    code, out, _ = await run("rotate-keys")
    assert code == 0
    assert out.startswith("published key ")
    assert "; it signs from 20" in out
    code, _, err = await run("rotate-keys")
    assert code == 2
    assert "is published and signs from" in err
    assert (await run("rotate-keys", "--now", "--withdraw"))[0] == 0


async def test_clients_are_listed_without_their_secrets(run: Command) -> None:
    """Name and scopes, a line each."""
    clients = '{"orders": {"secret": "very-secret-indeed", "scopes": ["a", "b"]}}'
    assert await run("clients", AUTH_CLIENTS=clients) == (0, "orders: a b\n", "")
    assert (await run("clients", AUTH_CLIENTS="{}"))[1] == "no clients; set AUTH_CLIENTS\n"
