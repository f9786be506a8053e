"""What is kept of Deployments, pods, routes and Gateways: real objects in, the one line that explains them out."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from fiduciary.engine import served
from fiduciary.engine.rollout import Rollout
from fiduciary.serving.observed import DeploymentView, RolloutView, RouteView

DIGEST = "sha256:" + "7" * 64
CREATED = "2026-11-26T15:00:00Z"


def body(kind: str, version: str = "v1", **parts: Any) -> dict[str, Any]:
    metadata = {
        "name": "spx-77777777",
        "namespace": "quant",
        "uid": "u",
        "resourceVersion": "5",
        "generation": 3,
        "creationTimestamp": CREATED,
        "labels": {"fiduciary.dev/model": "spx", "fiduciary.dev/version": "7", "fiduciary.dev/component": "serving"},
        "annotations": {"fiduciary.dev/digest": DIGEST},
        "ownerReferences": [
            {"kind": "Thing", "uid": "someone"},
            {"kind": "FinancialModel", "uid": "m-uid", "controller": True},
        ],
        **parts.pop("metadata", {}),
    }
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **parts}


def deployment(**status: Any) -> DeploymentView:
    pod = {"containers": [{"name": "log", "image": "log:1"}, {"name": "server", "image": "server:2"}]}
    spec = {"replicas": 2, "template": {"spec": pod}}
    return served.deployment(body("Deployment", "apps/v1", spec=spec, status=status))


def test_a_deployment_says_which_version_it_loads_and_how_far_it_is() -> None:
    view = deployment(observedGeneration=3, replicas=2, readyReplicas=2, updatedReplicas=2, availableReplicas=1)
    assert (view.version, view.digest, view.image, view.owner_uid) == ("7", DIGEST, "server:2", "m-uid")
    assert (view.replicas, view.ready, view.updated, view.available, view.total) == (2, 2, 2, 1, 2)
    assert view.rolled_out


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"observedGeneration": 2, "replicas": 2, "readyReplicas": 2, "updatedReplicas": 2},
        {"observedGeneration": 3, "replicas": 3, "readyReplicas": 2, "updatedReplicas": 2},
        {"observedGeneration": 3, "replicas": 2, "readyReplicas": 1, "updatedReplicas": 2},
    ],
    ids=["nothing-yet", "an-older-spec", "an-old-pod-is-left", "not-all-are-ready"],
)
def test_a_deployment_that_is_on_its_way_is_not_rolled_out(status: dict[str, Any]) -> None:
    assert not deployment(**status).rolled_out


def test_a_quota_that_forbids_the_pods_is_told() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota"}
    assert deployment(conditions=[condition]).failure == "exceeded quota"


def container(name: str, state: dict[str, Any], last: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "lastState": last or {}, "restartCount": 0, **more}


WAITS = {"waiting": {"reason": "PodInitializing"}}
FETCHED = container("fetch", {"terminated": {"exitCode": 0, "reason": "Completed"}})
REJECTED = '{"reason": "DigestMismatch", "message": "expected sha256:77"}'


@pytest.mark.parametrize(
    ("status", "container_name", "reason", "more"),
    [
        (
            {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "cpu"}]},
            "",
            "Unschedulable",
            {"message": "cpu"},
        ),
        ({"reason": "Evicted", "message": "low on memory", "phase": "Failed"}, "", "Evicted", {"phase": "Failed"}),
        (
            {
                "initContainerStatuses": [container("fetch", {"waiting": {"reason": "ImagePullBackOff"}})],
                "containerStatuses": [container("server", WAITS)],
            },
            "fetch",
            "ImagePullBackOff",
            {},
        ),
        (
            {
                "initContainerStatuses": [
                    container("fetch", {"terminated": {"exitCode": 3, "reason": "Error", "message": REJECTED}})
                ],
                "containerStatuses": [container("server", WAITS)],
            },
            "fetch",
            "Error",
            {"exit_code": 3, "termination_message": REJECTED, "message": ""},
        ),
        (
            {
                "initContainerStatuses": [
                    container(
                        "fetch",
                        {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
                        {"terminated": {"exitCode": 3, "reason": "Error", "message": REJECTED}},
                    )
                ],
                "containerStatuses": [container("server", WAITS)],
            },
            "fetch",
            "CrashLoopBackOff",
            {"exit_code": 3, "termination_message": REJECTED, "last_reason": "Error"},
        ),
        (
            {
                "initContainerStatuses": [FETCHED],
                "containerStatuses": [
                    container(
                        "server",
                        {"waiting": {"reason": "CrashLoopBackOff"}},
                        {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "someone's data"}},
                        restartCount=4,
                    )
                ],
            },
            "server",
            "CrashLoopBackOff",
            {"last_reason": "OOMKilled", "exit_code": 137, "restarts": 4, "message": ""},
        ),
        (
            {
                "initContainerStatuses": [FETCHED],
                "containerStatuses": [container("server", {"running": {}}, imageID="reg/server@sha256:ab")],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
            "server",
            "",
            {"ready": True, "image_id": "reg/server@sha256:ab"},
        ),
    ],
    ids=["unschedulable", "evicted", "image", "digest", "digest-again", "memory", "runs"],
)
def test_a_pod_says_what_explains_it(
    status: dict[str, Any], container_name: str, reason: str, more: dict[str, Any]
) -> None:
    view = served.pod(body("Pod", status={"phase": "Pending", **status}))
    assert (view.container, view.reason) == (container_name, reason)
    assert {name: getattr(view, name) for name in more} == more


def test_a_pod_tells_what_its_server_did_from_what_the_cluster_did() -> None:
    runs = container("server", {"running": {}}, started=True, ready=False)
    crashes = container("server", {"waiting": {"reason": "CrashLoopBackOff"}}, {"terminated": {"exitCode": 1}})
    lost = container("server", {"running": {}}, {"terminated": {"exitCode": 255, "reason": "Unknown"}}, started=True)
    cases: list[tuple[dict[str, Any], dict[str, Any], tuple[int, bool, bool, bool]]] = [
        (runs, {}, (0, True, False, False)),
        (container("server", {"running": {}}, started=False, ready=False), {}, (0, False, False, False)),
        (container("server", {"running": {}}, started=True, ready=True), {}, (0, False, False, False)),
        (container("server", {"terminated": {"exitCode": 1}}), {}, (1, False, False, False)),
        (crashes, {}, (1, False, False, False)),
        ({**lost, "ready": True}, {}, (0, False, True, False)),
        (runs, {"deletionTimestamp": "2026-11-27T12:00:00Z"}, (0, True, False, True)),
    ]
    for one, metadata, expected in cases:
        found = body("Pod", status={"phase": "Running", "containerStatuses": [one]})
        found["metadata"].update(metadata)
        view = served.pod(found)
        assert (view.failed, view.unready, view.lost, view.taken) == expected, one
    assert served.pod(body("Pod", status={"phase": "Failed", "reason": "Terminated"})).taken


def test_since_when_a_pod_is_not_ready() -> None:
    then = {"type": "Ready", "lastTransitionTime": "2026-11-27T19:56:23Z"}
    lost = served.pod(body("Pod", status={"phase": "Running", "conditions": [{**then, "status": "False"}]}))
    assert lost.unready_since == datetime(2026, 11, 27, 19, 56, 23, tzinfo=UTC)
    assert served.pod(body("Pod", status={"conditions": [{**then, "status": "True"}]})).unready_since is None
    assert served.pod(body("Pod", status={})).unready_since is None


def test_a_pod_belongs_to_the_deployment_of_its_replica_set() -> None:
    owner = {"kind": "ReplicaSet", "name": "spx-77777777-6f9d8", "uid": "r", "controller": True}
    assert served.deployment_of_pod(body("Pod", metadata={"ownerReferences": [owner]})) == "spx-77777777"
    assert served.deployment_of_pod(body("Pod")) == ""


def route(**status: Any) -> dict[str, Any]:
    backends = [{"name": "spx-77777777", "port": 8080, "weight": 90}, {"name": "spx-88888888", "port": 8080}]
    found = body(
        "HTTPRoute", "gateway.networking.k8s.io/v1", spec={"rules": [{"backendRefs": backends}]}, status=status
    )
    found["metadata"]["annotations"] = {"fiduciary.dev/decision": "12"}
    return found


def see(found: dict[str, Any], before: RouteView | None = None, at: int = 0) -> RouteView:
    return served.route(found, before, datetime(2026, 11, 26, 15, 0, at, tzinfo=UTC))


def confirmed(said: int, **change: Any) -> dict[str, Any]:
    states = [{"type": kind, "status": "True", "observedGeneration": said} for kind in ("Accepted", "ResolvedRefs")]
    found = route(parents=[{"parentRef": {"name": "edge"}, "controllerName": "c", "conditions": states}])
    found["spec"]["parentRefs"] = [{"name": "edge", "namespace": "quant"}]
    found["metadata"] |= change
    return found


def test_it_is_kept_since_when_a_generation_is_confirmed_by_every_parent() -> None:
    first = see(confirmed(3), None, 1)
    assert first.confirmed_at == datetime(2026, 11, 26, 15, 0, 1, tzinfo=UTC)
    assert see(confirmed(3, resourceVersion="6"), first, 5).confirmed_at == first.confirmed_at
    late = see(confirmed(3, generation=4), first, 5)
    assert late.confirmed_at is None, "the controller speaks of the generation before"
    again = see(confirmed(4, generation=4), late, 7)
    assert again.confirmed_at == datetime(2026, 11, 26, 15, 0, 7, tzinfo=UTC)
    assert see(confirmed(4, generation=4, uid="other"), again, 9).confirmed_at != again.confirmed_at
    two = confirmed(3)
    two["spec"]["parentRefs"].append({"name": "other"})
    assert see(two).confirmed_at is None, "one of two Gateways has said nothing"
    assert see(route()).confirmed_at is None


def test_it_is_kept_since_when_a_generation_is_known_whoever_wrote_it() -> None:
    first = see(confirmed(3), None, 1)
    assert first.seen_at == datetime(2026, 11, 26, 15, 0, 1, tzinfo=UTC)
    assert see(confirmed(3, resourceVersion="6"), first, 5).seen_at == first.seen_at, "a status is no news"
    edited = see(confirmed(3, generation=4), first, 7)
    assert edited.seen_at == datetime(2026, 11, 26, 15, 0, 7, tzinfo=UTC)
    assert see(confirmed(4, generation=4, uid="other"), edited, 9).seen_at != edited.seen_at


def test_a_restart_makes_no_generation_new() -> None:
    fields = [
        {"manager": "fiduciary", "operation": "Apply", "time": "2026-11-26T14:30:00Z"},
        {"manager": "kubectl", "operation": "Update", "time": "2026-11-26T14:40:00Z"},
        {"manager": "envoy", "operation": "Update", "subresource": "status", "time": "2026-11-26T14:59:00Z"},
    ]
    assert see(confirmed(3, managedFields=fields)).seen_at == datetime(2026, 11, 26, 14, 40, tzinfo=UTC)
    fields[1]["time"] = "2026-11-26T15:59:00Z"  # the API server's clock may be ahead
    assert see(confirmed(3, managedFields=fields), None, 1).seen_at == datetime(2026, 11, 26, 15, 0, 1, tzinfo=UTC)


def test_when_we_wrote_it_last_is_read_from_our_own_entries() -> None:
    fields = [
        {"manager": "fiduciary", "operation": "Update", "time": "2026-11-26T14:00:00Z"},
        {"manager": "fiduciary", "operation": "Apply", "time": "2026-11-26T14:30:00Z"},
        {"manager": "kubectl", "operation": "Update", "time": "2026-11-26T14:59:00Z"},
    ]
    assert see(confirmed(3, managedFields=fields)).written_at == datetime(2026, 11, 26, 14, 30, tzinfo=UTC)
    assert see(confirmed(3)).written_at is None


def test_a_route_says_which_record_it_carries_out_and_who_answers() -> None:
    view = see(route())
    assert (view.decision, view.generation) == (12, 3)
    assert view.backends == (("spx-77777777", 90), ("spx-88888888", 1))
    assert view.parents == ()
    assert see(body("HTTPRoute", spec={})).decision == 0


def test_what_a_controller_says_of_a_route_is_kept_by_parent_with_the_first_complaint() -> None:
    conditions = [
        {"type": "Accepted", "status": "True", "observedGeneration": 3},
        {
            "type": "ResolvedRefs",
            "status": "False",
            "observedGeneration": 2,
            "reason": "BackendNotFound",
            "message": "x",
        },
    ]
    refs: list[dict[str, Any]] = [{"name": "contour", "namespace": "gw", "sectionName": "http"}, {"name": "own"}]
    parents = [{"parentRef": ref, "controllerName": "c.io/c", "conditions": conditions} for ref in refs]
    parents.append({"parentRef": {"name": "silent"}, "controllerName": "c.io/d"})
    first, second, third = see(route(parents=parents)).parents
    assert (first.namespace, first.name, first.section, first.controller) == ("gw", "contour", "http", "c.io/c")
    assert (first.accepted, first.resolved, first.observed_generation) == (True, False, 2)
    assert (first.reason, first.message) == ("BackendNotFound", "x")
    assert second.namespace == "quant", "the route's own"
    assert (third.accepted, third.resolved, third.observed_generation) == (False, False, 0)


def gateway(**status: Any) -> dict[str, Any]:
    listeners = [
        {"name": "tls", "protocol": "HTTPS", "port": 8443, "hostname": "*.example.com"},
        {"name": "http", "protocol": "HTTP", "port": 8080},
    ]
    found = body("Gateway", spec={"listeners": listeners}, status=status)
    found["metadata"]["name"] = "contour"
    return found


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("10.0.0.1", "http://10.0.0.1:8080"),
        ("fd00::1", "http://[fd00::1]:8080"),
        ("lb.example", "http://lb.example:8080"),
    ],
)
def test_the_address_of_a_gateway(address: str, url: str) -> None:
    view = served.gateway(gateway(addresses=[{"value": address}]), {})
    assert view.url == url
    assert view.hostnames == {"tls": "*.example.com"}


def test_the_settings_know_the_address_better() -> None:
    addressed = gateway(addresses=[{"value": "203.0.113.9"}])
    assert served.gateway(addressed, {"quant/contour": "http://envoy.gw.svc"}).url == "http://envoy.gw.svc"
    assert served.gateway(addressed, {"other/contour": "http://envoy.gw.svc"}).url == "http://203.0.113.9:8080"


def test_a_gateway_without_address_or_controller() -> None:
    view = served.gateway(gateway(), {})
    assert (view.url, view.programmed) == (None, False)
    assert view.message == "its controller has not said anything of it yet"
    condition = {"type": "Programmed", "status": "False", "message": "no address pool"}
    assert served.gateway(gateway(conditions=[condition]), {}).message == "no address pool"
    assert served.gateway(gateway(conditions=[condition | {"status": "True"}]), {}).programmed


def test_usual_ports_are_left_out_and_https_is_taken_where_there_is_nothing_else() -> None:
    found = gateway(addresses=[{"value": "10.0.0.1"}])
    found["spec"]["listeners"] = [{"name": "tls", "protocol": "HTTPS", "port": 443}]
    assert served.gateway(found, {}).url == "https://10.0.0.1"
    found["spec"]["listeners"] = [{"name": "tcp", "protocol": "TCP", "port": 9000}]
    assert served.gateway(found, {}).url is None


def test_a_rollout_is_counted_as_deployments_come_change_and_go() -> None:
    rollout = Rollout()
    done = deployment(observedGeneration=3, replicas=2, readyReplicas=2, updatedReplicas=2)
    going = deployment()
    rollout.count(None, going)
    rollout.count(None, going)
    assert rollout.view("server:2") == RolloutView(rolling=2, outdated=0)
    assert rollout.view("server:3") == RolloutView(rolling=0, outdated=2)
    rollout.count(going, done)
    assert rollout.view("server:2") == RolloutView(rolling=1, outdated=0)
    rollout.count(going, None)
    rollout.count(done, None)
    assert rollout.view("server:3") == RolloutView()


def test_a_deployment_that_is_stuck_holds_up_no_wave() -> None:
    rollout = Rollout()
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    rollout.count(None, deployment(conditions=[late]))
    assert rollout.view("server:2") == RolloutView(rolling=0, outdated=0)
