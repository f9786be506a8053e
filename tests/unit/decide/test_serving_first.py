"""The first champion: from its record to the first answer that a client gets."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest

from fiduciary.decide import reasons
from tests.unit.decide.lives import answers, approve, calm, challenged, champion, digest_of, served, service_name
from tests.unit.decide.simulated_world import Crash, SimulatedWorld
from tests.unit.decide.worlds import PLATFORM, SERVED, merged


def test_the_first_version_serves_by_itself() -> None:
    sim = served()
    assert sim.actions == ["Accept", "Shift"]
    shift = sim.records[1]
    assert shift.traffic is not None
    assert (shift.traffic.champion, shift.cause.kind) == (100, "Initial")
    assert answers(sim) == "1"
    assert sim.status.phase == "Serving"
    assert sim.condition("Served")[:2] == ("True", reasons.SERVING)
    assert sim.condition("Reconciling")[0] == sim.condition("Stalled")[0] == "False"
    assert sim.status.endpoint is not None
    assert sim.status.endpoint.url == "http://10.0.0.1/v2/models/quant.spx-volatility"
    assert sim.status.serving_runtime_digest == "sha256:" + "5" * 64
    assert sim.registry.aliases == {"champion": "1"}
    told = [event.reason for event in sim.events]
    assert told.index(reasons.ACCEPTED) < told.index(reasons.STARTING) < told.index(reasons.FIRST_TRAFFIC)
    assert told.index(reasons.FIRST_TRAFFIC) < told.index(reasons.SERVING)


def test_nothing_gets_traffic_before_a_replica_is_ready_and_answered() -> None:
    sim = SimulatedWorld(SERVED)
    sim.serving.node_works = False
    sim = _trained(sim)
    assert sim.actions == ["Accept"]
    assert sim.serving.route is None
    assert sim.condition("Ready")[:2] == ("False", reasons.STARTING)
    assert sim.condition("Reconciling")[:2] == ("True", reasons.STARTING)
    sim.serving.node_works, sim.serving.prober_works = True, False
    calm(sim, 20)
    assert sim.actions == ["Accept"], "ready pods are not an answer"
    assert sim.condition("Ready")[:2] == ("False", reasons.PROBE_PENDING)
    sim.serving.prober_works = True
    calm(sim, 20)
    assert sim.actions == ["Accept", "Shift"]


def test_one_ready_replica_is_enough_for_the_first_traffic() -> None:
    sim = SimulatedWorld(merged(SERVED, {"serving": {"replicas": 5}}))
    sim = _trained(sim)
    stored = sim.serving.deployment(digest_of(sim, "1"))
    assert stored is not None
    sim.serving.node_works = False
    stored.ready = 1
    calm(sim, 20)
    assert "Shift" in sim.actions


def test_ready_only_after_a_probe_through_the_clients_route() -> None:
    sim = SimulatedWorld(SERVED)
    sim.serving.controller_works = False
    sim = _trained(sim)
    assert sim.actions == ["Accept", "Shift"]
    assert sim.condition("Ready")[:2] == ("False", reasons.ROUTE_PENDING)
    assert sim.status.phase == "Starting"
    sim.advance(seconds=31)
    sim.settle()
    assert sim.condition("Stalled")[:2] == ("True", reasons.GATEWAY_CONTROLLER_SILENT)
    assert "projectcontour/contour" in sim.condition("Stalled")[2]
    sim.serving.controller_works = True
    calm(sim, 10)
    assert sim.condition("Ready")[0] == "True"
    assert sim.condition("Stalled")[0] == "False"


def test_an_idle_serving_model_writes_nothing() -> None:
    sim = challenged()
    before, objects = sim.status_writes, len(sim.serving.writes)
    wakes: list[float] = []
    for _ in range(60):
        decision = sim.step()
        assert decision.record is decision.registration is decision.mirror is None
        assert decision.children == decision.events == ()
        assert decision.wake_at is not None
        wakes.append((decision.wake_at - sim.now).total_seconds())
        sim.advance(minutes=2)
        sim.lose_jobs()
    assert sim.status_writes == before
    assert len(sim.serving.writes) == objects
    assert min(wakes) > 60, "and it is not woken for nothing either"


def test_probes_that_say_the_same_again_change_nothing() -> None:
    sim = served()
    status = sim.status
    for latency in (0.1, 0.2, 5.0):
        sim.advance(seconds=30)
        sim.serving.turn(sim.now)
        sim.serving.results = {
            target: replace(found, latency_s=latency, message=f"{latency}")
            for target, found in sim.serving.results.items()
        }
        sim.serving.prober_works = False
        sim.step()
        assert sim.status == status


@pytest.mark.parametrize("state", ["healthy", "hijacked", "killed"])
def test_nobody_sees_a_restart_of_the_operator(state: str) -> None:
    sim = served()
    if state == "hijacked":
        sim.serving.hijacked_by = "somebody"
    if state == "killed":
        sim.edit({"kill": {"engaged": True}})
    calm(sim, 60)
    before, told = sim.status, len(sim.events)
    sim.serving.results.clear()
    sim.serving.probing_since, sim.serving.prober_works = None, False
    decision = sim.step()
    assert sim.status == before
    assert decision.wake_at is not None
    assert decision.wake_at <= sim.now + timedelta(seconds=30)
    sim.serving.probing_since = sim.now
    sim.advance(seconds=29)
    sim.step()
    assert (sim.status, len(sim.events)) == (before, told)
    if state == "healthy":
        sim.advance(seconds=2)
        sim.step()
        assert sim.condition("Ready")[:2] == ("False", reasons.PROBE_PENDING), "no answer for long is no success"
    sim.serving.prober_works = True
    calm(sim, 30)
    assert sim.condition("Served")[:2] == next(
        (found.status, found.reason) for found in before.conditions if found.type == "Served"
    )


def test_a_restart_after_a_record_that_no_status_tells_of_takes_nothing_for_granted() -> None:
    sim = challenged()
    approve(sim, "ok")
    with contextlib.suppress(Crash):
        sim.step(die_before="status")
    with contextlib.suppress(Crash):
        sim.step(die_before="status")
    assert "Promote" in sim.actions
    assert sim.condition("Ready")[0] == "True", "the status of before"
    sim.serving.results.clear()
    sim.serving.probing_since, sim.serving.prober_works = None, False
    sim.step()
    assert sim.condition("Ready")[0] == "False"


def test_serving_absent_is_registered_as_before() -> None:
    sim = champion()
    assert sim.actions == ["Accept"]
    assert sim.status.phase == "Registered"
    assert sim.serving.objects == {}
    assert sim.condition("Ready")[:2] == ("False", reasons.SERVING_NOT_REQUESTED)


def test_serving_that_is_added_later_serves_the_champion() -> None:
    sim = champion()
    sim.edit(SERVED)
    calm(sim, 20)
    assert sim.actions == ["Accept", "Shift"]
    assert answers(sim) == "1"
    assert len(sim.created) == 1, "nothing is trained for it"


@pytest.mark.parametrize("serving", [{"backend": "KServe", "gateway": None}, {"gateway": None}])
def test_serving_without_a_gateway_is_told_and_touches_nothing(serving: dict[str, object]) -> None:
    sim = champion({"serving": {"replicas": 1, **serving}})
    calm(sim, 10)
    assert sim.serving.objects == {}
    assert sim.condition("Ready")[:2] == ("False", reasons.SERVING_NOT_ACTIVE)
    assert sim.condition("Stalled")[:2] == ("True", reasons.SERVING_NOT_ACTIVE)


def test_an_operator_without_a_runtime_leaves_what_serves_alone() -> None:
    sim = served()
    before = dict(sim.serving.weights())
    sim.world = replace(sim.world, platform=replace(PLATFORM, serving=None))
    calm(sim, 10)
    assert sim.serving.weights() == before
    assert sim.condition("Stalled")[:2] == ("True", reasons.SERVING_NOT_ACTIVE)


def test_a_suspended_model_gives_the_first_champion_no_traffic_but_keeps_what_serves() -> None:
    sim = champion(merged(SERVED, {"serving": None}))
    sim.edit({"suspend": True, "serving": SERVED["serving"]})
    calm(sim, 20)
    assert sim.actions == ["Accept"]
    assert sim.condition("Ready")[:2] == ("False", reasons.SUSPENDED_BY_SPEC)
    sim.edit({"suspend": False})
    calm(sim, 20)
    assert sim.actions == ["Accept", "Shift"]
    sim.edit({"suspend": True})
    calm(sim, 20)
    assert sim.condition("Ready")[0] == "True"
    sim.serving.delete("Service", service_name(sim, digest_of(sim, "1")))
    calm(sim, 10)
    assert answers(sim) == "1"
    assert sim.condition("Ready")[0] == "True"


def test_serving_is_kept_while_a_job_runs_and_mlflow_is_away() -> None:
    sim = served()
    sim.edit({"training": {"seed": 8}})
    sim.settle()
    sim.registry.up = False
    assert sim.condition("Reconciling")[:2] == ("True", reasons.TRAINING)
    assert sim.status.phase == "Serving"
    service = service_name(sim, digest_of(sim, "1"))
    sim.serving.delete("Service", service)
    sim.serving.delete("Deployment", service)
    calm(sim, 20)
    assert sim.condition("Ready")[0] == "True"
    assert service in sim.serving.names("Deployment")
    told = [event.message for event in sim.events if event.reason == reasons.SERVING_OBJECT_RESTORED]
    assert any("Service" in message for message in told)


def test_a_decision_on_serving_does_not_disturb_the_training_that_runs() -> None:
    sim = challenged()
    sim.edit({"training": {"seed": 9}})
    sim.settle()
    sim.start({"percent": 10})
    sim.settle()
    since = next(found.last_transition_time for found in sim.status.conditions if found.type == "Reconciling")
    training = sim.status.training
    approve(sim, "ok")
    sim.settle()
    assert sim.actions[-1] == "Promote"
    assert sim.status.training == training
    again = next(found for found in sim.status.conditions if found.type == "Reconciling")
    assert (again.status, again.last_transition_time) == ("True", since)


def _trained(sim: SimulatedWorld) -> SimulatedWorld:
    from tests.unit.decide.lives import trained

    trained(sim)
    calm(sim, 10)
    return sim
