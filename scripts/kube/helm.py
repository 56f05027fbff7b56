"""The `helm` program: 4, or 3 from 3.18 on."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scripts.kube.errors import ToolError
from scripts.topology import ROOT

OLDEST = (3, 18)
TIMEOUT = "10m"  # for hooks: a migration may take its time
_LOOK_SECONDS = 3.0


@dataclass(frozen=True)
class Helm:
    """Runs helm against one context and namespace."""

    context: str
    namespace: str
    program: str = "helm"

    @cached_property
    def version(self) -> tuple[int, int]:
        """Return its version.

        Raises:
            ToolError: it is not there or too old.
        """
        return helm_version(self.program)

    def upgrade(
        self,
        name: str,
        chart: Path,
        values: Sequence[Path],
        sets: Sequence[str] = (),
        hopeless: Callable[[], str] = str,
        *,
        reuse: bool = False,
    ) -> None:
        """Install or upgrade a release; returns when its hooks are done, not when pods are ready.

        With `reuse` the values that the release was given last go on, over the chart's own.
        `hopeless` is asked every few seconds why a hook will never be done; a reason ends the wait.

        Raises:
            ToolError: helm's own last words, or the reason.
        """
        files = [word for path in values for word in ("--values", str(path))]
        single = [word for pair in sets for word in ("--set-string", pair)]
        kept = ["--reset-then-reuse-values"] if reuse else []
        command = self._command(
            "upgrade", "--install", name, str(chart), *kept, *files, *single, *self._ours(),
            "--timeout", TIMEOUT,
        )  # fmt: skip
        with subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            while True:
                try:
                    said, told = process.communicate(timeout=_LOOK_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    if reason := hopeless():
                        process.terminate()
                        process.communicate()
                        raise ToolError(reason, 1) from None
        if process.returncode:
            raise ToolError(f"helm upgrade: {last_words(told or said)}", 1)

    def rollback(self, name: str, revision: int = 0) -> None:
        """Go back to `revision`, 0 for the one before."""
        number = [str(revision)] if revision else []
        self._run("rollback", name, *number, *self._ours(), "--timeout", TIMEOUT)

    def uninstall(self, name: str) -> None:
        """Remove a release and wait until its objects are gone."""
        self._run("uninstall", name, "--wait", "--ignore-not-found", "--timeout", TIMEOUT)

    def releases(self) -> list[dict[str, Any]]:
        """Return the releases of the namespace as helm lists them."""
        return list(json.loads(self._run("list", "--all", "--output", "json") or "[]"))

    def state(self, name: str) -> str | None:
        """Return the status of a release, None when there is none."""
        listed = self._list(name)
        return str(listed["status"]) if listed else None

    def revision(self, name: str) -> int:
        """Return the number of the release's newest revision, 0 when there is none."""
        listed = self._list(name)
        return int(listed["revision"]) if listed else 0

    def good_revision(self, name: str) -> int:
        """Return the newest revision that was deployed, 0 when there is none.

        A release that an interrupted run left pending would refuse every further one: it is taken
        back to its last good revision, or away when it never had one.
        """
        state = self.state(name)
        if state is None:
            return 0
        good = [
            int(entry["revision"])
            for entry in self.history(name)
            if entry["status"] in {"deployed", "superseded"}
        ]
        if state.startswith("pending-"):
            if not good:
                self.uninstall(name)
                return 0
            self.rollback(name, good[-1])
            return self.revision(name)
        return good[-1] if good else 0

    def history(self, name: str) -> list[dict[str, Any]]:
        """Return the revisions of a release, oldest first."""
        return list(json.loads(self._run("history", name, "--output", "json")))

    def test(self, name: str) -> None:
        """Run the release's tests.

        Raises:
            ToolError: one of them failed.
        """
        self._run("test", name, "--timeout", "3m", "--logs")

    def _list(self, name: str) -> dict[str, Any] | None:
        found = json.loads(
            self._run("list", "--all", "--filter", f"^{re.escape(name)}$", "--output", "json")
            or "[]"
        )
        return found[0] if found else None

    def _ours(self) -> list[str]:
        """What the chart says wins over a field that somebody set by `kubectl`."""
        # Helm 4 applies server-side and would stop at the conflict; Helm 3 overwrites anyway.
        return ["--force-conflicts"] if self.version[0] >= 4 else []  # noqa: PLR2004

    def _command(self, *words: str) -> list[str]:
        _ = self.version
        return [
            self.program, *words, "--namespace", self.namespace, "--kube-context", self.context,
        ]  # fmt: skip

    def _run(self, *words: str) -> str:
        command = self._command(*words)
        if words[0] == "list" and self.version[0] >= 4:  # noqa: PLR2004  (Helm 4 lists all states)
            command.remove("--all")
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ToolError(f"helm {words[0]}: {last_words(done.stderr or done.stdout)}", 1)
        return done.stdout


def helm_version(program: str = "helm") -> tuple[int, int]:
    """Return the version of `program`.

    Raises:
        ToolError: it is not there or too old.
    """
    if shutil.which(program) is None:
        raise ToolError(
            "helm is not on the PATH; install Helm 4 (https://helm.sh/docs/intro/install)"
        )
    done = subprocess.run(
        [program, "version", "--template", "{{.Version}}"],
        capture_output=True, text=True, check=False, env={**os.environ, "HELM_DEBUG": "false"},
    )  # fmt: skip
    found = re.match(r"v?(\d+)\.(\d+)", done.stdout.strip())
    if found is None:
        raise ToolError(f"helm does not tell its version: {last_words(done.stderr)}")
    version = (int(found[1]), int(found[2]))
    if version < OLDEST:
        raise ToolError(f"helm {version[0]}.{version[1]} is too old; install Helm 4, or 3.18 on")
    return version


def last_words(text: str) -> str:
    """Return what went wrong without the warnings before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    start = next((index for index, line in enumerate(lines) if line.lower().startswith("error")), 0)
    return " ".join(lines[start:]).removeprefix("Error: ")[:1500] or "no reason given"
