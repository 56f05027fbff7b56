"""Settings of the tasks service; every one is an environment variable with prefix `TASKS_`."""

from pydantic import Field, PositiveFloat

from chassis.settings import EventSettings, settings_config


class Settings(EventSettings):
    """What can be set, with the embedded defaults."""

    model_config = settings_config("tasks")

    service_name: str = "tasks"

    due_soon_hours: float = Field(default=24.0, gt=0, le=24 * 366)
    """How long before it falls due the owner of a task is told."""

    due_soon_poll_seconds: PositiveFloat = 5.0
    """Pause between two looks for tasks that fall due soon."""

    due_soon_batch: int = Field(default=100, ge=1, le=1000)
    """Tasks that are told in one transaction."""

    bin_days: float = Field(default=30.0, gt=0, le=366 * 100)
    """How long a deleted task can be restored; then it is gone for good."""
