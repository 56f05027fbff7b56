"""The commands of the runner; the platform that they run is given by the caller."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from scripts.local.columns import aligned
from scripts.local.detach import start_in_background
from scripts.local.hold import hold_down, let_go
from scripts.local.home import Home, RunnerError, read_json
from scripts.local.lock import end_leftovers, held, running, stop_running
from scripts.local.options import Options
from scripts.local.procs import age

if TYPE_CHECKING:
    from scripts.local.stack import Stack

_NOT_RUNNING = 3


def main(
    build: Callable[[Options], Stack],
    arguments: Sequence[str] | None = None,
    extra: Callable[[argparse._SubParsersAction[argparse.ArgumentParser]], None] | None = None,
) -> int:
    """Run one command; the exit code. `extra` adds commands of the platform itself.

    A command is a function of the parsed arguments, set as the default of `command`.
    """
    parser = argparse.ArgumentParser(prog="python -m scripts.local", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    up = commands.add_parser("up", help="start everything, in the foreground")
    up.add_argument("--detach", action="store_true", help="return when it is ready")
    up.add_argument("--background", action="store_true", help=argparse.SUPPRESS)
    up.set_defaults(command=lambda args: _up(args, build))
    for name, command, text in (
        ("down", _down, "stop everything, wherever it was started"),
        ("status", _status, "show what runs"),
        ("clean", _clean, "stop everything and forget data and logs"),
    ):
        commands.add_parser(name, help=text).set_defaults(command=command)
    for name, of_one, text in (
        ("stop", _stop_one, "stop one process and keep it stopped, to see how the others cope"),
        ("start", _start_one, "start a stopped process again and wait until it is ready"),
    ):
        one = commands.add_parser(name, help=text)
        one.add_argument("name")
        one.set_defaults(command=of_one)
    if extra is not None:
        extra(commands)
    args = parser.parse_args(arguments)
    try:
        return int(args.command(args))
    except RunnerError as error:
        print(f"slipway: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        return 130


def _up(args: argparse.Namespace, build: Callable[[Options], Stack]) -> int:
    options = Options.from_environment()
    if args.detach:
        return start_in_background(options.home)
    # Only `up` needs the HTTP client and the screen; the other commands answer at once.
    from scripts.local.run import run  # noqa: PLC0415
    from scripts.local.view import make_reporter  # noqa: PLC0415

    run(options, build, make_reporter(), background=args.background)
    return 0


def _down(_: argparse.Namespace) -> int:
    print(_stop_all(Home.from_environment()))
    return 0


def _stop_all(home: Home) -> str:
    stopped = stop_running(home)
    left = end_leftovers(home)
    if left:
        return f"Ended what a run that died had left: {', '.join(left)}."
    return "Stopped." if stopped else "Nothing runs."


def _stop_one(args: argparse.Namespace) -> int:
    home = Home.from_environment()
    hold_down(home, args.name)
    print(f"{args.name} is stopped; `start {args.name}` starts it again.")
    return 0


def _start_one(args: argparse.Namespace) -> int:
    home = Home.from_environment()
    let_go(home, args.name, Options.from_environment().start_seconds)
    print(f"{args.name} is ready.")
    return 0


def _status(_: argparse.Namespace) -> int:
    home = Home.from_environment()
    status = read_json(home.status)
    if not held(home) or not isinstance(status, dict):
        print("Slipway does not run; start it with `make up`.")
        return _NOT_RUNNING
    print(f"Slipway is {status['phase']} (pid {status['pid']}).")
    for line in aligned([_row(process) for process in status["processes"]]):
        print(line)
    return 0


def _row(process: dict[str, Any]) -> tuple[str, ...]:
    up = age(time.time() - process["started"]) if process["pid"] else ""
    restarts, error = process["restarts"], process["last_error"]
    said = (f"restarts {restarts}" if restarts else "", f"last error: {error}" if error else "")
    return process["name"], process["state"], up, process["url"], " ".join(filter(None, said))


def _clean(_: argparse.Namespace) -> int:
    home = Home.from_environment()
    if not home.root.exists():
        print("Nothing to forget.")
        return 0
    _stop_all(home)
    with running(home):
        for path in (home.data, home.logs):
            shutil.rmtree(path, ignore_errors=True)
        for file in home.run.iterdir():
            if file != home.lock:  # held by this very process
                file.unlink()
    print("Data and logs are gone.")
    return 0
