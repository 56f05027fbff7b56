"""The runner with real processes: it restarts what dies and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import httpx2
import pytest

from scripts.local import cli
from scripts.local.home import RunnerError
from scripts.local.procs import Identity
from tests.local.platform_handle import Platform, alive, eventually
from tests.local.toy import build


def ask(url: str) -> dict:
    return httpx2.get(url, trust_env=False, timeout=60).json()


def test_up_starts_all_and_prints_where_they_are(toy: Platform) -> None:
    """The table holds every process; lines to copy are never wrapped."""
    result = toy.run("up", "--detach")
    assert result.returncode == 0, result.stderr
    assert [p["state"] for p in toy.status()["processes"]] == ["ready"] * 3
    for process in toy.status()["processes"]:
        assert process["url"] in result.stdout
        assert ask(process["url"])["pid"] == process["pid"]
    assert "copy me " + "x" * 200 + "\n" in result.stdout


def test_ctrl_c_stops_users_before_what_they_use_and_leaves_nothing(toy: Platform) -> None:
    """SIGINT to the terminal's group reaches the runner only; it ends front, middle, back."""
    up = toy.up()
    toy.wait_ready(up)
    pids = toy.pids()
    os.killpg(up.pid, signal.SIGINT)
    output, _ = up.communicate(timeout=20)
    assert up.returncode == 0, output
    assert not any(map(alive, pids))
    assert (toy.home / "ends").read_text().split() == ["front", "middle", "back"]


def test_down_stops_a_run_of_another_terminal(toy: Platform) -> None:
    """`down` returns when the last process is gone; a second one finds nothing."""
    up = toy.up()
    toy.wait_ready(up)
    pids = toy.pids()
    assert toy.run("down").stdout == "Stopped.\n"
    assert not any(map(alive, pids))
    assert up.wait(5) == 0
    assert toy.run("down").stdout == "Nothing runs.\n"


def test_a_closed_terminal_stops_everything(toy: Platform) -> None:
    """SIGHUP is a request to stop, like Ctrl-C."""
    up = toy.up()
    toy.wait_ready(up)
    pids = toy.pids()
    up.send_signal(signal.SIGHUP)
    assert up.wait(20) == 0
    assert not any(map(alive, pids))


def test_ctrl_c_during_the_start_leaves_nothing(toy: Platform) -> None:
    """A start that is not through yet is taken back, in the foreground and in the background."""
    for words in ((), ("--detach",)):
        up = toy.up(*words, TOY_FRONT="never")
        eventually(lambda: toy.process("back")["state"] == "ready")
        pids = toy.pids()
        os.killpg(up.pid, signal.SIGINT)
        output, _ = up.communicate(timeout=60)
        assert "Traceback" not in output
        assert not any(map(alive, pids))
        assert toy.run("down").stdout == "Nothing runs.\n"
        (toy.home / "run" / "status.json").unlink()


def test_a_killed_process_is_started_again(toy: Platform) -> None:
    """After SIGKILL the process is back, ready, counted, and the reason is shown."""
    up = toy.up()
    toy.wait_ready(up)
    before = toy.process("middle")
    os.kill(before["pid"], signal.SIGKILL)
    eventually(lambda: (p := toy.process("middle"))["state"] == "ready" and p["restarts"] == 1)
    after = toy.process("middle")
    assert ask(after["url"])["pid"] == after["pid"] != before["pid"]
    assert "restarts 1" in toy.run("status").stdout
    toy.run("down")
    assert "middle: died (killed by SIGKILL)" in up.communicate()[0]


def test_one_process_is_stopped_and_started_again(toy: Platform) -> None:
    """`stop` keeps one process down, however it is started elsewhere; `start` brings it back."""
    up = toy.up(SLIPWAY_RESTART_CAP_SECONDS="0.3")
    toy.wait_ready(up)
    before = toy.process("middle")
    assert toy.run("stop", "middle").returncode == 0
    assert not alive(before["pid"])
    held = toy.process("middle")
    assert (held["state"], held["pid"], held["restarts"]) == ("held", None, 0)
    assert toy.run("start", "middle").stdout == "middle is ready.\n"
    after = toy.process("middle")
    assert ask(after["url"])["pid"] == after["pid"] != before["pid"]
    wrong = toy.run("stop", "midle")
    assert wrong.returncode == 2
    assert wrong.stderr == "slipway: midle: no such process; known: back, middle, front\n"
    toy.run("down")
    assert toy.run("start", "middle").returncode == 1
    assert "middle: stopped on request" in up.communicate()[0]


