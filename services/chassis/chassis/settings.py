"""Settings of a service: read once at the start from environment and secret files, then frozen.

Each service has one prefix (`ORDERS_`). A value comes from, first wins: an argument, the
environment, a file named like the variable in the secrets directory (`$SLIPWAY_SECRETS_DIR`,
by default `/run/secrets/slipway`). A bad value stops the start with one line that names the
setting and the fix; the value itself is never shown, because it may be a secret.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator, Mapping
from importlib import import_module, metadata
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SecretsSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import SettingsError as SourceError

DEFAULT_SECRETS_DIR = "/run/secrets/slipway"

_PLACEHOLDER = re.compile(
    r"""
    (change|replace|set|fill)[-_ ]?(me|this|in)\b.* | (my|your)[-_ ].+ | <.*> | \$?\{.*\} | (.)\4*
    | (secret|password|passwd|pass|example|default|placeholder|dummy|test|todo|tbd|none|null
       |admin|root|token|key|insecure|dev|development|postgres)\d*
    """,
    re.VERBOSE | re.IGNORECASE,
)
_GUARDED = frozenset({"staging", "production"})

_FIXES = {
    "missing": "set it in the environment or as a file in the secrets directory",
    "int_parsing": "give a whole number such as 8000",
    "int_from_float": "give a whole number such as 8000",
    "float_parsing": "give a number such as 2.5",
    "bool_parsing": "use true or false",
    "json_invalid": "give valid JSON",
}

LogLevel = Annotated[
    Literal["debug", "info", "warning", "error", "critical"],
    BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value),
]


class SettingsError(Exception):
    """A setting is missing or wrong. Its text is one line: `NAME: what is wrong; the fix`."""


def settings_class(service: str) -> type[ServiceSettings]:
    """Return what the package `service` declares in its `settings.py`.

    Raises:
        SettingsError: there is no such package, or no such class in it.
    """
    try:
        module = import_module(f"{service}.settings")
    except ModuleNotFoundError as error:
        if error.name == service:
            raise SettingsError(f"{service}: no such service; give the name of a package") from None
        if error.name != f"{service}.settings":
            raise
        raise SettingsError(f"{service}: has no settings.py; see docs/chassis.md") from None
    found = getattr(module, "Settings", None)
    if not (isinstance(found, type) and issubclass(found, ServiceSettings)):
        raise SettingsError(f"{service}: no class Settings in settings.py; see docs/chassis.md")
    return found


def settings_config(service: str) -> SettingsConfigDict:
    """Return the configuration of a settings class of `service`: prefix `<SERVICE>_`, frozen."""
    return SettingsConfigDict(
        env_prefix=f"{service.upper().replace('-', '_')}_",
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )


def _package_version(service: str) -> str:
    try:
        return metadata.version(f"slipway-{service}")
    except metadata.PackageNotFoundError:
        return "0.0.0"


def _http_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("not an absolute HTTP URL; give one such as http://auth:8000")
    return value


class ServiceSettings(BaseSettings):
    """What every service can be told. Durations are in seconds, sizes in bytes."""

    model_config = settings_config("service")

    package: ClassVar[str] = ""
    """The import package of a service whose releases have names of their own; empty: its name."""

    service_name: str = "service"
    environment: Literal["development", "test", "staging", "production"] = "development"
    version: str = Field(
        default_factory=lambda data: (
            os.environ.get("SLIPWAY_VERSION") or _package_version(data.get("service_name", ""))
        )
    )
    revision: str = Field(default_factory=lambda: os.environ.get("SLIPWAY_REVISION") or "unknown")
    instance: str = Field(default_factory=socket.gethostname)

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    workers: PositiveInt = 1
    serverless: bool = False
    """The process runs only while it answers (AWS Lambda): it has no background loops, and does
    not wait for migrations."""
    log_level: LogLevel = "info"
    log_format: Literal["json", "console"] = "json"
    access_log: bool = True
    docs_enabled: bool = True
    max_body_bytes: PositiveInt = 1_048_576
    drain_seconds: NonNegativeFloat = 20.0
    shutdown_delay_seconds: NonNegativeFloat = 0.0
    keep_alive_seconds: PositiveFloat = 75.0
    request_timeout_seconds: PositiveFloat = 15.0

    otlp_endpoint: str | None = None
    trace_sample_ratio: float = Field(default=0.1, ge=0.0, le=1.0)

    issuer: str = "http://localhost:8080"
    audience: str = "slipway"
    auth_url: str = "http://auth"
    jwks_url: str = ""
    token_leeway_seconds: NonNegativeFloat = 10
    jwks_refresh_seconds: PositiveFloat = 30
    jwks_min_refresh_seconds: PositiveFloat = 10
    client_id: str = ""
    client_secret: SecretStr | None = None

    peer_connect_timeout_seconds: PositiveFloat = 1.0
    peer_timeout_seconds: PositiveFloat = 5.0
    peer_max_connections: PositiveInt = 100
    peer_retries: NonNegativeInt = 2
    peer_retry_budget: NonNegativeFloat = 0.2
    breaker_failures: PositiveInt = 5
    breaker_reset_seconds: PositiveFloat = 60.0

    @model_validator(mode="before")
    @classmethod
    def _derive(cls, data: Any) -> Any:
        """Fill what follows from other settings, while the model is still open."""
        if not isinstance(data, dict):
            return data
        values = {key: value for key, value in data.items() if value is not None}
        default = cls.model_fields
        auth_url = values.get("auth_url", default["auth_url"].default)
        if not values.get("jwks_url") and isinstance(auth_url, str):
            values["jwks_url"] = f"{auth_url.rstrip('/')}/.well-known/jwks.json"
        if not values.get("client_id"):
            values["client_id"] = values.get("service_name", default["service_name"].default)
        if cls.package and not values.get("version"):
            values["version"] = os.environ.get("SLIPWAY_VERSION") or _package_version(cls.package)
        return values

    @field_validator("service_name")
    @classmethod
    def _plain_name(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z][a-z0-9-]*", value):
            raise ValueError("not a service name; use lower-case letters, digits and -")
        return value

    @field_validator("otlp_endpoint", "issuer", "auth_url", "jwks_url")
    @classmethod
    def _absolute_url(cls, value: str | None) -> str | None:
        return _http_url(value) if value else None

    @model_validator(mode="after")
    def _refuse_placeholders(self) -> Self:
        if self.environment in _GUARDED:
            for name, secret in _secrets(self):
                if _PLACEHOLDER.fullmatch(secret.strip()) or not secret.strip():
                    raise PydanticCustomError(
                        "placeholder",
                        "is a placeholder, refused in {environment}; give it a real secret",
                        {"environment": self.environment, "field": name},
                    )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  (the library's signature)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read arguments, environment and secret files; the directory is looked up at each load."""
        directory = Path(os.environ.get("SLIPWAY_SECRETS_DIR") or DEFAULT_SECRETS_DIR)
        if not directory.is_dir():
            return (init_settings, env_settings)
        return (
            init_settings,
            env_settings,
            SecretsSettingsSource(settings_cls, secrets_dir=directory),
        )


