"""A platform of three tiny real HTTP servers, to test the runner without the services.

`toy.py up|down|...` are the runner's own commands; `toy.py serve NAME PORT` is one server. How a
server misbehaves comes from the environment, `TOY_<NAME>=MODE`:

- `refuse`: exits with 2 and one line, as a service with a bad setting does
- `crash`: exits with 3 and a traceback
- `stubborn`: ignores SIGTERM
- `family`: has a child process in its group
- `never`: runs and is never ready
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from scripts.local.cli import main
from scripts.local.options import Options
from scripts.local.ports import pick_free
from scripts.local.process import Spec
from scripts.local.stack import Stack

# front uses middle, middle uses back.
NEEDS = {"back": (), "middle": ("back",), "front": ("middle",)}


class Toy(Stack):
    """The three servers."""

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        base = options.port_base
        numbers = range(base, base + len(NEEDS)) if base else pick_free(len(NEEDS))
        self._ports = dict(zip(NEEDS, numbers, strict=True))

    @property
    def ports(self) -> Mapping[str, tuple[int, str]]:
        """The servers' ports."""
        return {name: (port, "SLIPWAY_PORT_BASE") for name, port in self._ports.items()}

    async def prepare(self) -> Sequence[Spec]:
        """Nothing to prepare."""
        return [
            Spec(
                name=name,
                argv=(sys.executable, __file__, "serve", name, str(port)),
                port=port,
                env=dict(os.environ),
                ready_urls=(f"http://127.0.0.1:{port}/ready",),
                depends_on=NEEDS[name],
                stop_seconds=1.0,
                url=f"http://127.0.0.1:{port}",
            )
            for name, port in self._ports.items()
        ]

    def closing_words(self) -> Sequence[str]:
        """One long line, that no terminal width may break."""
        return ("copy me " + "x" * 200,)


def serve(name: str, port: int) -> None:
    """One server; it writes the moment of its end to a file, for the test of the order."""
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
    child = None
    if mode == "family":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer = json.dumps({"pid": os.getpid(), "child": child.pid if child else None})
            self.send_response(503 if mode == "never" else 200)
            self.end_headers()
            self.wfile.write(answer.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(
        json.dumps({"level": "info", "event": f"{name} listens", "time": time.time()}), flush=True
    )
    server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        raise SystemExit(main(Toy))
