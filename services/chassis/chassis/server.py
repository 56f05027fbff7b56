"""Serves an application: uvicorn, one process, with a drain that a second signal cannot cut."""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI

from chassis import logs
from chassis.settings import ServiceSettings


def serve(app: FastAPI, settings: ServiceSettings) -> None:
    """Serve `app` until SIGTERM or SIGINT."""
    logs.configure(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        timeout_keep_alive=int(settings.keep_alive_seconds),
        timeout_graceful_shutdown=int(settings.drain_seconds),
        server_header=False,
    )
    uvicorn.Server(config).run()
