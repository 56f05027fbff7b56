"""Sealing of private keys at rest: JWE with direct AES-256-GCM (RFC 7516, RFC 7518 section 5.3).

The key id stands in the protected header, which GCM authenticates, so that a sealed key cannot be
moved to another row. Several key-encryption keys may be given: the first seals, all open, which
lets an operator change the key without a moment when stored keys are unreadable.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from joserfc import jwe
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

_ALGORITHMS = ["dir", "A256GCM"]
_KEY_BYTES = 32


class SealError(Exception):
    """A key-encryption key is malformed, or none of them opens what is stored."""


def parse_keys(text: str) -> tuple[bytes, ...]:
    """Decode one or more comma-separated 32-byte keys, each base64 or base64url.

    Raises:
        SealError: a part is not base64 of exactly 32 bytes, or is plainly not random.
    """
    keys = tuple(_parse(part.strip()) for part in text.split(",") if part.strip())
    if not keys:
        raise SealError("is empty; give it the output of openssl rand -base64 32")
    return keys


def _parse(part: str) -> bytes:
    standard = part.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        key = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES or len(set(key)) < _KEY_BYTES // 4:
        raise SealError("is not 32 random bytes in base64; use openssl rand -base64 32")
    return key


def derive(key: bytes, purpose: str) -> bytes:
    """Return a key for another purpose, from which `key` does not follow (HMAC-SHA-256)."""
    return hmac.digest(key, purpose.encode(), "sha256")


class Sealer:
    """Seals with the first key and opens with any."""

    __slots__ = ("_keys",)

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._keys = tuple(OctKey.import_key(key) for key in keys)

    def seal(self, kid: str, plaintext: bytes) -> str:
        """Encrypt `plaintext` for storage under `kid`."""
        header = {"alg": "dir", "enc": "A256GCM", "kid": kid}
        return jwe.encrypt_compact(header, plaintext, self._keys[0], algorithms=_ALGORITHMS)

    def open(self, kid: str, sealed: str) -> bytes:
        """Decrypt what `seal` made.

        Raises:
            SealError: no key opens it, it was altered, or it was sealed for another `kid`.
        """
        for key in self._keys:
            try:
                opened = jwe.decrypt_compact(sealed, key, algorithms=_ALGORITHMS)
            except (JoseError, ValueError):
                continue
            if opened.headers().get("kid") == kid and opened.plaintext is not None:
                return opened.plaintext
        raise SealError("does not open the stored signing keys; give the key that sealed them")


def development_key(path: Path) -> str:
    """Return the key in `path`, which is made with mode 0600 if it is missing.

    Many processes may start at once: the file appears whole or not at all, and all read the same.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(base64.b64encode(secrets.token_bytes(_KEY_BYTES)).decode())
                file.flush()
                os.fsync(file.fileno())
            # A link refuses to replace: whoever comes second keeps the first one's key.
            with contextlib.suppress(FileExistsError):
                os.link(draft, path)
        finally:
            Path(draft).unlink()
    return path.read_text(encoding="ascii").strip()
