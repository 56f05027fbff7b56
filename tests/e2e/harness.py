"""The platform in a namespace of its own, and what the tests do to it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from kubernetes.client.exceptions import ApiException
from rich.console import Console

from scripts.kube.cluster import TIMEOUT, Cluster
from scripts.kube.deploy import Deployer
from scripts.kube.entry import forwarded
from scripts.kube.releases import Images, Release, releases
from scripts.topology import load

HERE = Path(__file__).parent
ITEM = "stoneware-mug"
ADMIN = "e2e-admin@example.org"
PASSWORD = "paper-lamp-by-the-window"  # of an account that ends with the namespace
T = TypeVar("T")


def wait_for(look: Callable[[], T], what: str, seconds: float = 120, pause: float = 0.5) -> T:
    """Return what `look` gives once it is true.

    Raises:
        AssertionError: it is not, within `seconds`.
    """
    end = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not within {seconds:g} s; last: {found!r}"
        time.sleep(pause)


@dataclass
class Platform:
    """The platform, deployed as `make deploy` does it, with the values of these tests on top."""

    cluster: Cluster
    namespace: str
    deployer: Deployer
    wanted: list[Release] = field(default_factory=list)

    @classmethod
    def plan(cls, cluster: Cluster, namespace: str, *, observed: bool = False) -> Platform:
        """Return it, not deployed yet; `observed` as OBSERVE=1 of `make deploy`."""
        images = Images(tag=os.environ.get("TAG", ""), registry=os.environ.get("REGISTRY", ""))
        topology = load()
        wanted = []
        for release in releases(topology, "dev", images, observed=observed):
            extra = [HERE / "values" / "services.yaml"] if release.name in topology.services else []
            extra += [path for path in [HERE / "values" / f"{release.name}.yaml"] if path.is_file()]
            wanted.append(replace(release, values=(*release.values, *extra)))
        return cls(cluster, namespace, Deployer(cluster, namespace, Console()), wanted)

    def release(self, name: str) -> Release:
        """Return one release."""
        return next(release for release in self.wanted if release.name == name)

    def upgrade(self, name: str, *sets: str) -> None:
        """Upgrade one release with more settings and wait until it is through."""
        release = self.release(name)
        self.deployer.deploy([replace(release, sets=(*release.sets, *sets))])

    @property
    def deployments(self) -> list[str]:
        """The names of the services and the gateway."""
        return [release.name for release in self.wanted if release.name != "datastores"]

    def kubectl(self, *words: str, given: str | None = None, check: bool = True) -> str:
        """Run kubectl in the namespace; return what it printed."""
        done = subprocess.run(
            ["kubectl", "--context", self.cluster.context, "-n", self.namespace, *words],
            input=given, capture_output=True, text=True, check=False, timeout=180,
        )  # fmt: skip
        assert not check or done.returncode == 0, f"kubectl {words}: {done.stderr}"
        return done.stdout

    def pods(self, name: str) -> list[Any]:
        """Return the living pods of one release's workload."""
        listed = self.cluster.core.list_namespaced_pod(
            self.namespace,
            label_selector=f"app.kubernetes.io/instance={name},app.kubernetes.io/name={name}",
            _request_timeout=TIMEOUT,
        )
        return [
            pod
            for pod in listed.items
            if pod.metadata.deletion_timestamp is None and pod.metadata.owner_references
            and pod.metadata.owner_references[0].kind == "ReplicaSet"
        ]  # fmt: skip

    def replicas(self, name: str) -> tuple[int, int]:
        """Return how many pods of a Deployment are wanted and ready."""
        found: Any = self.cluster.apps.read_namespaced_deployment(
            name, self.namespace, _request_timeout=TIMEOUT
        )
        return found.spec.replicas or 0, found.status.ready_replicas or 0

    def settled(self, name: str) -> None:
        """Wait until a Deployment has all the pods that it wants."""
        wait_for(lambda: len(set(self.replicas(name))) == 1, f"{name} settles", 180)

    def in_pod(self, target: str, code: str, *words: str, given: str | None = None) -> str:
        """Run Python in a pod of `target`."""
        return self.kubectl("exec", "-i", target, "--", "python", "-c", code, *words, given=given)

    def stock(self, quantity: int) -> None:
        """Put `quantity` of the item on the shelf, as an administrator."""
        self.kubectl(
            "exec", "-i", "deploy/auth", "--", "python", "-m", "auth", "create-admin",
            "--email", ADMIN, "--password-stdin", given=PASSWORD + "\n",
        )  # fmt: skip
        from tests.load.stage import call, log_in

        with forwarded(self.cluster, self.namespace) as url:
            host = url.removeprefix("http://")
            path = f"{url}/v1/stock/{ITEM}"
            body = json.dumps({"on_hand": quantity}).encode()
            call(path, body, "application/json", "PUT", log_in(host, ADMIN))

    @contextmanager
    def load(self, **settings: object) -> Iterator[LoadPod]:
        """Run the load generator during the block; its result is there after it."""
        pod = LoadPod(self, f"load-{os.urandom(3).hex()}")
        try:
            pod.start({name: str(value) for name, value in settings.items()})
            yield pod
            pod.finish()
        finally:
            self.kubectl("delete", "pod", pod.name, "--now", "--ignore-not-found", check=False)

    def remove(self) -> None:
        """Take everything away."""
        self.deployer.undeploy(data=True)
        wait_for(self._gone, f"namespace {self.namespace} is gone", 180, 1)

    def _gone(self) -> bool:
        try:
            self.cluster.core.read_namespace(self.namespace, _request_timeout=TIMEOUT)
        except ApiException as error:
            return error.status == 404
        return False


