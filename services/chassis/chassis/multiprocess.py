"""Several processes behind one port: gunicorn starts and watches them, each runs `server.run`.

Kubernetes scales by replicas and one process a pod is the default; this is for machines without
it. gunicorn's own ASGI worker is not used: the worker here is the same server, with the same
drain. Metrics are added up over all processes through files (`PROMETHEUS_MULTIPROC_DIR`, a
temporary directory unless set); exemplars and the collectors of pools and of the process itself
(memory, CPU) are not shared and are missing from `/metrics` then.

A worker whose master was killed ends by itself, by the same drain: nobody would watch it, and it
would keep the port from the next start.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from types import FrameType
from typing import Any

from fastapi import FastAPI
from gunicorn.app.base import BaseApplication  # type: ignore[import-untyped]
from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.errors import HaltServer  # type: ignore[import-untyped]
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker  # type: ignore[import-untyped]
from prometheus_client.multiprocess import mark_process_dead

from chassis.metrics import SHARED_DIRECTORY
from chassis.server import LINGER_SECONDS, configure_logs, listen, run
from chassis.settings import ServiceSettings, SettingsError

MARGIN_SECONDS = 15.0
_ENDS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_BAD_SETTINGS = 2
_OWN_DIRECTORY = "SLIPWAY_METRICS_DIRECTORY_IS_OURS"
_log = logging.getLogger("chassis.server")


def serve_many(create: Callable[[], FastAPI], settings: ServiceSettings, service: str) -> None:
    """Serve by `settings.workers` processes until SIGTERM or SIGINT; does not return."""
    if SHARED_DIRECTORY not in os.environ:
        # prometheus_client decides at import how it stores values: start again with the directory
        # set. exec keeps the process id, so this stays PID 1 in a container.
        environment = {
            **os.environ,
            SHARED_DIRECTORY: tempfile.mkdtemp(prefix="slipway-metrics-"),
            _OWN_DIRECTORY: "1",
        }
        command = [sys.executable, "-m", "chassis", "serve", service]
        os.execve(sys.executable, command, environment)  # noqa: S606  (our own command)
    listen(settings).close()  # a taken port is one line here, not a loop of retries in gunicorn
    configure_logs(settings)
    _Arbiter(_Application(create, settings)).run()


class _Application(BaseApplication):  # type: ignore[misc]
    """What gunicorn asks for: its settings and, in each worker, the application."""

    def __init__(self, create: Callable[[], FastAPI], settings: ServiceSettings) -> None:
        self.create = create
        self.settings = settings
        super().__init__()

    def load_config(self) -> None:
        settings = self.settings
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        bound = settings.shutdown_delay_seconds + settings.drain_seconds + LINGER_SECONDS
        for name, value in {
            "bind": f"{host}:{settings.port}",
            "workers": settings.workers,
            "worker_class": ChassisWorker,
            "graceful_timeout": int(bound + MARGIN_SECONDS),
            "child_exit": _child_exit,
            "on_exit": _on_exit,
            "control_socket_disable": True,
            "logger_class": _Logger,
        }.items():
            self.cfg.set(name, value)

    def load(self) -> FastAPI:
        return self.create()


class _Arbiter(Arbiter):  # type: ignore[misc]
    """gunicorn's master, whose every end is the graceful one and cannot be hurried."""

    ending = False

    def signal(self, sig: int, frame: FrameType | None) -> None:
        if not (self.ending and sig in _ENDS):
            super().signal(sig, frame)

    def stop(self, graceful: bool = True) -> None:  # noqa: ARG002  (never anything else)
        self.ending = True
        super().stop(graceful=True)

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        # A worker that does not start has said why, in one line: a mistake of the settings.
        super().halt(
            reason, _BAD_SETTINGS if exit_status == self.WORKER_BOOT_ERROR else exit_status
        )

    def reap_workers(self) -> None:
        try:
            super().reap_workers()
        except HaltServer:  # the next worker that does not start: it ends already
            if not self.ending:
                raise

    handle_int = handle_quit = Arbiter.handle_term


class ChassisWorker(Worker):  # type: ignore[misc]
    """A gunicorn worker that runs the chassis' server on gunicorn's sockets."""

    orphaned = False

    def notify(self) -> None:
        """Tell the master, every few seconds, that this worker lives; end when there is none."""
        super().notify()
        if not self.orphaned and os.getppid() != self.ppid:
            self.orphaned = True
            _log.error("the master process is gone; ending")
            signal.raise_signal(signal.SIGTERM)

    def run(self) -> None:
        """Serve until told to end."""
        sockets = [sock.sock for sock in self.sockets]
        try:
            run(self.wsgi, self.app.settings, sockets, notify=self.notify)
        except SettingsError as exc:
            print(exc, file=sys.stderr)
            sys.exit(Arbiter.WORKER_BOOT_ERROR)  # the others cannot start either: all end


class _Logger(Logger):  # type: ignore[misc]
    """gunicorn's messages through the standard library, into the formatter of `logs`."""

    def setup(self, cfg: Any) -> None:
        self.cfg = cfg
        self._access_log_enabled = False
        self.error_log.propagate = True
        self.error_log.handlers.clear()

    def reopen_files(self) -> None:
        """Do nothing: there are no files."""

    def close_on_exec(self) -> None:
        """Do nothing: there are no files."""


def _child_exit(_: Arbiter, worker: Worker) -> None:
    mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def _on_exit(_: Arbiter) -> None:
    if os.environ.get(_OWN_DIRECTORY):
        shutil.rmtree(os.environ[SHARED_DIRECTORY], ignore_errors=True)
