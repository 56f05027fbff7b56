"""The scripts in the gateway's pods, run as they are rendered: the drain, and `helm test`."""

from __future__ import annotations

import http.client
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from scripts import topology
from tests.charts.kube import of_kind, render, values_of
from tests.gateway.harness import Gateway, Issuer, Upstreams, run_gateway, wait_until

KEYS = "/.well-known/jwks.json"
UNLIMITED = {"rateLimits": {"enabled": False}}


@pytest.fixture(scope="module")
def upstreams() -> Iterator[Upstreams]:
    """The services behind the gateway."""
    running = Upstreams(Issuer(), tuple(topology.load().services))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def gateway(upstreams: Upstreams, tmp_path: Path) -> Iterator[Gateway]:
    """An Envoy with the chart's configuration."""
    with run_gateway(tmp_path, upstreams.addresses, UNLIMITED) as running:
        wait_until(lambda: running.get(KEYS).status == 200, "the keys")
        yield running


def drain(gateway: Gateway, notice: int, seconds: int, route: int) -> subprocess.Popen[str]:
    """Start the rendered preStop script against a running Envoy."""
    values = values_of(
        "k8s/gateway-services.yaml",
        admin={"port": gateway.admin},
        noticeSeconds=notice,
        drainSeconds=seconds,
        timeouts={"routeSeconds": route},
    )
    script = of_kind(render("gateway", values), "ConfigMap")["data"]["drain.sh"]
    return subprocess.Popen(
        ["bash", "-c", script], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_no_request_is_cut(gateway: Gateway):
    """Keep-alive and new connections go on until they are asked to leave; all answers are 200."""
    failed: list[str] = []
    answered = [0]
    leaving = threading.Event()

    def client() -> None:
        """Send requests on one connection until the gateway closes it."""
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", gateway.http)) as connection:
                connection.connect()
                while True:
                    connection.request("GET", KEYS)
                    answer = connection.getresponse()
                    answer.read()
                    answered[0] += 1
                    if answer.status != 200:
                        failed.append(str(answer.status))
                    if answer.getheader("connection") == "close":
                        leaving.set()
                        return
                    time.sleep(0.01)
        except (OSError, http.client.HTTPException) as error:
            failed.append(repr(error))

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: answered[0] > 100, "requests under way")
    with drain(gateway, notice=10, seconds=60, route=60) as script:
        assert leaving.wait(60)
        assert gateway.get("/ready", port=gateway.status).status == 503
        # Whoever has not heard of it yet is still served.
        assert gateway.get(KEYS).status == 200
        for thread in threads:
            thread.join(60)
        assert script.wait(60) == 0
        assert script.stdout
        assert script.stdout.read() == ""
    assert failed == []
    assert gateway.process.poll() is None


def test_it_ends_when_nobody_is_left(gateway: Gateway):
    """After the notice, without connections, there is nothing to wait for."""
    began = time.monotonic()
    with drain(gateway, notice=1, seconds=120, route=120) as script:
        assert script.wait(100) == 0
    assert 1 <= time.monotonic() - began < 60


def test_a_request_in_flight_is_waited_for_and_no_new_one_let_in(gateway: Gateway):
    """The drain is over, a request is not: it gets its answer, newcomers go elsewhere."""
    slow: list[int] = []
    path = "/v1/items?sleep=12"
    thread = threading.Thread(target=lambda: slow.append(gateway.get(path).status))
    thread.start()
    active = r"http\.public\.downstream_rq_active"
    wait_until(lambda: gateway.stat(active) == 1, "the slow request")
    with drain(gateway, notice=1, seconds=2, route=120) as script:
        wait_until(lambda: _refused(gateway), "the listener to close")
        assert script.poll() is None
        assert slow == []
        assert script.wait(60) == 0
    thread.join(60)
    assert slow == [200]


def test_an_idle_connection_is_not_waited_for_longer_than_drain_seconds(gateway: Gateway):
    """Somebody who never says anything again does not hold the pod."""
    with closing(http.client.HTTPConnection("127.0.0.1", gateway.http)) as idle:
        idle.connect()
        began = time.monotonic()
        with drain(gateway, notice=1, seconds=3, route=120) as script:
            assert script.wait(100) == 0
        # bash counts whole seconds of the clock: its third begins two to three seconds after it.
        assert 2 <= time.monotonic() - began < 60


def _refused(gateway: Gateway) -> bool:
    try:
        gateway.get(KEYS)
    except OSError:
        return True
    return False


def helm_test(gateway: Gateway) -> subprocess.CompletedProcess[str]:
    """Run what the pod of `helm test` runs, without its pauses, against a running Envoy."""
    manifests = render("gateway", values_of("k8s/gateway-services.yaml"), name="localhost")
    (container,) = of_kind(manifests, "Pod")["spec"]["containers"]
    bash, flag, script = container["command"]
    script = script.replace("localhost 80 ", f"localhost {gateway.http} ").replace("sleep 2", ":")
    assert str(gateway.http) in script
    return subprocess.run(
        [bash, flag, script], capture_output=True, text=True, check=False, timeout=60
    )


def test_helm_test_passes_where_the_gateway_serves(gateway: Gateway):
    """Auth's keys come through it, and it says problem to a path that is not there."""
    done = helm_test(gateway)
    assert (done.returncode, done.stdout) == (0, "the gateway serves\n")


def test_helm_test_fails_where_nobody_is_behind_it(upstreams: Upstreams, tmp_path: Path):
    """A gateway that runs and reaches no service is no success."""
    nobody = {**upstreams.addresses, "auth": "127.0.0.1:1"}
    with run_gateway(tmp_path, nobody, UNLIMITED) as running:
        done = helm_test(running)
    assert done.returncode == 1
    assert "no keys of auth at /.well-known/jwks.json: HTTP/1.1 503" in done.stdout
