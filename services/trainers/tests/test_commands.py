"""What each command does, what it refuses, and what it answers."""

from datetime import timedelta

NINE = "2026-11-30T09:00:00+01:00"
TEN = "2026-11-30T10:00:00+01:00"
NOBODY = "/0197a3c2-1c00-7a4e-9f10-3c5d7e9f1a2b"


async def shown(gym, trainer, version=None):
    """The profile, once it shows a version."""
    answer = await gym.ask(f"/{trainer}", **({} if version is None else {"at_least": version}))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_trainer_is_registered_and_presented(gym):
    """Each answer names the revision, which the next command is based on, and the version."""
    made = await gym.command("POST", "", {"name": "Ada Park"})
    assert made.status_code == 201
    body = made.json()
    assert body["revision"] == 1
    assert made.headers["ETag"] == '"1"'
    assert made.headers["Location"] == f"/v1/trainers/{body['trainer_id']}"
    path = f"/{body['trainer_id']}"
    changed = await gym.command(
        "PUT", f"{path}/profile", {"name": "Ada", "bio": "x"}, If_Match='"1"'
    )
    assert changed.status_code == 202
    taught = await gym.command(
        "PUT", f"{path}/specialities", {"specialities": ["yoga", "judo", "yoga"]}, If_Match='"2"'
    )
    assert taught.json()["revision"] == 3
    assert taught.json()["version"] == changed.json()["version"] + 1
    profile = await shown(gym, body["trainer_id"], taught.json()["version"])
    assert profile["name"] == "Ada"
    assert profile["specialities"] == ["judo", "yoga"]
    assert (profile["revision"], profile["status"], profile["rating"]) == (3, "active", None)


async def test_a_key_registers_once(gym):
    """A repeated request with its key gets the first answer, byte by byte."""
    first = await gym.command("POST", "", {"name": "Ada"}, Idempotency_Key="k1")
    again = await gym.command("POST", "", {"name": "Ada"}, Idempotency_Key="k1")
    assert (first.status_code, first.content) == (again.status_code, again.content)
    assert again.headers["ETag"] == '"1"'
    assert again.headers["Idempotency-Replayed"] == "true"


async def test_replacing_needs_the_revision_that_was_read(gym, problem):
    """Without `If-Match` 428; with an old or a foreign one 412, which names the present one."""
    trainer = await gym.register()
    body = {"name": "B", "bio": ""}
    for what, data in (
        ("profile", body),
        ("specialities", {"specialities": []}),
        ("availability", {"time_zone": "UTC", "slots": []}),
    ):
        path = f"/{trainer}/{what}"
        problem(await gym.command("PUT", path, data), 428, "precondition-required")
        for stale in ('"1"', 'W/"2"', '"1", "3"', '"02"', '"x"', "2", '"99999999999"'):
            refused = await gym.command("PUT", path, data, If_Match=stale)
            problem(refused, 412, "precondition-failed")
            assert refused.headers["ETag"] == '"2"'
    for number, good in enumerate(("*", '"3"', '"1", "4"')):
        body = {"name": f"B{number}", "bio": ""}
        done = await gym.command("PUT", f"/{trainer}/profile", body, If_Match=good)
        assert done.status_code == 202


async def test_a_command_that_changes_nothing_writes_no_event(gym):
    """The answer is that of the state that was there: same revision, same version."""
    trainer = await gym.register(week=None)
    same = {"name": "Ada Park", "bio": "Strong."}
    done = await gym.command("PUT", f"/{trainer}/profile", same, If_Match='"1"')
    assert done.status_code == 202
    assert (done.json()["revision"], done.json()["version"]) == (1, 1)


async def test_a_slot_is_booked_once(gym, problem):
    """The session is the slot's; the next one who wants it is told 409."""
    trainer = await gym.register()
    made = await gym.book(trainer)
    assert made.status_code == 201
    body = made.json()
    assert (body["starts_at"], body["ends_at"]) == ("2026-11-30T08:00:00Z", "2026-11-30T09:00:00Z")
    assert made.headers["Location"].endswith(f"/sessions/{body['session_id']}")
    problem(await gym.book(trainer, "m2"), 409, "slot-taken")
    assert (await gym.book(trainer, "m2", TEN)).status_code == 201


async def test_a_booking_with_a_key_is_made_once(gym):
    """A client that lost the answer repeats it, and has its session."""
    trainer = await gym.register()
    first = await gym.book(trainer, Idempotency_Key="b1")
    again = await gym.book(trainer, Idempotency_Key="b1")
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()


