"""What queries show, and to whom."""

from datetime import timedelta

import pytest

NINE = "2026-11-30T09:00:00+01:00"
TEN = "2026-11-30T10:00:00+01:00"
# name: (what they teach, the date of their slots, the ratings of their sessions)
FOUR = {
    "Ada": (["strength", "yoga"], ("monday", "2026-11-30"), [5, 4]),
    "Bea": (["yoga"], ("tuesday", "2026-12-01"), [3]),
    "Cem": (["strength"], ("monday", "2026-11-30"), []),
    "Dov": (["judo"], ("sunday", "2026-12-06"), [5]),
}


@pytest.fixture
async def four(gym):
    """Trainers who differ in what they teach, when they work and how they are rated; their ids."""
    ids, rated, version = {}, [], 0
    for name, (taught, (day, date), stars) in FOUR.items():
        slots = [
            {"day": day, "starts": f"{at}:00:00", "ends": f"{at + 1}:00:00"} for at in (10, 11)
        ]
        trainer = ids[name] = await gym.register(name, {"time_zone": "UTC", "slots": slots})
        await gym.command("PUT", f"/{trainer}/specialities", {"specialities": taught}, If_Match="*")
        for number, each in enumerate(stars):
            session = await gym.session(trainer, at=f"{date}T{10 + number}:00:00Z")
            rated.append((trainer, session, each))
    gym.clock.advance(timedelta(days=10).total_seconds())
    for trainer, session, each in rated:
        version = (await gym.rate(trainer, session, "m1", each)).json()["version"]
    assert (await gym.ask("", at_least=version)).status_code == 200
    return ids


async def names(gym, **params):
    """The names of the trainers that a search finds, in its order."""
    answer = await gym.ask("", **params)
    assert answer.status_code == 200, answer.text
    return [each["name"] for each in answer.json()["items"]]


async def test_search_finds_by_speciality_day_and_rating(gym, four):
    """Each filter alone, and all of them together."""
    assert await names(gym) == ["Dov", "Ada", "Bea", "Cem"]
    assert await names(gym, speciality="yoga") == ["Ada", "Bea"]
    assert await names(gym, day="monday") == ["Ada", "Cem"]
    assert await names(gym, min_rating="4.5") == ["Dov", "Ada"]
    assert await names(gym, speciality="strength", day="monday", min_rating=1) == ["Ada"]
    assert await names(gym, speciality="chess") == []


async def test_search_sorts_and_pages(gym, four):
    """Every order pages without repeating or leaving out."""
    assert await names(gym, sort="name") == ["Ada", "Bea", "Cem", "Dov"]
    assert await names(gym, sort="-registered_at") == ["Dov", "Cem", "Bea", "Ada"]
    for sort in ("name", "-rating", "-registered_at"):
        whole, seen, cursor = await names(gym, sort=sort), [], {}
        while cursor is not None:
            page = (await gym.ask("", sort=sort, limit=1, **cursor)).json()
            seen += [each["name"] for each in page["items"]]
            cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        assert seen == whole


async def test_a_cursor_is_of_one_search(gym, four, problem):
    cursor = (await gym.ask("", limit=1)).json()["next_cursor"]
    problem(await gym.ask("", limit=1, day="monday", cursor=cursor), 400, "bad-cursor")
    problem(await gym.ask("", min_rating=6), 422, "validation")
    problem(await gym.ask("", day="someday"), 422, "validation")


async def test_who_retired_is_not_found_but_shown(gym, four):
    """A link to a profile goes on to work; the rating is that of all sessions, rounded."""
    done = await gym.command("POST", f"/{four['Ada']}/retire")
    version = done.json()["version"]
    assert "Ada" not in [
        each["name"] for each in (await gym.ask("", at_least=version)).json()["items"]
    ]
    profile = (await gym.ask(f"/{four['Ada']}")).json()
    assert (profile["status"], profile["rating"], profile["ratings"]) == ("retired", "4.50", 2)


async def test_a_profile_shows_what_was_written_and_its_tag(gym):
    trainer = await gym.register()
    answer = await gym.ask(f"/{trainer}", at_least=2)
    assert answer.headers["ETag"] == '"2"'
    body = answer.json()
    assert body["availability"]["time_zone"] == "Europe/Berlin"
    assert body["availability"]["slots"][2] == {
        "day": "friday", "starts": "17:30:00", "ends": "18:15:00",
    }  # fmt: skip
    assert body["registered_at"] == "2026-11-30T06:00:00Z"


async def test_what_is_not_there_is_404_and_says_how_old_the_answer_is(gym, problem):
    """Whoever just registered a trainer sees by the header that the read model may be behind."""
    answer = await gym.ask("/0197a3c2-1c00-7a4e-9f10-3c5d7e9f1a2b")
    problem(answer, 404)
    assert answer.headers["X-Projection-Version"] == "0"


