"""The commands of this tree's platform: those of every runner, and those for its services."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TYPE_CHECKING, NoReturn

from scripts.local import cli
from scripts.local.options import Options

if TYPE_CHECKING:
    from scripts.local.slipway import Slipway


def main() -> int:
    """Run the command of the command line; its exit code."""
    return cli.main(_build, extra=_add_commands)


def _build(options: Options) -> Slipway:
    from scripts.local.slipway import Slipway  # noqa: PLC0415 - `down` and `status` need none of it

    return Slipway(options)


def _stack() -> Slipway:
    options = Options.from_environment()
    options.home.make()
    return _build(options)


def _migrate(_: argparse.Namespace) -> int:
    asyncio.run(_stack().migrate(seed=False))
    print("Every database is up to date.")
    return 0


def _run(args: argparse.Namespace) -> NoReturn:
    from scripts.local.slipway import run_tool  # noqa: PLC0415

    run_tool(_stack(), args.service, args.words)


def _openapi(args: argparse.Namespace) -> NoReturn:
    _run(argparse.Namespace(service=args.service, words=["openapi"]))


def _admin(args: argparse.Namespace) -> int:
    if not args.email:
        print("slipway: whose account? make admin EMAIL=you@example.org", file=sys.stderr)
        return 2
    asked = [] if sys.stdin.isatty() else ["--password-stdin"]
    words = ["create-admin", "--email", args.email, *asked]
    _run(argparse.Namespace(service="auth", words=words))


def _add_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    migrate = commands.add_parser("migrate", help="bring every database up to date")
    migrate.set_defaults(command=_migrate)
    openapi = commands.add_parser("openapi", help="print the OpenAPI document of a service")
    openapi.add_argument("service")
    openapi.set_defaults(command=_openapi)
    admin = commands.add_parser("admin", help="make an administrator")
    admin.add_argument("email")
    admin.set_defaults(command=_admin)
    run = commands.add_parser(
        "run", help="run a command of a service: run auth rotate-keys, run orders outbox list"
    )
    run.add_argument("service")
    run.add_argument("words", nargs=argparse.REMAINDER)
    run.set_defaults(command=_run)
