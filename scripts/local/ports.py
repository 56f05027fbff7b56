"""Ports: whether one is free, who has it if not, and free ones for tests."""

from __future__ import annotations

import contextlib
import random
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from scripts.local.home import RunnerError

_LISTEN = "0A"
# Below the range from which the kernel takes the local ports of outgoing connections.
_FREE_RANGE = (12000, 30000)


def is_free(port: int) -> bool:
    """Whether nobody listens on the port of the loopback address."""
    with socket.socket() as probe:
        # Connections of a finished run that linger in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def require_free(ports: Mapping[str, tuple[int, str]]) -> None:
    """Refuse to start when one of `ports` (name -> port, variable that moves it) is taken.

    Two of them may not want the same one either.

    Raises:
        RunnerError: one line with the port, who has it if that can be known, and the variable.
    """
    wanted: dict[int, str] = {}
    for name, (port, variable) in ports.items():
        if (other := wanted.setdefault(port, name)) != name:
            raise RunnerError(
                f"port {port} is that of {other} and of {name}; choose another with {variable}=PORT"
            )
        if not is_free(port):
            owner = find_owner(port)
            raise RunnerError(
                f"port {port} ({name}) is in use{f' by {owner}' if owner else ''}; "
                f"stop it, or choose another with {variable}=PORT"
            )


def pick_free(count: int) -> list[int]:
    """That many different free ports."""
    found: list[int] = []
    while len(found) < count:
        port = random.randint(*_FREE_RANGE)  # noqa: S311 - a port is no secret
        if port not in found and is_free(port):
            found.append(port)
    return found


def find_owner(port: int) -> str | None:
    """`command (pid N)` of the process that listens on the port, if this user may know."""
    if Path("/proc/net/tcp").exists():
        inodes = {inode for table in ("tcp", "tcp6") for inode in _listeners(table, port)}
        return _process_with_socket(inodes) if inodes else None
    return _ask_lsof(port)


def _listeners(table: str, port: int) -> list[str]:
    try:
        lines = Path(f"/proc/net/{table}").read_text().splitlines()[1:]
    except OSError:
        return []
    rows = (line.split() for line in lines)
    return [
        row[9] for row in rows if row[3] == _LISTEN and int(row[1].rpartition(":")[2], 16) == port
    ]


def _process_with_socket(inodes: set[str]) -> str | None:
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in wanted:
                        return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
    return None


def _ask_lsof(port: int) -> str | None:
    if shutil.which("lsof") is None:
        return None
    answer = subprocess.run(
        ["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    fields = {line[0]: line[1:] for line in answer.splitlines() if line}
    return f"{fields['c']} (pid {fields['p']})" if {"p", "c"} <= fields.keys() else None
