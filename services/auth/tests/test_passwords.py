"""Passwords: the policy, and hashing that never blocks."""

import asyncio
import statistics
import time

import anyio
import pytest

from auth import passwords
from auth.passwords import PasswordHasher, WeakPasswordError
from chassis.problems import Problem


def check(password: str) -> None:
    passwords.check(password, email="grace.hopper@example.com", minimum=12)


@pytest.mark.parametrize(
    "password",
    [
        "seven wet otters hum",
        "correct horse battery staple",
        "Tr0ub4dor&3-xkcd",
        "ψηφιακός φάκελος",
        "\U0001d566\U0001d55f\U0001d55a and more",
        "lkj87HGF2qzv",
    ],
)
def test_long_and_uncommon_passwords_are_taken(password: str) -> None:
    """No rules of composition, any character, blanks too."""
    check(password)


@pytest.mark.parametrize("password", ["short", "", "11charslong"])
def test_a_short_password_is_refused_with_the_length(password: str) -> None:
    """The message says how long it has to be."""
    with pytest.raises(WeakPasswordError, match="at least 12 characters"):
        check(password)


@pytest.mark.parametrize(
    "password",
    [
        "aaaaaaaaaaaa",
        "abababababab",
        "123456789012",
        "zyxwvutsrqpo",
        "password1234",
        "P@ssw0rd!2026",
        "PasswordPassword",
        "iloveyou-2026!",
        "qwertyuiop123",
        "grace.hopper42",
        "Slipway-Slipway",
        "".join(chr(ord(letter) + 0xFEE0) for letter in "password1234"),
    ],
)
def test_a_guessable_password_is_refused(password: str) -> None:
    """Repetition, counting, common words in any disguise, the own address, the name of the site."""
    with pytest.raises(WeakPasswordError, match="too easy to guess"):
        check(password)


def test_the_check_is_fast_for_hostile_input() -> None:
    """The word search cannot be made to backtrack: the longest password takes milliseconds."""
    begun = time.thread_time()
    check("a" * 60 + "asdfgh" * 10 + "asdfghjk")
    assert time.thread_time() - begun < 0.5


def hasher(**parameters: int) -> PasswordHasher:
    return PasswordHasher(
        **{"memory_kib": 8, "passes": 1, "threads": 2, "queue": 100, **parameters}
    )


async def test_a_password_is_recognised_in_every_spelling_of_its_letters() -> None:
    """NFKC: a composed and a decomposed letter are the same password."""
    stored = await hasher().hash("f\u00fcnf nasse otter")
    assert (await hasher().verify("fu\u0308nf nasse otter", stored))[0]
    assert not (await hasher().verify("funf nasse otter", stored))[0]


async def test_nobody_has_no_password() -> None:
    """Without a stored hash the answer is no, whatever is given."""
    assert await hasher().verify("anything at all", None) == (False, None)


async def test_a_password_beyond_the_limit_never_matches_by_its_beginning() -> None:
    """128 characters are hashed; 129 are not the same as the first 128."""
    stored = await hasher().hash("x" * 128)
    assert (await hasher().verify("x" * 128, stored))[0]
    assert not (await hasher().verify("x" * 129, stored))[0]


async def test_garbage_in_the_place_of_a_hash_is_a_no() -> None:
    """A damaged row refuses the login and does not fail the request."""
    assert await hasher().verify("anything at all", "not a hash") == (False, None)


async def test_new_parameters_give_a_new_hash_at_the_next_login() -> None:
    """And only then: with the same parameters the hash stays."""
    stored = await hasher().hash("seven wet otters hum")
    assert await hasher().verify("seven wet otters hum", stored) == (True, None)
    matches, renewed = await hasher(passes=2).verify("seven wet otters hum", stored)
    assert matches
    assert renewed is not None
    assert "t=2" in renewed


async def test_nobody_costs_the_same_work_as_somebody() -> None:
    """The work does not tell whether an account exists: the CPU time is of one size."""
    slow = hasher(memory_kib=16 * 1024, passes=2)
    stored = await slow.hash("seven wet otters hum")
    times: dict[str | None, list[float]] = {stored: [], None: []}
    for _ in range(9):
        for given, taken in times.items():
            begun = time.process_time()
            await slow.verify("a wrong password", given)
            taken.append(time.process_time() - begun)
    somebody, nobody = (statistics.median(taken) for taken in times.values())
    assert 0.5 < nobody / somebody < 2


async def test_hashing_leaves_the_event_loop_alone() -> None:
    """Under 20 concurrent logins the loop goes on all the time."""
    slow = hasher(memory_kib=64 * 1024, passes=3)
    stored = await slow.hash("seven wet otters hum")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.002)
            ticks += 1

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        async with anyio.create_task_group() as logins:
            for _ in range(20):
                logins.start_soon(slow.verify, "seven wet otters hum", stored)
        group.cancel_scope.cancel()
    # A loop that computed the hashes itself would tick about once for each.
    assert ticks > 100


async def test_a_flood_of_logins_is_refused_instead_of_queued_without_end() -> None:
    """Beyond the queue comes 503 with Retry-After, and what was queued is still answered."""
    small = hasher(memory_kib=16 * 1024, passes=4, threads=1, queue=3)
    outcomes: list[str] = []

    async def one() -> None:
        try:
            await small.hash("seven wet otters hum")
            outcomes.append("hashed")
        except Problem as exc:
            outcomes.append(f"{exc.status}, try again in {exc.headers['Retry-After']} s")

    async with anyio.create_task_group() as group:
        for _ in range(12):
            group.start_soon(one)
    assert outcomes.count("hashed") == 4
    assert outcomes.count("503, try again in 1 s") == 8
    assert small.waiting == 0
