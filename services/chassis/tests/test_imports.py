"""The package itself: its short public list, imported only as far as it is used."""

import importlib.util
import subprocess
import sys

import chassis


def python(program: str) -> str:
    """Run a program in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True
    )
    return done.stdout


def test_every_public_name_is_there():
    """Each comes from its module, and none is hidden by a module of the same name."""
    for name in chassis.__all__:
        assert getattr(chassis, name) is not None
        assert importlib.util.find_spec(f"chassis.{name}") is None
    assert set(chassis.__all__) <= set(dir(chassis))
    assert not hasattr(chassis, "no_such_name")


def test_settings_need_no_web_framework():
    """A tool that only reads settings does not pay for the server and the clients."""
    program = "import sys; from chassis import ServiceSettings; print(*sys.modules)"
    loaded = set(python(program).split())
    assert not loaded & {"fastapi", "sqlalchemy", "aiohttp", "alembic"}
