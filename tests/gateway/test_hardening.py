"""What a hostile client can send: headers, sizes, slowness, odd HTTP."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import time
from collections.abc import Callable

import pytest

from tests.gateway.conftest import UNLIMITED, has_keys
from tests.gateway.harness import Gateway, Issuer, Upstreams, wait_until

IDENTITY = [
    "X-User-Id", "X-User", "X-Auth-Request-User", "X-Auth-Scopes", "X-Subject", "X-Client-Id",
    "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Groups", "X-Forwarded-Client-Cert",
    "X-Remote-User", "Remote-User", "X-Roles", "X-Scopes", "X-Slipway-Subject", "X-Slipway-Key",
    "X-JWT-Assertion", "X-Real-IP", "X-Client-IP", "True-Client-IP", "CF-Connecting-IP",
    "Forwarded", "Proxy", "X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override",
    "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix",
    "X-Envoy-Upstream-Rq-Timeout-Ms", "X-Envoy-Retry-On", "X-Envoy-Max-Retries",
    "X-Envoy-Original-Path", "X-Envoy-Internal", "X-Envoy-Force-Trace",
]  # fmt: skip


def test_identity_headers_end_at_the_gateway(
    gateway: Gateway, upstreams: Upstreams, bearer: dict[str, str]
):
    """No header by which something behind us might believe a client reaches a service."""
    sent = dict.fromkeys(IDENTITY, "admin")
    headers = gateway.get("/v1/orders", {**bearer, **sent}).json()["headers"]
    assert not {name.lower() for name in IDENTITY} & set(headers)
    assert "admin" not in headers.values()


def test_forwarded_headers_say_what_we_saw(gateway: Gateway):
    """Without trusted proxies, X-Forwarded-For and -Proto are ours alone."""
    sent = {"X-Forwarded-For": "203.0.113.7, 10.0.0.1", "X-Forwarded-Proto": "https"}
    headers = gateway.get("/info/", sent).json()["headers"]
    # Envoy writes this machine's own address for a client on loopback.
    assert re.fullmatch(r"[0-9a-f.:]+", headers["x-forwarded-for"])
    assert headers["x-forwarded-for"] not in sent["X-Forwarded-For"]
    assert headers["x-forwarded-proto"] == "http"


def test_a_trusted_proxy_is_believed_once(start_gateway: Callable[..., Gateway]):
    """With one hop, the address that our proxy appended stands, and its X-Forwarded-Proto."""
    gateway = start_gateway({**UNLIMITED, "trustedHops": 1, "stripHeaders": ["X-Secret-Thing"]})
    sent = {
        "X-Forwarded-For": "203.0.113.7, 198.51.100.4",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-User": "admin",
        "X-Secret-Thing": "1",
    }
    headers = gateway.get("/info/", sent).json()["headers"]
    assert re.fullmatch(
        r"203\.0\.113\.7, 198\.51\.100\.4, ?[0-9a-f.:]+", headers["x-forwarded-for"]
    )
    assert headers["x-forwarded-proto"] == "https"
    assert "x-forwarded-user" not in headers
    assert "x-secret-thing" not in headers
    wait_until(gateway.access_log, "the access log")
    assert gateway.access_log()[0]["client"].startswith("198.51.100.")


def test_header_names_with_underscores_are_refused(gateway: Gateway, upstreams: Upstreams):
    """X_User_Id would look like X-User-Id to many a server: 400."""
    answer = gateway.get("/info/", {"X_User_Id": "admin"})
    assert answer.status == 400
    assert upstreams.seen == []


def test_the_request_id_is_ours(gateway: Gateway):
    """A fresh UUID for each request, the same for service and client."""
    answer = gateway.get("/info/", {"X-Request-ID": "chosen-by-the-client"})
    given = answer.headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", given)
    assert answer.json()["headers"]["x-request-id"] == given
    refused = gateway.get("/v1/orders")
    assert refused.problem()["request_id"] == refused.headers["x-request-id"] != given


def test_the_budget_is_the_routes(gateway: Gateway):
    """Services are told a little less than the route's timeout, whatever the client says."""
    headers = gateway.get("/info/", {"X-Request-Timeout-Ms": "9999999"}).json()["headers"]
    assert headers["x-request-timeout-ms"] == "14750"


def test_a_body_within_the_limit_passes(gateway: Gateway):
    """1 MiB, with a length and in chunks."""
    body = b"x" * 1_048_576
    assert gateway.request("POST", "/info/", None, body).json()["body_bytes"] == len(body)
    chunks = b"POST /info/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    chunks += b"Transfer-Encoding: chunked\r\n\r\n" + b"3\r\nabc\r\n" * 100 + b"0\r\n\r\n"
    assert b'"body_bytes": 300' in gateway.raw(chunks)


def test_a_larger_body_is_413(gateway: Gateway, upstreams: Upstreams):
    """One byte more is a problem, and the service never hears of it."""
    head = b"POST /info/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1048577\r\n\r\n"
    answer = gateway.raw(head + b"x" * 1_048_577)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"application/problem+json" in answer
    assert b"larger than 1048576 bytes" in answer
    assert upstreams.seen == []


def test_too_many_headers_are_431(gateway: Gateway, upstreams: Upstreams):
    """More than 100 headers."""
    answer = gateway.get("/info/", {f"A-{n}": "x" for n in range(101)})
    assert answer.status == 431
    assert answer.problem()["title"] == "Request Header Fields Too Large"
    assert gateway.get("/info/", {f"A-{n}": "x" for n in range(80)}).status == 200
    assert len(upstreams.seen) == 1


