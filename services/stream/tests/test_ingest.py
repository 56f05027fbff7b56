"""What comes in: readings of sensors and events of other services."""

import pytest

from chassis.testing.contract import fuzz_contract
from stream.main import create_app
from stream.settings import Settings

GOOD = {"value": 21.5, "unit": "Cel", "at": "2026-05-04T12:00:00+02:00"}


@pytest.fixture
async def replica(start):
    """One process, in memory."""
    async with start(event_bytes=2048) as running:
        yield running


async def post(replica, body, sensor="a", headers=None):
    return await replica.http.post(
        f"/v1/sensors/{sensor}/readings", json=body, headers=headers or replica._meter
    )


async def test_a_reading_is_streamed_as_it_was_measured(replica):
    """With its time zone, under the sensor's name."""
    async with replica.open() as client:
        await client.subscribe("sensors/a")
        answer = await post(replica, GOOD)
        assert (answer.status_code, answer.json()) == (202, {"accepted": 1})
        [told] = await client.events(1)
        assert told["event"] == "sensor.reading"
        assert told["data"] == {"sensor_id": "a", **GOOD}


async def test_a_batch_is_taken_in_its_order_or_not_at_all(replica):
    """Up to a thousand."""
    async with replica.open() as client:
        await client.subscribe("sensors/a")
        bad = {"readings": [GOOD, {**GOOD, "value": "x"}]}
        assert (await post(replica, bad)).status_code == 422
        answer = await post(replica, {"readings": [{**GOOD, "value": n} for n in range(1000)]})
        assert answer.json() == {"accepted": 1000}
        assert await client.values(1000) == list(range(1000))


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"readings": []},
        {"readings": [GOOD] * 1001},
        {**GOOD, "value": "much"},
        {**GOOD, "value": None},
        {**GOOD, "unit": ""},
        {**GOOD, "unit": "two words"},
        {**GOOD, "at": "yesterday"},
        {**GOOD, "at": "2026-05-04T12:00:00"},
        {**GOOD, "at": 1777888800},
        {**GOOD, "colour": "red"},
    ],
)
async def test_bad_readings_are_refused(replica, body):
    """422, with the fields."""
    answer = await post(replica, body)
    assert answer.status_code == 422
    assert answer.json()["errors"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
async def test_a_value_is_finite(replica, value):
    """Whatever a lenient JSON parser makes of it."""
    text = f'{{"value": {value}, "unit": "Cel", "at": "2026-05-04T12:00:00Z"}}'
    headers = {**replica._meter, "Content-Type": "application/json"}
    answer = await replica.http.post("/v1/sensors/a/readings", content=text, headers=headers)
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize("sensor", ["*", "-a", "a%0A", "x" * 65, "a%2Fb"])
async def test_a_sensor_has_a_plain_name(replica, sensor):
    """No wildcard can be written to."""
    assert (await post(replica, GOOD, sensor)).status_code in {404, 422}


async def test_readings_need_their_scope(replica):
    """A listener does not write."""
    headers = {"Authorization": f"Bearer {replica.token()}"}
    assert (await post(replica, GOOD, headers=headers)).status_code == 403


async def test_events_need_the_scope_of_a_service(replica, order_event):
    """A user cannot make up events."""
    headers = {"Authorization": f"Bearer {replica.token()}"}
    answer = await replica.http.post("/events", json=order_event(), headers=headers)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"type": "order.rejected"}, 204),
        ({"type": "task.due"}, 204),
        ({"data": {}}, 422),
        ({"data": None}, 422),
        ({"data": {"owner": 7}}, 422),
        ({"type": "notification.created"}, 422),
        ({"data": {"owner": "u1", "text": "x" * 3000}}, 422),
    ],
)
async def test_what_an_event_must_say(replica, order_event, changes, status):
    """Whose it is, and not too much; a type that no topic carries is let pass."""
    answer = await replica.deliver(order_event(**changes))
    assert answer.status_code == status, answer.text


def test_the_document_tells_the_truth(make_settings, token_issuer):
    """Generated requests: no 5xx, and no answer that the OpenAPI document does not declare.

    Without the scope to listen: an answer without end would be no answer to the generator.
    """
    headers = token_issuer.authorization("u1", "sensors:write events:deliver")
    app = create_app(make_settings(Settings, access_log=False))
    seen = fuzz_contract(app, headers=headers, known={"sensor_id": "a"}, examples=20)
    assert 202 in seen["POST /v1/sensors/{sensor_id}/readings"]
    assert 204 in seen["POST /events"]
    assert 403 in seen["GET /v1/events"]
    assert seen["POST /v1/stream/tickets"] == {403}
    assert len(seen) == 4


async def test_everything_is_documented(replica):
    """Every operation has a summary and a tag; the pages are there."""
    document = (await replica.http.get("/openapi.json")).json()
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"]
            assert operation["tags"]
    for page in ("/docs", "/redoc"):
        assert (await replica.http.get(page)).status_code == 200
