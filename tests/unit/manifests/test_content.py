"""What an object carries of what was asked of it, and whether a live one still holds it."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from fiduciary.api import meta
from fiduciary.api.versions import VersionRef
from fiduciary.manifests.content import asked_annotation, content_of, sealed
from fiduciary.manifests.plans import Arm, RoutePlan, VersionPlan
from fiduciary.serving.gateway import GatewayBackend
from tests.unit.decide.worlds import PLATFORM, SERVED, merged, model

BACKEND = GatewayBackend()
VERSION = VersionRef(version="7", digest="sha256:8ab8c9b5" + "0" * 56)


def deployment(spec: dict[str, Any] | None = None) -> dict[str, Any]:
    assert PLATFORM.serving is not None
    given = model(merged(SERVED, spec or {}))
    return BACKEND.workload(VersionPlan(given, VERSION, 2, False, "http://mlflow:5000", PLATFORM.serving))


def companion(kind: str) -> dict[str, Any]:
    assert PLATFORM.serving is not None
    plan = VersionPlan(model(SERVED), VERSION, 2, False, "http://mlflow:5000", PLATFORM.serving)
    return next(body for body in BACKEND.companions(plan) if body["kind"] == kind)


def service() -> dict[str, Any]:
    return companion("Service")


def policy() -> dict[str, Any]:
    return companion("NetworkPolicy")


def budget() -> dict[str, Any]:
    return companion("PodDisruptionBudget")


def route() -> dict[str, Any]:
    return BACKEND.route(RoutePlan(model(SERVED), 3, (Arm(VERSION, 100),)))


def stored(body: dict[str, Any]) -> dict[str, Any]:
    """The object as an API server gives it back: with defaults, status, and what controllers add."""
    live = deepcopy(body)
    live["metadata"] |= {
        "uid": "u",
        "resourceVersion": "9",
        "generation": 1,
        "managedFields": [{"manager": "fiduciary"}],
    }
    live["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = "1"
    live["status"] = {"replicas": 2}
    match live["kind"]:
        case "Deployment":
            live["spec"]["replicas"] = 2
            pod = live["spec"]["template"]["spec"]
            pod |= {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst", "schedulerName": "default-scheduler"}
            for container in pod["containers"] + pod["initContainers"]:
                container |= {"imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/dev/termination-log"}
            pod["containers"][0]["readinessProbe"]["httpGet"]["scheme"] = "HTTP"
        case "Service":
            live["spec"] |= {"clusterIP": "10.96.0.9", "sessionAffinity": "None", "ipFamilies": ["IPv4"]}
        case "HTTPRoute":
            for ref in live["spec"]["parentRefs"]:
                ref |= {"group": "gateway.networking.k8s.io", "kind": "Gateway"}
            for rule in live["spec"]["rules"]:
                for ref in rule["backendRefs"]:
                    ref |= {"group": "", "kind": "Service"}
        case _:
            pass
    return live


@pytest.mark.parametrize("body", [deployment(), service(), route(), policy(), budget()], ids=lambda body: body["kind"])
def test_what_the_server_adds_is_no_edit(body: dict[str, Any]) -> None:
    content, edited = content_of(stored(body))
    assert (content, edited) == content_of(body)
    assert content
    assert not edited


def test_equal_plans_have_equal_content_and_others_not() -> None:
    assert content_of(deployment())[0] == content_of(deployment())[0]
    assert (
        content_of(deployment())[0] != content_of(deployment({"serving": {"resources": {"limits": {"cpu": "1"}}}}))[0]
    )
    assert content_of(deployment())[0] == content_of(deployment({"serving": {"replicas": 7}}))[0], "scaled apart"


EDITS: list[tuple[str, Any]] = [
    ("deployment", lambda live: live["spec"]["template"]["spec"]["containers"][0].update(image="mine:1")),
    ("deployment", lambda live: live["spec"]["template"]["spec"]["containers"][0]["env"].pop()),
    ("deployment", lambda live: live["metadata"]["labels"].pop(meta.LABEL_MODEL)),
    ("deployment", lambda live: live["metadata"].pop("ownerReferences")),
    ("deployment", lambda live: live["spec"]["template"]["spec"].update(automountServiceAccountToken=True)),
    ("service", lambda live: live["spec"]["selector"].update({"fiduciary.dev/artifact": "other"})),
    ("service", lambda live: live["spec"].update(ports=live["spec"]["ports"][:1])),
    ("route", lambda live: live["spec"]["rules"][0]["backendRefs"][0].update(weight=1)),
    ("route", lambda live: live["spec"]["rules"][0]["backendRefs"].append({"name": "mine", "port": 80, "weight": 50})),
    ("route", lambda live: live["spec"].update(parentRefs=[])),
    ("route", lambda live: live["spec"].update(hostnames=["mine.example.com"])),
    ("route", lambda live: live["spec"]["rules"][0].update(filters=[{"type": "RequestRedirect"}])),
    ("route", lambda live: live["spec"]["rules"][0]["backendRefs"][0].update(namespace="mine")),
    ("route", lambda live: live["spec"]["rules"][0]["matches"][0].update(headers=[{"name": "x", "value": "y"}])),
    ("service", lambda live: live["spec"]["selector"].update(mine="yes")),
    ("policy", lambda live: live["spec"]["podSelector"]["matchLabels"].update(mine="yes")),
    ("policy", lambda live: live["spec"]["ingress"][0].pop("from")),
    ("policy", lambda live: live["spec"]["egress"].append({})),
    ("budget", lambda live: live["spec"]["selector"]["matchLabels"].update(mine="yes")),
    ("route", lambda live: live["metadata"]["annotations"].update({meta.ANNOTATION_DECISION: "99"})),
    ("route", lambda live: live["metadata"]["annotations"].pop(meta.ANNOTATION_APPLIED)),
    ("route", lambda live: live["metadata"]["annotations"].update({meta.ANNOTATION_APPLIED: "{no json"})),
]


@pytest.mark.parametrize(("what", "edit"), EDITS)
def test_what_a_hand_changes_is_seen(what: str, edit: Any) -> None:
    makers = {"deployment": deployment, "service": service, "route": route, "policy": policy, "budget": budget}
    live = stored(makers[what]())
    assert not content_of(live)[1]
    edit(live)
    assert content_of(live)[1]


def test_what_others_add_beside_ours_is_theirs() -> None:
    live = stored(deployment())
    live["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "mesh:1"})
    live["metadata"]["labels"]["mesh"] = "on"
    assert not content_of(live)[1]


def test_quantities_are_compared_by_value() -> None:
    live = stored(deployment({"serving": {"resources": {"requests": {"cpu": "1000m", "memory": "1024Mi"}}}}))
    live["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"] = {"cpu": "1", "memory": "1Gi"}
    assert not content_of(live)[1]


def test_what_was_applied_is_remembered_whatever_a_hand_writes() -> None:
    live = stored(route())
    live["metadata"]["annotations"][meta.ANNOTATION_DECISION] = "999"
    assert asked_annotation(live, meta.ANNOTATION_DECISION) == "3"
    live["metadata"]["annotations"].pop(meta.ANNOTATION_APPLIED)
    assert asked_annotation(live, meta.ANNOTATION_DECISION) is None


def test_sealing_says_what_was_asked_for() -> None:
    body = sealed({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "labels": {"x": "y"}}})
    assert body["metadata"]["annotations"][meta.ANNOTATION_APPLIED] == '{"metadata":{"labels":{"x":"y"}}}'
    assert content_of({**body, "metadata": {**body["metadata"], "labels": None}})[1]
