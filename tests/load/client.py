"""A small load generator: keep-alive HTTP/1.1 connections, each with one request in flight.

`python client.py HOST PORT PATH --seconds 1 --connections 32` prints one JSON object: requests,
errors, seconds, and the median and 99th percentile of the latency in milliseconds. It runs in its
own process, so that its work is not counted as the server's.
"""

import argparse
import asyncio
import json
import re
import time

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Connection(asyncio.Protocol):
    """Sends the same request again as soon as its answer is complete."""

    def __init__(self, request: bytes, results: "Results") -> None:
        self.request = request
        self.results = results
        self.buffer = b""
        self.sent = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport) -> None:
        """Send the first request."""
        self.transport = transport
        self.next()

    def next(self) -> None:
        """Send a request, or end when the time is up."""
        if self.results.over:
            self.transport.close()
            return
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer."""
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = _LENGTH.search(head)
        complete = len(body) >= int(length.group(1)) if length else body.endswith(b"0\r\n\r\n")
        if complete:
            self.results.add(time.perf_counter() - self.sent, head[9:10] == b"2")
            self.buffer = b""
            self.next()

    def connection_lost(self, exc) -> None:
        """Count a connection that the server closed."""
        if not self.results.over:
            self.results.lost += 1


class Results:
    """What was seen."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.errors = 0
        self.lost = 0
        self.over = False

    def add(self, seconds: float, good: bool) -> None:
        """Note one answer."""
        self.latencies.append(seconds)
        if not good:
            self.errors += 1


async def run(host: str, port: int, request: bytes, connections: int, seconds: float) -> dict:
    """Load the server; return the figures."""
    loop = asyncio.get_running_loop()
    results = Results()
    began = time.perf_counter()
    transports = [
        (await loop.create_connection(lambda: Connection(request, results), host, port))[0]
        for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    results.over = True
    elapsed = time.perf_counter() - began
    count = len(results.latencies)
    for transport in transports:
        transport.close()
    ordered = sorted(results.latencies) or [0.0]
    return {
        "requests": count,
        "errors": results.errors + results.lost,
        "seconds": elapsed,
        "p50_ms": ordered[len(ordered) // 2] * 1000,
        "p99_ms": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] * 1000,
    }


def main() -> None:
    """Run once."""
    parser = argparse.ArgumentParser()
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("path")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--method", default="GET")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--body", default="")
    arguments = parser.parse_args()
    body = arguments.body.encode()
    lines = [
        f"{arguments.method} {arguments.path} HTTP/1.1",
        f"host: {arguments.host}:{arguments.port}",
        "user-agent: bench",
        "accept: */*",
        *arguments.header,
    ]
    if body:
        lines.append(f"content-length: {len(body)}")
    request = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
    import uvloop

    figures = uvloop.run(
        run(arguments.host, arguments.port, request, arguments.connections, arguments.seconds)
    )
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
