"""A zip of items, built once a run and unzipped as on Lambda; environments that run from it."""

from __future__ import annotations

import fcntl
import os
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from scripts import lambda_zip
from scripts.topology import load
from tests.aws.runtime_api import Environment, RuntimeApi, runtime_folder

PROGRAMS = Path(__file__).parent / "programs"
Start = Callable[..., "Running"]


@dataclass
class Running:
    """A function, and Lambda's side of it."""

    api: RuntimeApi
    environment: Environment

    def invoke(self, event: dict[str, Any], **options: Any) -> Any:
        """Invoke it; what the runtime posted."""
        return self.api.invoke(event, **options)


@pytest.fixture(scope="session")
def items_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zip of items for this machine's architecture and this interpreter."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    file = shared / "items.zip"
    with (shared / "items.zip.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one worker builds, the others wait
        if not file.exists():
            arch = "arm64" if os.uname().machine in {"arm64", "aarch64"} else "x86_64"
            service = lambda_zip.find("items", load())
            lambda_zip.build(service, file, arch=arch, python=lambda_zip.own_version())
    return file


@pytest.fixture(scope="session")
def folders(items_zip: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What /var/task and /var/runtime are on Lambda; the first cannot be written to."""
    var = tmp_path_factory.mktemp("var")
    task = var / "task"
    with zipfile.ZipFile(items_zip) as packed:
        packed.extractall(task)
    return task, runtime_folder(var / "runtime")


@pytest.fixture
def start(folders: tuple[Path, Path], tmp_path: Path) -> Iterator[Start]:
    """A function: start an environment of items, or of the demo, with these variables."""
    task, runtime = folders

    with ExitStack() as stack:

        def run(variables: dict[str, str], *, demo: bool = False) -> Running:
            api = stack.enter_context(RuntimeApi().serving())
            environment = Environment(
                api,
                [*([PROGRAMS] if demo else []), task, runtime],
                variables,
                cwd=tmp_path,
                handler="demo_function.lambda_handler"
                if demo
                else "lambda_function.lambda_handler",
            )
            stack.callback(environment.end)
            return Running(api, environment)

        yield run
