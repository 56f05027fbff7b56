"""Lambda's side of a function: its Runtime API, its folders, and the events of its triggers."""

from __future__ import annotations

import base64
import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import awslambdaric
import runtime_client
import simplejson
import snapshot_restore_py

from chassis.testing.processes import end_with_parent

PREFIX = "/2018-06-01/runtime"
_NO_BODY = b"{}"
# What a function is given by Lambda; nothing of this machine.
KEPT = ("PATH", "LANG", "TMPDIR", "LD_LIBRARY_PATH")


@dataclass
class Told:
    """What the runtime said about an invocation, and when (monotonic seconds)."""

    id: str
    failed: bool
    body: dict[str, Any]
    at: float


@dataclass
class RuntimeApi:
    """The Runtime API of one execution environment (AWS Lambda, version 2018-06-01)."""

    init_errors: queue.Queue[dict[str, Any]] = field(default_factory=queue.Queue)
    snapshots: queue.Queue[None] = field(default_factory=queue.Queue)
    restore: threading.Event = field(default_factory=threading.Event)
    _events: queue.Queue[dict[str, Any] | None] = field(default_factory=queue.Queue)
    _told: queue.Queue[Told] = field(default_factory=queue.Queue)
    _server: ThreadingHTTPServer | None = None

    @property
    def address(self) -> str:
        """What `AWS_LAMBDA_RUNTIME_API` is set to."""
        assert self._server is not None
        return f"127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[RuntimeApi]:
        """Serve it inside the block."""
        self._server = _server(self._get, self._post)
        try:
            yield self
        finally:
            self._events.put(None)
            self.restore.set()
            self._server.shutdown()
            self._server.server_close()

    def invoke(self, event: dict[str, Any], *, seconds: float = 30.0) -> Told:
        """Invoke the function with `seconds` to go, and return what the runtime posted."""
        wanted = str(uuid.uuid4())
        deadline = time.time() + seconds
        self._events.put({"id": wanted, "deadline": deadline, "event": event})
        told = self._told.get(timeout=seconds + 60)
        assert told.id == wanted
        return told

    def _get(self, path: str) -> tuple[int, dict[str, str], bytes] | None:
        if path == f"{PREFIX}/restore/next":
            self.snapshots.put(None)
            self.restore.wait()
            return 200, {}, _NO_BODY
        assert path == f"{PREFIX}/invocation/next", path
        found = self._events.get()
        if found is None:
            return None
        headers = {
            "Content-Type": "application/json",
            "Lambda-Runtime-Aws-Request-Id": found["id"],
            "Lambda-Runtime-Deadline-Ms": str(int(found["deadline"] * 1000)),
            "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-central-1:0:function:t",
        }
        return 200, headers, json.dumps(found["event"]).encode()

    def _post(self, path: str, body: bytes) -> int:
        at = time.monotonic()
        parsed = json.loads(body)
        match path.removeprefix(PREFIX).strip("/").split("/"):
            case ["init", "error"]:
                self.init_errors.put(parsed)
            case ["invocation", invocation, ("response" | "error") as kind]:
                self._told.put(Told(invocation, kind == "error", parsed, at))
            case _:
                raise AssertionError(path)
        return 202


class Collector:
    """Takes spans by OTLP over HTTP, and notes when they came (monotonic seconds)."""

    def __init__(self, delay: float = 0.0) -> None:
        self.came: list[tuple[float, bytes]] = []
        self._delay = delay
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        """Its endpoint."""
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @contextmanager
    def serving(self) -> Iterator[Collector]:
        """Serve it inside the block."""
        self._server = _server(lambda _: None, self._post)
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()

    def _post(self, path: str, body: bytes) -> int:
        assert path == "/v1/traces"
        time.sleep(self._delay)
        self.came.append((time.monotonic(), body))
        return 200


def _server(get: Any, post: Any) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            answer = get(self.path)
            if answer is None:
                self.close_connection = True
                return
            self._answer(*answer)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(post(self.path, body), {}, _NO_BODY)

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda *_: None  # a killed environment leaves its connection
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    return server


def runtime_folder(folder: Path) -> Path:
    """Make what is /var/runtime on Lambda: its Python client, and nothing of ours."""
    folder.mkdir()
    for package in (awslambdaric, simplejson):
        source = Path(str(package.__file__)).parent
        shutil.copytree(source, folder / source.name)
    for module in (runtime_client, snapshot_restore_py):
        shutil.copy(str(module.__file__), folder)
    return folder


