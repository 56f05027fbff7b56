"""`make cluster`: a local cluster by kind, with what kind leaves out: ingress and metrics.

May be run again: what is there stays. The manifests are upstream's own, at pinned versions. On
minikube the addons do the same; see k8s/README.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

from scripts.kube.errors import ToolError
from scripts.topology import ROOT

NAME = "slipway"
CONTEXT = f"kind-{NAME}"
CONTOUR = (
    "https://raw.githubusercontent.com/projectcontour/contour/v1.33.8/examples/render/contour.yaml"
)
METRICS = (
    "https://github.com/kubernetes-sigs/metrics-server/releases/download/v0.9.0/components.yaml"
)
_FLAG = "--kubelet-insecure-tls"  # kind's kubelets sign their own certificates
_PATCH = [{"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": _FLAG}]


def create() -> None:
    """Create the cluster and what belongs into it.

    Raises:
        ToolError: a tool is missing or failed.
    """
    for tool, page in (
        ("docker", "https://docs.docker.com/get-started/get-docker/"),
        ("kind", "https://kind.sigs.k8s.io/docs/user/quick-start/"),
        ("kubectl", "https://kubernetes.io/docs/tasks/tools/"),
    ):
        if shutil.which(tool) is None:
            raise ToolError(f"{tool} is not on the PATH; install it ({page})")
    if NAME in _run("kind", "get", "clusters").split():
        print(f"kind cluster {NAME} is there")
    else:
        print(f"create kind cluster {NAME}")
        _run(
            "kind", "create", "cluster", "--config", str(ROOT / "k8s" / "kind.yaml"), "--wait", "2m"
        )
    print("install Contour (Ingress) and metrics-server")
    _kubectl("apply", "--server-side", "--force-conflicts", "-f", CONTOUR)
    _kubectl("apply", "-f", str(ROOT / "k8s" / "ingress-class.yaml"))
    _kubectl("apply", "-f", METRICS)
    arguments = _kubectl(
        "-n", "kube-system", "get", "deployment", "metrics-server",
        "-o", "jsonpath={.spec.template.spec.containers[0].args}",
    )  # fmt: skip
    if _FLAG not in arguments:
        _kubectl(
            "-n", "kube-system", "patch", "deployment", "metrics-server",
            "--type=json", "-p", json.dumps(_PATCH),
        )  # fmt: skip
    for namespace, workload in (
        ("projectcontour", "deployment/contour"),
        ("projectcontour", "daemonset/envoy"),
        ("kube-system", "deployment/metrics-server"),
    ):
        _kubectl("-n", namespace, "rollout", "status", workload, "--timeout=5m")
    print(f"ready: context {CONTEXT}; next: make images LOAD=kind, make deploy")


def _kubectl(*words: str) -> str:
    return _run("kubectl", "--context", CONTEXT, *words)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[-500:]
        raise ToolError(f"{' '.join(command[:3])}: {said}", 1)
    return done.stdout


def main() -> int:
    """Run it; the exit code."""
    try:
        create()
    except ToolError as error:
        print(f"cluster: {error}", file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
