"""`python -m chassis`: one line and exit code 2 for bad input; the documents it prints."""

import importlib.util
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    spec = importlib.util.spec_from_file_location("process", PROGRAMS.parent / "process.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return subprocess.run(
        [sys.executable, "-m", "chassis", *arguments],
        env=module.environment(**environment), capture_output=True, text=True, timeout=100,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "environment", "line"),
    [
        (
            ("serve", "demo"),
            {"DEMO_PORT": "x"},
            (
                "DEMO_PORT: input should be a valid integer, unable to parse string as an integer; "
                "give a whole number such as 8000\n"
            ),
        ),
        (
            ("serve", "demo"),
            {"DEMO_ENVIRONMENT": "production", "DEMO_CLIENT_SECRET": "changeme"},
            "DEMO_CLIENT_SECRET: is a placeholder, refused in production; give it a real secret\n",
        ),
        (
            ("serve", "nothing"),
            {},
            "nothing: no such service; give the name of a package\n",
        ),
        (
            ("serve", "email"),
            {},
            "email: has no settings.py; see docs/chassis.md\n",
        ),
        (
            ("serve", "pydantic_settings.sources"),
            {},
            "pydantic_settings.sources: has no settings.py; see docs/chassis.md\n",
        ),
        (
            ("migrate", "demo"),
            {},
            "demo: has no database; name a service that has one\n",
        ),
        (
            ("seed", "demo"),
            {},
            "demo: has no database; name a service that has one\n",
        ),
        (
            ("outbox", "ledger", "list"),
            {},
            "ledger: has no outbox; name a service that publishes events\n",
        ),
    ],
)
def test_bad_input_is_exactly_one_line(
    arguments: tuple[str, ...], environment: dict[str, str], line: str
) -> None:
    result = run(*arguments, **environment)
    assert result.stderr == line
    assert result.stdout == ""
    assert result.returncode == 2


def test_a_taken_port_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "demo", DEMO_PORT=str(port))
    assert result.returncode == 2
    assert result.stderr == (
        f"DEMO_PORT: cannot listen on 127.0.0.1:{port} (address already in use); "
        "free the address or choose another port\n"
    )


def test_openapi_is_printed_and_nothing_else() -> None:
    result = run("openapi", "demo")
    assert result.returncode == 0
    assert result.stderr == ""
    assert "/slow" in json.loads(result.stdout)["paths"]


def test_migrate_and_its_check(tmp_path: Path) -> None:
    """`--check` says 1 while migrations are pending, 0 after."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    assert run("migrate", "ledger", "--check", LEDGER_DATABASE_URL=url).returncode == 1
    assert run("migrate", "ledger", LEDGER_DATABASE_URL=url).returncode == 0
    assert run("migrate", "ledger", "--check", LEDGER_DATABASE_URL=url).returncode == 0


def test_seed_says_how_much_it_added(tmp_path: Path) -> None:
    """Twice is no error: the second time nothing is new."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    assert run("migrate", "ledger", LEDGER_DATABASE_URL=url).returncode == 0
    for line in ("ledger: 1 examples added\n", "ledger: 0 examples added\n"):
        result = run("seed", "ledger", LEDGER_DATABASE_URL=url)
        assert (result.returncode, result.stdout, result.stderr) == (0, line, "")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_setting_that_the_setup_refuses_is_one_line(workers: str) -> None:
    """The start of a service may find that a key does not fit: no stack trace, and code 2."""
    result = run("serve", "demo", DEMO_PORT="0", DEMO_SETUP="refuses", DEMO_WORKERS=workers)
    line = "DEMO_KEY: does not open the store; give the key it was made with"
    assert set(result.stderr.splitlines()) == {line}
    assert result.stderr.count("\n") <= int(workers)
    assert "Traceback" not in result.stdout
    assert result.returncode == 2


def test_a_setup_that_fails_says_where() -> None:
    """A mistake that is not one of the settings keeps its stack trace, and another code."""
    result = run("serve", "demo", DEMO_PORT="0", DEMO_SETUP="fails")
    assert "a mistake of ours" in result.stdout
    assert "Traceback" in result.stdout
    assert result.returncode == 3
