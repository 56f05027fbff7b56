"""Passwords: which are accepted, and how they are hashed.

The policy follows NIST SP 800-63B: a length, a list of what is commonly chosen, no composition
rules, no forced change, Unicode normalised (NFKC), and spaces allowed. Revision 4 asks for 15
characters where a password is the only factor; `AUTH_PASSWORD_MIN_LENGTH` raises the default.

Hashing is argon2id. A hash takes tens of milliseconds and `argon2_memory_kib` of memory, so it
runs in a bounded number of threads and never on the event loop.
"""

from __future__ import annotations

import os
import secrets
import unicodedata
from collections.abc import Callable
from functools import cache
from importlib import resources
from itertools import pairwise
from typing import TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from pwdlib import PasswordHash
from pwdlib.exceptions import UnknownHashError
from pwdlib.hashers.argon2 import Argon2Hasher

from chassis.problems import Problem

MAX_LENGTH = 128
_FEWEST_DISTINCT = 5
_SHORTEST_CONTEXT = 4
_MAX_THREADS = 4
_LEET = str.maketrans("@4301!57$", "aaeoiists")

T = TypeVar("T")


class WeakPasswordError(ValueError):
    """The password is refused; the text says why and fits a form."""


def check(password: str, *, email: str, minimum: int) -> None:
    """Refuse a password that is short or that a guesser would try early.

    Raises:
        WeakPasswordError: with the reason.
    """
    if len(password) < minimum:
        raise WeakPasswordError(f"use at least {minimum} characters")
    text = canonical(password).casefold()
    if len(set(text)) < _FEWEST_DISTINCT or _is_sequence(text):
        raise WeakPasswordError("too easy to guess: it repeats or counts; try a few random words")
    local = email.partition("@")[0]
    words = {*_common_words(), "slipway", *([local] if len(local) >= _SHORTEST_CONTEXT else [])}
    if _is_built_of(text, words):
        raise WeakPasswordError("too easy to guess: it is commonly used; try a few random words")


def canonical(password: str) -> str:
    """Return the form that is hashed, so that every keyboard's spelling of a letter is the same."""
    return unicodedata.normalize("NFKC", password)


def _is_sequence(text: str) -> bool:
    """Tell whether every character follows the one before it: `123456789012`, `zyxwvutsrqpo`."""
    steps = {ord(after) - ord(before) for before, after in pairwise(text)}
    # 9 to 0 is the wrap that people type when they run out of digits.
    return steps <= {1, -9} or steps <= {-1, 9}


def _is_built_of(text: str, words: set[str]) -> bool:
    """Tell whether nothing but common words, digits and punctuation is in `text`.

    A digit or sign also counts as the letter it looks like (`p@ssw0rd`). One pass without
    backtracking: `reached` holds each position that the words can lead to.
    """
    spelled = text.translate(_LEET)
    longest = max(map(len, words))
    reached = {0}
    for start in range(len(text)):
        if start not in reached:
            continue
        if not text[start].isalpha():
            reached.add(start + 1)
        reached.update(
            start + length
            for length in range(1, min(longest, len(text) - start) + 1)
            if spelled[start : start + length] in words
        )
    return len(text) in reached


@cache
def _common_words() -> frozenset[str]:
    text = resources.files("auth").joinpath("common_passwords.txt").read_text(encoding="ascii")
    return frozenset(line for line in text.split() if not line.startswith("#"))


class PasswordHasher:
    """Argon2id in a bounded number of threads.

    The bound is there for the memory as much as for the cores: a flood of logins waits in a queue
    of `queue`, and beyond it is refused with 503 instead of killing the pod.
    """

    def __init__(self, *, memory_kib: int, passes: int, threads: int, queue: int) -> None:
        self._hash = PasswordHash(
            (Argon2Hasher(time_cost=passes, memory_cost=memory_kib, parallelism=1),)
        )
        self._threads = threads or min(_cores(), _MAX_THREADS)
        self._limiter = CapacityLimiter(self._threads)
        self._queue = queue
        self._begun = 0
        # What the password of nobody is compared with: the same work as for somebody.
        self._nobody = self._hash.hash(secrets.token_urlsafe(16))

    @property
    def waiting(self) -> int:
        """Return how many hashes wait for a thread."""
        return max(0, self._begun - self._threads)

    async def hash(self, password: str) -> str:
        """Return the argon2id hash of a password, with its parameters and salt."""
        return await self._run(lambda: self._hash.hash(canonical(password)))

    async def verify(self, password: str, stored: str | None) -> tuple[bool, str | None]:
        """Compare; without a stored hash do the same work and answer no.

        Returns:
            Whether it matches, and a new hash to store if the parameters have changed since.
        """
        text = canonical(password[:MAX_LENGTH])
        too_long = len(password) > MAX_LENGTH
        matches, renewed = await self._run(lambda: self._verify(text, stored or self._nobody))
        return (False, None) if stored is None or too_long else (matches, renewed)

    def _verify(self, password: str, stored: str) -> tuple[bool, str | None]:
        try:
            return self._hash.verify_and_update(password, stored)
        except UnknownHashError:
            return False, None

    async def _run(self, work: Callable[[], T]) -> T:
        if self.waiting >= self._queue:
            raise Problem(
                503,
                detail="Too many logins at this moment. Try again shortly.",
                headers={"Retry-After": "1"},
            )
        # Counted here and not by the limiter, which only knows who waits at the next turn of the
        # loop: a burst would pass as a whole.
        self._begun += 1
        try:
            return await anyio.to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._begun -= 1


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1
