"""Builds the zip of a service for AWS Lambda: `make lambda SERVICE=items`.

    python -m scripts.lambda_zip SERVICE [--arch x86_64|arm64] [--python 3.13] [--output FILE]

The zip holds the service, the chassis and the locked dependencies as wheels for Lambda's Linux,
with bytecode, and without what a function does not use (servers, migrations, tests). Two builds
of one commit are the same file. The handler is Lambda's default, `lambda_function.lambda_handler`.
Exit code 2: bad arguments, a service that cannot run on Lambda, or a zip that is too large.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from chassis.aws import LambdaError, require_no_loops
from chassis.settings import ServiceSettings, SettingsError, load_settings
from scripts.slim import slim
from scripts.topology import ROOT, Service, Topology, TopologyError, load

OUTPUT = Path(".slipway", "lambda")
MODULE = "lambda_function.py"
MAX_BYTES = 50 * 1024 * 1024
"""What Lambda takes in one upload."""
MAX_UNZIPPED_BYTES = 250 * 1024 * 1024

# Those on Amazon Linux 2023. Wheels of today need a newer C library than Amazon Linux 2 has, on
# which Lambda's Python 3.11 runs.
PYTHONS = ("3.12", "3.13", "3.14")
DEFAULT_PYTHON = "3.13"
PLATFORMS = {"x86_64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}

# Ours come from this tree; the others serve or migrate, which a function does not.
EXCLUDED = ("slipway-chassis", "alembic", "gunicorn", "httptools", "uvicorn", "uvloop")
# Parts of the chassis that need what is excluded, or a test.
_UNUSED = ("chassis/testing", "chassis/server.py", "chassis/multiprocess.py", "chassis/__main__.py")
# Of an installed distribution: what differs between two installations, or only pip reads.
_RECORDS = ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json")
_EPOCH = (1980, 1, 1, 0, 0, 0)
_MODE = 0o100644 << 16


class ZipError(Exception):
    """A zip cannot be built. Its text is one line."""


def find(name: str, topology: Topology) -> Service:
    """Return the service to build; one whose own loops would stand still is refused.

    Raises:
        ZipError: there is no such service.
        LambdaError: it cannot run on Lambda.
        SettingsError: a setting of it in this environment is wrong.
    """
    if name not in topology.services:
        known = ", ".join(topology.services)
        raise ZipError(f"{name or 'SERVICE'}: no such service; there are {known}")
    service = topology[name]
    declared: type[ServiceSettings] = importlib.import_module(f"{service.module}.settings").Settings
    app = importlib.import_module(f"{service.module}.main").create_app(load_settings(declared))
    require_no_loops(app.state.runtime)
    return service


def install(service: Service, target: Path, *, arch: str, python: str) -> None:
    """Put the locked dependencies of `service` for Lambda's platform into `target`.

    Raises:
        ZipError: uv could not; its own lines say why.
    """
    projects = [f"services/{name}/pyproject.toml" for name in ("chassis", service.package)]
    with tempfile.TemporaryDirectory() as folder:
        excludes = Path(folder, "excludes.txt")
        excludes.write_text("\n".join(EXCLUDED))
        run(
            *(uv(), "pip", "install", "--quiet", "--no-config", "--target", str(target)),
            "--link-mode=copy",  # what is changed below is not uv's cache
            *("--python-platform", PLATFORMS[arch]),
            *("--python-version", python, "--only-binary", ":all:", "--require-hashes"),
            *("--constraint", "requirements.lock", "--excludes", str(excludes)),
            *(part for project in projects for part in ("--requirement", project)),
            *("--group", "pyproject.toml:lambda"),
        )


def add_our_packages(service: Service, target: Path) -> None:
    """Put the chassis and the service, as their wheels hold them, into `target`."""
    with tempfile.TemporaryDirectory() as folder:
        for project in ("chassis", service.package):
            run(
                *(uv(), "build", "--quiet", "--no-config", "--offline", "--no-build-isolation"),
                *("--python", sys.executable, "--wheel", "--out-dir", folder),
                f"services/{project}",
            )
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as packed:
                packed.extractall(target)
    for name in _UNUSED:
        path = target / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (target / MODULE).write_text(
        f'from chassis.aws import handler_for\n\nlambda_handler = handler_for("{service.module}")\n'
    )


def clean(target: Path) -> None:
    """Take out what a function does not need, and what differs from one build to the next."""
    shutil.rmtree(target / "bin", ignore_errors=True)
    slim(target)
    for name in _RECORDS:
        for file in target.glob(f"*.dist-info/{name}"):
            file.unlink()
    for path in target.glob(".*"):  # a lock of uv
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def compile_bytecode(target: Path, python: str) -> None:
    """Compile everything: /var/task is read-only, and each cold start would compile anew.

    Raises:
        ZipError: there is no interpreter of the version that the zip is for.
    """
    # Not checked against its source: the sources have no times. In one order, with one hash seed.
    run(
        *(find_python(python), "-m", "compileall", "-q", "-j", "1", "--invalidation-mode"),
        *("unchecked-hash", "-s", str(target), "-p", "/var/task", str(target)),
        environment={"PYTHONHASHSEED": "0"},
    )


def find_python(version: str) -> str:
    """Return an interpreter of this version: this one, one of the PATH, of uv, or of pyenv.

    Raises:
        ZipError: there is none.
    """
    if version == own_version():
        return sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    candidates = [
        shutil.which(f"python{version}"),
        _output(uv(), "python", "find", "--quiet", "--no-python-downloads", version),
        *sorted(map(str, pyenv.glob(f"{version}.*/bin/python"))),
    ]
    said = "import platform; print(*platform.python_version_tuple()[:2], sep='.')"
    for candidate in filter(None, candidates):
        if _output(candidate, "-c", said) == version:
            return candidate
    raise ZipError(
        f"no Python {version} here to make bytecode with; install it "
        f"(`.venv/bin/uv python install {version}`), or choose: PYTHON_VERSION={'|'.join(PYTHONS)}"
    )


def _output(*command: str) -> str:
    """Return what a command prints; nothing if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return "" if done.returncode else done.stdout.strip()


