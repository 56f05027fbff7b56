"""Between the gateway and the services: timeouts, retries, overload, upgrades, compression."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.gateway.conftest import UNLIMITED
from tests.gateway.harness import Gateway, RawUpstream, Upstreams, free_ports, wait_until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


def items_routes(*routes: dict[str, Any]) -> dict[str, Any]:
    """Return values that give items other routes."""
    return {**UNLIMITED, "services": {"items": {"routes": list(routes)}}}


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 429, 500, 502, 503, 504])
def test_a_services_own_problem_is_not_touched(gateway: Gateway, status: int):
    """The gateway writes problems only for answers it makes itself."""
    answer = gateway.request("POST", f"/v1/items?status={status}")
    assert answer.status == status
    assert answer.json() == {"title": "from the service", "status": status}
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x-request-id" in answer.headers


def test_a_slow_service_is_504(start_gateway: Callable[..., Gateway]):
    """The gateway's timeout holds, and the service was told to be a little quicker."""
    gateway = start_gateway({**UNLIMITED, "timeouts": {"routeSeconds": 0.5}})
    assert gateway.get("/v1/items").json()["headers"]["x-request-timeout-ms"] == "250"
    begin = time.monotonic()
    answer = gateway.get("/v1/items?sleep=60")
    assert answer.status == 504
    assert answer.problem()["title"] == "Gateway Timeout"
    assert time.monotonic() - begin < 30


def test_a_route_has_its_own_timeout(start_gateway: Callable[..., Gateway]):
    """A route's timeoutSeconds wins; 0 is no limit and no budget."""
    gateway = start_gateway(
        items_routes(
            {"path": "/slow", "auth": "none", "timeoutSeconds": 2.5},
            {"path": "/stream", "auth": "none", "timeoutSeconds": 0},
            {"path": "/hasty", "auth": "none", "timeoutSeconds": 0.3},
        )
    )
    assert gateway.get("/slow").json()["headers"]["x-request-timeout-ms"] == "2250"
    headers = gateway.get("/stream?sleep=0.6", {"X-Request-Timeout-Ms": "1"}).json()["headers"]
    assert "x-request-timeout-ms" not in headers
    assert gateway.get("/hasty?sleep=60").status == 504


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_refused_connection_is_tried_again(start_gateway: Callable[..., Gateway], method: str):
    """Nothing was sent, so every method is safe: three attempts, then a problem."""
    (port,) = free_ports(1)
    gateway = start_gateway(UNLIMITED, {"items": f"127.0.0.1:{port}"})
    answer = gateway.request(method, "/v1/items")
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert "127.0.0.1" not in str(answer.problem())
    line = wait_until(gateway.access_log, "the access log")[0]
    assert line["attempts"] == 3
    assert "UF" in line["flags"]


def test_a_lost_read_is_sent_again(start_gateway: Callable[..., Gateway]):
    """A service that dies during a GET costs the client nothing."""

    def dies_once(s: socket.socket, _: bytes, number: int) -> None:
        if number > 1:
            s.sendall(OK)

    with RawUpstream(dies_once) as service:
        gateway = start_gateway(UNLIMITED, {"items": service.address})
        assert gateway.get("/v1/items").body == b"ok"
        assert len(service.requests) == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_lost_write_is_not_sent_again(start_gateway: Callable[..., Gateway], method: str):
    """It may have been carried out: the client gets 503, the service the request once."""
    with RawUpstream(lambda *_: None) as service:
        gateway = start_gateway(UNLIMITED, {"items": service.address})
        answer = gateway.request(method, "/v1/items", None, b"{}")
        assert answer.status == 503
        assert answer.problem()["title"] == "Service Unavailable"
        assert len(service.requests) == 1


def test_nonsense_from_a_service_is_502(start_gateway: Callable[..., Gateway]):
    """What is no HTTP does not reach the client."""
    with RawUpstream(lambda s, *_: s.sendall(b"nonsense\r\n\r\n")) as service:
        gateway = start_gateway(UNLIMITED, {"items": service.address})
        answer = gateway.request("POST", "/v1/items")
        assert answer.status == 502
        assert answer.problem()["title"] == "Bad Gateway"


def test_overload_is_refused_at_once(start_gateway: Callable[..., Gateway]):
    """Beyond the thresholds of a service requests are 503, and other services are untouched."""
    upstream = {"maxConnections": 1, "maxPendingRequests": 1, "maxRequests": 1}
    gateway = start_gateway({**UNLIMITED, "upstream": upstream})
    with ThreadPoolExecutor(8) as pool:
        slow = [pool.submit(gateway.request, "POST", "/v1/items?sleep=1") for _ in range(8)]
        assert gateway.get("/info/").status == 200
        answers = [future.result() for future in slow]
    statuses = [answer.status for answer in answers]
    assert 200 in statuses
    assert set(statuses) == {200, 503}
    refused = next(answer for answer in answers if answer.status == 503)
    assert refused.problem()["title"] == "Service Unavailable"
    assert refused.headers["retry-after"] == "1"
    assert any("UO" in line["flags"] for line in gateway.access_log())


def test_the_only_host_is_never_left_out(start_gateway: Callable[..., Gateway]):
    """However often it fails: the first request after its return is answered."""
    (port,) = free_ports(1)
    gateway = start_gateway(UNLIMITED, {"info": f"127.0.0.1:{port}"})
    assert set(gateway.repeat("POST", "/info/", 30)) == {503}
    with socket.create_server(("127.0.0.1", port)) as server, ThreadPoolExecutor(1) as pool:
        server.settimeout(10)
        answer = pool.submit(gateway.request, "POST", "/info/")
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(OK)
        assert answer.result().status == 200
    assert gateway.stat("cluster.info.outlier_detection.ejections_active") == 0


