"""What a person may set for `make up`, read from the environment once."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from scripts.local.home import Home, RunnerError

_MAX_PORT = 65535
_ON = ("1", "true", "yes", "on")
_OFF = ("", "0", "false", "no", "off")
_ENDPOINT = re.compile(r"https?://[A-Za-z0-9.-]+(:[0-9]{1,5})?/?")  # as in charts/gateway
_BLOCK = 100  # room for the services above SLIPWAY_PORT_BASE


@dataclass(frozen=True)
class Options:
    """Settings of one run. A port of 0 means: any free one (tests use it)."""

    home: Home
    gateway_port: int = 8080
    port_base: int = 8100
    database_url_template: str | None = None
    valkey_url: str | None = None  # without one, who needs it keeps its state in its process
    otlp_endpoint: str | None = None
    traces: bool = False  # run the trace view, and send it every trace
    start_seconds: float = 120.0
    restart_cap_seconds: float = 10.0  # the longest pause before a restart

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Options:
        """Read DATABASE_URL_TEMPLATE and the variables that begin with SLIPWAY_.

        Raises:
            RunnerError: one line naming the variable, what is wrong with it, and the fix (code 2).
        """
        env = os.environ if environ is None else environ
        template = env.get("DATABASE_URL_TEMPLATE") or None
        if template and "{service}" not in template:
            raise RunnerError(
                "DATABASE_URL_TEMPLATE: has no {service}; "
                "write one database per service, as in postgresql://user:password@host/slipway_{service}",
                code=2,
            )
        if template and not template.startswith(("postgresql:", "postgres:", "sqlite:")):
            raise RunnerError(
                "DATABASE_URL_TEMPLATE: is no postgresql:// or sqlite:/// URL; "
                "write postgresql://user:password@host/slipway_{service}",
                code=2,
            )
        valkey = env.get("SLIPWAY_VALKEY_URL") or None
        if valkey and not valkey.startswith(("valkey:", "valkeys:", "redis:", "rediss:")):
            raise RunnerError(
                "SLIPWAY_VALKEY_URL: is no URL of Valkey; write valkey://:password@host:6379/0",
                code=2,
            )
        endpoint = env.get("SLIPWAY_OTLP_ENDPOINT") or None
        if endpoint and not _ENDPOINT.fullmatch(endpoint):
            raise RunnerError(
                "SLIPWAY_OTLP_ENDPOINT: is no HTTP address without a path; "
                "write where OTLP over HTTP is taken, as in http://127.0.0.1:4318",
                code=2,
            )
        traces = _switch(env, "SLIPWAY_TRACES")
        if traces and endpoint:
            raise RunnerError(
                "SLIPWAY_TRACES: traces already go to SLIPWAY_OTLP_ENDPOINT; unset one of them",
                code=2,
            )
        return cls(
            home=Home.from_environment(),
            gateway_port=port(env, "SLIPWAY_GATEWAY_PORT", 8080, room=0),
            port_base=port(env, "SLIPWAY_PORT_BASE", 8100, room=_BLOCK),
            database_url_template=template,
            valkey_url=valkey,
            otlp_endpoint=endpoint,
            traces=traces,
            start_seconds=_seconds(env, "SLIPWAY_START_SECONDS", 120.0),
            restart_cap_seconds=_seconds(env, "SLIPWAY_RESTART_CAP_SECONDS", 10.0),
        )


def port(env: Mapping[str, str], name: str, default: int, *, room: int) -> int:
    """Read a port that leaves `room` for others above it.

    Raises:
        RunnerError: it is none (code 2).
    """
    text = env.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 0 <= int(text) <= _MAX_PORT - room:
        raise RunnerError(
            f"{name}: {text!r} is no port; write a number from 0 to {_MAX_PORT - room}", code=2
        )
    return int(text)


def _switch(env: Mapping[str, str], name: str) -> bool:
    text = env.get(name, "").lower()
    if text not in {*_ON, *_OFF}:
        raise RunnerError(f"{name}: {env[name]!r} is neither yes nor no; write 1 or 0", code=2)
    return text in _ON


def _seconds(env: Mapping[str, str], name: str, default: float) -> float:
    text = env.get(name) or str(default)
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise RunnerError(f"{name}: {text!r} is no time; write a number of seconds above 0", code=2)
    return value
