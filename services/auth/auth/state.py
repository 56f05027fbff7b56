"""The parts of auth, made once per application and handed to the routes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import structlog
from fastapi import Depends
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import HTTPConnection

from auth.access_tokens import TokenIssuer
from auth.api_keys import ApiKeys
from auth.clients import Clients
from auth.lockout import Lockout
from auth.logins import Logins
from auth.metrics import Metrics
from auth.own_keys import own_verifier
from auth.passwords import PasswordHasher
from auth.sealing import Sealer, SealError, derive, development_key, parse_keys
from auth.sessions import Sessions
from auth.settings import Settings
from auth.signing_keys import SigningKeys
from chassis.clock import Clock
from chassis.database import Database, async_url
from chassis.runtime import Runtime, get_runtime
from chassis.settings import SettingsError

_KEY_FILE = "auth-key-encryption.key"
_LOG = structlog.stdlib.get_logger("auth")


@dataclass(frozen=True, slots=True)
class Auth:
    """Everything that the routes of auth work with."""

    settings: Settings
    database: Database
    clock: Clock
    keys: SigningKeys
    issuer: TokenIssuer
    clients: Clients
    hasher: PasswordHasher
    sessions: Sessions
    lockout: Lockout
    api_keys: ApiKeys
    logins: Logins
    metrics: Metrics


def key_encryption_keys(settings: Settings) -> tuple[bytes, ...]:
    """Return the keys that seal the signing keys, the one that seals first.

    Outside of staging and production a key may be missing from the settings; one is then made in
    a file of mode 0600 beside the SQLite database, or under `.slipway/secrets`.
    """
    if settings.key_encryption_key is not None:
        return parse_keys(settings.key_encryption_key.get_secret_value())
    url = async_url(settings.database_url)
    beside = url.get_backend_name() == "sqlite" and url.database
    folder = Path(str(url.database)).parent if beside else Path(".slipway/secrets")
    return parse_keys(development_key(folder / _KEY_FILE))


def make_hasher(settings: Settings) -> PasswordHasher:
    """Return the password hasher that the settings describe."""
    return PasswordHasher(
        memory_kib=settings.argon2_memory_kib,
        passes=settings.argon2_passes,
        threads=settings.password_threads,
        queue=settings.password_queue,
    )


@asynccontextmanager
async def running(runtime: Runtime) -> AsyncIterator[None]:
    """Make the parts when the application starts.

    Raises:
        SettingsError: the key-encryption key does not open the stored signing keys.
    """
    settings, database, clock = runtime.settings, runtime.database, runtime.clock
    assert isinstance(settings, Settings)
    secrets = key_encryption_keys(settings)
    keys = SigningKeys(settings, database, clock, Sealer(secrets))
    try:
        await keys.load()
    except SealError as exc:
        raise SettingsError(f"AUTH_KEY_ENCRYPTION_KEY: {exc}") from exc
    except SQLAlchemyError:
        # Not ready to sign, but no reason to die: the worker and each request try again.
        _LOG.warning("signing_keys.not_loaded", exc_info=True)
    hasher = make_hasher(settings)
    metrics = Metrics(
        runtime.registry, key_age=keys.age_seconds, hashes_waiting=lambda: hasher.waiting
    )
    runtime.verifier = own_verifier(settings, keys, clock)
    issuer = TokenIssuer(settings, keys, clock)
    api_keys = ApiKeys(settings, database, clock, issuer)
    lockout = Lockout(settings, derive(secrets[0], "lockout"))
    runtime.extras["auth"] = Auth(
        settings=settings,
        database=database,
        clock=clock,
        keys=keys,
        issuer=issuer,
        clients=Clients(settings),
        hasher=hasher,
        sessions=Sessions(settings),
        lockout=lockout,
        api_keys=api_keys,
        logins=Logins(
            database,
            clock,
            hasher=hasher,
            lockout=lockout,
            api_keys=api_keys,
            verifier=runtime.verifier,
            metrics=metrics,
        ),
        metrics=metrics,
    )
    yield


def auth_of(runtime: Runtime) -> Auth:
    """Return the parts of a running application."""
    auth = runtime.extras["auth"]
    assert isinstance(auth, Auth)
    return auth


async def _get_auth(connection: HTTPConnection) -> Auth:
    return auth_of(get_runtime(connection))


AuthDep = Annotated[Auth, Depends(_get_auth)]