async def test_what_cannot_be_booked(gym, problem):
    """No slot, the past, too far ahead, nobody, and a trainer without slots."""
    trainer = await gym.register()
    for at in ("2026-11-30T09:15:00+01:00", "2026-11-30T08:15:00Z", "2026-12-01T09:00:00+01:00"):
        problem(await gym.book(trainer, at=at), 409, "no-such-slot")
    for at in ("2026-11-23T09:00:00+01:00", "2027-02-01T09:00:00+01:00"):
        problem(await gym.book(trainer, at=at), 409, "not-bookable-now")
    for at in ("2026-11-30T09:00:00", "0001-01-01T00:00:00+14:00", 1_796_025_600):
        problem(await gym.book(trainer, at=at), 422, "validation")
    problem(await gym.book(NOBODY[1:]), 404)
    problem(await gym.book(await gym.register("B", week=None)), 409, "no-such-slot")


async def test_a_booking_may_name_the_revision_that_was_seen(gym, problem):
    """Whoever wants the trainer as they were shown, or not at all, says so."""
    trainer = await gym.register()
    problem(await gym.book(trainer, If_Match='"1"'), 412, "precondition-failed")
    assert (await gym.book(trainer, If_Match='"2"')).status_code == 201


async def test_new_slots_leave_booked_sessions_and_do_not_overlap_them(gym, problem):
    """The old session stays; a new slot that covers part of it is taken."""
    trainer = await gym.register()
    session = await gym.session(trainer)
    half_past = [{"day": "monday", "starts": "09:30:00", "ends": "10:30:00"}]
    week = {"time_zone": "Europe/Berlin", "slots": half_past}
    changed = await gym.command("PUT", f"/{trainer}/availability", week, If_Match="*")
    assert changed.status_code == 202
    problem(await gym.book(trainer, "m2", "2026-11-30T09:30:00+01:00"), 409, "slot-taken")
    gone = await gym.command("POST", f"/{trainer}/sessions/{session}/cancel", who=gym.member("m1"))
    assert gone.status_code == 202
    assert (await gym.book(trainer, "m2", "2026-11-30T09:30:00+01:00")).status_code == 201


async def test_a_session_is_cancelled_by_its_member_or_staff(gym, problem):
    """To others it does not exist; again changes nothing; its slot is free."""
    trainer = await gym.register()
    first, second = await gym.session(trainer), await gym.session(trainer, at=TEN)
    path = f"/{trainer}/sessions/{first}/cancel"
    problem(await gym.command("POST", path, who=gym.member("m2")), 404)
    done = await gym.command("POST", path, who=gym.member("m1"))
    assert done.status_code == 202
    again = await gym.command("POST", path, who=gym.member("m1"))
    assert again.json() == done.json()
    assert (await gym.book(trainer, "m2")).status_code == 201
    by_staff = await gym.command("POST", f"/{trainer}/sessions/{second}/cancel")
    assert by_staff.status_code == 202
    other = await gym.register("B")
    problem(await gym.command("POST", f"/{other}/sessions/{first}/cancel"), 404)


async def test_what_has_begun_is_not_cancelled(gym, problem):
    trainer = await gym.register()
    session = await gym.session(trainer)
    gym.clock.advance(timedelta(hours=2).total_seconds())
    refused = await gym.command(
        "POST", f"/{trainer}/sessions/{session}/cancel", who=gym.member("m1")
    )
    problem(refused, 409, "session-begun")


async def test_a_session_is_rated_by_its_member_once_it_is_over(gym, problem):
    """Not before, not by others, not when it was cancelled; again replaces."""
    trainer = await gym.register()
    session, cancelled = await gym.session(trainer), await gym.session(trainer, at=TEN)
    await gym.command("POST", f"/{trainer}/sessions/{cancelled}/cancel")
    problem(await gym.rate(trainer, session, "m1", 5), 409, "session-not-held")
    gym.clock.advance(timedelta(hours=6).total_seconds())
    problem(await gym.rate(trainer, session, "m2", 5), 404)
    problem(await gym.rate(trainer, cancelled, "m1", 5), 409, "session-not-held")
    problem(await gym.rate(trainer, session, "m1", 6), 422, "validation")
    first = await gym.rate(trainer, session, "m1", 5)
    assert first.status_code == 202
    assert (await gym.rate(trainer, session, "m1", 5)).json() == first.json()
    last = await gym.rate(trainer, session, "m1", 2)
    profile = await shown(gym, trainer, last.json()["version"])
    assert (profile["rating"], profile["ratings"]) == ("2.00", 1)