def test_a_host_may_be_a_name(start_gateway: Callable[..., Gateway], upstreams: Upstreams):
    """As in the cluster: the name is resolved, and again and again."""
    port = upstreams.addresses["items"].rpartition(":")[2]
    gateway = start_gateway(UNLIMITED, {"items": f"localhost:{port}"})
    wait_until(lambda: gateway.get("/v1/items").status == 200, "the name")
    assert gateway.stat("cluster.items.update_success") >= 1


def _websocket(gateway: Gateway, path: str, headers: dict[str, str]) -> tuple[bytes, socket.socket]:
    """Ask for an upgrade; return the answer's head and the open socket."""
    s = socket.create_connection(("127.0.0.1", gateway.http), timeout=60)
    fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    s.sendall(
        f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n{fields}\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = s.recv(65536)
        assert chunk, head
        head += chunk
    return head, s


def test_websockets_where_a_route_allows_them(
    start_gateway: Callable[..., Gateway], bearer: dict[str, str]
):
    """Bytes flow both ways and outlive the request timeout; without a token it is 401."""

    def echo(s: socket.socket, _: bytes, __: int) -> None:
        s.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        while data := s.recv(65536):
            s.sendall(data)

    values = items_routes({"path": "/ws", "auth": "required", "websocket": True})
    values["timeouts"] = {"routeSeconds": 0.3, "streamIdleSeconds": 0.5}
    with RawUpstream(echo) as service:
        gateway = start_gateway(values, {"items": service.address})
        head, s = wait_until(lambda: _accepted(gateway, bearer), "the signing keys")
        with s:
            assert b" 101 " in head.split(b"\r\n")[0]
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                s.sendall(b"\x81\x05hello")
                assert s.recv(100) == b"\x81\x05hello"
                time.sleep(0.7)  # longer than both timeouts: the point of this test
        head, s = _websocket(gateway, "/ws", {})
        s.close()
        assert b" 401 " in head.split(b"\r\n")[0]


def _accepted(gateway: Gateway, headers: dict[str, str]) -> tuple[bytes, socket.socket] | None:
    head, s = _websocket(gateway, "/ws", headers)
    if b" 503 " in head.split(b"\r\n")[0]:  # the keys are still on their way
        s.close()
        return None
    return head, s


def test_websockets_nowhere_else(gateway: Gateway, upstreams: Upstreams):
    """An upgrade on an ordinary route is refused and reaches no service."""
    head, s = _websocket(gateway, "/v1/items", {})
    s.close()
    assert b" 403 " in head.split(b"\r\n")[0]
    assert upstreams.seen == []


@pytest.mark.parametrize("encoding", ["gzip", "br"])
def test_large_answers_are_compressed(gateway: Gateway, encoding: str):
    """JSON over 1 KiB is compressed as the client likes it, and caches are told."""
    answer = gateway.get("/v1/items?bytes=20000", {"Accept-Encoding": encoding})
    assert answer.headers["content-encoding"] == encoding
    assert "accept-encoding" in answer.headers["vary"].lower()
    assert len(answer.body) < 2000
    if encoding == "gzip":
        assert len(answer.json()["padding"]) == 20000


def test_what_is_not_compressed(gateway: Gateway):
    """Small answers, clients that do not ask, and strong ETags, which must stay strong."""
    gzip = {"Accept-Encoding": "gzip, br"}
    assert "content-encoding" not in gateway.get("/v1/items", gzip).headers
    assert "content-encoding" not in gateway.get("/v1/items?bytes=20000").headers
    tagged = gateway.get('/v1/items?bytes=20000&etag="7"', gzip)
    assert tagged.headers["etag"] == '"7"'
    assert "content-encoding" not in tagged.headers


def test_preflights_of_allowed_origins(gateway: Gateway, upstreams: Upstreams):
    """The gateway answers a browser's question itself, without a token."""
    asked = {
        "Origin": "http://localhost:5173",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, idempotency-key",
    }
    answer = gateway.request("OPTIONS", "/v1/orders", asked)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "http://localhost:5173"
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"]
    assert {"idempotency-key", "last-event-id"} <= set(allowed.replace(" ", "").split(","))
    assert answer.headers["access-control-max-age"] == "600"
    assert "access-control-allow-credentials" not in answer.headers
    assert upstreams.seen == []


def test_a_page_may_read_refusals_too(gateway: Gateway):
    """The gateway's own problems carry the CORS headers, so that a page can show them."""
    answer = gateway.get("/v1/orders", {"Origin": "http://127.0.0.1:3000"})
    assert answer.status == 401
    assert answer.headers["access-control-allow-origin"] == "http://127.0.0.1:3000"
    assert "x-request-id" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://localhost.evil.example:80", "http://localhost:80.evil.example",
     "http://localhost", "https://localhost:5173", "null"],
)  # fmt: skip
def test_other_origins_get_no_leave(gateway: Gateway, upstreams: Upstreams, origin: str):
    """Neither for the question nor for the request."""
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    answer = gateway.request("OPTIONS", "/v1/items", asked)
    assert "access-control-allow-origin" not in answer.headers
    assert upstreams.seen == []
    answer = gateway.get("/v1/items", {"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers


def test_a_gateway_that_must_go_says_so(start_gateway: Callable[..., Gateway]):
    """What the pod's preStop does: not ready, and each answer closes its connection."""
    gateway = start_gateway(UNLIMITED)
    assert "connection" not in gateway.get("/info/").headers
    assert gateway.request("POST", "/healthcheck/fail", port=gateway.admin).status == 200
    assert gateway.get("/ready", port=gateway.status).status == 503
    answer = gateway.get("/info/")
    assert (answer.status, answer.headers["connection"]) == (200, "close")
