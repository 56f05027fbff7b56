"""A service on Lambda: AWS's own runtime client, a real zip, and the events of each trigger."""

from __future__ import annotations

import base64
import json
import random
import signal
import time
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import func, insert, select

from chassis.database import Database
from chassis.idempotency_table import idempotency_keys
from chassis.settings import DatabaseSettings
from tests.aws.conftest import Running, Start
from tests.aws.runtime_api import SCHEDULED, TRIGGERS, Collector, Request, Told, api_gateway_v2

pytestmark = [pytest.mark.timeout(300)]

DESK = {
    "id": "desk",
    "sku": "DSK-1",
    "name": "Walnut d\u00e9sk",
    "category": "furniture",
    "tags": ["office", "wood"],
    "price": {"amount": "549.00", "currency": "EUR"},
}


def http(told: Told) -> tuple[int, dict[str, str], Any]:
    """The status, headers and body of an answer, read as its trigger reads it."""
    assert not told.failed, told.body
    body = told.body.get("body") or ""
    if told.body.get("isBase64Encoded"):
        body = base64.b64decode(body).decode()
    headers = {name.lower(): value for name, value in (told.body.get("headers") or {}).items()}
    parsed = json.loads(body) if "json" in headers.get("content-type", "") and body else body
    return told.body["statusCode"], headers, parsed


@pytest.fixture
def variables(migrated_database_url: Any, token_issuer: Any) -> dict[str, str]:
    """The settings of items, on a migrated database of each kind."""
    return {
        "ITEMS_DATABASE_URL": migrated_database_url("items"),
        "ITEMS_ISSUER": token_issuer.issuer,
        "ITEMS_AUDIENCE": token_issuer.audience,
        "ITEMS_JWKS_URL": token_issuer.jwks_url,
        "ITEMS_ENVIRONMENT": "test",
        "ITEMS_PEER_CONNECT_TIMEOUT_SECONDS": "20",
        "ITEMS_PEER_TIMEOUT_SECONDS": "20",
    }


@pytest.fixture
def writer(token_issuer: Any) -> dict[str, str]:
    """The header of somebody who may write."""
    return {k.lower(): v for k, v in token_issuer.authorization("admin", "items:write").items()}


@pytest.mark.parametrize("trigger", TRIGGERS.values(), ids=TRIGGERS)
def test_items_answers_every_trigger(
    start: Start, variables: dict[str, str], writer: dict[str, str], trigger: Any
) -> None:
    """Create, list by filters, read, 304, and problems as text, as a client of each sees them."""
    running = start(variables)

    def call(*args: Any, **more: Any) -> tuple[int, dict[str, str], Any]:
        return http(running.invoke(trigger(Request(*args, **more))))

    status, headers, made = call("POST", headers=writer, body=DESK)
    assert (status, headers["location"]) == (201, "/v1/items/desk"), made
    assert (made["name"], made["price"]) == (DESK["name"], DESK["price"])
    query = (("q", "walnut d\u00e9"), ("category", "furniture"))
    status, _, listed = call(query=query)
    assert (status, [item["id"] for item in listed["items"]]) == (200, ["desk"])
    status, _, listed = call(query=(("q", "100%+ & =?"),))
    assert (status, listed["items"]) == (200, [])
    status, read_headers, read = call(path="/v1/items/desk")
    assert (status, read, read_headers["etag"]) == (200, made, headers["etag"])
    known = {"if-none-match": headers["etag"]}
    status, _, nothing = call(path="/v1/items/desk", headers=known)
    assert (status, nothing) == (304, "")
    told = running.invoke(trigger(Request(path="/v1/items/unknown")))
    status, headers, problem = http(told)
    assert (status, problem["status"], problem["instance"]) == (404, 404, "/v1/items/unknown")
    assert headers["content-type"] == "application/problem+json"
    assert not told.body["isBase64Encoded"], "a REST API would pass Base64 on as it is"
    assert call("POST", body={})[0] == 401
    assert call("POST", headers=writer, body={"sku": 1})[0] == 422
    assert call("DELETE", path="/v1/items/desk", headers=writer)[0] == 428
    gone = call("DELETE", path="/v1/items/desk", headers={**writer, "if-match": "*"})
    assert gone[0] == 204


