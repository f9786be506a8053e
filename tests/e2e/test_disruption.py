"""Parts of the cluster die in the middle of a training; in the end there is one Job and one version, as without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.cluster import Cluster, Object, condition, has, names
from tests.e2e.conftest import kill_operator, restart_api_server, wait_for_operator
from tests.e2e.models import CLAIM, model
from tests.e2e.registry import NAMESPACE as MLFLOW_NAMESPACE

if TYPE_CHECKING:
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node
    from tests.e2e.registry import Registry

TRAINED = 240


@pytest.fixture(scope="module")
def namespace(make_namespace: MakeNamespace) -> str:
    return make_namespace("broken")


def _train(cluster: Cluster, namespace: str, name: str, spec: Object | None = None) -> None:
    """Apply a model and wait until its pod runs."""
    cluster.apply(model(name, spec), namespace=namespace)
    cluster.until_all(
        "pod",
        namespace,
        lambda pods: any(
            pod["metadata"]["name"].startswith(f"{name}-") and pod["status"].get("phase") == "Running" for pod in pods
        ),
        90,
        f"the pod of {name} runs",
    )


def _one_of_each(cluster: Cluster, registry: Registry, namespace: str, name: str) -> None:
    """Wait for the champion: one Job, one record, one version, one run."""
    found = cluster.until(
        "fm",
        name,
        namespace,
        lambda fm: "champion" in fm.get("status", {}) and has(fm, "Ready", "False", "ServingNotRequested"),
        TRAINED,
        "there is a champion",
    )
    registered = f"{namespace}.{name}"
    registry.until_aliases(registered, {"champion": found["status"]["champion"]["version"]})
    assert len([job for job in names(cluster.list("job", namespace)) if job.startswith(f"{name}-")]) == 1
    records = [md["spec"] for md in cluster.list("md", namespace) if md["spec"]["modelRef"]["name"] == name]
    assert [record["action"] for record in records] == ["Accept"]
    assert [version["version"] for version in registry.versions(registered)] == ["1"]
    assert len(registry.runs(registered)) == 1


def test_operator_sigkilled_in_training(cluster: Cluster, node: Node, registry: Registry, namespace: str) -> None:
    _train(cluster, namespace, "orphan")
    kill_operator(cluster, node)
    _one_of_each(cluster, registry, namespace, "orphan")


def test_api_server_restarted_in_training(cluster: Cluster, node: Node, registry: Registry, namespace: str) -> None:
    _train(cluster, namespace, "unheard")
    restart_api_server(cluster, node)
    _one_of_each(cluster, registry, namespace, "unheard")
    wait_for_operator(cluster)


def test_mlflow_away_while_training(cluster: Cluster, registry: Registry, namespace: str) -> None:
    """Training does not need MLflow, its result does: the pod waits with it, and the status says so."""
    _train(cluster, namespace, "unlogged")
    cluster.kubectl("scale", "deployment/mlflow", "--replicas=0", namespace=MLFLOW_NAMESPACE)
    try:
        cluster.until_all("pod", MLFLOW_NAMESPACE, lambda pods: not pods, 60, "MLflow is gone")
        found = cluster.until(
            "fm",
            "unlogged",
            namespace,
            lambda fm: "MLflow" in " ".join(entry["message"] for entry in fm["status"].get("conditions", [])),
            90,
            "the status says that MLflow is away",
        )
        assert has(found, "Reconciling", "True")
        assert condition(found, "Stalled").get("status", "False") == "False", "it goes on by itself: nobody has to act"
        assert "champion" not in found["status"]
    finally:
        cluster.kubectl("scale", "deployment/mlflow", "--replicas=1", namespace=MLFLOW_NAMESPACE)
        cluster.kubectl("rollout", "status", "deployment/mlflow", "--timeout=120s", namespace=MLFLOW_NAMESPACE)
    _one_of_each(cluster, registry, namespace, "unlogged")


def test_pod_deleted_in_training_goes_on_from_its_checkpoint(
    cluster: Cluster, node: Node, registry: Registry, namespace: str
) -> None:
    """A drained node: the pod gets SIGTERM, and the retry resumes."""
    node.claim(namespace, CLAIM)
    checkpointed: Object = {
        "training": {
            "architecture": "MLP",
            "hyperparameters": {"epochs": 100, "patience": 100, "members": 1},
            "checkpoint": {"uri": f"pvc://{CLAIM}/checkpoints", "every": 1},
            "retry": {"limit": 2},
        }
    }
    _train(cluster, namespace, "drained", checkpointed)
    node.until_file(f"{namespace}/{CLAIM}/checkpoints/**/*", 120)
    pod = next(name for name in names(cluster.list("pod", namespace)) if name.startswith("drained-"))
    cluster.kubectl("delete", "pod", pod, "--wait=false", namespace=namespace)
    job = next(name for name in names(cluster.list("job", namespace)) if name.startswith("drained-"))
    cluster.until(
        "job", job, namespace, lambda found: found["status"].get("succeeded") == 1, TRAINED, "the retry succeeded"
    )
    assert "resumed" in cluster.logs(namespace, f"job-name={job}"), "the retry began anew"
    assert len(registry.runs(f"{namespace}.drained")) == 1, "one training key, one run"