def test_too_large_headers_are_431(gateway: Gateway, upstreams: Upstreams):
    """More than 60 KiB of headers, or of path."""
    assert gateway.get("/info/", {"A": "x" * 50_000}).status == 200
    assert gateway.get("/info/", {"A": "x" * 62_000}).status == 431
    assert gateway.get("/info/" + "x" * 62_000).status == 431
    assert len(upstreams.seen) == 1


ODD = {
    "length and chunks": b"Host: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Host: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    "odd encoding": b"Host: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "no host": b"\r\n",
    "NUL": b"Host: a\r\nA: b\x00c\r\n\r\n",
}


@pytest.mark.parametrize("odd", ODD)
def test_odd_http_is_refused(gateway: Gateway, upstreams: Upstreams, odd: str):
    """What two servers could read differently (request smuggling) ends here."""
    answer = gateway.raw(b"POST /info/ HTTP/1.1\r\n" + ODD[odd])
    assert re.match(rb"HTTP/1\.1 (400|501) ", answer), answer
    assert b"application/problem+json" in answer
    assert upstreams.seen == []


def test_http_1_0_and_nonsense_are_refused(gateway: Gateway, upstreams: Upstreams):
    """Other protocols on the port get no further."""
    assert gateway.raw(b"GET /info/ HTTP/1.0\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 426 ")
    assert gateway.raw(b"nonsense\r\n\r\n").startswith(b"HTTP/1.1 400 ")
    assert upstreams.seen == []


def test_slow_clients_are_let_go(start_gateway: Callable[..., Gateway], upstreams: Upstreams):
    """Headers or a body that trickle in are 408 within the limits, and hold no service."""
    times = {"headersSeconds": 0.5, "requestSeconds": 1}
    gateway = start_gateway({**UNLIMITED, "timeouts": times})
    for data in (
        b"GET /info/ HTTP/1.1\r\nHost: a\r\nX-Slow:",
        b"POST /info/ HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx",
    ):
        begin = time.monotonic()
        answer = gateway.raw(data)
        assert answer.startswith(b"HTTP/1.1 408 "), answer
        assert b"application/problem+json" in answer
        assert time.monotonic() - begin < 30
    assert upstreams.seen == []


def test_idle_connections_are_closed(start_gateway: Callable[..., Gateway]):
    """A connection without a request goes after the idle time."""
    gateway = start_gateway({**UNLIMITED, "timeouts": {"idleSeconds": 1}})
    with socket.create_connection(("127.0.0.1", gateway.http), timeout=60) as s:
        assert s.recv(1) == b""


def test_connections_are_bounded(start_gateway: Callable[..., Gateway]):
    """Beyond the limit a connection is closed at once; probes still get in."""
    gateway = start_gateway({**UNLIMITED, "limits": {"connections": 2}})
    held = []
    try:
        for _ in range(2):
            s = socket.create_connection(("127.0.0.1", gateway.http), timeout=60)
            held.append(s)
            s.sendall(b"GET /info/ HTTP/1.1\r\nHost: a\r\n\r\n")
            assert s.recv(4096).startswith(b"HTTP/1.1 200")
        third = socket.create_connection(("127.0.0.1", gateway.http), timeout=60)
        held.append(third)
        with contextlib.suppress(ConnectionResetError):
            assert third.recv(1) == b""
        assert gateway.get("/ready", port=gateway.status).status == 200
    finally:
        for s in held:
            s.close()

    def again() -> bool:
        try:
            return gateway.get("/info/").status == 200
        except OSError:
            return False

    wait_until(again, "a place")


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


def _literal(name: bytes, value: bytes) -> bytes:
    """Encode a header without compression (RFC 7541, 6.2.2)."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def test_http2_without_tls(gateway: Gateway):
    """h2c by prior knowledge: the same port answers HTTP/2."""
    headers = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/info/"),
        (b":authority", b"a"),
    ]
    block = b"".join(_literal(*header) for header in headers)
    data = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + _frame(1, 5, 1, block)
    received = b""
    with socket.create_connection(("127.0.0.1", gateway.http), timeout=60) as s:
        s.sendall(data)
        while b'"service": "info"' not in received:
            chunk = s.recv(65536)
            assert chunk, received
            received += chunk
    assert b"\x88" in received  # :status 200 in the static table


def test_the_admin_interface_is_not_outside(gateway: Gateway, issuer: Issuer):
    """Nothing of it is behind the public port, with or without a token."""
    assert has_keys(gateway, issuer)
    for path in ("/config_dump", "/quitquitquit", "/stats", "/clusters", "/healthcheck/fail"):
        assert gateway.get(path).status == 404
        assert gateway.request("POST", path).status == 404


def test_old_connections_are_asked_to_go(start_gateway: Callable[..., Gateway]):
    """After maxConnectionSeconds an answer closes its connection, so that load spreads again."""
    gateway = start_gateway({**UNLIMITED, "timeouts": {"maxConnectionSeconds": 1}})
    connection = http.client.HTTPConnection("127.0.0.1", gateway.http, timeout=60)

    def closing() -> bool:
        connection.request("GET", "/nowhere")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 404
        return answer.getheader("connection") == "close"

    with contextlib.closing(connection):
        assert not closing()
        wait_until(closing, "the connection to be closed")