async def test_retiring_cancels_the_sessions_to_come(gym, problem):
    """One command, several events, one transaction; what was held can still be rated."""
    trainer = await gym.register()
    held = await gym.session(trainer)
    to_come = await gym.session(trainer, at="2026-12-07T09:00:00+01:00")
    gym.clock.advance(timedelta(hours=6).total_seconds())
    done = await gym.command("POST", f"/{trainer}/retire")
    assert done.status_code == 202
    assert done.json()["revision"] == 6
    version = done.json()["version"]
    profile = await shown(gym, trainer, version)
    assert profile["status"] == "retired"
    session = await gym.ask(f"/{trainer}/sessions/{to_come}", who=gym.member("m1"))
    assert session.json()["status"] == "cancelled"
    assert (await gym.rate(trainer, held, "m1", 4)).status_code == 202
    again = await gym.command("POST", f"/{trainer}/retire")
    assert (again.status_code, again.json()["revision"]) == (202, 7)
    problem(await gym.book(trainer, at="2026-12-07T10:00:00+01:00"), 409, "trainer-retired")
    for what, data in (
        ("profile", {"name": "B"}),
        ("specialities", {"specialities": []}),
        ("availability", {"time_zone": "UTC", "slots": []}),
    ):
        refused = await gym.command("PUT", f"/{trainer}/{what}", data, If_Match="*")
        problem(refused, 409, "trainer-retired")


async def test_each_command_needs_its_scope(gym, problem):
    """Members book, staff does the rest, and nobody does anything without a token."""
    trainer = await gym.register()
    session = await gym.session(trainer)
    reader = gym.member("m1", "trainers:read")
    member = gym.member("m1")
    for method, path, body in (
        ("POST", "", {"name": "A"}),
        ("PUT", f"/{trainer}/profile", {"name": "A"}),
        ("PUT", f"/{trainer}/specialities", {"specialities": []}),
        ("PUT", f"/{trainer}/availability", {"time_zone": "UTC", "slots": []}),
        ("POST", f"/{trainer}/retire", None),
    ):
        problem(await gym.command(method, path, body, who=member), 403, "insufficient-scope")
    for method, path, body in (
        ("POST", f"/{trainer}/sessions", {"starts_at": NINE}),
        ("POST", f"/{trainer}/sessions/{session}/cancel", None),
        ("PUT", f"/{trainer}/sessions/{session}/rating", {"stars": 1}),
    ):
        problem(await gym.command(method, path, body, who=reader), 403, "insufficient-scope")
        problem(await gym.command(method, path, body, who={"Authorization": ""}), 401)
    problem(await gym.ask(f"/{trainer}", who={"Authorization": ""}), 401)


async def test_what_a_command_means_must_be_clear(gym, problem):
    """Bodies that no rule of the domain fits are 422, and say where."""
    trainer = await gym.register()
    for what, data in (
        ("profile", {"name": " A"}),
        ("profile", {"name": "A", "nick": "B"}),
        ("profile", {"name": "A", "bio": "\x00"}),
        ("specialities", {"specialities": ["Yoga"]}),
        ("specialities", {"specialities": [f"s{n}" for n in range(21)]}),
        ("availability", {"time_zone": "Europe/Atlantis", "slots": []}),
        ("availability", {"time_zone": "../etc/passwd", "slots": []}),
        ("availability", {"time_zone": "UTC", "slots": [
            {"day": "monday", "starts": "09:05:00", "ends": "10:00:00"}]}),
        ("availability", {"time_zone": "UTC", "slots": [
            {"day": "monday", "starts": "09:00:00", "ends": "10:00:00"},
            {"day": "monday", "starts": "09:30:00", "ends": "10:30:00"}]}),
        ("availability", {"time_zone": "UTC", "slots": [
            {"day": "monday", "starts": "09:00", "ends": "10:00"},
            {"day": "monday", "starts": "11:00Z", "ends": "12:00Z"}]}),
    ):  # fmt: skip
        refused = await gym.command("PUT", f"/{trainer}/{what}", data, If_Match="*")
        problem(refused, 422, "validation")


async def test_commands_are_counted(gym):
    """By type and by what became of them."""
    trainer = await gym.register()
    await gym.session(trainer)
    await gym.book(trainer, "m2")
    text = (await gym.client.get("/metrics")).text
    for line in (
        'trainers_commands_total{command="RegisterTrainer",outcome="changed"} 1.0',
        'trainers_commands_total{command="BookSession",outcome="changed"} 1.0',
        'trainers_commands_total{command="BookSession",outcome="refused"} 1.0',
    ):
        assert line in text
