"""Settings of auth. Environment prefix `AUTH_`; secrets may come as files instead."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, SecretStr, model_validator
from pydantic_core import PydanticCustomError

from auth.sealing import SealError, parse_keys
from chassis.settings import DatabaseSettings, settings_config

Scope = Annotated[str, Field(pattern=r"^[\x21\x23-\x5b\x5d-\x7e]+$", max_length=64)]

USER_SCOPES = (
    "profile",
    "orders:read",
    "orders:write",
    "notifications:read",
    "tasks:read",
    "tasks:write",
    "trainers:read",
    "trainers:book",
    "stream:read",
    "predict",
)
ADMIN_SCOPES = (
    "items:write",
    "inventory:write",
    "notifications:send",
    "trainers:write",
    "sensors:write",
    "models:write",
    "keys:admin",
)
# What every account may do for itself: granted to a login, not stored with the account, and never
# granted to an API key.
LOGIN_SCOPES = ("keys:manage",)
SERVICE_SCOPES = (
    "inventory:reserve",
    "notifications:send",
    "events:deliver",
)

# The longest life a token may be given. A key stays published this long after its last signature.
MAX_TOKEN_SECONDS = 3600
_MIN_CLIENT_SECRET = 16
# The weakest argon2id that OWASP recommends (19 MiB, two passes).
_MIN_MEMORY_KIB = 19 * 1024
_MIN_PASSES = 2


class ServiceClient(BaseModel):
    """A confidential OAuth client: a service, its secret and the scopes it may ask for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: SecretStr
    scopes: tuple[Scope, ...] = ()


class Settings(DatabaseSettings):
    """What auth can be told. Durations are in seconds unless the name says days."""

    model_config = settings_config("auth")

    service_name: str = "auth"

    clients: dict[str, ServiceClient] = Field(default_factory=dict)
    # The OAuth client of people: it has no secret (RFC 6749 section 2.1, public client).
    public_client_id: str = "slipway"

    access_token_seconds: int = Field(default=900, ge=10, le=MAX_TOKEN_SECONDS)
    refresh_token_days: int = Field(default=30, ge=1, le=365)
    # A token that was just exchanged answers once more with the same successor for this long, so
    # that a lost response or two tabs do not end a session. 0 turns it off.
    refresh_grace_seconds: float = Field(default=10, ge=0, le=60)

    # One key, or several separated by commas: the first seals, all of them open.
    key_encryption_key: SecretStr | None = None
    # Longer than every cache of the key set between here and a verifier (Envoy and chassis: 30).
    key_publish_ahead_seconds: float = Field(default=600, ge=0)
    key_reload_seconds: float = Field(default=2, gt=0, le=30)

    password_min_length: int = Field(default=12, ge=8, le=64)
    argon2_memory_kib: int = Field(default=_MIN_MEMORY_KIB, ge=8)
    argon2_passes: PositiveInt = _MIN_PASSES
    # Hashes computed at once; 0 means one per core. Each takes argon2_memory_kib.
    password_threads: int = Field(default=0, ge=0, le=64)
    # Hashes waiting for a thread before further ones are refused with 503.
    password_queue: PositiveInt = 100

    lockout_failures: PositiveInt = 5
    lockout_account_failures: PositiveInt = 50
    lockout_seconds: float = Field(default=60, gt=0)
    lockout_cap_seconds: float = Field(default=900, gt=0)
    lockout_window_seconds: float = Field(default=3600, gt=0)
    # How many proxies in front append to X-Forwarded-For; 0 trusts the socket alone.
    trusted_proxy_hops: int = Field(default=0, ge=0, le=5)

    api_key_days: int = Field(default=90, ge=1)
    api_key_max_days: int = Field(default=365, ge=1)
    api_keys_per_user: PositiveInt = 50
    api_key_cache_seconds: float = Field(default=5, ge=0, le=30)
    api_key_token_seconds: int = Field(default=60, ge=10, le=60)

    @model_validator(mode="after")
    def _check_keys(self) -> Self:
        if self.key_encryption_key is not None:
            try:
                parse_keys(self.key_encryption_key.get_secret_value())
            except SealError as exc:
                raise _wrong("key_encryption_key", str(exc)) from None
        return self

    @model_validator(mode="after")
    def _check_strength(self) -> Self:
        if self.environment not in {"staging", "production"}:
            return self
        if self.key_encryption_key is None:
            raise _wrong(
                "key_encryption_key",
                f"is required in {self.environment}; give it the output of openssl rand -base64 32",
            )
        if self.argon2_memory_kib < _MIN_MEMORY_KIB or self.argon2_passes < _MIN_PASSES:
            raise _wrong(
                "argon2_memory_kib",
                f"too cheap for {self.environment}; "
                f"use at least {_MIN_MEMORY_KIB} KiB and {_MIN_PASSES} passes",
            )
        for name, client in self.clients.items():
            if len(client.secret.get_secret_value()) < _MIN_CLIENT_SECRET:
                raise _wrong(
                    "clients",
                    f"the secret of {name} is short; "
                    f"use at least {_MIN_CLIENT_SECRET} random characters",
                )
        return self


def _wrong(field: str, message: str) -> PydanticCustomError:
    # The text goes in as context: a brace in it must not be read as a template.
    return PydanticCustomError("auth_setting", "{message}", {"message": message, "field": field})
