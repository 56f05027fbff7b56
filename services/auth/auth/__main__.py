"""Commands of auth: `python -m auth create-admin|revoke|rotate-keys|clients`.

They work on the database of the settings, beside the running service. One line says what was done
(stdout) or why not (stderr, exit code 2).
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import math
import sys
from collections.abc import Sequence

from sqlalchemy.exc import SQLAlchemyError

from auth import api_keys, emails, passwords, sessions, users
from auth.clients import Clients
from auth.sealing import Sealer, SealError
from auth.settings import Settings
from auth.signing_keys import RotationConflictError, SigningKeys
from auth.state import key_encryption_keys, make_hasher
from chassis.clock import SystemClock
from chassis.database import Database
from chassis.settings import SettingsError, load_settings

_MAX_LINE = 1000


class InputError(Exception):
    """What was asked for cannot be done; the text is one line."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    try:
        line = asyncio.run(_run(arguments, load_settings(Settings)))
    except (InputError, SettingsError, RotationConflictError) as exc:
        return _refuse(str(exc))
    except passwords.WeakPasswordError as exc:
        return _refuse(f"the password is refused: {exc}")
    except SQLAlchemyError as exc:
        reason = " ".join(str(getattr(exc, "orig", None) or exc).split())
        return _refuse(
            f"AUTH_DATABASE_URL: {reason}; is it up, and did `python -m chassis migrate auth` run "
            "(on the local platform: make migrate)?"
        )
    print(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m auth", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    admin = commands.add_parser("create-admin", help="make an administrator, or an account one")
    admin.add_argument("--email", required=True)
    admin.add_argument(
        "--password-stdin", action="store_true", help="read it from stdin instead of asking"
    )
    revoke = commands.add_parser(
        "revoke", help="end the sessions and the API keys of an account that was broken into"
    )
    whose = revoke.add_mutually_exclusive_group(required=True)
    whose.add_argument("--email")
    whose.add_argument("--user", help="the id, as the log has it")
    rotate = commands.add_parser("rotate-keys", help="publish a new key that soon signs tokens")
    rotate.add_argument(
        "--now", action="store_true", help="sign with it in seconds, not after every cache expired"
    )
    rotate.add_argument(
        "--withdraw", action="store_true", help="the old key has leaked: forget it (with --now)"
    )
    commands.add_parser("clients", help="list the OAuth clients and their scopes")
    return parser


async def _run(arguments: argparse.Namespace, settings: Settings) -> str:
    if arguments.command == "clients":
        return _list_clients(settings)
    database = Database(settings)
    try:
        if arguments.command == "create-admin":
            return await _create_admin(arguments, settings, database)
        if arguments.command == "revoke":
            return await _revoke(arguments, settings, database)
        return await _rotate_keys(arguments, settings, database)
    finally:
        await database.close()


async def _create_admin(
    arguments: argparse.Namespace, settings: Settings, database: Database
) -> str:
    email = _email(arguments)
    async with database.reading() as session:
        user = await users.by_email(session, email)
    if user is None:
        minimum = settings.password_min_length
        password = _read_password(minimum, from_stdin=arguments.password_stdin)
        passwords.check(password, email=email, minimum=minimum)
        password_hash = await make_hasher(settings).hash(password)
        try:
            user = await users.create(
                database, SystemClock(), email=email, password_hash=password_hash, admin=True
            )
        except users.AccountExistsError:
            raise InputError("the account was just made by somebody else; try again") from None
        return f"created administrator {user.id}"
    if await users.make_admin(database, user):
        return f"made {user.id} an administrator; the password is unchanged"
    return f"{user.id} is an administrator already; the password is unchanged"


async def _revoke(arguments: argparse.Namespace, settings: Settings, database: Database) -> str:
    now = SystemClock().now()
    async with database.session() as session:
        if arguments.user is None:
            user = await users.by_email(session, _email(arguments))
        else:
            user = await users.by_id(session, arguments.user)
        if user is None:
            raise InputError("there is no such account")
        ended = await sessions.end_all(session, user.id, now)
        revoked = await api_keys.revoke_all(session, user.id, now)
    minutes = math.ceil(settings.access_token_seconds / 60)
    return (
        f"{user.id}: sessions ended: {ended}, API keys revoked: {revoked}; "
        f"access tokens end by themselves within {minutes} minutes"
    )


def _email(arguments: argparse.Namespace) -> str:
    try:
        return emails.normalise(arguments.email)
    except ValueError as exc:
        raise InputError(f"--email: {exc}") from None


def _read_password(minimum: int, *, from_stdin: bool) -> str:
    if from_stdin:
        password = sys.stdin.readline(_MAX_LINE).rstrip("\r\n")
    elif sys.stdin.isatty():
        password = getpass.getpass("Password: ")
        if getpass.getpass("Again: ") != password:
            raise InputError("the two passwords differ")
    else:
        raise InputError("no terminal to ask for the password; pipe it in with --password-stdin")
    if not minimum <= len(password) <= passwords.MAX_LENGTH:
        raise InputError(f"the password must have {minimum} to {passwords.MAX_LENGTH} characters")
    return password


async def _rotate_keys(
    arguments: argparse.Namespace, settings: Settings, database: Database
) -> str:
    if arguments.withdraw and not arguments.now:
        raise InputError("--withdraw needs --now: without the old key nothing could sign")
    try:
        sealer = Sealer(key_encryption_keys(settings))
        keys = SigningKeys(settings, database, SystemClock(), sealer)
        made = await keys.rotate(at_once=arguments.now, withdraw=arguments.withdraw)
    except SealError as exc:
        # Without the setting the key was just made up.
        made_up = settings.key_encryption_key is None
        hint = " (the local platform: make run SERVICE=auth)" if made_up else ""
        raise InputError(f"AUTH_KEY_ENCRYPTION_KEY: {exc}{hint}") from None
    return f"published key {made.kid}; it signs from {made.activates_at:%Y-%m-%dT%H:%M:%SZ}"


def _list_clients(settings: Settings) -> str:
    lines = [f"{client.id}: {' '.join(client.scopes)}" for client in Clients(settings).all()]
    return "\n".join(lines) or "no clients; set AUTH_CLIENTS"


def _refuse(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
