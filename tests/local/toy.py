"""A platform of three tiny real servers (toy_server.py), to test the runner without the services.

`toy.py up|down|...` are the runner's own commands. With TOY_FORK=1 the servers are forked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from scripts.local.cli import main
from scripts.local.options import Options
from scripts.local.stack import Stack

SERVER = Path(__file__).with_name("toy_server.py")
# front uses middle, middle uses back.
NEEDS = {"back": (), "middle": ("back",), "front": ("middle",)}


def build(options: Options) -> Stack:
    """The three servers."""
    # `down` and the like need none of this; the tests run them often.
    from scripts.local.ports import pick_free
    from scripts.local.process import Spec

    class Toy(Stack):
        def __init__(self) -> None:
            super().__init__(options)
            base = options.port_base
            self.forks = bool(os.environ.get("TOY_FORK"))
            numbers = range(base, base + len(NEEDS)) if base else pick_free(len(NEEDS))
            self._ports = dict(zip(NEEDS, numbers, strict=True))

        @property
        def ports(self) -> Mapping[str, tuple[int, str]]:
            return {name: (port, "SLIPWAY_PORT_BASE") for name, port in self._ports.items()}

        async def prepare(self) -> Sequence[Spec]:
            return [
                Spec(
                    name=name,
                    argv=self._argv(name, port),
                    port=port,
                    env=dict(os.environ),
                    ready_urls=(f"http://127.0.0.1:{port}/ready",),
                    depends_on=NEEDS[name],
                    stop_seconds=1.0,
                    forkable=self.forks,
                    url=f"http://127.0.0.1:{port}",
                )
                for name, port in self._ports.items()
            ]

        def _argv(self, name: str, port: int) -> tuple[str, ...]:
            program = ("-m", "tests.local.toy_server") if self.forks else ("-S", str(SERVER))
            return (sys.executable, *program, name, str(port))

        def closing_words(self) -> Sequence[str]:
            return ("copy me " + "x" * 200,)  # one long line, that no terminal width may break

    return Toy()


if __name__ == "__main__":
    raise SystemExit(main(build))