def pack(source: Path, file: Path) -> None:
    """Write the zip: sorted, with one time and one mode, so that it is the same each time."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        files = {path.relative_to(source).as_posix(): path for path in source.rglob("*")}
        for name in sorted(name for name, path in files.items() if path.is_file()):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.external_attr = _MODE
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, files[name].read_bytes(), compresslevel=9)


def check_size(file: Path, *, limit: int = MAX_BYTES, unzipped: int = MAX_UNZIPPED_BYTES) -> None:
    """Refuse a zip that Lambda would refuse.

    Raises:
        ZipError: naming the largest packages.
    """
    size, inner = file.stat().st_size, sum(each for each, _ in sizes(file).values())
    if size <= limit and inner <= unzipped:
        return
    packages = sizes(file)
    largest = sorted(packages, key=lambda name: packages[name][1], reverse=True)[:5]
    named = ", ".join(f"{name} {packages[name][1] / 1e6:.1f} MB" for name in largest)
    raise ZipError(
        f"{file}: {size / 1e6:.1f} MB ({inner / 1e6:.1f} MB unzipped), over the "
        f"{limit / 1e6:.1f} MB ({unzipped / 1e6:.1f} MB) that Lambda takes; largest: {named}"
    )


def sizes(file: Path) -> dict[str, tuple[int, int]]:
    """Return the bytes of each top-level package in a zip, unzipped and zipped."""
    plain: Counter[str] = Counter()
    packed: Counter[str] = Counter()
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            name = entry.filename.partition("/")[0].partition(".")[0]
            plain[name] += entry.file_size
            packed[name] += entry.compress_size
    return {name: (plain[name], packed[name]) for name in plain}


def build(service: Service, file: Path, *, arch: str, python: str) -> None:
    """Build the zip of one service.

    Raises:
        ZipError: a step failed, or the zip is too large; it is left out then.
    """
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "task")
        install(service, target, arch=arch, python=python)
        add_our_packages(service, target)
        clean(target)
        compile_bytecode(target, python)
        made = Path(folder, "made.zip")
        pack(target, made)
        check_size(made)
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(made, file)


def run(*command: str, environment: dict[str, str] | None = None) -> None:
    """Run a command in the tree's root.

    Raises:
        ZipError: it failed.
    """
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **(environment or {})}, check=False)
    if done.returncode:
        raise ZipError(f"{Path(command[0]).name} {command[1]} failed; its lines above say why")


def uv() -> str:
    """Return uv, which is beside this interpreter."""
    return str(Path(sys.executable).parent / "uv")


def own_version() -> str:
    """Return the version of this interpreter: `3.13`."""
    return ".".join(platform.python_version_tuple()[:2])


def _report(service: Service, file: Path, arch: str, python: str) -> Iterator[str]:
    packages = sizes(file)
    unzipped = sum(plain for plain, _ in packages.values())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    yield f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else file}"
    yield f"  {file.stat().st_size / 1e6:.1f} MB, {unzipped / 1e6:.1f} MB unzipped"
    handler = f"{Path(MODULE).stem}.lambda_handler"
    yield f"  --runtime python{python} --architectures {arch} --handler {handler}"
    yield f"  sha256 {digest}"
    yield f"  its settings are variables that begin with {service.prefix} (docs/lambda.md)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one zip and say where it is. Returns 2 for what the user can mend, else 0."""
    parser = argparse.ArgumentParser(prog="lambda")
    parser.add_argument("service")
    parser.add_argument("--arch", choices=list(PLATFORMS), default="x86_64")
    own = own_version()
    parser.add_argument(
        "--python", choices=PYTHONS, default=own if own in PYTHONS else DEFAULT_PYTHON
    )
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    try:
        service = find(options.service, load())
        file = (options.output or ROOT / OUTPUT / f"{service.name}.zip").resolve()
        build(service, file, arch=options.arch, python=options.python)
    except (ZipError, LambdaError, SettingsError, TopologyError, OSError) as error:
        print(f"lambda: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(*_report(service, file, options.arch, options.python), sep="\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
