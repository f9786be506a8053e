"""Parts around the models die, and people reach in: clients are answered, and what is shown is true.

The kill switch is tested here as well: it has to work when everything else does not.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from sandbox import load
from tests.e2e.cluster import Cluster, Object, condition, has, names
from tests.e2e.conftest import ANA, kill_operator, restart_api_server, wait_for_operator
from tests.e2e.inference import RATE
from tests.e2e.place import allow_approvals
from tests.e2e.registry import NAMESPACE as MLFLOW_NAMESPACE
from tests.e2e.serving import SERVED, TRAINED, Service, served

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node
    from tests.e2e.serving import TwoVersions

GATEWAY_NAMESPACE = "projectcontour"


@pytest.fixture
def two(two_versions: TwoVersions) -> TwoVersions:
    """The first version serves, the second is loaded."""
    service = two_versions.service
    service.pin(two_versions.first)
    service.until_serves(two_versions.first)
    service.until_pods(two_versions.second, 1)
    return two_versions


def test_gateway_controller_is_away_and_says_nothing_of_a_promotion(cluster: Cluster, two: TwoVersions) -> None:
    """Envoy goes on with what it was told. The new route is not in force, and Ready does not claim that it is."""
    service = two.service
    with load.running(service.model.target(*two.requests), rate=RATE) as client:
        client.until_answered(50)
        cluster.kubectl("scale", "deployment/contour", "--replicas=0", namespace=GATEWAY_NAMESPACE)
        try:
            contour = {"selector": "app=contour", "within": 60}
            cluster.until_all("pod", GATEWAY_NAMESPACE, lambda pods: not pods, what="Contour is gone", **contour)
            service.pin(two.second)
            found = service.until_champion(two.second)  # recorded; before that Ready speaks of the first version
            assert has(found, "Reconciling", "True"), "a promotion that no gateway confirmed is on its way"
            assert not has(found, "Ready", "True"), "Ready speaks of a route that no gateway confirmed"
            client.until_answered(200, two.first["version"])
        finally:
            cluster.kubectl("scale", "deployment/contour", "--replicas=2", namespace=GATEWAY_NAMESPACE)
        service.until_serves(two.second)
        client.until_answered(200, two.second["version"])
        report = client.stop()
    assert not report.failed, report.summary()


def test_api_server_restarted_under_load(cluster: Cluster, node: Node, two: TwoVersions) -> None:
    service = two.service
    with load.running(service.model.target(*two.requests), rate=RATE) as client:
        client.until_answered(50)
        service.pin(two.second)
        restart_api_server(cluster, node)
        service.until_serves(two.second)
        client.until_answered(200, two.second["version"])
        report = client.stop()
    assert not report.failed, report.summary()
    wait_for_operator(cluster)


def test_operator_sigkilled_in_the_middle_of_a_promotion(cluster: Cluster, node: Node, two: TwoVersions) -> None:
    """The record exists, nothing else is certain: one record, one champion, no client that noticed."""
    service = two.service
    before = len(service.records())
    with load.running(service.model.target(*two.requests), rate=RATE) as client:
        client.until_answered(50)
        service.pin(two.second)
        cluster.until_all(
            "md", service.namespace, lambda found: len(_of(found, service.name)) > before, 60, "the record is there"
        )
        kill_operator(cluster, node)
        service.until_serves(two.second)
        client.until_answered(200, two.second["version"])
        report = client.stop()
    assert not report.failed, report.summary()
    records = service.records()[before:]
    assert [record["to"]["digest"] for record in records] == [two.second["digest"]], "one act, one record"


def _of(records: list[Object], name: str) -> list[Object]:
    return [record for record in records if record["spec"]["modelRef"]["name"] == name]


def test_route_that_a_person_edited_is_put_back(cluster: Cluster, two: TwoVersions) -> None:
    service = two.service
    ours, theirs = service.deployment(two.first), service.deployment(two.second)
    rules = cluster.read("route", service.name, service.namespace)["spec"]["rules"]
    for rule in rules:
        for backend in rule["backendRefs"]:
            backend["weight"] = 100 if backend["name"] == theirs else 0
    cluster.patch("route", service.name, {"spec": {"rules": rules}}, service.namespace)
    cluster.until(
        "route", service.name, service.namespace, lambda found: answering(found) == {ours}, 30, "the champion is back"
    )
    service.until_serves(two.first)
    cluster.until_all(
        "event",
        service.namespace,
        lambda events: any(event["reason"] == "RouteRestored" for event in events),
        10,
        "an event tells it",
    )


def answering(route: Object) -> set[str]:
    """Services that the route gives requests to."""
    return {ref["name"] for rule in route["spec"]["rules"] for ref in rule["backendRefs"] if ref.get("weight", 1)}


@pytest.mark.parametrize("kind", ["service", "deployment", "route"])
def test_object_that_a_person_deleted_comes_back(cluster: Cluster, two: TwoVersions, kind: str) -> None:
    service = two.service
    name = service.name if kind == "route" else service.deployment(two.first)  # the Service is called the same
    uid = cluster.read(kind, name, service.namespace)["metadata"]["uid"]
    cluster.delete(kind, name, service.namespace)
    cluster.until(kind, name, service.namespace, lambda found: found["metadata"]["uid"] != uid, 60, "it is back")
    service.until_serves(two.first)
    Cluster.poll(
        lambda: service.model.post(b"{}").status_code, lambda status: status == 400, 30, "the champion answers again"
    )


def test_route_that_takes_host_and_path_is_seen(cluster: Cluster, two: TwoVersions) -> None:
    """A more exact match wins at every conforming gateway: clients get another version, and the status says so."""
    service = two.service
    hijacker: Object = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "hijacker", "namespace": service.namespace},
        "spec": {
            "parentRefs": [{"name": "contour", "namespace": GATEWAY_NAMESPACE}],
            "rules": [
                {
                    "matches": [{"path": {"type": "Exact", "value": f"{service.model.path}/infer"}}],
                    "backendRefs": [{"name": service.deployment(two.second), "port": 8080}],
                }
            ],
        },
    }
    cluster.apply(hijacker, namespace=service.namespace)
    try:
        found = service.until("RouteHijacked", "True")
    finally:
        cluster.delete("route", "hijacker", service.namespace)
    assert not has(found, "Ready", "True")
    service.until_serves(two.first)
    assert not condition(service.found, "RouteHijacked"), "it is said of what is no more"


@pytest.fixture
def nothing_else(cluster: Cluster, two: TwoVersions) -> Iterator[None]:
    """Neither Prometheus nor MLflow, from when both versions have been loaded."""
    assert two.second
    workloads = (("prometheus", "monitoring"), ("mlflow", MLFLOW_NAMESPACE))
    try:
        for name, namespace in workloads:
            cluster.kubectl("scale", f"deployment/{name}", "--replicas=0", namespace=namespace)
        for name, namespace in workloads:
            mine = f"app.kubernetes.io/name={name}"
            cluster.until_all("pod", namespace, lambda pods: not pods, 60, f"{name} is gone", selector=mine)
        yield
    finally:
        for name, namespace in workloads:
            cluster.kubectl("scale", f"deployment/{name}", "--replicas=1", namespace=namespace)
            cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=120s", namespace=namespace)


@pytest.mark.usefixtures("nothing_else")
def test_kill_switch_needs_nothing_and_only_a_person_resumes(cluster: Cluster, two: TwoVersions) -> None:
    service = two.service
    with load.running(service.model.target(*two.requests), rate=RATE) as client:
        client.until_answered(50)
        killed = time.time()
        service.patch({"kill": {"engaged": True}})
        client.until(lambda report: len(report.since(killed).failed) > 200, "clients are refused", within=20)
        found = service.until("Killed", "True")
        assert not has(found, "Ready", "True")
        silent = time.time()
        client.until(lambda report: len(report.since(silent).sent) > 100, "it goes on being asked")
        report = client.report()
        answered = [one for one in report.since(silent).sent if not one.failed]
        assert not answered, "a killed model answered"
        assert {one.status for one in report.since(silent).sent} == {500}, "as the documentation says"
        print(f"the route was empty {report.last_from(two.first['version']) - killed:.2f} s after the switch")
        service.patch({"kill": {"engaged": False}})
        latched = service.until("Killed", "True")
        cluster.until_after(latched["status"]["kill"]["since"])  # newer than the latch
        service.decide("Resume", ANA, "the vendor's prices are right again")
        service.until_serves(two.first)
        client.until_answered(100, two.first["version"])
    assert [record["action"] for record in service.records()[-2:]] == ["Kill", "Resume"]


def test_same_name_in_two_namespaces_and_nothing_left_behind(
    cluster: Cluster, two: TwoVersions, make_namespace: MakeNamespace
) -> None:
    """A namespace whose owner did not apply the Role: a model that names no Secret and no claim needs none."""
    namespace = make_namespace("twin")
    cluster.kubectl("delete", "role,rolebinding", "--all", namespace=namespace)
    allow_approvals(cluster, namespace, ANA)
    cluster.apply(served(two.service.name), namespace=namespace)
    twin = Service(cluster, two.service.http, namespace, two.service.name)
    found = twin.until("Ready", "True", within=TRAINED + SERVED)
    model = twin.model
    theirs, ours = model.predict(two.request()), two.service.model.predict(two.request())
    assert theirs.digest == found["status"]["champion"]["digest"]
    assert ours.digest == two.first["digest"]
    cluster.kubectl("delete", "fm", twin.name, "--timeout=60s", namespace=namespace)
    for kind in ("route", "deployment", "service", "poddisruptionbudget", "horizontalpodautoscaler", "job", "pod"):
        cluster.until_all(kind, namespace, lambda left: not left, 60, f"no {kind} is left")
    for kind in ("networkpolicy", "serviceaccount"):
        left = [name for name in names(cluster.list(kind, namespace)) if name not in ("default-deny", "default")]
        assert left == [], f"{kind} left behind"
    assert two.service.model.predict(two.request()).digest == two.first["digest"]
    assert model.post(b"{}").status_code == 404, "the route of a deleted model still answers"
