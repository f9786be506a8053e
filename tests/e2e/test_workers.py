"""Two pods that train one network together: the numbers of one pod, also when one of them is killed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.cluster import Cluster, Object, completion_index, has, names
from tests.e2e.models import CLAIM, model

if TYPE_CHECKING:
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node
    from tests.e2e.registry import Registry

NETWORK: Object = {
    "architecture": "LSTM",
    "hyperparameters": {"window": 10, "hidden": 8, "epochs": 3, "members": 1, "batchSize": 16},
    "validation": {"embargo": 85},
    "retry": {"limit": 2},
}
SKILL, ERROR = "ewma_skill", "mse"
TOLERANCE = 1e-3
"""Sums of two halves are rounded before they are added, and a thousand steps follow each other."""


def training(nodes: int, **more: Object) -> Object:
    return {"training": {**NETWORK, "nodes": nodes, **more}}


@pytest.fixture(scope="module")
def namespace(make_namespace: MakeNamespace) -> str:
    return make_namespace("workers")


def test_two_workers_measure_what_one_pod_does_and_one_of_them_is_killed(
    cluster: Cluster, node: Node, registry: Registry, namespace: str
) -> None:
    node.claim(namespace, CLAIM)
    cluster.apply(model("alone", training(1)), namespace=namespace)
    judged(cluster, "alone", namespace)

    checkpoint: Object = {"uri": f"pvc://{CLAIM}/workers", "every": 1}
    cluster.apply(model("together", training(2, checkpoint=checkpoint)), namespace=namespace)
    node.until_file(f"{namespace}/{CLAIM}/workers/*.checkpoint.npz", 240)
    pods = [pod for pod in cluster.list("pod", namespace) if pod["metadata"]["name"].startswith("together-")]
    second = next(pod for pod in pods if completion_index(pod) == "1")
    assert node.signal("SIGKILL", second["metadata"]["uid"], "fiduciary_trainer") == 1
    judged(cluster, "together", namespace)

    [job] = [job for job in cluster.list("job", namespace) if job["metadata"]["name"].startswith("together-")]
    assert (job["spec"]["completionMode"], job["spec"]["completions"]) == ("Indexed", 2)
    ended = [pod for pod in cluster.list("pod", namespace) if pod["metadata"]["name"].startswith("together-")]
    codes = sorted((completion_index(pod) or "", code) for pod in ended if (code := _exit_code(pod)))
    assert codes == [("0", 76), ("1", 137)], "all began again since one was killed; nothing else failed"
    assert names(cluster.list("service", namespace)) == ["together-training"]

    [one] = registry.runs(f"{namespace}.alone")
    [two] = registry.runs(f"{namespace}.together")
    for name in (SKILL, ERROR):
        assert _metric(two, name) == pytest.approx(_metric(one, name), abs=TOLERANCE), name


def judged(cluster: Cluster, name: str, namespace: str) -> Object:
    """Until there are numbers and a verdict on them; which one does not matter here."""
    return cluster.until("fm", name, namespace, lambda fm: has(fm, "Trained", "True"), 600, "it is trained and judged")


def _exit_code(pod: Object) -> int:
    [status] = pod["status"]["containerStatuses"]
    return status["state"].get("terminated", {}).get("exitCode", 0)


def _metric(run: Object, name: str) -> float:
    return next(metric["value"] for metric in run["data"]["metrics"] if metric["key"] == name)
