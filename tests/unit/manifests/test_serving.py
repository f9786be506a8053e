"""What must hold for serving objects of any spec; the golden pairs show them in full."""

from __future__ import annotations

import json
from typing import Any

import pytest

from fiduciary.api.quantities import timedelta_of
from fiduciary.api.versions import VersionRef
from fiduciary.manifests import versionnames
from fiduciary.manifests.httproute import MOST_BUCKETS, duration, http_route
from fiduciary.manifests.plans import Arm, RoutePlan, Sticky, VersionPlan
from fiduciary.serving.gateway import GatewayBackend
from tests.unit.decide.worlds import NAMESPACE, PLATFORM, SERVED, merged, model

BACKEND = GatewayBackend()
DIGEST = "sha256:8ab8c9b5" + "0" * 56
VERSION = VersionRef(version="7", digest=DIGEST, run_id="run-7", uri="mlflow-artifacts:/7")
OTHER = VersionRef(version="8", digest="sha256:11223344" + "0" * 56)


def plan(spec: dict[str, Any] | None = None, **parts: Any) -> VersionPlan:
    assert PLATFORM.serving is not None
    given = model(merged(SERVED, spec or {}), name=parts.pop("name", "spx-volatility"))
    fields = {"replicas": 2, "autoscaled": False, "tracking_uri": "http://mlflow:5000", "environment": PLATFORM.serving}
    return VersionPlan(model=given, version=VERSION, **{**fields, **parts})


def everything(asked: VersionPlan) -> list[dict[str, Any]]:
    return [*BACKEND.shared(asked), *BACKEND.companions(asked), BACKEND.workload(asked)]


def pod(asked: VersionPlan) -> dict[str, Any]:
    return BACKEND.workload(asked)["spec"]["template"]["spec"]


