"""Settings of info. Environment prefix `INFO_`; everything else is the chassis'."""

from __future__ import annotations

from chassis.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """What info can be told."""

    model_config = settings_config("info")

    service_name: str = "info"
