"""The microservice chassis that every Slipway service stands on.

`create_app` is the one call that a service makes; each part is also usable alone. A name is
imported when it is first used: a command that needs only settings or migrations does not wait for
the web framework and the clients.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from chassis.app import create_app
    from chassis.clock import Clock, SystemClock
    from chassis.ids import new_id
    from chassis.problems import Problem
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
    "settings_config",
]

# No name here may be that of a module: whoever imports the module would hide it.
_HOMES = {
    "chassis.app": ("create_app",),
    "chassis.clock": ("Clock", "SystemClock"),
    "chassis.ids": ("new_id",),
    "chassis.problems": ("Problem",),
    "chassis.runtime": ("Runtime", "RuntimeDep", "get_runtime"),
    "chassis.settings": (
        "DatabaseSettings",
        "EventSettings",
        "ServiceSettings",
        "SettingsError",
        "load_settings",
        "settings_config",
    ),
    "chassis.versions": ("ApiVersion",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module (PEP 562); after that it is an ordinary attribute."""
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
