"""A search in two pods, of which one is killed, under an operator that is killed: twenty trials and one version."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.e2e.cluster import Cluster, Object, completion_index, has, names
from tests.e2e.conftest import kill_operator
from tests.e2e.models import CLAIM, model

if TYPE_CHECKING:
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node
    from tests.e2e.registry import Registry

TRIALS = 20
SEARCH: Object = {
    "training": {
        "architecture": "Linear",
        "search": {
            "trials": TRIALS,
            "parallelism": 2,
            "space": {"penalty": {"decimal": ["0.0001", "100"], "log": True}},
        },
        "checkpoint": {"uri": f"pvc://{CLAIM}/search", "every": 1},
        "retry": {"limit": 3},
    }
}


@pytest.fixture(scope="module")
def namespace(make_namespace: MakeNamespace) -> str:
    return make_namespace("searching")


def test_sigkill_of_a_trial_and_of_the_operator(
    cluster: Cluster, node: Node, registry: Registry, namespace: str
) -> None:
    node.claim(namespace, CLAIM)
    cluster.apply(model("searched", SEARCH), namespace=namespace)
    node.until_file(f"{namespace}/{CLAIM}/search/*.trials/0003.npz", 240)
    second = next(pod for pod in cluster.list("pod", namespace) if completion_index(pod) == "1")
    assert node.signal("SIGKILL", second["metadata"]["uid"], "fiduciary_trainer") == 1
    kill_operator(cluster, node)
    found = cluster.until(
        "fm",
        "searched",
        namespace,
        lambda fm: "champion" in fm.get("status", {}) and has(fm, "Ready", "False", "ServingNotRequested"),
        420,
        "there is a champion",
    )
    assert len([job for job in names(cluster.list("job", namespace)) if job.startswith("searched-")]) == 1
    assert [version["version"] for version in registry.versions(f"{namespace}.searched")] == ["1"]
    runs = registry.runs(f"{namespace}.searched")
    tags = [{tag["key"]: tag["value"] for tag in run["data"]["tags"]} for run in runs]
    trials = sorted(int(each["fiduciary.dev/trial"]) for each in tags if "fiduciary.dev/trial" in each)
    assert trials == list(range(TRIALS))
    assert len(runs) == TRIALS + 1, "one run for the training key, one for each trial"
    assert found["status"]["champion"]["runId"] in {run["info"]["run_id"] for run in runs}
