"""The microservice chassis that every Slipway service stands on.

`create_app` is the one call that a service makes; each part is also usable alone.
"""

from chassis.app import create_app
from chassis.clock import Clock, SystemClock
from chassis.ids import new_id
from chassis.problems import Problem, problems
from chassis.runtime import Runtime, RuntimeDep, get_runtime
from chassis.settings import (
    DatabaseSettings,
    EventSettings,
    ServiceSettings,
    SettingsError,
    load_settings,
    settings_config,
)
from chassis.versions import ApiVersion

__all__ = [
    "ApiVersion",
    "Clock",
    "DatabaseSettings",
    "EventSettings",
    "Problem",
    "Runtime",
    "RuntimeDep",
    "ServiceSettings",
    "SettingsError",
    "SystemClock",
    "create_app",
    "get_runtime",
    "load_settings",
    "new_id",
    "problems",
    "settings_config",
]
