"""Settings of the demo."""

from chassis.settings import ServiceSettings, settings_config


class Settings(ServiceSettings):
    """What it can be told."""

    model_config = settings_config("demo")

    service_name: str = "demo"
    marks: str = ""
    """A file that gets a line when the lifespan begins, and when it ends."""
    worker: bool = False
