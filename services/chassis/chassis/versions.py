"""API versions: in the path (`/v1/items`), or by the header `X-API-Version` (`/items`).

The path wins over the header. An unknown version is a 400 problem. A deprecated version says so
in every answer: `Deprecation` (RFC 9745), `Sunset` (RFC 8594) and `Link` to its successor.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import format_datetime

from fastapi import APIRouter
from fastapi.routing import iter_route_contexts
from starlette.types import Scope

from chassis.problems import Problem

HEADER = b"x-api-version"
UNKNOWN_TYPE = "urn:slipway:problem:unknown-version"

_NAME = re.compile(r"v[1-9][0-9]*")

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class ApiVersion:
    """One version of an API: its routes are served under `/<name>`.

    `successor` is the name of the version to move to, or the URL of a document about it.
    """

    name: str
    router: APIRouter
    deprecated: datetime | None = None
    sunset: datetime | None = None
    successor: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"API version {self.name!r}: must look like v1")
        for when in (self.deprecated, self.sunset):
            if when is not None and when.tzinfo is None:
                raise ValueError(f"API version {self.name}: dates must be aware")


class VersionTable:
    """Finds the version of a request and the headers that its answer must carry."""

    def __init__(self, versions: Sequence[ApiVersion], unversioned: Iterable[str] = ()) -> None:
        self._versions = {version.name: version for version in versions}
        self._headers = {version.name: _headers(version) for version in versions}
        # First path segments: what a version serves, and what exists without one (/events).
        self._roots = {segment for v in versions for segment in _roots(v.router)}
        self._unversioned = frozenset(unversioned)

    def resolve(self, scope: Scope, wanted: bytes | None) -> RawHeaders | None:
        """Rewrite `scope` to the versioned path if a header asks; return headers to add.

        Raises:
            Problem: 400, the version is unknown.
        """
        path: str = scope["path"]
        first = path[1 : end if (end := path.find("/", 1)) > 0 else None]
        headers = self._headers.get(first)
        if headers is not None:
            return self._with_link(headers, scope, first) if headers else None
        if _NAME.fullmatch(first) and first not in self._unversioned:
            raise self._unknown(first)
        if wanted is None or first in self._unversioned:
            return None
        if first not in self._roots and "{" not in self._roots:
            return None
        name = wanted.decode("latin-1").strip().lower()
        name = name if name.startswith("v") else f"v{name}"
        headers = self._headers.get(name)
        if headers is None:
            raise self._unknown(name)
        scope["chassis.path"] = scope.get("raw_path")
        scope["path"] = f"/{name}{path}"
        if scope.get("raw_path"):
            scope["raw_path"] = f"/{name}".encode("ascii") + scope["raw_path"]
        return self._with_link(headers, scope, name) if headers else None

    def _with_link(self, headers: RawHeaders, scope: Scope, name: str) -> RawHeaders:
        successor = self._versions[name].successor
        if successor is None:
            return headers
        target = successor.encode("ascii")
        if successor in self._versions:
            raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "ignore")
            target = b"/" + target + raw[len(name) + 1 :]
        return [*headers, (b"link", b"<" + target + b'>; rel="successor-version"')]

    def _unknown(self, name: str) -> Problem:
        known = ", ".join(self._versions)
        return Problem(
            400,
            "Unknown API version",
            detail=f"There is no version {name[:20]}; known: {known}.",
            type=UNKNOWN_TYPE,
            versions=list(self._versions),
        )


def _headers(version: ApiVersion) -> RawHeaders:
    headers: RawHeaders = []
    if version.deprecated is not None:
        headers.append((b"deprecation", f"@{int(version.deprecated.timestamp())}".encode()))
    if version.sunset is not None:
        text = format_datetime(version.sunset.astimezone(UTC), usegmt=True)
        headers.append((b"sunset", text.encode("ascii")))
    return headers


def _roots(router: APIRouter) -> set[str]:
    roots = set()
    for context in iter_route_contexts(router.routes):
        first = (context.path or "/").lstrip("/").partition("/")[0]
        roots.add("{" if "{" in first else first)
    return roots
