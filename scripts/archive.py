"""Reads an image archive (`docker save`, docker-archive): what its own layers hold.

The layers of the base are left out: ours are those that hold nothing outside /app and /opt.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_OURS = {"app", "opt"}
# What a builder writes at each build, or about itself.
_PASSING = {"created", "history", "rootfs", "docker_version", "container", "container_config"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a layer, without its times. `content` is a digest, or where a link leads."""

    kind: bytes
    mode: int
    owner: tuple[int, int]
    size: int
    content: str


@dataclass(frozen=True, slots=True)
class Image:
    """The configuration of an image and the files that it puts on its base."""

    config: Mapping[str, Any]
    entries: Mapping[tuple[int, str], Entry]
    """By number of the layer, counted from the base, and path."""

    @property
    def size(self) -> int:
        """Unpacked bytes without the base."""
        return sum(entry.size for entry in self.entries.values())


def read(file: Path) -> Image:
    """Read the first image of an archive."""
    with tarfile.open(file) as archive:
        manifest = json.load(_member(archive, "manifest.json"))[0]
        config = json.load(_member(archive, manifest["Config"]))
        layers = [_layer(archive, name) for name in manifest["Layers"]]
    ours = [layer for layer in layers if {path.split("/")[0] for path in layer} <= _OURS]
    return Image(
        config={key: value for key, value in config.items() if key not in _PASSING},
        entries={
            (number, path): entry
            for number, layer in enumerate(ours)
            for path, entry in layer.items()
        },
    )


def differences(one: Image, other: Image) -> list[str]:
    """Return what differs between two images, times aside: paths, or `config.<key>`."""
    found = [
        f"config.{key}"
        for key in sorted(one.config.keys() | other.config.keys())
        if one.config.get(key) != other.config.get(key)
    ]
    return found + [
        path
        for number, path in sorted(one.entries.keys() | other.entries.keys())
        if one.entries.get((number, path)) != other.entries.get((number, path))
    ]


def _member(archive: tarfile.TarFile, name: str) -> Any:
    stream = archive.extractfile(name)
    if stream is None:
        raise ValueError(f"{name}: no file in the archive")
    return stream


def _layer(archive: tarfile.TarFile, name: str) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    with tarfile.open(fileobj=_member(archive, name), mode="r:*") as layer:
        for item in layer:
            stream = layer.extractfile(item) if item.isreg() else None
            content = hashlib.sha256(stream.read()).hexdigest() if stream else item.linkname
            path = item.name.strip("/").removeprefix("./")
            owner = (item.uid, item.gid)
            entries[path] = Entry(item.type, item.mode, owner, item.size, content)
    return entries
