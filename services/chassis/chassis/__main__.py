"""Commands of every service: `python -m chassis serve|migrate|seed|openapi|outbox <service>`."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import sys

from chassis import migrations
from chassis.events import cli
from chassis.seed import SeedError, seed
from chassis.server import serve
from chassis.settings import (
    DatabaseSettings,
    EventSettings,
    SettingsError,
    load_settings,
    settings_class,
)


def main(argv: list[str] | None = None) -> int:
    """Run one command; return the exit code (2: bad input, said in one line)."""
    parser = argparse.ArgumentParser(prog="python -m chassis")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("serve", "serve a service until SIGTERM"),
        ("migrate", "bring its database up to date"),
        ("seed", "add its example data; what exists stays as it is"),
        ("openapi", "print its OpenAPI document"),
        ("outbox", "list or replay its dead letters"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("service")
        if name == "migrate":
            command.add_argument("--check", action="store_true", help="only say if it is needed")
        if name == "outbox":
            cli.add_arguments(command)
    arguments = parser.parse_args(argv)
    try:
        return _run(arguments)
    except (SettingsError, migrations.MigrationError, SeedError) as exc:
        print(exc, file=sys.stderr)
        return 2


def _run(arguments: argparse.Namespace) -> int:
    service = arguments.service
    settings = load_settings(settings_class(service))
    if arguments.command in {"serve", "openapi"}:
        create = importlib.import_module(f"{service}.main").create_app
        if arguments.command == "serve":
            serve(lambda: create(settings), settings, service)
        else:
            print(json.dumps(create(settings).openapi(), indent=2))
        return 0
    if not isinstance(settings, DatabaseSettings):
        raise SettingsError(f"{service}: has no database; name a service that has one")
    if arguments.command == "migrate":
        return asyncio.run(_migrate(service, settings, check=arguments.check))
    if arguments.command == "seed":
        print(f"{service}: {asyncio.run(seed(service, settings))} examples added")
        return 0
    if not isinstance(settings, EventSettings):
        raise SettingsError(f"{service}: has no outbox; name a service that publishes events")
    return asyncio.run(cli.run(arguments, settings))


async def _migrate(service: str, settings: DatabaseSettings, *, check: bool) -> int:
    if not check:
        await migrations.migrate(service, settings)
        return 0
    found = await migrations.status(service, settings)
    for line in found.drift:
        print(line, file=sys.stderr)
    if found.pending:
        print(f"{service}: migrations are pending; run python -m chassis migrate {service}")
    return 1 if found.pending or found.drift else 0


if __name__ == "__main__":
    sys.exit(main())