async def test_a_schedule_shows_what_is_free_and_what_is_taken(gym):
    """Booked times are there for all; the session's id for its member and for staff."""
    trainer = await gym.register()
    booked = (await gym.book(trainer)).json()

    async def schedule(who, **params):
        answer = await gym.ask(
            f"/{trainer}/schedule", who=who, at_least=booked["version"], **params
        )
        assert answer.status_code == 200, answer.text
        return [
            (each["starts_at"], each["free"], each["session_id"])
            for each in answer.json()["entries"]
        ]

    rest = [("2026-11-30T09:00:00Z", True, None), ("2026-12-04T16:30:00Z", True, None)]
    mine = ("2026-11-30T08:00:00Z", False, booked["session_id"])
    assert await schedule(gym.member("m1")) == [mine, *rest]
    assert await schedule(gym.staff) == [mine, *rest]
    assert await schedule(gym.member("m2")) == [(mine[0], False, None), *rest]
    one_day = {"from": "2026-12-04", "days": 1}
    assert await schedule(gym.staff, **one_day) == [rest[1]]
    gym.clock.advance(timedelta(days=1).total_seconds())
    past = {"from": "2026-11-30", "days": 5}
    assert await schedule(gym.staff, **past) == [mine, rest[1]], "what is over is not free"


async def test_a_session_that_no_slot_has_any_more_is_shown_and_blocks_what_it_covers(gym):
    """What members booked stays on the calendar, whatever the slots are now."""
    trainer = await gym.register()
    await gym.session(trainer)
    week = {
        "time_zone": "UTC",
        "slots": [
            {"day": "monday", "starts": "08:30:00", "ends": "09:30:00"},
            {"day": "monday", "starts": "09:30:00", "ends": "10:00:00"},
        ],
    }
    done = await gym.command("PUT", f"/{trainer}/availability", week, If_Match="*")
    answer = await gym.ask(f"/{trainer}/schedule", at_least=done.json()["version"], days=1)
    found = [(each["starts_at"], each["free"]) for each in answer.json()["entries"]]
    assert found == [("2026-11-30T08:00:00Z", False), ("2026-11-30T09:30:00Z", True)]


async def test_what_is_too_far_ahead_to_be_booked_is_not_free(gym):
    """The last slot that is shown can be booked, and the one after it is neither."""
    trainer = await gym.register()
    answer = await gym.ask(f"/{trainer}/schedule", at_least=2, **{"from": "2027-01-25", "days": 14})
    starts = [each["starts_at"] for each in answer.json()["entries"]]
    assert starts == ["2027-01-25T08:00:00Z", "2027-01-25T09:00:00Z"]
    assert (await gym.book(trainer, at="2027-01-29T17:30:00+01:00")).status_code == 409
    assert (await gym.book(trainer, at=starts[-1])).status_code == 201


async def test_a_session_over_the_edge_of_a_schedule_blocks_what_it_covers(gym):
    """In a new time zone, days begin and end in the middle of sessions of the old one."""
    slots = [{"day": "monday", "starts": "09:00:00", "ends": "12:00:00"}]
    trainer = await gym.register(week={"time_zone": "Asia/Tokyo", "slots": slots})
    for monday in ("2026-12-07", "2026-12-14"):
        assert (await gym.book(trainer, at=f"{monday}T00:00:00Z")).status_code == 201
    # There a day begins at 01:00 UTC.
    week = {
        "time_zone": "Atlantic/Cape_Verde",
        "slots": [
            {"day": "monday", "starts": "00:00:00", "ends": "01:00:00"},
            {"day": "monday", "starts": "02:00:00", "ends": "03:00:00"},
            {"day": "sunday", "starts": "22:30:00", "ends": "23:45:00"},
        ],
    }
    done = await gym.command("PUT", f"/{trainer}/availability", week, If_Match="*")

    async def schedule(first, days):
        params = {"from": first, "days": days, "at_least": done.json()["version"]}
        answer = await gym.ask(f"/{trainer}/schedule", **params)
        return [(each["starts_at"], each["free"]) for each in answer.json()["entries"]]

    assert await schedule("2026-12-07", 1) == [("2026-12-07T03:00:00Z", True)]
    assert await schedule("2026-12-13", 1) == [("2026-12-14T00:00:00Z", False)]


async def test_a_trainer_without_slots_has_an_empty_schedule(gym):
    trainer = await gym.register(week=None)
    answer = await gym.ask(f"/{trainer}/schedule", at_least=1, **{"from": "2026-12-01"})
    assert answer.json() == {"entries": []}


async def test_a_session_is_shown_to_its_member_and_to_staff(gym, problem):
    trainer = await gym.register()
    booked = (await gym.book(trainer)).json()
    path = f"/{trainer}/sessions/{booked['session_id']}"
    mine = await gym.ask(path, who=gym.member("m1"), at_least=booked["version"])
    assert mine.json()["status"] == "booked"
    assert mine.json()["stars"] is None
    assert (await gym.ask(path)).json() == mine.json()
    problem(await gym.ask(path, who=gym.member("m2")), 404)
    other = await gym.register("B")
    problem(await gym.ask(f"/{other}/sessions/{booked['session_id']}"), 404)
