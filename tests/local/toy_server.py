"""One tiny real HTTP server, misbehaving as TOY_<NAME> says: `toy_server.py NAME PORT`.

- `refuse`: exits with 2 and one line, as a service with a bad setting does
- `crash`: exits with a traceback
- `stubborn`: ignores SIGTERM
- `family`: has a child process in its group
- `never`: runs and is never ready
"""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import sys
import time
from pathlib import Path


class Handler(socketserver.StreamRequestHandler):
    """Answers any request with the pids of the server and its child."""

    status = "200 OK"
    child: subprocess.Popen[bytes] | None = None

    def handle(self) -> None:
        """One request, one answer, one connection."""
        while self.rfile.readline().strip():
            pass
        body = json.dumps({"pid": os.getpid(), "child": self.child.pid if self.child else None})
        head = f"HTTP/1.1 {self.status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        self.wfile.write((head + body).encode())


class Server(socketserver.ThreadingTCPServer):
    """A server that may take the port of the one before it."""

    allow_reuse_address = True
    daemon_threads = True


def serve(name: str, port: int) -> None:
    """Serve until SIGTERM, then note the name in a file, for the test of the order."""
    mode = os.environ.get(f"TOY_{name.upper()}")
    if mode == "refuse":
        print("TOY_SETTING: is wrong; set it right", file=sys.stderr)
        raise SystemExit(2)
    if mode == "crash":
        raise RuntimeError("out of luck")

    def end(*_: object) -> None:
        if mode != "stubborn":
            with Path(os.environ["SLIPWAY_HOME"], "ends").open("a") as file:
                file.write(f"{name}\n")
            os._exit(0)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, lambda *_: os._exit(99))  # must never reach it
    if mode == "family":
        Handler.child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    if mode == "never":
        Handler.status = "503 Service Unavailable"
    server = Server(("127.0.0.1", port), Handler)
    print(
        json.dumps({"level": "info", "event": f"{name} listens", "time": time.time()}), flush=True
    )
    server.serve_forever()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
