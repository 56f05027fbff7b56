"""Builds the images of the services with docker, podman or buildah: `make images`.

    python -m scripts.images build [SERVICE...] [--tag T] [--target runtime|dev|smoke]
        [--builder docker|podman|buildah] [--base IMAGE] [--network host] [--check]

One Dockerfile makes them all. Layers carry one fixed time, so that the layer of dependencies stays
the same from commit to commit; the time of the commit (`SOURCE_DATE_EPOCH` wins) is in the label
`created`. `--check` builds each image a second time, from nothing, and compares them file by file.
A package index (`UV_DEFAULT_INDEX`, `PIP_INDEX_URL`) and certificates (`SSL_CERT_FILE`, `PIP_CERT`)
of this environment are handed to the build as secrets, which no layer holds. Exit code 2: nothing
to build with, or bad arguments; 1: a build failed or two differ.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from scripts import archive
from scripts.topology import ROOT, Service, TopologyError, load

BUILDERS = ("docker", "podman", "buildah")
BASE = "python:3.13-slim"
LAYER_TIME = 315_532_800
"""1980-01-01 in seconds since 1970: the time of every file in a layer."""
INDEX = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
CERTIFICATES = ("SSL_CERT_FILE", "PIP_CERT")


class ImageError(Exception):
    """An image cannot be built. Its text is one line."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Commit:
    """What an image says about its origin. `time` is in seconds since 1970."""

    revision: str
    time: int
    source: str

    @property
    def created(self) -> str:
        """The time as RFC 3339 has it."""
        return datetime.fromtimestamp(self.time, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def find_builder(wanted: str | None = None) -> str:
    """Return the first builder that works here, or `wanted` if it does.

    Raises:
        ImageError: there is none.
    """
    for name in (wanted,) if wanted else BUILDERS:
        # The docker client alone builds nothing: its `version` fails without a daemon.
        if shutil.which(name) and _succeeds(name, "version"):
            return name
    tried = f"{wanted} does not work here" if wanted else "none of docker, podman, buildah works"
    raise ImageError(f"{tried}; install one, or start its daemon", code=2)


def find_commit(root: Path = ROOT, environ: Mapping[str, str] = os.environ) -> Commit:
    """Return the commit of the tree; `SOURCE_DATE_EPOCH` wins over its time.

    A tree with changes says so in its revision. Without git the revision is `unknown`.
    """
    revision, source, moment = "unknown", "", "0"
    if shutil.which("git") and _succeeds("git", "-C", str(root), "rev-parse", "HEAD"):
        changed = (
            "-dirty" if output("git", "-C", str(root), "status", "--porcelain", "-uno") else ""
        )
        revision = output("git", "-C", str(root), "rev-parse", "HEAD") + changed
        moment = output("git", "-C", str(root), "show", "-s", "--format=%ct", "HEAD")
        source = public_url(
            output("git", "-C", str(root), "config", "--default", "", "remote.origin.url")
        )
    moment = environ.get("SOURCE_DATE_EPOCH") or moment
    if not moment.isdecimal():
        raise ImageError(f"SOURCE_DATE_EPOCH: {moment!r} is no number of seconds", code=2)
    return Commit(revision, int(moment), source)


def public_url(remote: str) -> str:
    """Return a remote's address without credentials; empty unless it is HTTPS."""
    parts = urlsplit(remote)
    if parts.scheme != "https" or not parts.hostname:
        return ""
    return f"https://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def command(
    builder: str,
    service: Service,
    image: str,
    *,
    commit: Commit,
    base: str = BASE,
    target: str = "runtime",
    network: str = "",
    secrets: Mapping[str, Path] | None = None,
    fresh: bool = False,
) -> list[str]:
    """Return the command that builds `image` of one service; `fresh` uses no earlier layer."""
    arguments = {
        "SERVICE": service.package,
        "BASE": base,
        "VERSION": image.rpartition(":")[2],
        "REVISION": commit.revision,
        "SOURCE": commit.source,
        "CREATED": commit.created,
    }
    if builder == "docker":
        line = [builder, "buildx", "build", "--load", "--provenance=false"]
        arguments["SOURCE_DATE_EPOCH"] = str(LAYER_TIME)
    else:
        line = [builder, "build", "--layers", f"--timestamp={LAYER_TIME}"]
    line += [f"--target={target}", f"--tag={image}", f"--file={ROOT / 'Dockerfile'}"]
    line += [f"--build-arg={name}={value}" for name, value in arguments.items()]
    line += [f"--secret=id={name},src={file}" for name, file in (secrets or {}).items()]
    if network:
        line.append(f"--network={network}")
    if fresh:
        line.append("--no-cache")
    return [*line, str(ROOT)]


