"""Everything around one running experiment dies or is meddled with: no wrong verdict, no lost evidence.

One challenger answers half of the requests through all of this. All is shown early, and then a person is waited for,
who signs at the very end: the experiment lives as long as the tests do.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from tests.e2e.clocks import operator_ahead
from tests.e2e.cluster import Cluster, Object, condition, has
from tests.e2e.conftest import (
    ANA,
    OPERATOR_NAMESPACE,
    OPERATOR_PODS,
    allow_approvals,
    operator_pods,
    restart_api_server,
    restarts,
    wait_for_operator,
)
from tests.e2e.experiments import Long, Trial, judged, sound, steps
from tests.e2e.serving import Service, is_ready

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

    from sandbox.market import Market
    from tests.e2e.conftest import MakeNamespace
    from tests.e2e.node import Node

RATE = 100.0
KILLS = 20
AWAY = float(os.environ.get("FIDUCIARY_E2E_AWAY", "60"))  # seconds without Prometheus; 300 in a long run
BLOCK = 10  # seconds: experiments.TEMPLATE
GATEWAY_NAMESPACE = "projectcontour"


@pytest.fixture(scope="module")
def long(cluster: Cluster, gateway: httpx.Client, market: Market, make_namespace: MakeNamespace) -> Iterator[Long]:
    namespace = make_namespace("long")
    allow_approvals(cluster, namespace, ANA)
    template = {"traffic": {"steps": steps(half=50)}, "approvals": 1}
    trial = Trial.begin(Service(cluster, gateway, namespace, "spx"), market, judged("spx", template))
    with trial.loaded(RATE) as client:
        client.until_answered(20)
        challenger = trial.train(sound(architecture="Linear"))
        trial.until_step(challenger, "half")
        yield Long(trial, challenger, client)


@pytest.fixture(autouse=True)
def nothing_failed(long: Long) -> Iterator[None]:
    """No client notices, whatever is done to the parts that decide."""
    began = time.time()
    yield
    failed = long.failed(began)
    assert not failed, f"{len(failed)} failed: {failed[:3]}; {long.client.report().since(began).summary()}"


def test_pod_of_the_champion_is_replaced(long: Long) -> None:
    """Its counters begin anew: a reset is no harm and no miracle."""
    service = long.trial.service
    (pod,) = service.pods(long.trial.champion)
    since = time.time()
    service.cluster.kubectl(
        "rollout", "restart", "deployment", service.deployment(long.trial.champion), namespace=service.namespace
    )
    service.cluster.until_gone("pod", pod["metadata"]["name"], service.namespace, 90)
    service.until_pods(long.trial.champion, 1)
    long.until_folded(since)
    long.unchanged()


def test_scorer_is_killed(cluster: Cluster, long: Long, node: Node) -> None:
    """Records wait in the runtimes, the ledger is where it was: it is evidence."""
    namespace = long.trial.service.namespace
    (pod,) = cluster.list("pod", namespace, "fiduciary.dev/component=outcomes")
    since, before = time.time(), long.found["status"]["tests"]
    assert node.signal("SIGKILL", "fiduciary_outcomes", pod["metadata"]["uid"]) > 0
    cluster.until_all(
        "pod",
        namespace,
        lambda pods: any(restarted(one) and is_ready(one) for one in pods),
        90,
        "the scorer is back",
        selector="fiduciary.dev/component=outcomes",
    )
    after = long.until_folded(since)["status"]["tests"]
    shown = [{test["name"]: test["n"] for test in tests if test["side"] == "Superiority"} for tests in (before, after)]
    assert shown[1] == shown[0], "sessions were lost or folded twice"
    long.unchanged()


def restarted(pod: Object) -> bool:
    return any(status["restartCount"] > 0 for status in pod["status"].get("containerStatuses", ()))


def test_gateway_controller_is_away(cluster: Cluster, long: Long) -> None:
    """Envoy goes on with what it was told, and its counters go on being counted."""
    since = time.time()
    cluster.kubectl("scale", "deployment/contour", "--replicas=0", namespace=GATEWAY_NAMESPACE)
    try:
        gone: dict[str, object] = {"selector": "app=contour", "within": 60, "what": "Contour is gone"}
        cluster.until_all("pod", GATEWAY_NAMESPACE, lambda pods: not pods, **gone)  # type: ignore[arg-type]
        long.client.until_answered(100, long.challenger["version"])
    finally:
        cluster.kubectl("scale", "deployment/contour", "--replicas=2", namespace=GATEWAY_NAMESPACE)
        cluster.kubectl("rollout", "status", "deployment/contour", "--timeout=90s", namespace=GATEWAY_NAMESPACE)
    long.until_folded(since)
    long.unchanged()


def test_api_server_is_killed(cluster: Cluster, node: Node, long: Long) -> None:
    since = time.time()
    restart_api_server(cluster, node)
    wait_for_operator(cluster)
    long.until_folded(since)
    long.unchanged()


def test_route_that_a_person_edited_is_put_back(cluster: Cluster, long: Long) -> None:
    """All to the challenger, by hand: the split that the log asks for comes back, and that block decides nothing."""
    service = long.trial.service
    rules = cluster.read("route", service.name, service.namespace)["spec"]["rules"]
    theirs = service.deployment(long.challenger)
    for rule in rules:
        for backend in rule["backendRefs"]:
            backend["weight"] = 100 if backend["name"] == theirs else 0
    since = time.time()
    cluster.patch("route", service.name, {"spec": {"rules": rules}}, service.namespace)
    wanted = {version["digest"].removeprefix("sha256:")[:12]: 50 for version in (long.trial.champion, long.challenger)}
    Cluster.poll(long.trial.weights, lambda weights: weights.items() >= wanted.items(), 30, "half each is back")
    found = long.until_folded(since)
    assert not found["status"].get("srm", {}).get("alarm"), "an edited route is no mismatch of the router"
    routes = cluster.list("route", service.namespace)
    assert len(routes) == 1, "no duplicate route"
    long.unchanged()


def test_route_that_takes_host_and_path_is_seen(cluster: Cluster, long: Long) -> None:
    """Another route gives all requests to the champion: that is no evidence of anything, and is told."""
    service = long.trial.service
    hijacker: Object = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "hijacker", "namespace": service.namespace},
        "spec": {
            "parentRefs": [{"name": "contour", "namespace": GATEWAY_NAMESPACE}],
            "rules": [
                {
                    "matches": [{"path": {"type": "Exact", "value": f"{service.model.path}/infer"}}],
                    "backendRefs": [{"name": service.deployment(long.trial.champion), "port": 8080}],
                }
            ],
        },
    }
    cluster.apply(hijacker, namespace=service.namespace)
    try:
        long.trial.until(
            long.challenger,
            lambda status: status.get("verdict") in ("Hold", "RollBack"),
            "requests that do not come are noticed",
        )
    finally:
        cluster.delete("route", "hijacker", service.namespace)
    long.unchanged()


def test_prometheus_is_away(cluster: Cluster, long: Long) -> None:
    """No data is never a pass: the challenger's weight goes, what was counted stays, both come back with the data."""
    through = long.through
    cluster.kubectl("scale", "deployment/prometheus", "--replicas=0", namespace="monitoring")
    since = time.time()
    try:
        held = long.trial.until(
            long.challenger, lambda status: status.get("reason") == "BothDark", "it holds blind", within=90
        )
        assert held["status"]["dataHealth"]["state"] == "BothDark"
        assert "Prometheus" in held["status"]["dataHealth"]["message"]
        long.until_champion_alone()
        assert long.through < since + 15
        time.sleep(max(0.0, since + AWAY - time.time()))  # not for luck: so long it is to be away
        assert long.found["status"]["reason"] == "BothDark"
    finally:
        cluster.kubectl("scale", "deployment/prometheus", "--replicas=1", namespace="monitoring")
        cluster.kubectl("rollout", "status", "deployment/prometheus", "--timeout=120s", namespace="monitoring")
    long.until_folded(time.time(), within=120)
    assert long.through > through
    long.unchanged([50, 0, 50])