class DatabaseSettings(ServiceSettings):
    """Settings of a service with a database. `database_url` is PostgreSQL or SQLite."""

    database_url: str = Field(
        default_factory=lambda data: (
            f"sqlite:///.slipway/data/{data.get('service_name', 'service')}.db"
        )
    )
    database_pool_size: PositiveInt = 10
    database_pool_timeout_seconds: PositiveFloat = 5
    statement_timeout_seconds: PositiveFloat = 10

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: str) -> str:
        scheme = value.partition("://")[0].partition("+")[0]
        if "://" not in value or scheme not in {"postgresql", "postgres", "sqlite"}:
            raise ValueError(
                "not a URL of a supported database; "
                "use postgresql://user:password@host/name or sqlite:///path"
            )
        return value


# As long as the outbox stores it.
SubscriberUrl = Annotated[str, Field(max_length=500), AfterValidator(_http_url)]


class EventSettings(DatabaseSettings):
    """Settings of a service that publishes events: who is told, and how often it is tried."""

    subscribers: dict[str, list[SubscriberUrl]] = Field(default_factory=dict)
    outbox_poll_seconds: PositiveFloat = 0.5
    outbox_batch: PositiveInt = 50
    # About a day of tries once the pause has grown to its cap; then the event is a dead letter.
    outbox_max_attempts: PositiveInt = 1500
    outbox_backoff_seconds: PositiveFloat = 0.5
    outbox_backoff_cap_seconds: PositiveFloat = 60
    outbox_retention_seconds: PositiveFloat = 7 * 86_400


S = TypeVar("S", bound=BaseSettings)


def load_settings(cls: type[S]) -> S:
    """Load `cls` from environment and secret files.

    Raises:
        SettingsError: naming the first bad setting and its fix, in one line.
    """
    try:
        return cls()
    except ValidationError as exc:
        raise SettingsError(_one_line(cls, exc)) from None
    except SourceError as exc:
        field = re.search(r'field "([^"]+)"', str(exc))
        name = _variable(cls, field.group(1) if field else "")
        raise SettingsError(f"{name}: not valid JSON; {_FIXES['json_invalid']}") from None


def _variable(cls: type[BaseSettings], field: str) -> str:
    return f"{cls.model_config.get('env_prefix', '')}{field}".upper()


def _one_line(cls: type[BaseSettings], exc: ValidationError) -> str:
    # A derived default that could not be computed is a consequence, not a cause.
    errors = [
        error
        for error in exc.errors(include_url=False, include_input=False)
        if error["type"] != "default_factory_not_called"
    ]
    names = [_variable(cls, _field(error)) for error in errors]
    line = f"{names[0]}: {_explain(errors[0])}"
    rest = sorted(set(names[1:]) - {names[0]})
    if rest:
        line += f" (also wrong: {', '.join(rest)})"
    return " ".join(line.split())


def _field(error: ErrorDetails) -> str:
    if error["loc"]:
        return str(error["loc"][0])
    return str(error.get("ctx", {}).get("field", "settings"))


def _explain(error: ErrorDetails) -> str:
    kind, message = error["type"], error["msg"]
    context = error.get("ctx", {})
    inner = ".".join(str(part) for part in error["loc"][1:])
    what = message.removeprefix("Value error, ")
    if inner:
        what = f"at {inner}: {what}"
    if ";" in what:
        return what
    what = what[:1].lower() + what[1:]
    if kind in _FIXES:
        fix = _FIXES[kind]
    elif "expected" in context:
        fix = f"use {context['expected']}"
    elif limits := [f"{sign} {context[key]}" for key, sign in _LIMITS.items() if key in context]:
        fix = f"use a value {' and '.join(limits)}"
    else:
        fix = "correct the value"
    return f"{what}; {fix}"


_LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


def _secrets(settings: BaseModel) -> Iterator[tuple[str, str]]:
    """Yield (field, secret text) of every secret in the settings, nested ones and URLs too."""
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if name.endswith("_url") and isinstance(value, str):
            yield from ((name, text) for text in _url_password(value))
        for secret in _walk(value):
            yield name, secret


def _url_password(url: str) -> Iterator[str]:
    try:
        password = urlsplit(url).password
    except ValueError:
        return
    if password is not None:
        yield password


def _walk(value: object) -> Iterator[str]:
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from _walk(getattr(value, name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _walk(item)
