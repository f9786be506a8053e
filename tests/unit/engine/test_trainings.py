"""What is kept of the objects that run a training, whatever their engine."""

from __future__ import annotations

from typing import Any

import pytest

from fiduciary.engine import kinds
from fiduciary.engine.stores import Stores
from fiduciary.manifests.engines import API_VERSIONS
from tests.unit.decide.worlds import model

KEY = "sha256:" + "0" * 64


def body(kind: str, *conditions: dict[str, str], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": API_VERSIONS[kind],
        "kind": kind,
        "metadata": {
            "name": "spx-00000000-2",
            "namespace": "quant",
            "uid": "u",
            "resourceVersion": "5",
            "creationTimestamp": "2026-11-24T12:00:00Z",
            "labels": {**kinds.TRAINS, "fiduciary.dev/model": "spx"},
            "annotations": {
                "fiduciary.dev/training-key": KEY,
                "fiduciary.dev/spec-key": KEY,
                "fiduciary.dev/as-of": "2017-12-29",
            },
        },
        "spec": spec,
        "status": {"conditions": list(conditions)},
    }


def said(kind: str, reason: str = "") -> dict[str, str]:
    return {"type": kind, "status": "True", "reason": reason, "lastTransitionTime": "2026-11-24T12:05:00Z"}


@pytest.mark.parametrize(
    ("kind", "condition", "ended"),
    [
        ("Job", said("Complete"), (True, False)),
        ("JobSet", said("Completed", "AllJobsCompleted"), (True, False)),
        ("TrainJob", said("Complete"), (True, False)),
        ("JobSet", said("Failed", "ReachedMaxRestarts"), (False, True)),
        ("TrainJob", said("Failed", "FailedJobs"), (False, True)),
        ("JobSet", said("Suspended"), (False, False)),
        ("JobSet", {**said("Completed"), "status": "False"}, (False, False)),
        ("TrainJob", said("Created"), (False, False)),
    ],
)
def test_how_it_ended(kind: str, condition: dict[str, str], ended: tuple[bool, bool]) -> None:
    view = kinds.job(body(kind, condition))
    assert view is not None
    assert (view.succeeded, view.failed) == ended
    assert (view.kind, view.attempt, view.key) == (kind, 2, KEY)
    assert kinds.job(body(kind, suspend=True)).suspended  # pyright: ignore[reportOptionalMemberAccess]


def test_pods_belong_to_the_set_not_to_the_job_inside_it() -> None:
    labels = {"batch.kubernetes.io/job-name": "spx-00000000-2-node-0", "job-name": "spx-00000000-2-node-0"}
    pod = {"metadata": {"labels": labels}}
    assert kinds.job_of_pod(pod) == "spx-00000000-2-node-0"
    labels["jobset.sigs.k8s.io/jobset-name"] = "spx-00000000-2"
    assert kinds.job_of_pod(pod) == "spx-00000000-2"
    assert kinds.job_of_pod({"metadata": {}}) == ""


@pytest.mark.parametrize("kind", ["JobSet", "TrainJob", "TrainingRuntime"])
def test_the_operator_watches_its_own_and_tells_their_model(kind: str) -> None:
    stores = Stores()
    resource = next(found for found in kinds.OPTIONAL if found.kind == kind)
    mine, other = body(kind), body(kind)
    other["metadata"]["labels"] = {}
    assert kinds.watched(resource, mine)
    assert not kinds.watched(resource, other)
    store = stores.by_kind[kind]
    store.put(mine)
    name = ("quant", "spx-00000000-2")
    [key] = stores.concerned(resource, name, store.parent_of(name), store.index_of(name))
    assert (key.kind, key.name) == ("FinancialModel", "spx")


@pytest.mark.parametrize(("engine", "asks"), [("Job", False), ("JobSet", True), ("TrainJob", True)])
def test_a_model_is_looked_at_when_its_engine_arrives(engine: str, asks: bool) -> None:
    stores = Stores()
    given = model({"training": {"engine": engine}, "serving": None})
    stores.models.put(given.body())
    assert stores.names_optional((given.metadata.namespace, given.metadata.name)) is asks