def test_clock_of_the_operator_is_a_block_ahead(cluster: Cluster, long: Long) -> None:
    """It would ask of a time that has not come: nothing is folded by such a clock, and all of it when it is right."""
    before, weights, through = long.found["status"], long.weights(), long.through
    with operator_ahead(cluster, BLOCK):
        held = long.trial.until(
            long.challenger, lambda status: status.get("reason") == "BothDark", "it holds blind", within=120
        )
        assert "PrometheusClockSkew" in held["status"]["dataHealth"]["message"]
        assert "NTP" in held["status"]["dataHealth"]["message"], "what to do is said"
        long.until_champion_alone()
        assert long.through <= through + 2 * BLOCK, "blocks were folded by a clock that is wrong"
    since = time.time()
    found = long.until_folded(since, within=120)
    assert not found["status"].get("srm", {}).get("alarm"), "shares were counted under weights that were not in force"
    shown = {(test["name"], test["side"]): test["n"] for test in found["status"]["tests"]}
    assert all(shown[test["name"], test["side"]] >= test["n"] for test in before["tests"]), "evidence was lost"
    long.unchanged([*weights, 0, 50])


def test_pod_of_the_challenger_is_drained(cluster: Cluster, long: Long) -> None:
    """The cluster took its only pod: it waits without a share until another one is ready, and that is no harm."""
    service, weights = long.trial.service, long.weights()
    (pod,) = service.pods(long.challenger)
    since = time.time()
    assert cluster.evict(pod["metadata"]["name"], service.namespace)
    held = long.trial.until(
        long.challenger, lambda status: status.get("reason") == "PodsNotReady", "it waits for pods", within=60
    )
    assert held["status"].get("harm") is None
    service.until_pods(long.challenger, 1)
    found = long.until_folded(time.time(), within=120)
    lost = long.client.report().since(since).failed
    print(
        f"drained: {len(lost)} requests met no pod, the last {max([0.0, *(one.at - since for one in lost)]):.1f} s on"
    )
    # Nobody but this one pod could have answered its share; records' times have no fractions.
    long.excused.append((since, long.taken() + 2))
    assert not found["status"].get("srm", {}).get("alarm")
    long.unchanged([*weights, 0, 50])


