"""How a rollout is judged, from objects as the API server gives them."""

from __future__ import annotations

from typing import Any

import pytest
from kubernetes import client

from scripts.kube.status import scaling
from scripts.kube.workloads import _hopeless, _stateful_set, condition


def parse(kind: str, document: dict[str, Any]) -> Any:
    """Return the client's object for the JSON of the API."""
    import json

    class Answer:
        data = json.dumps(document)

    return client.ApiClient().deserialize(Answer.data, kind, "application/json")


def pod(**state: Any) -> Any:
    container = {
        "name": "app", "image": "x", "imageID": "", "ready": False, "restartCount": 0, **state,
    }  # fmt: skip
    return parse(
        "V1Pod",
        {
            "metadata": {"name": "p"},
            "status": {"phase": "Running", "containerStatuses": [container]},
        },
    )


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"state": {"running": {}}}, ""),
        ({"state": {"waiting": {"reason": "ContainerCreating"}}}, ""),
        ({"state": {"waiting": {"reason": "ErrImagePull"}}}, ""),
        ({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such"}}}, "no such"),
        ({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 1}, ""),
        (
            {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 2},
            "CrashLoopBackOff",
        ),
        (
            {
                "state": {
                    "waiting": {
                        "reason": "CreateContainerConfigError",
                        "message": 'secret "orders" not found',
                    }
                }
            },
            'secret "orders" not found',
        ),
    ],
)
def test_a_pod_is_given_up_only_when_it_will_not_mend_itself(
    state: dict[str, Any], told: str
) -> None:
    found = _hopeless(pod(**state))
    assert (told in found) if told else not found


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"status": {"phase": "Pending"}}, "Pending"),
        ({"status": {"phase": "Succeeded"}}, "Completed"),
        (
            {
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": "False"}],
                }
            },
            "NotReady",
        ),
        (
            {
                "status": {
                    "phase": "Running",
                    "conditions": [{"type": "Ready", "status": "True"}],
                }
            },
            "Running",
        ),
        (
            {
                "metadata": {"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"},
                "status": {"phase": "Running"},
            },
            "Terminating",
        ),
    ],
)
def test_the_state_of_a_pod_is_one_word(document: dict[str, Any], expected: str) -> None:
    assert condition(parse("V1Pod", {"metadata": {"name": "p"}, **document})) == expected


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({"replicas": 1, "readyReplicas": 1, "currentRevision": "a", "updateRevision": "a"}, True),
        ({"replicas": 1, "readyReplicas": 0, "currentRevision": "a", "updateRevision": "a"}, False),
        (
            {
                "replicas": 1, "readyReplicas": 1, "updatedReplicas": 0,
                "currentRevision": "a", "updateRevision": "b",
            },
            False,
        ),
    ],
)  # fmt: skip
def test_a_stateful_set_is_done_when_its_new_pods_are_ready(
    status: dict[str, Any], done: bool
) -> None:
    item = parse(
        "V1StatefulSet",
        {
            "metadata": {"name": "postgresql", "generation": 2},
            "spec": {
                "replicas": 1, "serviceName": "x", "selector": {}, "template": {"metadata": {}},
            },
            "status": {"observedGeneration": 2, **status},
        },
    )  # fmt: skip
    assert _stateful_set(item).done is done
    item.status.observed_generation = 1
    assert not _stateful_set(item).done


def test_an_autoscaler_is_told_in_one_phrase() -> None:
    scaler = parse(
        "V2HorizontalPodAutoscaler",
        {
            "spec": {
                "minReplicas": 2,
                "maxReplicas": 10,
                "scaleTargetRef": {"kind": "Deployment", "name": "orders"},
                "metrics": [
                    {
                        "type": "Resource",
                        "resource": {
                            "name": "cpu",
                            "target": {"type": "Utilization", "averageUtilization": 70},
                        },
                    }
                ],
            },
            "status": {
                "desiredReplicas": 3,
                "currentMetrics": [
                    {
                        "type": "Resource",
                        "resource": {"name": "cpu", "current": {"averageUtilization": 91}},
                    }
                ],
            },
        },
    )
    assert scaling(scaler) == "cpu 91%/70%, 3 of 2-10"
