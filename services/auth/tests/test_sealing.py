"""Private keys at rest: sealed, bound to their row, openable by older keys."""

import base64
import multiprocessing
import secrets
import stat
from pathlib import Path

import pytest

from auth.sealing import Sealer, SealError, development_key, parse_keys


def key_text() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def test_what_is_sealed_opens_again_and_shows_nothing() -> None:
    """AES-GCM under the key of the settings."""
    sealer = Sealer(parse_keys(key_text()))
    sealed = sealer.seal("k1", b"the private part")
    assert "private" not in sealed
    assert base64.urlsafe_b64encode(b"the private part").decode().rstrip("=") not in sealed
    assert sealer.open("k1", sealed) == b"the private part"


def test_a_sealed_key_cannot_be_moved_or_altered() -> None:
    """The key id is authenticated with the content."""
    sealer = Sealer(parse_keys(key_text()))
    sealed = sealer.seal("k1", b"the private part")
    with pytest.raises(SealError):
        sealer.open("k2", sealed)
    head, _, tail = sealed.rpartition(".")
    with pytest.raises(SealError):
        sealer.open("k1", f"{head}.{tail[::-1]}")
    with pytest.raises(SealError):
        sealer.open("k1", "garbage")


def test_the_key_encryption_key_can_be_changed() -> None:
    """With `new,old` everything opens and new things are sealed with the new one."""
    old, new = key_text(), key_text()
    sealed = Sealer(parse_keys(old)).seal("k1", b"x")
    both = Sealer(parse_keys(f"{new},{old}"))
    assert both.open("k1", sealed) == b"x"
    assert Sealer(parse_keys(new)).open("k1", both.seal("k1", b"y")) == b"y"
    with pytest.raises(SealError, match="does not open"):
        Sealer(parse_keys(new)).open("k1", sealed)


@pytest.mark.parametrize(
    "text", ["", ",", "short", "changeme", "A" * 43 + "=", "ä" * 32, "c2hvcnQ=" * 4, "x " * 22]
)
def test_what_is_no_key_is_refused_with_the_fix(text: str) -> None:
    """Thirty-two bytes that are all alike are no key either."""
    with pytest.raises(SealError, match="openssl rand -base64 32"):
        parse_keys(text)


def test_base64url_without_padding_is_a_key_too() -> None:
    """Both alphabets are in use."""
    raw = secrets.token_bytes(32)
    assert parse_keys(base64.urlsafe_b64encode(raw).decode().rstrip("=")) == (raw,)


def _read(path: str) -> str:
    return development_key(Path(path))


def test_processes_that_start_together_make_one_development_key(tmp_path: Path) -> None:
    """One file, mode 0600, and everybody has what is in it."""
    path = tmp_path / "new" / "auth.key"
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        keys = set(pool.map(_read, [str(path)] * 16))
    assert keys == {path.read_text().strip()}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["auth.key"]
    assert len(parse_keys(keys.pop())) == 1
