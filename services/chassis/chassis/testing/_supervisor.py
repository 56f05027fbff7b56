"""Run PostgreSQL for one test run and clean up after it. Standard library only; run as a script.

Arguments: the folder of the run, the folder of the PostgreSQL programs, the user to run as (empty:
this one). It forks: the first process returns at once, the second one stays until the lock file
`owner.lock` of the folder is free, then stops the server and removes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

SETTINGS = {
    "listen_addresses": "",
    "max_connections": "300",
    "shared_buffers": "64MB",
    # A test database need not survive a power cut.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "log_statement": "none",
    "unix_socket_permissions": "0700",
}


def main(base: Path, binaries: Path, user: str | None) -> None:
    """Start the server, wait for the owner to let go, stop it."""
    server: subprocess.Popen[bytes] | None = None
    try:
        server = start(base, binaries, user)
        url = f"postgresql://postgres@/postgres?host={base / 'run'}"
        publish(
            base / "ready.json",
            json.dumps({"url": url}),
        )
    except (OSError, RuntimeError) as exc:
        publish(base / "failed", " ".join(str(exc).split()))
    with (base / "owner.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    if server is not None:
        stop(server)
    shutil.rmtree(base, ignore_errors=True)


def start(base: Path, binaries: Path, user: str | None) -> subprocess.Popen[bytes]:
    """Initialise the data folder and start the server; return when it takes connections."""
    data, run, log = base / "data", base / "run", base / "server.log"
    for folder in (data, run):
        folder.mkdir(mode=0o700)
        if user:
            entry = pwd.getpwnam(user)
            os.chown(folder, entry.pw_uid, entry.pw_gid)
    # A path that the user of the server cannot enter must not be its working directory.
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
    initdb = [
        *(str(binaries / "initdb"), "--pgdata", str(data)),
        *("--username", "postgres", "--auth", "trust"),
        *("--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
        *("--no-sync", "--no-instructions"),
    ]
    group = pwd.getpwnam(user).pw_gid if user else None
    extra: list[int] | None = [] if user else None
    done = subprocess.run(  # noqa: S603  (programs of an installed package)
        initdb, user=user, group=group, extra_groups=extra, cwd="/", env=environment,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed: {last_line(done.stdout.decode(errors='replace'))}")
    command = [str(binaries / "postgres"), "-D", str(data)]
    for name, value in {**SETTINGS, "unix_socket_directories": str(run)}.items():
        command += ["-c", f"{name}={value}"]
    with log.open("wb") as output:
        server = subprocess.Popen(  # noqa: S603
            command, user=user, group=group, extra_groups=extra, cwd="/", env=environment,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    # The eighth line of postmaster.pid is the state; pg_ctl waits for it in the same way.
    pid_file = data / "postmaster.pid"
    deadline = time.monotonic() + 50
    while True:
        if server.poll() is not None:
            text = log.read_text(errors="replace")
            raise RuntimeError(f"the server ended: {last_line(text)}")
        with contextlib.suppress(OSError):
            lines = pid_file.read_text().splitlines()
            if len(lines) >= 8 and lines[7].strip() == "ready":  # noqa: PLR2004
                return server
        if time.monotonic() > deadline:
            server.kill()
            raise RuntimeError("the server took no connections within 50 s")
        time.sleep(0.01)


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ask for a fast shutdown, which ends open sessions; insist after ten seconds."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.send_signal(signal.SIGQUIT)
        server.wait()


def publish(path: Path, text: str) -> None:
    """Write the file in one step, so that a reader never sees half of it."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.rename(path)


def last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


if __name__ == "__main__":
    if os.fork() == 0:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):
            os.dup2(null, descriptor)
        main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] or None)