def test_a_bad_setting_stops_the_start_with_its_line(toy: Platform) -> None:
    """Exit code 2 means wrong settings: no restart, the line of the service, nothing left."""
    result = toy.run("up", TOY_MIDDLE="refuse")
    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "slipway: middle does not start (exit code 2): TOY_SETTING: is wrong; set it right"
    ]
    assert toy.pids() == []


def test_a_crash_loop_at_the_start_is_given_up_with_the_last_line(toy: Platform) -> None:
    """A process that dies three times before it was ever ready ends the start."""
    result = toy.run("up", TOY_BACK="crash")
    assert result.returncode == 1
    assert "back does not start (exit code 1): RuntimeError: out of luck" in result.stderr
    assert result.stdout.count("back: died") == 2
    assert toy.pids() == []


def test_a_background_start_that_fails_says_why(toy: Platform) -> None:
    """`up --detach` shows the same line and the same exit code."""
    result = toy.run("up", "--detach", TOY_MIDDLE="refuse")
    assert result.returncode == 1
    assert "middle does not start (exit code 2): TOY_SETTING: is wrong" in result.stdout
    assert "Nothing runs." in toy.run("down").stdout


def test_what_is_never_ready_is_named_in_time(toy: Platform) -> None:
    """The start is bounded; the line names the process and the setting that allows more time."""
    result = toy.run("up", TOY_FRONT="never", SLIPWAY_START_SECONDS="4")
    assert result.returncode == 1
    assert "not ready after 4 s: front" in result.stderr
    assert "SLIPWAY_START_SECONDS" in result.stderr
    assert toy.pids() == []


def test_a_second_up_is_refused_in_one_line(toy: Platform) -> None:
    """The running one is not disturbed."""
    up = toy.up()
    toy.wait_ready(up)
    pids = toy.pids()
    second = toy.run("up")
    assert second.returncode == 1
    assert second.stderr.splitlines() == [
        f"slipway: Slipway already runs (pid {up.pid}); see `make status`, stop it with `make down`"
    ]
    assert toy.pids() == pids
    assert all(map(alive, pids))


def test_a_stubborn_process_is_killed_within_its_bound(toy: Platform) -> None:
    """SIGTERM ignored: SIGKILL follows."""
    up = toy.up(TOY_BACK="stubborn")
    toy.wait_ready(up)
    pids = toy.pids()
    toy.run("down")
    assert not any(map(alive, pids))


def test_asking_twice_kills_at_once(toy: Platform) -> None:
    """A second Ctrl-C does not wait for drains."""
    up = toy.up(TOY_BACK="stubborn", TOY_MIDDLE="stubborn", TOY_FRONT="stubborn")
    toy.wait_ready(up)
    pids = toy.pids()
    up.send_signal(signal.SIGINT)
    eventually(lambda: toy.status()["phase"] == "stopping")
    up.send_signal(signal.SIGINT)
    assert up.wait(10) == 0
    assert not any(map(alive, pids))


def test_children_of_a_service_die_with_it(toy: Platform) -> None:
    """The whole process group of a dead service goes: nothing keeps its port."""
    up = toy.up(TOY_BACK="family")
    toy.wait_ready(up)
    back = toy.process("back")
    child = ask(back["url"])["child"]
    assert alive(child)
    os.kill(back["pid"], signal.SIGKILL)
    eventually(lambda: not alive(child))
    eventually(lambda: (p := toy.process("back"))["state"] == "ready" and p["restarts"] == 1)
    child = ask(toy.process("back")["url"])["child"]
    toy.run("down")
    assert not alive(child)


def test_a_killed_runner_takes_its_processes_along(toy: Platform) -> None:
    """Kill -9 of the runner: on Linux the kernel tells the services, elsewhere the next command."""
    up = toy.up()
    toy.wait_ready(up)
    pids = toy.pids()
    up.kill()
    up.wait()
    if sys.platform != "linux":
        toy.run("down")
    eventually(lambda: not any(map(alive, pids)), 10)
    assert "does not run" in toy.run("status").stdout


def test_up_after_a_killed_runner_ends_what_it_left(toy: Platform) -> None:
    """Services that outlive the runner (stubborn ones) are ended by the next `up`."""
    up = toy.up(TOY_BACK="stubborn", SLIPWAY_PORT_BASE=str(free_block()))
    toy.wait_ready(up)
    base = toy.status()["processes"][0]["port"]
    back = toy.process("back")["pid"]
    up.kill()
    up.wait()
    assert alive(back)
    again = toy.up(SLIPWAY_PORT_BASE=str(base))  # the very ports that the leftover holds
    toy.wait_ready(again)
    assert not alive(back)
    assert toy.process("back")["pid"] != back
    toy.run("down")
    assert "back: ended, it was left by a run that died" in again.communicate()[0]


