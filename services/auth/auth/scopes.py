"""Scopes as RFC 6749 section 3.3 writes them: tokens separated by single spaces."""

from __future__ import annotations

import re
from collections.abc import Iterable

_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,64}")
_MAX_LENGTH = 2000


def parse(text: str) -> tuple[str, ...]:
    """Split a scope string; the order stays, repetitions go.

    Raises:
        ValueError: a character that RFC 6749 does not allow, or far too long.
    """
    if len(text) > _MAX_LENGTH:
        raise ValueError("the scope is too long")
    parts = tuple(dict.fromkeys(part for part in text.split(" ") if part))
    if not all(_SCOPE.fullmatch(part) for part in parts):
        raise ValueError("the scope holds a character that is not allowed")
    return parts


def join(scopes: Iterable[str]) -> str:
    """Write scopes as one string, without repetitions."""
    return " ".join(dict.fromkeys(scopes))


def narrow(requested: str | None, allowed: Iterable[str]) -> tuple[str, ...]:
    """Return what of `allowed` a client asked for; all of it if it did not say.

    Raises:
        ValueError: something outside of `allowed` was asked for.
    """
    granted = tuple(dict.fromkeys(allowed))
    wanted = parse(requested) if requested else ()
    if excess := [scope for scope in wanted if scope not in granted]:
        raise ValueError(f"the scope {excess[0]} is not granted to you")
    return wanted or granted