def test_operator_is_killed_twenty_times(cluster: Cluster, node: Node, long: Long) -> None:
    """Each time the experiment goes on from its status, with what it had folded."""
    before, records = long.through, len(long.trial.service.records())
    shown: dict[str, float] = {}
    for number in range(KILLS):
        kill_operator(cluster, node, anew=number % 2 == 1)
        status = long.found["status"]
        for test in status["tests"]:
            key = f"{test['name']}/{test['side']}"
            assert test["n"] >= shown.get(key, 0), f"{key} lost what it had folded"
            shown[key] = test["n"]
    long.until_folded(time.time())
    assert long.through > before
    assert len(long.trial.service.records()) == records, "a record that nobody asked for"


def kill_operator(cluster: Cluster, node: Node, anew: bool) -> None:
    """SIGKILL; `anew`: its pod goes as well, else the kubelet would wait longer and longer to start it again."""
    pods = {pod["metadata"]["uid"]: restarts(pod) for pod in operator_pods(cluster)}
    if anew:
        for pod in operator_pods(cluster):
            words = ("delete", "pod", pod["metadata"]["name"], "--grace-period=0", "--force")
            cluster.kubectl(*words, namespace=OPERATOR_NAMESPACE)
    else:
        assert node.signal("SIGKILL", "python", "-m", "fiduciary") >= 1, "no process of the operator was found"

    def back(found: list[Object]) -> bool:
        return any(
            is_ready(pod) and (pod["metadata"]["uid"] not in pods or restarts(pod) > pods[pod["metadata"]["uid"]])
            for pod in found
        )

    cluster.until_all("pod", OPERATOR_NAMESPACE, back, 90, "the operator is back", selector=OPERATOR_PODS)


def test_a_person_signs_what_was_shown_all_the_while(long: Long) -> None:
    trial, service = long.trial, long.trial.service
    asked = trial.until(long.challenger, lambda status: "approvalRequest" in status, "a person is asked")
    digest = asked["status"]["approvalRequest"]["digest"]
    name = trial.name(long.challenger)
    service.decide("Approve", ANA, "it was right through all of this", experiment=name, evidenceDigest=digest)
    trial.until_ended(long.challenger, "Promoted")
    service.until_serves(long.challenger)
    long.client.until_answered(100, long.challenger["version"])
    promoted = trial.verdict(long.challenger) if len(trial.records(long.challenger)) == 2 else service.records()[-1]
    assert promoted["action"] == "Promote"
    assert promoted["actor"]["user"] == ANA.name
    assert has(service.found, "Ready", "True"), condition(service.found, "Ready")
