"""Logs: one JSON object a line on standard output, from structlog and the standard library alike.

Every line carries service and version; inside a request also request id, trace id and span id.
Values under names such as `authorization` or `password` are replaced, and so are tokens, API keys
and passwords of URLs inside of any text, so that no secret is written.
`configure` belongs to the start of a process; nothing happens at import.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, cast

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor, WrappedLogger

from chassis import context
from chassis.settings import ServiceSettings

HIDDEN = "[hidden]"
_SECRET_TEXT = (
    (re.compile(r"\b(bearer|basic) +[\w.~+/=-]{6,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), HIDDEN),
    (re.compile(r"\bsl[kr]_[\w-]+"), HIDDEN),
    (re.compile(r"(://[^:/@\s]*):[^@/\s]+@"), rf"\1:{HIDDEN}@"),
)
_SECRET_PARTS = (
    "authorization", "password", "passwd", "secret", "token", "api_key", "apikey", "x-api-key",
    "cookie", "credential", "private_key",
)  # fmt: skip


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return the structured logger `name`; it writes through the standard library's handlers."""
    return cast(
        "structlog.stdlib.BoundLogger",
        structlog.wrap_logger(
            logging.getLogger(name),
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.stdlib.PositionalArgumentsFormatter(),
                structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
            ],
            wrapper_class=structlog.stdlib.BoundLogger,
        ),
    )


_add_extra = structlog.stdlib.ExtraAdder()


def add_extra(logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
    """Add the `extra` of a record of the standard library; structlog's have theirs in place."""
    if event.get("_from_structlog"):
        return event
    event = _add_extra(logger, name, event)
    event.pop("message", None)  # left on the record by another handler
    return event


def add_request(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add request id, trace id and span id of the request being served."""
    request = context.current.get()
    if request is not None:
        event.setdefault("request_id", request.request_id)
        event.setdefault("trace_id", request.trace_id)
    span = trace.get_current_span().get_span_context()
    if span.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(span.trace_id))
        event.setdefault("span_id", trace.format_span_id(span.span_id))
    return event


def drop_colours(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Drop uvicorn's second copy of its message, made for a terminal."""
    event.pop("color_message", None)
    return event


def hide_secrets(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace the value of every key that names a secret, nested mappings included."""
    return cast("EventDict", _hide(event))


def _hide(value: Any) -> Any:
    if isinstance(value, MutableMapping | dict):
        return {
            key: HIDDEN if _is_secret(key) and item is not None else _hide(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_hide(item) for item in value]
    if isinstance(value, str):
        for pattern, replacement in _SECRET_TEXT:
            value = pattern.sub(replacement, value)
    return value


def _is_secret(key: object) -> bool:
    return isinstance(key, str) and any(part in key.lower() for part in _SECRET_PARTS)


def shared_processors(settings: ServiceSettings) -> list[Processor]:
    """Return the processors that every line goes through, whoever wrote it."""

    def add_service(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        event["service"] = settings.service_name
        event["version"] = settings.version
        return event

    return [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        add_extra,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_service,
        add_request,
        structlog.processors.format_exc_info,
        drop_colours,
        hide_secrets,
    ]


def formatter(settings: ServiceSettings) -> logging.Formatter:
    """Return the formatter of every handler: JSON, or coloured text for a person."""
    renderer: Processor = (
        structlog.processors.JSONRenderer(serializer=_dumps)
        if settings.log_format == "json"
        else structlog.dev.ConsoleRenderer()
    )
    return structlog.stdlib.ProcessorFormatter(
        processors=[
            *shared_processors(settings),
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            renderer,
        ]
    )


def _dumps(value: Any, **_: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=True)


def configure(settings: ServiceSettings) -> None:
    """Send all logs of this process through one handler on standard output."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "gunicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
