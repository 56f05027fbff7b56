"""Settings of the catalogue; the variables start with `ITEMS_`."""

from typing import Self

from pydantic import AwareDatetime, model_validator

from chassis.settings import DatabaseSettings, settings_config


class Settings(DatabaseSettings):
    """What can be set, with the embedded defaults."""

    model_config = settings_config("items")

    service_name: str = "items"

    v1_deprecated: AwareDatetime | None = None
    """Since when v1 is deprecated (RFC 3339). Announcing it is a decision of operations, not of
    code: once set, every answer of v1 says so (`Deprecation`) and names v2 as its successor."""

    v1_sunset: AwareDatetime | None = None
    """When v1 will stop to answer (`Sunset`, RFC 8594); needs `v1_deprecated`."""

    @model_validator(mode="after")
    def _sunset_follows_deprecation(self) -> Self:
        if self.v1_sunset is None:
            return self
        if self.v1_deprecated is None or self.v1_sunset < self.v1_deprecated:
            raise ValueError("v1_sunset needs an earlier v1_deprecated; set it or unset v1_sunset")
        return self
