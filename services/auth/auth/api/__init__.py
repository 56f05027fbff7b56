"""The routes of auth: `v1` under its version, `internal` as the standards and the gateway fix."""

from fastapi import APIRouter

from auth.api import exchange, keys, login, token, users, wellknown

v1 = APIRouter()
for _module in (users, token, keys):
    v1.include_router(_module.router)

internal = APIRouter()
for _module in (login, wellknown, exchange):
    internal.include_router(_module.router)
