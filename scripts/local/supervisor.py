"""All processes of the platform together: started at once, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Sequence

import httpx2

from scripts.local import logfile
from scripts.local.forks import Forks
from scripts.local.home import Home, RunnerError, write_json
from scripts.local.lock import record_children
from scripts.local.process import ManagedProcess, Spec
from scripts.local.procs import Identity


class Supervisor:
    """Runs the processes of one platform and keeps `status.json` up to date.

    `on_change` is told of every change of state of a process.
    """

    def __init__(
        self,
        home: Home,
        specs: Sequence[Spec],
        client: httpx2.AsyncClient,
        forks: Forks,
        *,
        on_change: Callable[[ManagedProcess], None],
        restart_cap: float,
    ) -> None:
        self._home = home
        self._on_change = on_change
        self._children: dict[str, Identity] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._phase = "starting"
        self.processes = {
            spec.name: ManagedProcess(
                spec,
                home.log(spec.name),
                client,
                forks,
                on_change=self._changed,
                on_spawn=self._spawned,
                hold=home.hold(spec.name),
                restart_cap=restart_cap,
            )
            for spec in specs
        }

    def set_phase(self, phase: str) -> None:
        """Say what the whole platform does: starting, ready, stopping, stopped."""
        self._phase = phase
        self._write_status()

    async def start(self, seconds: float) -> None:
        """Start every process at once and wait until all are ready.

        Raises:
            RunnerError: one of them cannot start, or is not ready in time; the line says which and
                why. What runs keeps running until `stop`.
        """
        for name, process in self.processes.items():
            logfile.start_new(process.log)
            self._tasks[name] = asyncio.create_task(process.run(), name=name)
        waits = [asyncio.create_task(self._until_ready(p)) for p in self.processes.values()]
        try:
            async with asyncio.timeout(seconds):
                await asyncio.gather(*waits)
        except TimeoutError:
            late = [p for p in self.processes.values() if not p.ready.is_set()]
            raise RunnerError(_not_ready(late, seconds, self._home)) from None
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _until_ready(self, process: ManagedProcess) -> None:
        waits = [asyncio.create_task(e.wait()) for e in (process.ready, process.hopeless)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        if process.hopeless.is_set():
            raise RunnerError(
                f"{process.spec.name} does not start ({process.status.exit}): "
                f"{process.status.last_error}"
            )

    async def stop(self) -> None:
        """Stop every process after all that depend on it; returns when none is left."""
        self.set_phase("stopping")
        users: dict[str, list[str]] = {name: [] for name in self.processes}
        for name, process in self.processes.items():
            for peer in process.spec.depends_on:
                if peer in users and name not in _reach(self.processes, peer):
                    users[peer].append(name)

        async def stop_one(name: str) -> None:
            # Who uses it goes first: a request in flight still finds its peers.
            await asyncio.gather(*(stopping[user] for user in users[name]))
            self.processes[name].stop()
            await asyncio.gather(self._tasks[name], return_exceptions=True)

        stopping: dict[str, asyncio.Task[None]] = {}
        for name in self._tasks:
            stopping[name] = asyncio.create_task(stop_one(name))
        try:
            await asyncio.gather(*stopping.values())
        finally:
            with contextlib.suppress(OSError):
                self._home.children.unlink(missing_ok=True)

    def kill(self) -> None:
        """End everything at once: the second Ctrl-C."""
        for process in self.processes.values():
            process.stop()
            process.kill()

    def _spawned(self, name: str, identity: Identity) -> None:
        self._children[name] = identity
        record_children(self._home, self._children)

    def _changed(self, process: ManagedProcess) -> None:
        self._write_status()
        self._on_change(process)

    def _write_status(self) -> None:
        write_json(
            self._home.status,
            {
                "pid": os.getpid(),
                "phase": self._phase,
                "processes": [_describe(process) for process in self.processes.values()],
            },
        )


def _reach(processes: dict[str, ManagedProcess], name: str) -> set[str]:
    """Everything that `name` depends on, directly or not."""
    seen: set[str] = set()
    todo = [name]
    while todo:
        spec = processes[todo.pop()].spec
        new = [peer for peer in spec.depends_on if peer in processes and peer not in seen]
        seen.update(new)
        todo.extend(new)
    return seen


def _describe(process: ManagedProcess) -> dict[str, object]:
    status = process.status
    started = None if status.since is None else time.time() - (time.monotonic() - status.since)
    return {
        "name": process.spec.name,
        "state": status.state,
        "pid": status.pid,
        "port": process.spec.port,
        "url": process.spec.url,
        "docs": process.spec.docs,
        "metrics": process.spec.metrics,
        "restarts": status.restarts,
        "started": started,
        "last_error": status.last_error,
    }


def _not_ready(late: Sequence[ManagedProcess], seconds: float, home: Home) -> str:
    names = ", ".join(process.spec.name for process in late) or "something"
    said = next((p.status.last_error for p in late if p.status.last_error), None)
    where = home.log(late[0].spec.name) if late else home.logs
    return (
        f"not ready after {seconds:g} s: {names}{f' ({said})' if said else ''}; "
        f"see {where}, or allow more with SLIPWAY_START_SECONDS"
    )