@contextmanager
def mirror_secrets(environ: Mapping[str, str] = os.environ) -> Iterator[dict[str, Path]]:
    """Give the files of the secrets `index` and `ca`, as far as this environment names them."""
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Path] = {}
        if index := next((environ[name] for name in INDEX if environ.get(name)), None):
            found["index"] = Path(folder, "index")
            found["index"].write_text(index, encoding="utf-8")
        if ca := next((environ[name] for name in CERTIFICATES if environ.get(name)), None):
            found["ca"] = Path(ca)
        yield found


def measure(builder: str, image: str) -> archive.Image:
    """Read the layers of a built image."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "image.tar")
        save(builder, image, file)
        return archive.read(file)


def save(builder: str, image: str, file: Path) -> None:
    """Write a built image to `file` as a docker archive.

    Raises:
        ImageError: there is no such image, or no room.
    """
    if builder == "buildah":
        output("buildah", "push", "--quiet", image, f"docker-archive:{file}:{image}")
    elif builder == "podman":
        output("podman", "save", "--quiet", "--format=docker-archive", "-o", str(file), image)
    else:
        output("docker", "save", "-o", str(file), image)


def build(
    services: Sequence[Service],
    *,
    builder: str,
    tag: str,
    base: str = BASE,
    target: str = "runtime",
    network: str = "",
    check: bool = False,
) -> None:
    """Build the images and print a line for each: name, size without the base (MB), seconds.

    Raises:
        ImageError: a build failed, or a second one gave something else.
    """
    commit = find_commit()
    print(f"{'image':40} {'MB':>7} {'seconds':>8}   built with {builder}, without the base {base}")
    with mirror_secrets() as secrets:
        for service in services:
            image = f"{service.image}:{tag}"

            def make(name: str, *, fresh: bool = False, of: Service = service) -> archive.Image:
                line = command(
                    builder,
                    of,
                    name,
                    commit=commit,
                    base=base,
                    target=target,
                    network=network,
                    secrets=secrets,
                    fresh=fresh,
                )
                _run(line)
                return measure(builder, name)

            begun = time.monotonic()
            first = make(image)
            said = f"{image:40} {first.size / 1e6:7.1f} {time.monotonic() - begun:8.1f}"
            if check:
                differences = archive.differences(first, make(image, fresh=True))
                if differences:
                    raise ImageError(f"{image}: two builds differ: {'; '.join(differences[:5])}")
                said += f"   the same twice, {len(first.entries)} files"
            print(said, flush=True)


def chosen(names: Sequence[str]) -> list[Service]:
    """Return a service for each image, of the releases or packages that are named, or of all.

    Raises:
        ImageError: there is no such service.
    """
    topology = load()
    known = {**{service.package: service for service in topology.packages}, **topology.services}
    if unknown := sorted(set(names) - set(known)):
        there_are = ", ".join(sorted(known))
        raise ImageError(f"{unknown[0]}: no such service; there are {there_are}", code=2)
    found = {known[name].package: known[name] for name in names or topology.services}
    return list(found.values())


def _run(line: Sequence[str]) -> None:
    """Run a build; show what it said only when it fails."""
    result = subprocess.run(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if result.returncode:
        print(result.stdout, file=sys.stderr)
        raise ImageError(f"{line[0]} failed with {result.returncode}; the lines above say why")


def _succeeds(*line: str) -> bool:
    try:
        done = subprocess.run(line, capture_output=True, check=False, timeout=30)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def output(*line: str) -> str:
    """Return what a command prints.

    Raises:
        ImageError: it failed; the text is the end of what it said.
    """
    result = subprocess.run(line, capture_output=True, text=True, check=False)
    if result.returncode:
        said = " ".join((result.stderr or result.stdout).split())[-400:]
        raise ImageError(f"{' '.join(line[:2])}: {said}")
    return result.stdout.strip()


def main(argv: Sequence[str] | None = None) -> int:
    """Build; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.images")
    commands = parser.add_subparsers(dest="command", required=True)
    builds = commands.add_parser("build", help="build the images of the services")
    builds.add_argument("services", nargs="*", metavar="SERVICE", help="default: all")
    builds.add_argument("--tag", default="dev")
    builds.add_argument("--builder", choices=BUILDERS, help="default: the first that works")
    builds.add_argument("--base", default=BASE, help="an official Python image, or one like it")
    builds.add_argument("--target", choices=("runtime", "dev", "smoke"), default="runtime")
    builds.add_argument("--network", default="", help="of the build; default: the builder's own")
    builds.add_argument("--check", action="store_true", help="build twice and compare")
    options = parser.parse_args(argv)
    try:
        build(
            chosen(options.services),
            builder=find_builder(options.builder),
            tag=options.tag,
            base=options.base,
            target=options.target,
            network=options.network,
            check=options.check,
        )
    except TopologyError as error:
        print(f"images: {error}", file=sys.stderr)
        return 2
    except ImageError as error:
        print(f"images: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