class LoadPod:
    """A pod that runs `loadgen.py`."""

    def __init__(self, platform: Platform, name: str) -> None:
        self._platform = platform
        self.name = name
        self.result: dict[str, Any] = {}

    def start(self, settings: Mapping[str, str]) -> None:
        """Start it; returns once requests are answered."""
        platform = self._platform
        source = platform.kubectl(
            "create", "configmap", "loadgen", f"--from-file={HERE / 'loadgen.py'}",
            "--dry-run=client", "-o", "json",
        )  # fmt: skip
        platform.kubectl("apply", "-f", "-", given=source)
        image = next(pod for pod in platform.pods("orders")).spec.containers[0].image
        variables = {"URL": "http://gateway", "ITEM": ITEM, **settings}
        platform.kubectl(
            "apply", "-f", "-", given=json.dumps(manifest(self.name, image, variables))
        )
        wait_for(lambda: self._requests() > 0, f"{self.name} sends requests", 120)

    def finish(self) -> None:
        """End the load and read its result."""
        self._platform.kubectl("exec", self.name, "--", "touch", "/tmp/stop")
        line = wait_for(lambda: self._last("done"), f"{self.name} ends", 300, 1)
        self.result = json.loads(line)

    def _requests(self) -> int:
        line = self._last("requests")
        return int(json.loads(line)["requests"]) if line else 0

    def requests(self) -> int:
        """Return how many requests were answered by now."""
        return self._requests()

    def progress(self) -> str:
        """Return how it goes, in words."""
        return self._last("requests").strip("{}") or "no news"

    def _last(self, word: str) -> str:
        said = self._platform.kubectl("logs", self.name, "--tail", "1", check=False).strip()
        if said and not said.startswith("{"):
            whole = self._platform.kubectl("logs", self.name, check=False)
            assert "Traceback" not in whole, whole[-3000:]
        return said if said.startswith("{") and f'"{word}"' in said else ""


def manifest(name: str, image: str, variables: Mapping[str, str]) -> dict[str, Any]:
    """Return a pod of the load generator, as restricted as everything in the namespace."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/name": "load"}},
        "spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": 10001,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "load",
                    "image": image,
                    "imagePullPolicy": "IfNotPresent",
                    "command": ["python", "/load/loadgen.py"],
                    "env": [{"name": key, "value": value} for key, value in variables.items()],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "source", "mountPath": "/load"}],
                }
            ],
            "volumes": [{"name": "source", "configMap": {"name": "loadgen"}}],
        },
    }


def show(title: str, result: Mapping[str, Any], names: Sequence[str]) -> None:
    """Print the figures of a test, for the note that reports them."""
    print(f"\n{title}: " + ", ".join(f"{name} {result[name]}" for name in names))
