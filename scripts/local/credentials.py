"""Generated secrets: made once, kept in one file that only its owner can read."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from scripts.local.home import Home, RunnerError, read_json, write_json

_BYTES = 32


def ensure(home: Home, names: Iterable[str]) -> dict[str, str]:
    """The secret of each name, generating the missing ones; the others stay as they are.

    Raises:
        RunnerError: the file is there but unreadable: it is never overwritten, since databases may
            hold what was encrypted or hashed with it.
    """
    known: dict[str, str] = {}
    if home.secrets.exists():
        value = read_json(home.secrets)
        if not isinstance(value, dict):
            raise RunnerError(
                f"{home.secrets}: no valid JSON; restore it, or remove it for new ones"
            )
        known = {str(name): str(secret) for name, secret in value.items()}
        if home.secrets.stat().st_mode & 0o077:
            home.secrets.chmod(0o600)
    missing = [name for name in names if name not in known]
    if missing:
        known |= {name: secrets.token_urlsafe(_BYTES) for name in missing}
        write_json(home.secrets, known)
    return known
