"""The catalogue application."""

from fastapi import FastAPI

from chassis import ApiVersion, load_settings
from chassis import create_app as create_chassis_app
from chassis.clock import Clock
from items import api_v1, api_v2
from items.settings import Settings

DESCRIPTION = """\
The catalogue: what can be ordered and for how much.

Everybody may read; changes need the scope `items:write`, and changing an item that exists needs
its `ETag` in `If-Match`. Prices are decimal strings with an ISO 4217 currency.

**v2** differs from v1 in one point: an item has `prices`, one for each currency, where v1 has one
`price`, which is the first of them.
"""


def create_app(settings: Settings | None = None, *, clock: Clock | None = None) -> FastAPI:
    """Build the application; settings come from the environment when none are given.

    Raises:
        SettingsError: a setting is missing or wrong.
    """
    settings = settings or load_settings(Settings)
    return create_chassis_app(
        settings,
        title="Items",
        description=DESCRIPTION,
        versions=[
            ApiVersion(
                "v1",
                api_v1.router,
                deprecated=settings.v1_deprecated,
                sunset=settings.v1_sunset,
                successor="v2",
            ),
            ApiVersion("v2", api_v2.router),
        ],
        idempotency=True,
        clock=clock,
    )
