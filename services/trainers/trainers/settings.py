"""Settings of the trainers service; environment variables with prefix `TRAINERS_`."""

from typing import ClassVar, Literal

from pydantic import PositiveFloat, PositiveInt

from chassis.settings import DatabaseSettings, settings_config


class Settings(DatabaseSettings):
    """What can be set; times are seconds."""

    model_config = settings_config("trainers")

    package: ClassVar[str] = "trainers"
    service_name: str = "trainers"

    role: Literal["commands", "queries", "all"] = "all"
    """What this process does. Releases have one side each, so that they scale apart; `all` is both
    in one process, which is how the tests and a first look run it."""

    booking_days: PositiveInt = 60
    """How far ahead a session may be booked, and is shown as free: the same for both releases."""

    projector_poll_seconds: PositiveFloat = 0.2
    """Pause between two looks for events that other processes wrote."""

    projector_batch: PositiveInt = 200
    """Events that one transaction of the projector takes."""

    projector_retry_seconds: PositiveFloat = 5.0
    """Pause after an event that cannot be projected."""

    read_wait_seconds: PositiveFloat = 2.0
    """How long a query waits for the version that its caller asks for by `at_least`."""
