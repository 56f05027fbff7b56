"""The fork server, with real processes: a fork is like a process that was started the plain way."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from scripts.local.forks import Fork, Forks
from tests.local.platform_handle import ROOT, Platform, alive, eventually

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are for Linux")

SHOW = """
import json, os, sys, threading
from pathlib import Path
tree = sorted(name for name in sys.modules if name.partition(".")[0] in {"chassis", "orders"})
state = {
    "argv": sys.argv, "env": dict(os.environ), "session": os.getsid(0) == os.getpid(),
    "stdin": os.readlink("/proc/self/fd/0"), "libraries": "sqlalchemy.ext.asyncio" in sys.modules,
    "tree": tree, "threads": threading.active_count(), "open": len(os.listdir("/proc/self/fd")),
    "command": Path("/proc/self/cmdline").read_text().strip("\\0").strip(),
}
print(json.dumps(state))
print("to stderr", file=sys.stderr)
if sys.argv[1:] == ["wait"]:
    threading.Event().wait()
sys.exit(7)
"""


@pytest.fixture
async def forks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Forks]:
    """A fork server that finds the module `shows_itself`."""
    (tmp_path / "shows_itself.py").write_text(SHOW)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{tmp_path}")
    async with Forks() as running:
        await running.warm()
        yield running


async def start(forks: Forks, log: Path, *words: str) -> Fork:
    argv = (sys.executable, "-m", "shows_itself", *words)
    with log.open("ab") as file:
        return await forks.spawn(argv, {"ONLY": "this"}, file.fileno())


async def said(log: Path) -> str:
    return await asyncio.to_thread(
        eventually, lambda: (text := log.read_text()).endswith("to stderr\n") and text
    )


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


async def test_a_fork_is_like_a_process_of_its_own(forks: Forks, tmp_path: Path) -> None:
    """Its words, environment, session and output are its own; the libraries are there already."""
    log = tmp_path / "log"
    fork = await start(forks, log, "a b", "")
    assert await fork.wait() == 7
    state = json.loads((await said(log)).splitlines()[0])
    assert state["argv"][1:] == ["a b", ""]
    assert state["env"] == {"ONLY": "this"}
    assert state["session"]
    assert state["stdin"] == "/dev/null"
    assert state["libraries"]
    assert state["tree"] == []  # what is restarted runs the code that stands there then
    assert state["threads"] == 1
    assert state["open"] == 4  # three and the folder that is being listed
    assert state["command"].startswith(f"{sys.executable} -m shows_itself a b")


async def test_many_at_once_each_with_its_own_end(forks: Forks, tmp_path: Path) -> None:
    """Ends are told of the right process; a signal is told as minus its number."""
    several = [await start(forks, tmp_path / f"{i}", *["wait"] * (i % 2)) for i in range(6)]
    for i in (1, 3, 5):
        await said(tmp_path / f"{i}")
        several[i].terminate()
    codes = [await fork.wait() for fork in several]
    assert codes == [7, -signal.SIGTERM] * 3
    several[1].terminate()  # an ended one is left alone: its pid may be somebody else's
    assert not any(alive(fork.pid) for fork in several)


async def test_a_dead_server_takes_its_forks_along_and_comes_back(
    forks: Forks, tmp_path: Path
) -> None:
    """After kill -9 of the server nothing is left over, and the next fork works."""
    fork = await start(forks, tmp_path / "one", "wait")
    await said(tmp_path / "one")
    os.kill(parent(fork.pid), signal.SIGKILL)
    assert await fork.wait() == -signal.SIGTERM
    await asyncio.to_thread(eventually, lambda: not alive(fork.pid))
    assert await (await start(forks, tmp_path / "two")).wait() == 7


def test_the_runner_supervises_forks_like_others(toy: Platform) -> None:
    """Started, restarted after kill -9, stopped in order; a killed runner takes them along."""
    up = toy.up(TOY_FORK="1", TOY_MIDDLE="family")
    toy.wait_ready(up)
    before = toy.process("middle")
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: toy.process("middle")["restarts"] == 1)
    toy.wait_ready(up)
    assert toy.process("middle")["pid"] != before["pid"]
    pids = toy.pids()
    os.killpg(up.pid, signal.SIGINT)
    output, _ = up.communicate(timeout=20)
    assert up.returncode == 0, output
    assert not any(map(alive, pids))
    ends = (toy.home / "ends").read_text().split()
    assert [name for name in ends if name != "middle"] == ["front", "back"]

    up = toy.up(TOY_FORK="1")
    toy.wait_ready(up)
    pids = toy.pids()
    up.kill()
    up.wait(5)
    eventually(lambda: not any(map(alive, pids)))