def test_a_repeated_parameter_keeps_its_values(
    start: Start, variables: dict[str, str], writer: dict[str, str]
) -> None:
    """By the triggers that carry it."""
    running = start(variables)
    for name in ("API Gateway v1", "API Gateway v2", "function URL"):
        trigger = TRIGGERS[name]
        item = {**DESK, "id": f"desk-{name[-2:].lower()}", "sku": name.replace(" ", "-")}
        made = http(running.invoke(trigger(Request("POST", headers=writer, body=item))))
        assert made[0] == 201, made
        both = (("tag", "office"), ("tag", "wood"), ("sort", "created_at"))
        assert http(running.invoke(trigger(Request(query=both))))[2]["items"] != []
        one = (("tag", "office"), ("tag", "steel"))
        assert http(running.invoke(trigger(Request(query=one))))[2]["items"] == []


def get(running: Running, path: str, *, within: float = 30.0, **query: Any) -> tuple[int, Any]:
    """Read a path of the demo; status and body."""
    request = Request(path=path, query=tuple((k, str(v)) for k, v in query.items()))
    status, _, body = http(running.invoke(api_gateway_v2(request), seconds=within))
    return status, body


def test_one_lifespan_and_one_loop_serve_an_environment(start: Start, tmp_path: Any) -> None:
    """What the first invocation opened, the tenth uses; a crash in between changes nothing."""
    marks = tmp_path / "marks"
    running = start({"DEMO_MARKS": str(marks)}, demo=True)
    lives = []
    for number in range(6):
        if number == 3:
            assert get(running, "/crash")[0] == 500
        lives.append(get(running, "/life"))
    assert lives == [lives[0]] * 6
    assert lives[0][1]["opened"] == 1
    assert lives[0][1]["instance"].startswith("2026/11/22/")
    assert marks.read_text() == "opened\n"


def test_spans_are_sent_before_the_answer(start: Start, variables: dict[str, str]) -> None:
    """After it the environment is frozen. The trace goes on from the caller's."""
    trace_id = f"{random.getrandbits(128):032x}"
    with Collector().serving() as collector:
        running = start(
            {**variables, "ITEMS_OTLP_ENDPOINT": collector.url, "ITEMS_TRACE_SAMPLE_RATIO": "1"}
        )
        for number in range(1, 4):
            headers = {"traceparent": f"00-{trace_id}-{number:016x}-01"}
            told = running.invoke(api_gateway_v2(Request(headers=headers)))
            assert http(told)[0] == 200
            came, body = collector.came[-1]
            assert came < told.at
            spans = [
                span
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans
                for scope in resource.scope_spans
                for span in scope.spans
            ]
            assert {span.trace_id.hex() for span in spans} == {trace_id}
            [root] = [span for span in spans if span.parent_span_id.hex() == f"{number:016x}"]
            assert root.name == "GET /v1/items"
            assert len(spans) > 1, "the statements too"


def test_a_slow_collector_delays_an_answer_a_little(start: Start) -> None:
    """The answer waits for its spans for a bounded time."""
    with Collector(delay=60.0).serving() as collector:
        running = start(
            {"DEMO_OTLP_ENDPOINT": collector.url, "DEMO_TRACE_SAMPLE_RATIO": "1"}, demo=True
        )
        get(running, "/livez")  # not recorded: the init is over
        began = time.monotonic()
        told = running.invoke(api_gateway_v2(Request(path="/life")))
        assert http(told)[0] == 200
        assert told.at - began < 30
        assert "the collector is slow" in running.environment.log


@pytest.mark.parametrize("stubborn", [False, True], ids=["cancelled", "stubborn"])
def test_a_slow_handler_is_answered_before_lambda_ends_it(start: Start, stubborn: bool) -> None:
    """504 while there is time to say so; the environment serves on."""
    running = start({}, demo=True)
    life = get(running, "/life")
    began = time.monotonic()
    request = Request(
        path="/slow",
        query=(("seconds", "60"), ("stubborn", str(stubborn))),
        headers={"x-request-id": "slow-one"},
    )
    told = running.invoke(api_gateway_v2(request), seconds=3.0)
    status, headers, problem = http(told)
    assert (status, problem["type"]) == (504, "urn:slipway:problem:deadline-exceeded")
    assert 2.0 < told.at - began < 30  # 2.7 on a machine that does not stall
    assert headers["content-type"] == "application/problem+json"
    assert get(running, "/life") == life
    line = (
        next(
            each
            for each in map(json.loads, running.environment.log.splitlines())
            if each.get("request_id") == "slow-one" and each.get("event") == "request"
        )
        if not stubborn
        else {"status": 504}
    )
    assert line["status"] == 504


def test_half_an_answer_is_a_500(start: Start) -> None:
    """When the time is over in the middle of one: not half of it, and no failed invocation."""
    running = start({}, demo=True)
    life = get(running, "/life")
    status, body = get(running, "/half", within=8.0, seconds=60)
    assert (status, body) == (500, "Internal Server Error")
    assert "the time was over in the middle of an answer" in running.environment.log
    assert get(running, "/life") == life


