"""Engines JobSet and TrainJob on the real API server with their real CRDs: missing, arriving, trained by, and gone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.controlplane.engine import jobsets, models
from tests.controlplane.engine.node import Node
from tests.controlplane.engine.test_backends import install, remove
from tests.controlplane.engine.test_serving import condition
from tests.controlplane.server import path_of, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.controlplane.engine.process import OperatorProcess
    from tests.controlplane.server import Server

LSTM: dict[str, Any] = {
    "training": {"architecture": "LSTM", "nodes": 2, "hyperparameters": {"window": 20}, "retry": {"limit": 1}}
}


def by(engine: str) -> dict[str, Any]:
    return {"training": {**LSTM["training"], "engine": engine}}


@pytest.fixture
def cluster(server: Server) -> Iterator[Server]:
    """A cluster that has neither engine, before and after."""
    crds = [jobsets.crd(source) for source in (jobsets.JOBSET, jobsets.TRAINJOB, jobsets.RUNTIME)]
    for each in crds:
        remove(server, each)
    yield server
    for each in crds:
        remove(server, each)


def arrives(server: Server, namespace: str, source: tuple[str, str], kind: str) -> None:
    install(server, jobsets.crd(source), jobsets.place(kind, namespace))


def measured(server: Server, namespace: str, digest: str) -> None:
    """Until what its pod reported is judged: refused, since the scripted trainer lacks a number that networks have."""
    until("it is judged", lambda: models.records(server.admin, namespace), 120)
    [record] = models.records(server.admin, namespace)
    assert (record["action"], record["to"]["digest"]) == ("Reject", digest)
    assert "kept_loss_excess" in record["cause"]["message"]


def test_a_jobset_from_its_missing_kind_to_its_end(
    cluster: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]
) -> None:
    api, node = cluster.admin, Node(cluster.admin, namespace, mlflow)
    operator().start().ready()
    api.create(models.model(namespace, change=by("JobSet")))
    until("it says what is missing", lambda: condition(api, namespace, "Stalled") == ("True", "EngineMissing"), 120)
    message = next(c for c in models.status(api, namespace)["conditions"] if c["type"] == "Stalled")["message"]
    assert "jobset.x-k8s.io/v1alpha2" in message
    assert node.jobs() == []

    arrives(cluster, namespace, jobsets.JOBSET, "JobSet")
    jobset = until("a JobSet", lambda: next(iter(jobsets.those(api, "JobSet", namespace)), None), 120)
    assert condition(api, namespace, "Stalled")[0] == "False", "lifted when the kind arrived"
    [policy] = api.get(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")["items"]
    assert policy["spec"]["ingress"][0]["from"] == [{"podSelector": policy["spec"]["podSelector"]}]
    job = jobsets.make_job(api, jobset)
    assert (job["spec"]["completions"], job["spec"]["completionMode"]) == (2, "Indexed")

    document = node.run(job)
    jobsets.end(api, jobset, "Completed", "AllJobsCompleted")
    measured(server=cluster, namespace=namespace, digest=str(document["digest"]))
    until("the JobSet is gone, its verdict is stored", lambda: not jobsets.those(api, "JobSet", namespace), 120)
    assert len(models.records(api, namespace)) == 1


def test_a_trainjob_and_its_runtime(
    cluster: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]
) -> None:
    api, node = cluster.admin, Node(cluster.admin, namespace, mlflow)
    arrives(cluster, namespace, jobsets.JOBSET, "JobSet")
    arrives(cluster, namespace, jobsets.RUNTIME, "TrainingRuntime")
    process = operator().start().ready()
    api.create(models.model(namespace, change=by("TrainJob")))
    until("Trainer is missing", lambda: condition(api, namespace, "Stalled") == ("True", "EngineMissing"), 120)
    arrives(cluster, namespace, jobsets.TRAINJOB, "TrainJob")
    trainjob = until("a TrainJob", lambda: next(iter(jobsets.those(api, "TrainJob", namespace)), None), 120)
    [runtime] = jobsets.those(api, "TrainingRuntime", namespace)
    assert runtime["metadata"]["name"] == trainjob["metadata"]["name"]
    assert runtime["spec"]["mlPolicy"] == {"numNodes": 2}
    jobset = jobsets.make_jobset(api, trainjob)
    job = jobsets.make_job(api, jobset)

    # A restart in between: what runs is found again.
    process.stop()
    process.start().ready()
    document = node.run(job)
    jobsets.end(api, trainjob, "Complete", "AllJobsCompleted")
    measured(server=cluster, namespace=namespace, digest=str(document["digest"]))
    until("both are gone", lambda: not jobsets.those(api, "TrainJob", namespace), 120)
    until("the runtime too", lambda: not jobsets.those(api, "TrainingRuntime", namespace), 120)
    assert len(models.records(api, namespace)) == 1


def test_a_jobset_that_failed_is_a_failed_training_and_an_edit_ends_one(
    cluster: Server, namespace: str, mlflow: str, operator: Callable[..., OperatorProcess]
) -> None:
    api, node = cluster.admin, Node(cluster.admin, namespace, mlflow)
    arrives(cluster, namespace, jobsets.JOBSET, "JobSet")
    operator().start().ready()
    api.create(models.model(namespace, change=by("JobSet")))
    jobset = until("a JobSet", lambda: next(iter(jobsets.those(api, "JobSet", namespace)), None), 120)
    node.run(jobsets.make_job(api, jobset), exit_code=64)
    jobsets.end(api, jobset, "Failed", "FailJobSetFailurePolicyAction")
    until("it is judged", lambda: [r["action"] for r in models.records(api, namespace)] == ["TrainingFailed"], 120)

    api.merge(path_of("FinancialModel", namespace, "spx"), {"spec": {"training": {"seed": 8}}})

    def names() -> set[str]:
        return {body["metadata"]["name"] for body in jobsets.those(api, "JobSet", namespace)}

    until("another JobSet", lambda: names() - {jobset["metadata"]["name"]}, 120)
    [second] = names() - {jobset["metadata"]["name"]}
    api.merge(path_of("FinancialModel", namespace, "spx"), {"spec": {"training": {"seed": 9}}})
    until("nobody waits for it", lambda: models.records(api, namespace)[-1]["action"] == "Abort", 120)
    until("it is gone, and the third is there", lambda: second not in names() and names(), 120)