def test_restricted_pod_security() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/: every control of `restricted`."""
    spec = pod(plan())
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is spec["enableServiceLinks"] is False
    for container in spec["containers"] + spec["initContainers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
    assert {kind for volume in spec["volumes"] for kind in volume if kind != "name"} == {"emptyDir"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()


def test_no_request_is_lost_when_pods_go() -> None:
    spec = pod(plan())
    [server] = spec["containers"]
    pause = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = json.loads(server["env"][0]["value"])["drainSeconds"]
    assert pause > 0
    assert spec["terminationGracePeriodSeconds"] >= pause + drain + 15
    strategy = BACKEND.workload(plan())["spec"]["strategy"]["rollingUpdate"]
    assert strategy["maxUnavailable"] == 0
    assert server["readinessProbe"]["httpGet"] == {"path": "/v2/health/ready", "port": "http"}


def test_what_is_served_is_what_is_fetched() -> None:
    spec = pod(plan())
    [fetch], [server] = spec["initContainers"], spec["containers"]
    assert fetch["env"][0] == server["env"][0]
    document = json.loads(fetch["env"][0]["value"])
    assert document["digest"] == DIGEST
    assert document["source"] == {"runId": "run-7", "uri": "mlflow-artifacts:/7", "trackingUri": "http://mlflow:5000"}
    [mount] = [mount for mount in server["volumeMounts"] if mount["name"] == "version"]
    assert mount["readOnly"] is True
    assert fetch["image"] == server["image"]


def test_edges_of_objectives_are_edges_of_the_histogram() -> None:
    rules = [{"name": "slow", "metric": "LatencyAbove", "threshold": "123ms", "margin": {"absolute": "0.01"}}]
    breakers = [{"metric": "LatencyAbove", "threshold": "7s", "above": "0.5", "normal": "0.1"}]
    asked = plan({"promotion": {"experiment": {"guardrails": rules, "circuitBreakers": breakers}}})
    edges = json.loads(pod(asked)["containers"][0]["env"][0]["value"])["latencyEdges"]
    assert {0.123, 7.0} <= set(edges)
    assert edges == sorted(edges)
    plain = json.loads(pod(plan())["containers"][0]["env"][0]["value"])["latencyEdges"]
    assert set(plain) < set(edges)


def test_the_number_of_replicas_is_in_no_body() -> None:
    """An autoscaler may own it: an apply that names it would take it back."""
    assert "replicas" not in BACKEND.workload(plan({}, replicas=7))["spec"]
    autoscaled = {"serving": {"replicas": None, "autoscaling": {"max": 4}}}
    kinds = [body["kind"] for body in BACKEND.companions(plan(autoscaled, autoscaled=True))]
    assert "HorizontalPodAutoscaler" in kinds
    assert "HorizontalPodAutoscaler" not in [body["kind"] for body in BACKEND.companions(plan(autoscaled))]


def test_a_disruption_budget_from_two_replicas_on() -> None:
    def budgets(replicas: int) -> int:
        return sum(body["kind"] == "PodDisruptionBudget" for body in BACKEND.companions(plan({}, replicas=replicas)))

    assert [budgets(replicas) for replicas in (1, 2, 3)] == [0, 1, 1]


def test_pods_of_training_and_of_other_versions_are_never_selected() -> None:
    for body in everything(plan()):
        selector = body.get("spec", {}).get("selector") or body.get("spec", {}).get("podSelector")
        if selector is None:
            continue
        labels = selector.get("matchLabels", selector)
        assert labels["fiduciary.dev/component"] == "serving"
        assert labels["fiduciary.dev/artifact"] == "8ab8c9b50000"
        assert labels.items() <= BACKEND.workload(plan())["spec"]["template"]["metadata"]["labels"].items()


def test_the_policy_names_every_peer() -> None:
    [policy] = [body for body in BACKEND.companions(plan()) if body["kind"] == "NetworkPolicy"]
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert all(rule["from"] for rule in policy["spec"]["ingress"]), "an empty list would let everybody in"
    told = {
        peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]: [
            port["port"] for port in rule["ports"]
        ]
        for rule in policy["spec"]["ingress"]
        for peer in rule["from"]
    }
    assert told == {"projectcontour": [8080, 8081], "fiduciary-system": [8080, 8081], "monitoring": [8082]}


@pytest.mark.parametrize("spec", [{}, {"serving": {"podTemplate": {"labels": {"fiduciary.dev/artifact": "mine"}}}}])
def test_a_user_cannot_overwrite_our_labels(spec: dict[str, Any]) -> None:
    labels = BACKEND.workload(plan(spec))["spec"]["template"]["metadata"]["labels"]
    assert labels["fiduciary.dev/artifact"] == "8ab8c9b50000"


def test_names_fit_and_belong_to_the_artifact() -> None:
    longest = "m" * 40
    for body in everything(plan(name=longest)):
        assert len(body["metadata"]["name"]) <= 63
        assert all(len(value) <= 63 for value in body["metadata"]["labels"].values())
    again = VersionPlan(**{**{name: getattr(plan(), name) for name in VersionPlan.__slots__}, "version": VERSION})
    assert everything(again) == everything(plan()), "equal plans make equal objects"


def test_one_path_and_one_name_for_all_versions_of_a_model() -> None:
    given = model(SERVED)
    assert versionnames.model_path(given) == f"/v2/models/{NAMESPACE}.spx-volatility"
    url = BACKEND.address(given, VERSION).url
    assert url == "http://spx-volatility-8ab8c9b50000.quant.svc:8080/v2/models/quant.spx-volatility"


def rules(**parts: Any) -> list[dict[str, Any]]:
    given = model(SERVED)
    assert given.spec.serving is not None
    assert given.spec.serving.gateway is not None
    asked = RoutePlan(given, 3, (Arm(VERSION, 95), Arm(OTHER, 5)), **parts)
    return http_route(asked, given.spec.serving.gateway)["spec"]["rules"]


def test_rest_and_grpc_are_routed_alike() -> None:
    rest, grpc = rules()
    assert [ref["weight"] for ref in rest["backendRefs"]] == [ref["weight"] for ref in grpc["backendRefs"]] == [95, 5]
    assert {ref["port"] for ref in rest["backendRefs"]} == {8080}
    assert {ref["port"] for ref in grpc["backendRefs"]} == {8081}


@pytest.mark.parametrize("buckets", [(), tuple(range(MOST_BUCKETS + 1))])
def test_only_the_smaller_arms_buckets_are_listed(buckets: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="buckets"):
        rules(sticky=Sticky(OTHER, buckets))
    most = rules(sticky=Sticky(OTHER, tuple(range(MOST_BUCKETS))))
    assert len(most) == 4
    assert all(len(rule["matches"]) <= 64 for rule in most), "the Gateway API takes no more"


@pytest.mark.parametrize(
    ("text", "written"),
    [("10s", "10s"), ("250ms", "250ms"), ("1d", "24h"), ("1d12h", "36h"), ("90s", "1m30s"), ("2h1ms", "2h1ms")],
)
def test_durations_as_the_gateway_api_writes_them(text: str, written: str) -> None:
    """GEP-2257: no days, and the same length."""
    assert duration(text) == written
    assert timedelta_of(duration(text)) == timedelta_of(text)
