"""Logs: one JSON object a line, the same for every library, without secrets."""

import asyncio
import io
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from fastapi import APIRouter
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chassis import ServiceSettings, create_app
from chassis.access_log import AccessLog, LineWriter
from chassis.logs import configure, formatter, get_logger

SETTINGS = ServiceSettings(service_name="demo", environment="test", version="1.2.3")


@pytest.fixture
def lines() -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Put the formatter on the root logger; give a function that returns the lines so far."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter(SETTINGS))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.removeHandler(handler)
    root.setLevel(level)


def test_structlog_and_the_standard_library_look_alike(lines: Any) -> None:
    get_logger("orders").info("order.placed", order_id="o1")
    logging.getLogger("uvicorn.error").warning("Started %s", "here", extra={"color_message": "x"})
    first, second = lines()
    assert set(first) == {
        "event", "order_id", "level", "logger", "timestamp", "service", "version",
    }  # fmt: skip
    assert first["event"] == "order.placed"
    assert first["logger"] == "orders"
    assert first["service"] == "demo"
    assert first["version"] == "1.2.3"
    assert second["event"] == "Started here"
    assert second["level"] == "warning"
    assert "color_message" not in second
    assert second["timestamp"].endswith("Z")


def test_exceptions_carry_their_traceback_on_the_one_line(lines: Any) -> None:
    try:
        raise ValueError("no")
    except ValueError:
        get_logger("x").exception("failed", path="/a")
        logging.getLogger("y").exception("failed too")
    for line in lines():
        assert "ValueError: no" in line["exception"]
        assert line["level"] == "error"


def test_secrets_are_never_written(lines: Any) -> None:
    token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ1MSJ9.c2lnbmF0dXJl"
    get_logger("x").info(
        f"calling with Bearer {token} at postgresql://demo:hunter2@db/x",
        authorization="Basic YWxhZGRpbjpvcGVu",
        headers={
            "Authorization": f"Bearer {token}",
            "Accept": "json",
            "X-API-Key": "slk_1_hunter2",
        },
        nested=[{"password": "hunter2", "client_secret": "hunter2"}],
        note="key slk_abc_Zm9v-hunter2 was used, then slr_hunter2",
    )
    logging.getLogger("httpx").info("sent %s", {"Authorization: Bearer hunter2hunter2"})
    try:
        raise RuntimeError("connect postgresql://demo:hunter2@db/x failed")
    except RuntimeError:
        get_logger("x").exception("failed")
    text = json.dumps(lines())
    assert "hunter2" not in text
    assert token not in text
    assert "YWxhZGRpbjpvcGVu" not in text
    assert lines()[0]["headers"]["Accept"] == "json"


async def test_lines_of_a_request_join_its_trace(app_client: Any, lines: Any) -> None:
    """The line of a handler, the request's answer and the span carry the same ids."""
    router = APIRouter()

    @router.get("/x")
    async def x() -> None:
        get_logger("handler").info("inside")
        logging.getLogger("library").info("inside too")

    exporter = InMemorySpanExporter()
    settings = ServiceSettings(
        service_name="demo", environment="test", access_log=False, trace_sample_ratio=1.0
    )
    app = create_app(settings, title="", description="", routers=[router], span_exporter=exporter)
    async with app_client(app) as client:
        response = await client.get("/x", headers={"X-Request-ID": "r-1"})
        assert response.status_code == 200
    [span] = exporter.get_finished_spans()
    for line in lines():
        if line["event"].startswith("inside"):
            assert line["request_id"] == "r-1"
            assert line["trace_id"] == f"{span.context.trace_id:032x}"
            assert line["span_id"] == f"{span.context.span_id:016x}"
    get_logger("outside").info("after")
    assert "request_id" not in lines()[-1]


def test_configure_takes_over_every_logger(capfd: pytest.CaptureFixture[str]) -> None:
    """After `configure`, structlog, the standard library and uvicorn write the same lines."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    try:
        configure(SETTINGS)
        structlog.get_logger("a").info("one %s", 1)
        logging.getLogger("uvicorn.error").info("two")
        logging.getLogger("b").debug("hidden by the level")
        written = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        structlog.reset_defaults()
    assert [line["event"] for line in written] == ["one 1", "two"]


def access(log: AccessLog, **overrides: Any) -> None:
    """Write one access line."""
    log(
        **{
            "method": "GET", "path": "/v1/items/1", "route": "/v1/items/{item_id}", "status": 200,
            "seconds": 0.01234, "request_id": "r-1", "trace_id": "a" * 32, "span_id": None,
            **overrides,
        }
    )  # fmt: skip


def test_an_access_line_is_json_with_the_same_names() -> None:
    written: list[str] = []
    log = AccessLog(SETTINGS, written.append)
    access(log, span_id="b" * 16)
    access(log, path='/a"\\\n\ud800\x00é')
    first, second = (json.loads(line) for line in written)
    assert first["event"] == "request"
    assert first["level"] == "info"
    assert first["duration_ms"] == 12.34
    assert first["status"] == 200
    assert first["span_id"] == "b" * 16
    assert first["service"] == "demo"
    assert "span_id" not in second
    assert second["path"] == '/a"\\\n\ud800\x00é'
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in written)


def test_access_lines_for_a_person() -> None:
    written: list[str] = []
    log = AccessLog(SETTINGS.model_copy(update={"log_format": "console"}), written.append)
    access(log)
    assert written[0].endswith("GET /v1/items/1 200 12.3ms\n")


def test_a_line_end_in_a_path_makes_no_line() -> None:
    """A decoded path cannot forge a line of the console log."""
    written: list[str] = []
    log = AccessLog(SETTINGS.model_copy(update={"log_format": "console"}), written.append)
    access(log, path="/x\n12:00 GET /forged 200")
    assert len(written) == 1
    assert written[0].count("\n") == 1


async def test_lines_of_one_turn_leave_in_one_write() -> None:
    """Nothing waits longer than the current turn of the event loop."""
    read, write = os.pipe()
    try:
        writer = LineWriter(write)
        writer.write("a\n")
        writer.write("b\n")
        await asyncio.sleep(0)
        assert os.read(read, 100) == b"a\nb\n"
    finally:
        os.close(read)
        os.close(write)


def test_without_a_loop_a_line_is_written_at_once() -> None:
    read, write = os.pipe()
    try:
        LineWriter(write).write("a\n")
        assert os.read(read, 100) == b"a\n"
    finally:
        os.close(read)
        os.close(write)


def test_a_full_pipe_loses_nothing_and_a_closed_one_does_no_harm() -> None:
    """More than a pipe holds, to a reader that is slow and a descriptor that does not block."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    got = bytearray()

    def drain() -> None:
        while chunk := os.read(read, 4096):
            got.extend(chunk)

    reader = threading.Thread(target=drain)
    reader.start()
    line = "x" * 400_000 + "\n"
    LineWriter(write).write(line)
    os.close(write)
    reader.join(30)
    os.close(read)
    assert got == line.encode()
    LineWriter(write).write("gone\n")