def test_a_callers_shorter_budget_stays_shorter(start: Start) -> None:
    """A budget that is spent is answered at once, however long the function may run."""
    running = start({}, demo=True)
    headers = {"x-request-timeout-ms": "0"}
    told = running.invoke(api_gateway_v2(Request(path="/life", headers=headers)))
    assert http(told)[0] == 504
    # And nobody gets more than Lambda gives.
    headers = {"x-request-timeout-ms": "60000"}
    request = Request(path="/slow", query=(("seconds", "60"),), headers=headers)
    began = time.monotonic()
    told = running.invoke(api_gateway_v2(request), seconds=2.0)
    assert (http(told)[0], told.at - began < 30) == (504, True)


def test_the_invocations_id_is_the_requests(start: Start) -> None:
    """The line of a request and Lambda's own REPORT line have one id; a caller's own is kept."""
    running = start({}, demo=True)
    told = running.invoke(api_gateway_v2(Request(path="/life")))
    assert http(told)[1]["x-request-id"] == told.id
    given = {"x-request-id": "from-the-caller"}
    told = running.invoke(api_gateway_v2(Request(path="/life", headers=given)))
    assert http(told)[1]["x-request-id"] == "from-the-caller"


@pytest.mark.parametrize(
    ("wrong", "kind", "text"),
    [
        ({"DEMO_PORT": "x"}, "SettingsError", "DEMO_PORT"),
        ({"DEMO_WORKER": "true"}, "LambdaError", "own-loop"),
    ],
    ids=["setting", "loops"],
)
def test_an_init_that_fails_is_told_to_lambda(
    *, start: Start, wrong: dict[str, str], kind: str, text: str
) -> None:
    """In one line that names what to mend; the environment ends, and Lambda makes another."""
    running = start(wrong, demo=True)
    error = running.api.init_errors.get(timeout=100)
    assert error["errorType"] == kind
    assert text in error["errorMessage"]
    assert "\n" not in error["errorMessage"]
    assert running.environment.process.wait(timeout=60) == 1


def test_a_snapshot_holds_nothing_open_and_no_random_numbers(start: Start, tmp_path: Any) -> None:
    """SnapStart: the lifespan begins after the restore, and with a seed of its own."""
    marks = tmp_path / "marks"
    running = start(
        {"DEMO_MARKS": str(marks), "AWS_LAMBDA_INITIALIZATION_TYPE": "snap-start"}, demo=True
    )
    running.api.snapshots.get(timeout=100)
    assert not marks.exists()
    running.api.restore.set()
    status, life = get(running, "/life")
    assert (status, life["opened"], life["reseeded"]) == (200, 1, True)
    assert marks.read_text() == "opened\n"


def test_an_environment_that_is_told_to_end_closes_what_it_opened(
    start: Start, tmp_path: Any
) -> None:
    """SIGTERM, as Lambda sends it before SIGKILL where an extension is registered."""
    marks = tmp_path / "marks"
    running = start({"DEMO_MARKS": str(marks)}, demo=True)
    assert get(running, "/life")[0] == 200
    running.environment.process.send_signal(signal.SIGTERM)
    assert running.environment.process.wait(timeout=30) == 0
    assert marks.read_text() == "opened\nclosed\n"


def test_an_event_of_another_kind_is_an_error_of_its_invocation(start: Start) -> None:
    """The next one is served."""
    running = start({}, demo=True)
    told = running.invoke({"Records": [{"eventSource": "aws:sqs"}]})
    assert told.failed
    assert told.body["errorType"] == "RuntimeError"
    assert get(running, "/life")[0] == 200


async def test_a_schedule_does_what_is_a_loop_elsewhere(
    start: Start, variables: dict[str, str], fake_clock: Any
) -> None:
    """Expired idempotency keys are deleted by a scheduled event, and by no request."""
    database = Database(DatabaseSettings(database_url=variables["ITEMS_DATABASE_URL"]))
    past = fake_clock.now().replace(year=2020)
    row = {"id": "x", "fingerprint": "f", "lease": "l", "lease_until": past, "expires_at": past}

    async def keys() -> int:
        async with database.reading() as session:
            return int(await session.scalar(select(func.count()).select_from(idempotency_keys)))

    try:
        async with database.session() as session:
            await session.execute(insert(idempotency_keys).values(row))
        running = start(variables)
        assert http(running.invoke(api_gateway_v2(Request())))[0] == 200
        assert await keys() == 1
        told = running.invoke(SCHEDULED)
        assert (told.failed, told.body) == (False, {"jobs": ["idempotency-purge"]})
        assert await keys() == 0
    finally:
        await database.close()