def test_a_reused_pid_is_never_signalled(toy: Platform) -> None:
    """A pid file of another time that names a living stranger: `down` leaves the stranger alone."""
    run = toy.home / "run"
    run.mkdir()
    stranger = toy.up(TOY_FRONT="never", SLIPWAY_HOME=str(toy.home / "other"))
    Path(toy.home / "other").mkdir(exist_ok=True)
    false = f'{{"pid": {stranger.pid}, "start": "1"}}'
    (run / "lock").write_text(false)
    (run / "children.json").write_text(f'{{"back": {false}}}')
    assert toy.run("down").stdout == "Nothing runs.\n"
    assert alive(stranger.pid)
    assert Identity.of(stranger.pid) != Identity(stranger.pid, "1")
    stranger.send_signal(signal.SIGTERM)
    stranger.wait(20)


def free_block() -> int:
    """A base with three free ports above it."""
    from scripts.local.ports import is_free, pick_free

    while True:
        base = pick_free(1)[0]
        if all(is_free(base + offset) for offset in range(3)):
            return base


def test_a_port_that_two_want_is_named() -> None:
    """As when the gateway is moved to a port of a service."""
    from scripts.local.ports import pick_free, require_free

    [port] = pick_free(1)
    ports = {"gateway": (port, "SLIPWAY_GATEWAY_PORT"), "auth": (port, "SLIPWAY_PORT_BASE")}
    with pytest.raises(RunnerError) as refused:
        require_free(ports)
    assert str(refused.value) == (
        f"port {port} is that of gateway and of auth; choose another with SLIPWAY_PORT_BASE=PORT"
    )


def test_a_port_in_use_is_named_before_anything_starts(toy: Platform) -> None:
    """One line with the port, the process that has it, and the variable to change."""
    base = free_block()
    with socket.create_server(("127.0.0.1", base + 1)):
        result = toy.run("up", SLIPWAY_PORT_BASE=str(base))
    assert result.returncode == 1
    assert result.stderr.startswith(f"slipway: port {base + 1} (middle) is in use by ")
    assert f"(pid {os.getpid()})" in result.stderr
    assert "SLIPWAY_PORT_BASE=PORT" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert toy.status()["phase"] is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLIPWAY_PORT_BASE", "http"),
        ("SLIPWAY_GATEWAY_PORT", "70000"),
        ("DATABASE_URL_TEMPLATE", "postgresql://u:p@host/slipway"),
        ("DATABASE_URL_TEMPLATE", "mysql://u:p@host/{service}"),
        ("SLIPWAY_OTLP_ENDPOINT", "foo"),
        ("SLIPWAY_OTLP_ENDPOINT", "http://127.0.0.1:4318/v1/traces"),
        ("SLIPWAY_START_SECONDS", "-1"),
    ],
)
def test_bad_options_are_one_line_and_code_two(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A wrong environment variable is named with its fix."""
    monkeypatch.setenv(name, value)
    assert cli.main(build, ["up"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"slipway: {name}: ")
    assert len(said.splitlines()) == 1


def test_clean_stops_and_forgets(toy: Platform) -> None:
    """Data and logs go, even while the platform runs; secrets stay."""
    up = toy.up()
    toy.wait_ready(up)
    (toy.home / "data" / "orders.db").write_text("rows")
    (toy.home / "secrets" / "local.json").write_text("{}")
    pids = toy.pids()
    assert toy.run("clean").returncode == 0
    assert not any(map(alive, pids))
    assert not (toy.home / "data").exists()
    assert not (toy.home / "logs").exists()
    assert (toy.home / "secrets" / "local.json").exists()
    assert toy.run("clean").returncode == 0


def test_each_run_starts_a_new_log_and_keeps_the_last(toy: Platform) -> None:
    """The log of a service holds this run; the one before is beside it."""
    for _ in range(2):
        assert toy.run("up", "--detach").returncode == 0
        toy.run("down")
    log = toy.home / "logs" / "back.log"
    assert len(log.read_text().splitlines()) == 1
    assert len(log.with_name("back.log.1").read_text().splitlines()) == 1
    assert log.stat().st_mode & 0o077 == 0
