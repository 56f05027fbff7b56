"""What comes before the first start, for all services in one process: `prepare SERVICE...`.

Checks their settings, creates missing databases on a PostgreSQL server, runs the migrations and,
with `--seed`, adds the example data of every service that has some (`<service>/seed.py`). One
process, because importing the libraries costs more than all the rest. Each step may be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy import URL, make_url

from chassis.migrations import MigrationError, migrate
from chassis.seed import SeedError, seed
from chassis.settings import DatabaseSettings, ServiceSettings, SettingsError, load_settings

_CONNECT_SECONDS = 5


class PrepareError(Exception):
    """A database cannot be made ready; one line says which and why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it. Exit code 2 with one line on stderr when something is wrong."""
    parser = argparse.ArgumentParser(prog="python -m scripts.local.prepare", description=__doc__)
    parser.add_argument("services", nargs="+")
    parser.add_argument("--seed", action="store_true")
    args = parser.parse_args(arguments)
    try:
        settings = {name: _settings(name) for name in args.services}
        asyncio.run(_prepare(settings, with_examples=args.seed))
    except (SettingsError, MigrationError, PrepareError, SeedError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _settings(service: str) -> ServiceSettings:
    module = importlib.import_module(f"{service}.settings")
    cls: type[ServiceSettings] = module.Settings
    return load_settings(cls)


async def _prepare(settings: dict[str, ServiceSettings], *, with_examples: bool) -> None:
    for name, found in settings.items():
        if isinstance(found, DatabaseSettings):
            await create_missing(f"{name.upper()}_DATABASE_URL", found.database_url)
            await migrate(name, found)
            if with_examples and (added := await seed(name, found)):
                print(f"{name}: {added} examples added")


async def create_missing(variable: str, database_url: str) -> None:
    """Create the PostgreSQL database of `database_url` unless it is there.

    Raises:
        PrepareError: the server is away or refuses; the line names `variable`, not the password.
    """
    url = make_url(database_url)
    if url.get_backend_name() not in {"postgresql", "postgres"}:
        return
    try:
        async with await _connect(url, url.database):
            return
    except psycopg.Error as error:
        refused = error
    # Why it failed is told in the server's language only: ask its catalogue.
    try:
        async with await _connect(url, "postgres") as server:
            known = await server.execute(
                "SELECT 1 FROM pg_database WHERE datname = %s", [url.database]
            )
            if await known.fetchone() is not None:
                raise PrepareError(f"{variable}: {_one_line(refused)}")
            name = sql.Identifier(url.database or "")
            await server.execute(sql.SQL("CREATE DATABASE {}").format(name))
    except psycopg.errors.DuplicateDatabase:
        return  # somebody else was quicker
    except psycopg.Error as error:
        raise PrepareError(
            f"{variable}: {_one_line(error)}; "
            "start the server and let this user create databases, or create it"
        ) from None


async def _connect(url: URL, database: str | None) -> psycopg.AsyncConnection[Any]:
    conninfo = url.set(drivername="postgresql", database=database)
    return await psycopg.AsyncConnection.connect(
        conninfo.render_as_string(hide_password=False),
        autocommit=True,
        connect_timeout=_CONNECT_SECONDS,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


if __name__ == "__main__":
    sys.exit(main())
