"""What goes wrong around a served model: what is told, and that clients keep what can be kept."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fiduciary.decide import reasons
from fiduciary.serving.observed import RolloutView
from tests.unit.decide.lives import (
    LINEAR,
    NO_SKILL,
    answers,
    approve,
    calm,
    challenged,
    champion,
    digest_of,
    pin,
    served,
    service_name,
    trained,
)
from tests.unit.decide.simulated_serving import GATEWAY, OTHER_DIGEST
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import PLATFORM, SERVED, T0, merged, result

# --- pods ------------------------------------------------------------------------------------------------------------

FETCH = {"container": "fetch", "reason": "Error", "restarts": 3}


def said(reason: str, message: str) -> str:
    return json.dumps({"reason": reason, "message": message})


PODS: list[tuple[dict[str, Any], str, bool, str]] = [
    ({**FETCH, "termination_message": said("DigestMismatch", "found sha256:1")}, "DigestMismatch", True, "sha256:1"),
    ({**FETCH, "termination_message": said("ArtifactNotFound", "run is gone")}, "ArtifactNotFound", True, "gone"),
    (
        {**FETCH, "termination_message": said("ArtifactStoreUnreachable", "http://mlflow: refused")},
        "ArtifactStoreUnreachable",
        False,
        "http://mlflow",
    ),
    ({**FETCH, "termination_message": said("RegistryUnauthorized", "401")}, "RegistryUnauthorized", True, "401"),
    (
        {"container": "server", "reason": "Error", "termination_message": said("BadVersion", "no input")},
        "BadVersion",
        True,
        "no input",
    ),
    ({"reason": "ImagePullBackOff", "message": "not found"}, "ImageNotPulled", False, "not found"),
    ({"reason": "Unschedulable", "message": "0/3 nodes"}, "Unschedulable", False, "0/3 nodes"),
    ({"reason": "CreateContainerConfigError", "message": "secret"}, "PodRefused", True, "secret"),
    (
        {"container": "server", "reason": "CrashLoopBackOff", "last_reason": "OOMKilled", "restarts": 4},
        "OutOfMemory",
        True,
        "resources.limits.memory",
    ),
    (
        {"container": "server", "reason": "CrashLoopBackOff", "last_reason": "Error", "exit_code": 70, "restarts": 2,
         "termination_message": "ImportError: onnx"},
        "Crashing",
        True,
        "exit code 70",
    ),
    ({"phase": "Running", "container": "server"}, "NeverReady", True, "kubectl logs"),
    ({"phase": "Pending", "reason": "ContainerCreating"}, "Starting", False, "0 of 1"),
]  # fmt: skip


@pytest.mark.parametrize(("pod", "reason", "stalled", "words"), PODS, ids=[case[1] for case in PODS])
def test_why_a_first_version_is_not_served(pod: dict[str, Any], reason: str, stalled: bool, words: str) -> None:
    sim = SimulatedWorld(SERVED)
    sim.settle()
    document = result(sim.jobs[-1].key)
    sim.serving.broken[str(document["digest"])] = pod
    sim.finish(document)
    calm(sim, 150)
    assert sim.actions == ["Accept"], "a version that does not run gets no traffic"
    for kind in ("Ready", "Served"):
        assert sim.condition(kind)[:2] == ("False", reason)
        assert words in sim.condition(kind)[2]
        assert "version 1" in sim.condition(kind)[2]
    assert sim.condition("Stalled")[0] == ("True" if stalled else "False")
    assert sim.condition("Reconciling")[0] == ("False" if stalled else "True")
    sim.serving.broken.clear()
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.condition("Stalled")[0] == "False"


@pytest.mark.parametrize(("pod", "reason", "stalled", "words"), PODS, ids=[case[1] for case in PODS])
def test_a_pinned_version_that_does_not_run_leaves_the_champion_alone(
    pod: dict[str, Any], reason: str, stalled: bool, words: str
) -> None:
    sim = challenged()
    sim.serving.broken[digest_of(sim, "2")] = pod
    pin(sim, "2")
    calm(sim, 150)
    assert answers(sim) == "1"
    assert sim.condition("Ready")[0] == "True"
    assert sim.condition("PromotionPending")[:2] == ("True", reason)
    assert words.replace("of 1", "of 2") in sim.condition("PromotionPending")[2]
    assert (sim.condition("Stalled")[0] == "True") == stalled


def test_a_quota_that_refuses_pods_is_quoted() -> None:
    sim = SimulatedWorld(SERVED)
    sim.serving.node_works = False
    trained(sim)
    calm(sim, 5)
    [view] = sim.world.deployments
    seen = replace(view, failure='pods "x" is forbidden: exceeded quota: desk', pods=())
    sim.serving.observed = lambda world: replace(world, deployments=(seen,))  # pyright: ignore[reportAttributeAccessIssue]
    sim.step()
    assert sim.condition("Ready")[:2] == ("False", reasons.POD_REFUSED)
    assert "exceeded quota: desk" in sim.condition("Ready")[2]


def test_a_champion_whose_pods_die_says_so() -> None:
    sim = served()
    sim.serving.broken[digest_of(sim, "1")] = {"reason": "Unschedulable", "message": "node is gone"}
    calm(sim, 10)
    assert sim.condition("Ready")[:2] == ("False", reasons.UNSCHEDULABLE)
    assert sim.status.phase == "Degraded"
    assert sim.events[-1].reason == reasons.NOT_SERVING_ANY_MORE
    sim.serving.broken.clear()
    calm(sim, 10)
    assert sim.condition("Ready")[0] == "True"
    assert sim.status.phase == "Serving"


@pytest.mark.parametrize(
    ("pod", "reason", "stalled"),
    [
        ({"reason": "ImagePullBackOff", "message": "127.0.0.1:1: refused"}, reasons.IMAGE_NOT_PULLED, False),
        (
            {"container": "server", "reason": "CrashLoopBackOff", "last_reason": "OOMKilled"},
            reasons.OUT_OF_MEMORY,
            True,
        ),
        ({"reason": "ContainerCreating"}, reasons.STARTING, False),
    ],
)
def test_a_roll_out_that_is_stuck_is_told_while_the_old_pods_serve(
    pod: dict[str, Any], reason: str, stalled: bool
) -> None:
    sim = served()
    ready = next(found for found in sim.status.conditions if found.type == "Ready")
    stored = sim.serving.deployment(digest_of(sim, "1"))
    assert stored is not None
    stored.new = (pod,)
    calm(sim, 20)
    assert sim.condition("Reconciling" if not stalled else "Stalled")[:2] == ("True", reason)
    assert "2 pods go on serving" in sim.condition("Reconciling" if not stalled else "Stalled")[2]
    assert next(found for found in sim.status.conditions if found.type == "Ready") == ready
    assert sim.status.phase == "Serving"
    stored.overdue = True
    calm(sim, 5)
    assert sim.condition("Stalled")[:2] == ("True", reason)
    stored.new, stored.overdue = (), False
    calm(sim, 5)
    assert sim.condition("Stalled")[0] == sim.condition("Reconciling")[0] == "False"


def test_a_service_that_leads_to_another_artifact_gets_no_traffic() -> None:
    sim = challenged()
    sim.serving.loads[digest_of(sim, "2")] = OTHER_DIGEST
    approve(sim, "ok")
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.condition("PromotionPending")[1] == reasons.WRONG_VERSION_ANSWERS


def test_a_worse_challenger_never_gets_pods() -> None:
    sim = served()
    sim.edit(LINEAR)
    trained(sim, NO_SKILL)
    calm(sim, 20)
    assert len(sim.serving.names("Deployment")) == 1


# --- gateways --------------------------------------------------------------------------------------------------------


def test_a_cluster_without_the_gateway_api_is_told_how_to_get_it() -> None:
    sim = SimulatedWorld(SERVED)
    sim.serving.missing_kinds = frozenset({"HTTPRoute", "Gateway"})
    sim.serving.gateways = ()
    trained(sim)
    calm(sim, 30)
    assert sim.condition("Stalled")[:2] == ("True", reasons.GATEWAY_API_MISSING)
    assert "standard-install.yaml" in sim.condition("Stalled")[2]
    assert sim.serving.route is None
    assert sim.serving.names("Deployment"), "what can be done is done"
    sim.serving.missing_kinds = frozenset()
    calm(sim, 10)
    assert sim.condition("Ready")[:2] == ("False", reasons.GATEWAY_MISSING)
    assert "projectcontour/contour" in sim.condition("Ready")[2]
    sim.serving.gateways = (GATEWAY,)
    calm(sim, 10)
    assert sim.condition("Ready")[0] == "True"
    assert sim.condition("Stalled")[0] == "False"


@pytest.mark.parametrize(
    ("gateway", "reason"),
    [
        (replace(GATEWAY, programmed=False, message="no address pool"), reasons.GATEWAY_NOT_PROGRAMMED),
        (replace(GATEWAY, url=None), reasons.GATEWAY_WITHOUT_ADDRESS),
    ],
)
def test_a_gateway_that_does_not_work_yet(gateway: Any, reason: str) -> None:
    sim = SimulatedWorld(SERVED)
    sim.serving.gateways = (gateway,)
    trained(sim)
    calm(sim, 30)
    assert sim.condition("Ready")[:2] == ("False", reason)
    assert (reason != reasons.GATEWAY_NOT_PROGRAMMED) or "no address pool" in sim.condition("Ready")[2]
    sim.serving.gateways = (GATEWAY,)
    calm(sim, 10)
    assert sim.condition("Ready")[0] == "True"


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ({"accepted": False, "reason": "NotAllowedByListeners", "message": "no listener"}, reasons.ROUTE_NOT_ACCEPTED),
        ({"resolved": False, "reason": "BackendNotFound", "message": "no Service"}, reasons.ROUTE_NOT_RESOLVED),
    ],
)
def test_a_route_that_a_gateway_refuses_is_quoted(status: dict[str, Any], reason: str) -> None:
    sim = SimulatedWorld(SERVED)
    sim.serving.route_status = status
    trained(sim)
    calm(sim, 30)
    assert sim.condition("Ready")[:2] == ("False", reason)
    assert str(status["message"]) in sim.condition("Ready")[2]
    sim.serving.route_status = {}
    calm(sim, 30)
    assert sim.condition("Ready")[0] == "True"


def test_every_parent_has_to_take_the_route_over() -> None:
    both = [{"name": "contour", "namespace": "projectcontour"}, {"name": "inside", "namespace": "infra"}]
    sim = SimulatedWorld(merged(SERVED, {"serving": {"gateway": {"parentRefs": both}}}))
    trained(sim)
    calm(sim, 20)
    assert sim.condition("Ready")[:2] == ("False", reasons.GATEWAY_MISSING)
    assert "infra/inside" in sim.condition("Ready")[2]
    sim.serving.gateways = (GATEWAY, replace(GATEWAY, namespace="infra", name="inside", url="http://10.0.0.2"))
    calm(sim, 20)
    assert sim.condition("Ready")[0] == "True"
    assert {target.url for target in sim.serving.asked if target.protocol == "grpc"} == {
        "http://10.0.0.1",
        "http://10.0.0.2",
    }


def test_host_names_are_the_platforms_to_allow() -> None:
    sim = served()
    sim.world = replace(sim.world, platform=replace(PLATFORM, hostnames={"quant": ("*.models.example.com",)}))
    sim.edit({"serving": {"gateway": {"hostnames": ["bank.example.com"]}}})
    calm(sim, 20)
    assert sim.condition("Stalled")[:2] == ("True", reasons.HOSTNAME_NOT_ALLOWED)
    assert answers(sim) == "1", "the route stays as it was"
    assert sim.serving.route is not None
    assert sim.serving.route.body["spec"]["hostnames"] == []
    sim.edit({"serving": {"gateway": {"hostnames": ["vol.models.example.com"]}}})
    calm(sim, 20)
    assert sim.condition("Ready")[0] == "True"
    assert sim.status.endpoint is not None
    assert sim.status.endpoint.headers == {"Host": "vol.models.example.com"}
    assert {target.host for target in sim.serving.asked if target.via == "Route"} == {"vol.models.example.com"}


def test_a_hijacked_route_is_told_and_lifted() -> None:
    sim = served()
    sim.serving.hijacked_by = "somebody"
    sim.advance(seconds=30)
    sim.settle()
    assert sim.condition("Ready")[0] == "False"
    assert sim.condition("RouteHijacked")[0] == "", "gateways are slow; a moment proves nothing"
    calm(sim, 30)
    assert sim.condition("RouteHijacked")[:2] == ("True", reasons.ROUTE_HIJACKED)
    assert sim.condition("Stalled")[:2] == ("True", reasons.ROUTE_HIJACKED)
    assert sim.events[-1].type == "Warning"
    assert reasons.ROUTE_HIJACKED in [event.reason for event in sim.events]
    sim.serving.hijacked_by = None
    calm(sim, 10)
    assert sim.condition("RouteHijacked")[0] == ""
    assert sim.condition("Ready")[0] == "True"


def test_a_route_to_another_version_of_the_model_is_a_hijack_too() -> None:
    sim = challenged()
    sim.serving.hijacked_by = service_name(sim, digest_of(sim, "2"))
    sim.advance(seconds=5)
    sim.settle()
    assert sim.condition("Ready")[:2] == ("False", reasons.WRONG_VERSION_ANSWERS)
    assert sim.condition("RouteHijacked")[0] == ""
    calm(sim, 30)
    assert sim.condition("RouteHijacked")[0] == sim.condition("Stalled")[0] == "True"
    assert "version 2180 answers" in sim.condition("RouteHijacked")[2], "the simulated probe shows digits of the digest"
    assert sim.status.phase == "Degraded"
    sim.serving.hijacked_by = None
    calm(sim, 10)
    assert sim.condition("Ready")[0] == "True"


def test_the_right_version_that_fails_is_no_hijack() -> None:
    sim = served()
    for _ in range(5):
        sim.advance(seconds=20)
        sim.serving.turn(sim.now)
        sim.serving.prober_works = False
        sim.serving.results = {
            target: replace(
                found, ok=False, status=500, message="status 500", at=sim.now, since=sim.now - timedelta(90)
            )
            for target, found in sim.serving.results.items()
        }
        sim.step()
    assert sim.condition("Ready")[:2] == ("False", reasons.PROBE_FAILED)
    assert sim.condition("RouteHijacked")[0] == ""


def test_a_prober_that_is_away_is_no_success() -> None:
    sim = served()
    sim.serving.prober_works = False
    sim.serving.results.clear()
    sim.step()
    assert sim.condition("Ready")[:2] == ("False", reasons.PROBE_PENDING)


# --- hands -----------------------------------------------------------------------------------------------------------


def test_a_route_that_is_edited_by_hand_is_set_back() -> None:
    sim = challenged()
    assert sim.serving.route is not None
    rules = json.loads(json.dumps(sim.serving.route.body["spec"]))
    for rule in rules["rules"]:
        for ref in rule["backendRefs"]:
            ref["weight"] = 100 - ref["weight"]
    sim.serving.edit("HTTPRoute", "spx-volatility", {"spec": rules})
    assert answers(sim) == "2"
    sim.serving.controller_works = False
    sim.settle()
    assert sim.condition("Ready")[1] != reasons.GATEWAY_CONTROLLER_SILENT, "the edit is news to it"
    sim.serving.controller_works = True
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.condition("Ready")[0] == "True"
    told = [event for event in sim.events if event.reason == reasons.ROUTE_RESTORED]
    assert len(told) == 1
    assert sim.actions[-1] == "Accept", "no record: nobody decided anything"


@pytest.mark.parametrize("kind", ["Service", "Deployment", "NetworkPolicy", "HTTPRoute", "PodDisruptionBudget"])
def test_what_is_deleted_by_hand_is_made_again(kind: str) -> None:
    sim = served()
    name = "spx-volatility" if kind == "HTTPRoute" else service_name(sim, digest_of(sim, "1"))
    sim.serving.delete(kind, name)
    calm(sim, 20)
    assert name in sim.serving.names(kind)
    assert answers(sim) == "1"
    assert sim.condition("Ready")[0] == "True"
    told = [event.message for event in sim.events if event.reason == reasons.SERVING_OBJECT_RESTORED]
    assert len(told) == 1
    assert sim.actions == ["Accept", "Shift"]


def test_a_service_that_is_edited_by_hand_is_set_back() -> None:
    sim = served()
    name = service_name(sim, digest_of(sim, "1"))
    spec = {**sim.serving.objects["Service", name].body["spec"], "selector": {"app": "mine"}}
    sim.serving.edit("Service", name, {"spec": spec})
    calm(sim, 10)
    assert sim.serving.objects["Service", name].body["spec"]["selector"] != {"app": "mine"}
    assert reasons.SERVING_OBJECT_RESTORED in [event.reason for event in sim.events]


def test_a_deployment_that_is_scaled_by_hand_is_scaled_back() -> None:
    sim = served()
    stored = sim.serving.deployment(digest_of(sim, "1"))
    assert stored is not None
    for replicas in (0, 7):
        stored.replicas = replicas
        calm(sim, 70)
        assert stored.replicas == 2


# --- the log ---------------------------------------------------------------------------------------------------------


def test_on_a_broken_log_the_route_stays_and_what_serves_is_kept() -> None:
    sim = challenged()
    approve(sim, "ok")
    calm(sim)
    records = sim.world.records
    sim.world = replace(sim.world, records=(*records[:1], *records[2:]))
    pin(sim, "1")
    sim.serving.delete("Service", service_name(sim, digest_of(sim, "2")))
    calm(sim)
    assert sim.condition("Stalled")[:2] == ("True", reasons.LOG_BROKEN)
    assert answers(sim) == "2"
    assert len(sim.serving.names("Deployment")) == 2, "nothing is taken away"
    assert len(sim.world.records) == len(records) - 1


def test_a_log_that_ends_before_its_route_moves_nothing() -> None:
    sim = challenged()
    approve(sim, "ok")
    calm(sim)
    records = sim.world.records
    sim.world = replace(sim.world, records=records[:-1])
    calm(sim)
    assert answers(sim) == "2"
    assert sim.condition("Stalled")[:2] == ("True", reasons.LOG_BROKEN)
    assert f"record {len(records)}" in sim.condition("Stalled")[2]
    sim.world = replace(sim.world, records=records)
    calm(sim)
    assert sim.condition("Stalled")[0] == "False"
    assert sim.condition("Ready")[0] == "True"


def test_lost_status_is_rebuilt_and_traffic_does_not_notice() -> None:
    sim = challenged()
    approve(sim, "ok")
    calm(sim)
    before, writes = sim.status, len(sim.serving.writes)
    sim.lose_status()
    calm(sim, 10)
    assert sim.status.champion == before.champion
    assert sim.status.endpoint == before.endpoint
    assert sim.serving.writes[writes:] == []
    assert sim.condition("Ready")[0] == "True"


# --- waves of a new runtime ------------------------------------------------------------------------------------------


def newer(sim: SimulatedWorld, rolling: int) -> None:
    assert PLATFORM.serving is not None
    environment = replace(PLATFORM.serving, image="fiduciary-server:0.2.0")
    rollout = RolloutView(rolling=rolling, outdated=100)
    sim.world = replace(sim.world, platform=replace(PLATFORM, serving=environment), rollout=rollout)


def image(sim: SimulatedWorld) -> str:
    stored = sim.serving.deployment(digest_of(sim, "1"))
    assert stored is not None
    return str(stored.body["spec"]["template"]["spec"]["containers"][0]["image"])


def test_a_new_runtime_waits_for_its_turn() -> None:
    sim = served()
    newer(sim, rolling=PLATFORM.wave)
    decision = sim.step()
    assert decision.children == ()
    assert sim.condition("Reconciling")[:2] == ("True", reasons.RUNTIME_UPGRADE_WAITS)
    assert sim.condition("Ready")[0] == "True"
    assert decision.wake_at is not None
    assert timedelta(seconds=15) <= decision.wake_at - sim.now <= timedelta(minutes=10)
    newer(sim, rolling=PLATFORM.wave - 1)
    calm(sim, 10)
    assert image(sim) == "fiduciary-server:0.2.0"
    assert sim.actions == ["Accept", "Shift"], "nobody is retrained, nothing is decided"


def test_a_wave_takes_one_version_of_a_model_at_a_time() -> None:
    sim = challenged()
    newer(sim, rolling=0)
    decision = sim.step()
    applied = [child for child in decision.children if type(child).__name__ == "Apply"]
    assert len(applied) == 1


def test_what_a_user_changes_does_not_wait_for_a_wave() -> None:
    sim = served()
    newer(sim, rolling=PLATFORM.wave)
    sim.edit({"serving": {"resources": {"requests": {"cpu": "200m"}}}})
    calm(sim, 10)
    assert image(sim) == "fiduciary-server:0.2.0"


def test_a_model_that_is_registered_only_is_not_concerned() -> None:
    sim = champion()
    newer(sim, rolling=0)
    assert sim.step().children == ()
    assert sim.now > T0