class Environment:
    """An execution environment: a process that sees the task, the runtime and its variables."""

    def __init__(
        self,
        api: RuntimeApi,
        path: list[Path],
        variables: dict[str, str],
        *,
        cwd: Path,
        handler: str = "lambda_function.lambda_handler",
    ) -> None:
        given = {name: os.environ[name] for name in KEPT if name in os.environ}
        environment = {
            **given,
            "AWS_LAMBDA_RUNTIME_API": api.address,
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
            "AWS_LAMBDA_FUNCTION_NAME": "t",
            "AWS_LAMBDA_LOG_STREAM_NAME": "2026/11/22/[$LATEST]0123456789abcdef",
            "PYTHONPATH": os.pathsep.join(map(str, path)),
            "PYTHONDONTWRITEBYTECODE": "1",
            **variables,
        }
        # Without `site`: no packages of this machine are seen, installed ones included.
        base = getattr(sys, "_base_executable", sys.executable)
        self.began = time.monotonic()
        self._log = cwd / f"{uuid.uuid4().hex}.log"
        with self._log.open("wb") as output:
            self.process = subprocess.Popen(
                [base, "-S", "-s", "-m", "awslambdaric", handler],
                cwd=cwd,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=end_with_parent(),  # noqa: PLW1509  (made before the fork)
            )

    @property
    def log(self) -> str:
        """All that it wrote."""
        return self._log.read_text()

    def end(self) -> None:
        """Kill it, as Lambda does where no extension is registered."""
        self.process.kill()
        self.process.wait()


@dataclass(frozen=True)
class Request:
    """An HTTP request, as each trigger puts it into an event."""

    method: str = "GET"
    path: str = "/v1/items"
    query: tuple[tuple[str, str], ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None

    @property
    def text(self) -> str | None:
        """The body, as it is sent."""
        return None if self.body is None else json.dumps(self.body)

    def sent_headers(self) -> dict[str, str]:
        """The headers, with what a client and a trigger add."""
        more = {"host": "api.example.org", "x-forwarded-proto": "https"}
        if self.body is not None:
            more |= {
                "content-type": "application/json",
                "content-length": str(len(self.text or "")),
            }
        return {**more, **self.headers}


def api_gateway_v1(request: Request) -> dict[str, Any]:
    """A REST API's proxy event (payload 1.0)."""
    headers = request.sent_headers()
    many: dict[str, list[str]] = {}
    for name, value in request.query:
        many.setdefault(name, []).append(value)
    return {
        "resource": "/{proxy+}",
        "path": request.path,
        "httpMethod": request.method,
        "headers": headers,
        "multiValueHeaders": {name: [value] for name, value in headers.items()},
        "queryStringParameters": dict(request.query) or None,
        "multiValueQueryStringParameters": many or None,
        "requestContext": {
            "httpMethod": request.method,
            "path": f"/prod{request.path}",
            "stage": "prod",
            "identity": {"sourceIp": "203.0.113.7"},
        },
        "body": request.text,
        "isBase64Encoded": False,
    }


def api_gateway_v2(request: Request) -> dict[str, Any]:
    """An HTTP API's event (payload 2.0)."""
    return {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": request.path,
        "rawQueryString": urlencode(request.query),
        "headers": request.sent_headers(),
        "requestContext": {
            "stage": "$default",
            "http": {
                "method": request.method,
                "path": request.path,
                "protocol": "HTTP/1.1",
                "sourceIp": "203.0.113.7",
            },
        },
        "body": request.text,
        "isBase64Encoded": False,
    }


def function_url(request: Request) -> dict[str, Any]:
    """A function URL's event: payload 2.0 again, its body in Base64 as clients make it so."""
    event = api_gateway_v2(request)
    event["requestContext"]["domainName"] = "abc.lambda-url.eu-central-1.on.aws"
    if request.text is not None:
        event["body"] = base64.b64encode(request.text.encode()).decode()
        event["isBase64Encoded"] = True
    return event


def load_balancer(request: Request) -> dict[str, Any]:
    """A target group's event, with multi-value headers off; query values come as they were sent."""
    encoded = parse_qsl(urlencode(request.query), keep_blank_values=True)
    quoted = {name: urlencode({"": value})[1:] for name, value in encoded}
    return {
        "requestContext": {"elb": {"targetGroupArn": "arn:aws:elasticloadbalancing:t"}},
        "httpMethod": request.method,
        "path": request.path,
        "queryStringParameters": quoted,
        "headers": {**request.sent_headers(), "x-forwarded-for": "203.0.113.7"},
        "body": request.text or "",
        "isBase64Encoded": False,
    }


TRIGGERS = {
    "API Gateway v1": api_gateway_v1,
    "API Gateway v2": api_gateway_v2,
    "function URL": function_url,
    "load balancer": load_balancer,
}
SCHEDULED = {
    "version": "0",
    "source": "aws.events",
    "detail-type": "Scheduled Event",
    "detail": {},
}
