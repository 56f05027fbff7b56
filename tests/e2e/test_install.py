"""From nothing to an order: every release, its own tests, names, and an order through the front."""

from __future__ import annotations

import json

import pytest

from scripts.kube import doctor, smoke, status
from tests.e2e.harness import Platform, wait_for

LOOK_UP = """
import json, socket, sys
print(json.dumps({n: sorted({a[4][0] for a in socket.getaddrinfo(n, 80)}) for n in sys.argv[1:]}))
"""


def test_the_machine_and_the_cluster_pass_the_doctor(platform: Platform) -> None:
    assert doctor.main(["--namespace", platform.namespace]) == 0


def test_everything_is_well(platform: Platform, capsys: pytest.CaptureFixture[str]) -> None:
    assert status.main(["--namespace", platform.namespace]) == 0
    assert "all well" in capsys.readouterr().out


def test_each_release_passes_its_own_tests(platform: Platform) -> None:
    for release in platform.wanted:
        platform.deployer.helm.test(release.name)


def test_an_order_goes_through_the_front(
    platform: Platform, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through Ingress or Gateway where a controller routes, else through a forwarded port."""
    code = smoke.main(["--namespace", platform.namespace])
    told = capsys.readouterr()
    assert code == 0, told.err
    assert "smoke: passed" in told.out


def test_services_find_each_other_by_name(platform: Platform) -> None:
    """A Service's name is one address; its headless twin's are the pods themselves."""
    names = ("items", "inventory", "notifications", "auth")
    asked = [*names, *(f"{name}-headless" for name in names)]

    def agreed() -> bool:
        """An autoscaler may be at work: DNS is right a moment later."""
        found = json.loads(platform.in_pod("deploy/orders", LOOK_UP, *asked))
        pods = {n: {pod.status.pod_ip for pod in platform.pods(n)} for n in names}
        return all(
            set(found[f"{n}-headless"]) == pods[n]
            and len(found[n]) == 1
            and found[n][0] not in pods[n]
            for n in names
        )

    wait_for(agreed, "names and pods agree", 60, 2)
    config = json.loads(platform.kubectl("get", "configmap", "orders", "-o", "json"))["data"]
    assert config["ORDERS_ITEMS_URL"] == "http://items"


def test_pods_hold_no_rights(platform: Platform) -> None:
    """No token of the API server, no writable root, nobody is root."""
    code = (
        "import os, json, pathlib\n"
        "def writable(p):\n"
        "    try:\n"
        "        (pathlib.Path(p) / 'x').write_text('x')\n"
        "    except OSError:\n"
        "        return False\n"
        "    return True\n"
        "token = os.path.exists('/var/run/secrets/kubernetes.io/serviceaccount/token')\n"
        "print(json.dumps([os.getuid(), token, writable('/app'), writable('/tmp')]))\n"
    )
    for name in platform.deployments:
        if name != "gateway":
            found = json.loads(platform.in_pod(f"deploy/{name}", code))
            assert found == [10001, False, False, True], name
