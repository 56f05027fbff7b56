"""Settings of the stream service; environment variables with prefix `STREAM_`."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from chassis.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """What can be set; times are seconds, sizes are bytes. Limits are of one process."""

    model_config = settings_config("stream")

    service_name: str = "stream"

    valkey_url: str = Field(
        default="",
        description="Where replicas share their events. Empty: one process, in its own memory.",
    )
    valkey_timeout_seconds: float = Field(default=2.0, gt=0)

    history_messages: int = Field(
        default=5000, ge=1, description="Events kept of each kind, for those who come back."
    )
    dedupe_seconds: int = Field(
        default=86_400, ge=1, description="How long an event that comes again is known."
    )
    event_bytes: int = Field(
        default=65_536, ge=1024, description="A larger event is refused, for good."
    )

    queue_messages: int = Field(default=256, ge=1)
    queue_bytes: int = Field(default=1_048_576, ge=1024)
    slow_clients: Literal["drop_oldest", "disconnect"] = "drop_oldest"

    connections: int = Field(default=5000, ge=1, description="More are answered 503.")
    connections_per_user: int = Field(default=10, ge=1)
    topics_per_connection: int = Field(default=50, ge=1)
    client_message_bytes: int = Field(default=16_384, ge=1024)
    first_message_seconds: float = Field(
        default=5.0,
        gt=0,
        description="In this time a WebSocket that came without a token sends it.",
    )
    ticket_seconds: int = Field(default=30, ge=1, le=300)
    heartbeat_seconds: float = Field(
        default=15.0,
        gt=0,
        description="This often a quiet stream is told how far it is, or at least that it lives.",
    )
    goodbye_spread_seconds: float = Field(
        default=10.0,
        ge=0,
        description="Over this time, at most half of the drain, clients are sent away at the end.",
    )

    @field_validator("valkey_url")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if value and value.partition("://")[0] not in {"redis", "rediss", "valkey", "valkeys"}:
            raise ValueError("not a URL of Valkey; use valkey://:password@host:6379/0")
        return value

    @model_validator(mode="after")
    def _shared_where_it_counts(self) -> Self:
        if self.environment in {"staging", "production"} and not self.valkey_url:
            raise PydanticCustomError(
                "valkey_url",
                "is required in {environment}, where replicas share their events; "
                "give it the URL of a Valkey",
                {"environment": self.environment, "field": "valkey_url"},
            )
        if self.workers > 1 and not self.valkey_url:
            raise PydanticCustomError(
                "workers",
                "{workers} processes need a Valkey to share their events; "
                "set it to 1, or give STREAM_VALKEY_URL the URL of a Valkey",
                {"workers": self.workers, "field": "workers"},
            )
        return self
