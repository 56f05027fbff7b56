"""Who calls: the identity that a verified access token states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose token was verified.

    Attributes:
        subject: the claim `sub`: a user id, or the client id of a service.
        scopes: what the token allows.
        client_id: the client that the token was issued to, or None.
        claims: all claims of the token; do not change them.
    """

    subject: str
    scopes: frozenset[str]
    client_id: str | None
    claims: Mapping[str, Any]

    def has(self, *scopes: str) -> bool:
        """Return whether the token allows all of `scopes`."""
        return self.scopes.issuperset(scopes)
