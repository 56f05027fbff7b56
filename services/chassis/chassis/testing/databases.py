"""Fresh databases for tests: empty ones, and copies of a migrated template."""

from __future__ import annotations

import asyncio
import importlib
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from pydantic_settings import BaseSettings

from chassis.settings import DatabaseSettings, ServiceSettings
from chassis.testing.postgres import PostgresServer, database_name

S = TypeVar("S", bound=BaseSettings)


def sqlite_url(path: Path) -> str:
    """Return the URL of a SQLite file."""
    return f"sqlite:///{path}"


def service_settings(service: str) -> type[ServiceSettings]:
    """Return the settings class of `service`, by the convention `<service>.settings.Settings`."""
    found: type[ServiceSettings] = importlib.import_module(f"{service}.settings").Settings
    return found


def hermetic_settings(cls: type[S], values: dict[str, Any]) -> S:
    """Build settings from `values` and the defaults only, whatever the environment holds."""
    prefix = str(cls.model_config.get("env_prefix", "")).upper()
    hidden = {name for name in os.environ if name.upper().startswith(prefix)} if prefix else set()
    saved = {name: os.environ.pop(name) for name in hidden}
    secrets_dir = os.environ.pop("SLIPWAY_SECRETS_DIR", None)
    try:
        return cls(**values)
    finally:
        os.environ.update(saved)
        if secrets_dir is not None:
            os.environ["SLIPWAY_SECRETS_DIR"] = secrets_dir


class Templates:
    """Migrated databases, one per service and dialect, made once and copied for each test."""

    def __init__(self, folder: Path, server: Callable[[], PostgresServer]) -> None:
        self._folder = folder
        self._server = server
        self._made: dict[tuple[str, str], str] = {}
        self._used: PostgresServer | None = None

    def copy(self, service: str, dialect: str, folder: Path) -> str:
        """Return the URL of a fresh copy of the migrated database of `service`."""
        template = self._made.get((service, dialect)) or self._make(service, dialect)
        if dialect == "postgresql":
            return self._postgres().create_database(database_name(template))
        number = len(list(folder.glob(f"{service}-*.db")))
        target = folder / f"{service}-{number}.db"
        source = template.removeprefix("sqlite:///")
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(target)) as new:
            new.execute("PRAGMA journal_mode=WAL")
            old.backup(new)
        return sqlite_url(target)

    def forget(self, service: str) -> None:
        """Drop the templates of `service`; the next copy runs its migrations again."""
        for key in [key for key in self._made if key[0] == service]:
            url = self._made.pop(key)
            if key[1] == "postgresql":
                self._postgres().drop_database(url)
            else:
                Path(url.removeprefix("sqlite:///")).unlink()

    def drop(self) -> None:
        """Drop all templates."""
        for service in {service for service, _ in self._made}:
            self.forget(service)
        if self._used is not None:
            self._used.close()

    def _postgres(self) -> PostgresServer:
        # Kept: when the templates are dropped, the fixture of the server is gone already.
        if self._used is None:
            self._used = self._server()
        return self._used

    def _make(self, service: str, dialect: str) -> str:
        if dialect == "postgresql":
            url = self._postgres().create_database()
        else:
            url = sqlite_url(self._folder / f"{service}-template.db")
        values = {"environment": "test", "database_url": url}
        settings = hermetic_settings(service_settings(service), values)
        if not isinstance(settings, DatabaseSettings):
            raise TypeError(f"the settings of {service} have no database_url")
        _run_in_thread(service, settings)
        self._made[service, dialect] = url
        return url


def _run_in_thread(service: str, settings: DatabaseSettings) -> None:
    """Run the migrations in a loop of their own, so that tests may ask from inside theirs."""
    from chassis.migrations import migrate  # noqa: PLC0415  (Alembic is slow to import)

    failure: list[BaseException] = []

    def run() -> None:
        try:
            asyncio.run(migrate(service, settings))
        except BaseException as exc:  # noqa: BLE001  (handed to the caller below)
            failure.append(exc)

    thread = threading.Thread(target=run, name=f"migrate-{service}")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
