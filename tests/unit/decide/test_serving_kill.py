"""The kill switch: it empties the route at once, whatever else is wrong, and only a person fills it again."""

from __future__ import annotations

from typing import Any

import pytest

from fiduciary.decide import financialmodel, reasons
from fiduciary.decide.decision import Apply
from fiduciary.decide.world import Questions
from tests.unit.decide.lives import act_now, answers, approve, calm, challenged, digest_of, pin, served, service_name
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import approval

KILL: dict[str, Any] = {"kill": {"engaged": True}}
PREVIOUS: dict[str, Any] = {"kill": {"engaged": True, "action": "PreviousChampion"}}


def resume(sim: SimulatedWorld) -> None:
    sim.edit({"kill": {"engaged": False}})
    calm(sim, 5)
    act_now(sim, f"resume-{len(sim.records)}", "Resume")
    calm(sim, 20)


def test_block_empties_the_route_in_the_step_of_its_record() -> None:
    sim = served()
    sim.edit(KILL)
    decision = sim.step()
    assert decision.record is not None
    assert decision.record.action == "Kill"
    route = decision.children[0]
    assert isinstance(route, Apply)
    assert route.body["kind"] == "HTTPRoute", "first, before anything that could be refused"
    assert sim.serving.weights() == {service_name(sim, digest_of(sim, "1")): 0}
    assert answers(sim) is None
    calm(sim)
    assert sim.condition("Ready")[:2] == ("False", reasons.KILL_ENGAGED)
    assert sim.condition("Served")[:2] == ("False", reasons.KILL_ENGAGED)
    assert sim.condition("Killed")[0] == "True"
    assert sim.status.phase == "Killed"
    assert sim.status.endpoint is not None
    assert sim.records[-1].traffic is not None
    assert sim.records[-1].traffic.champion == 0
    assert "status 500" in sim.records[-1].cause.message


def test_a_kill_needs_neither_mlflow_nor_pods_nor_gateways_nor_probes() -> None:
    sim = served()
    sim.registry.up = False
    sim.serving.node_works = sim.serving.controller_works = sim.serving.prober_works = False
    for stored in sim.serving.objects.values():
        stored.ready = 0
    sim.edit(KILL)
    sim.step()
    assert set(sim.serving.weights().values()) == {0}


def test_nobody_asks_mlflow_before_clients_are_cared_for() -> None:
    """An MLflow that takes connections and does not answer would hold a kill up for as long as it is waited for."""
    sim = challenged()
    assert financialmodel.questions(sim.world, sim.now) != Questions()
    sim.edit(KILL)
    assert financialmodel.questions(sim.world, sim.now) == Questions()
    calm(sim, 5)
    assert financialmodel.questions(sim.world, sim.now) != Questions()
    sim.edit({"kill": {"engaged": False}})
    act_now(sim, "resume", "Resume")
    assert financialmodel.questions(sim.world, sim.now) == Questions()
    calm(sim, 20)
    pin(sim, "2")
    calm(sim, 1)
    sim.advance(seconds=5)
    sim.serving.turn(sim.now)
    seen = sim.serving.observed(sim.world)
    decision = financialmodel.decide(seen, sim.now)
    asked = financialmodel.questions(seen, sim.now)
    assert (decision.record is None) or asked == Questions()


def test_what_is_hurried_leaves_the_training_alone() -> None:
    sim = challenged()
    sim.edit({"training": {"seed": 9}})
    sim.settle()
    training, before = sim.status.training, {found.type: found for found in sim.status.conditions}
    sim.edit(KILL)
    sim.step()
    assert sim.actions[-1] == "Kill"
    assert sim.status.training == training
    for kind in ("Reconciling", "Trained"):
        found = next(one for one in sim.status.conditions if one.type == kind)
        assert (found.status, found.message) == (before[kind].status, before[kind].message)


def test_a_training_is_never_claimed_in_a_hurry() -> None:
    """Whether it was measured already is MLflow's to say."""
    sim = challenged()
    sim.edit({"training": {"seed": 9}, **KILL})
    decision = sim.step()
    assert not decision.claim
    assert decision.record is not None
    calm(sim, 5)
    sim.edit({"kill": {"engaged": False}})
    act_now(sim, "resume", "Resume")
    decision = sim.step()
    assert not decision.claim
    assert decision.again


def test_a_kill_goes_on_a_broken_log_and_under_the_number_of_the_route() -> None:
    from dataclasses import replace

    sim = challenged()
    approve(sim, "ok")
    calm(sim)
    number = sim.serving.history[-1][0]
    sim.world = replace(sim.world, records=sim.world.records[:-1])  # the newest record is lost
    calm(sim, 10)
    assert sim.condition("Stalled")[:2] == ("True", reasons.LOG_BROKEN)
    assert answers(sim) == "2" or set(sim.serving.weights().values()) == {0, 100}
    before = dict(sim.serving.weights())
    sim.edit(KILL)
    sim.settle()
    assert set(sim.serving.weights().values()) == {0}
    assert sim.serving.weights().keys() <= before.keys() | sim.serving.weights().keys()
    assert sim.serving.history[-1][0] == number, "the number on the route never falls"


def test_only_a_resume_brings_it_back_and_then_nothing_is_lost() -> None:
    sim = served()
    sim.edit(KILL)
    calm(sim)
    sim.edit({"kill": {"engaged": False}})
    calm(sim)
    assert answers(sim) is None, "it latches"
    pods = sim.serving.deployment(digest_of(sim, "1"))
    assert pods is not None
    assert pods.replicas == 2, "what is stopped stays loaded"
    act_now(sim, "resume", "Resume")
    sim.settle()
    assert answers(sim) == "1"
    calm(sim)
    assert sim.condition("Ready")[0] == "True"
    assert sim.actions == ["Accept", "Shift", "Kill", "Resume"]


def test_previous_champion_answers_instead() -> None:
    sim = challenged()
    approve(sim, "ok")
    calm(sim)
    sim.edit(PREVIOUS)
    sim.settle()
    assert answers(sim) == "1"
    record = sim.records[-1]
    assert record.to is not None
    assert record.to.version == "1"
    calm(sim)
    assert sim.condition("Served")[0] == "True"
    assert "version 1 answers" in sim.condition("Served")[2]
    assert sim.condition("Ready")[:2] == ("False", reasons.KILL_ENGAGED)
    resume(sim)
    assert answers(sim) == "2"


def test_previous_champion_without_one_blocks() -> None:
    sim = served()
    sim.edit(PREVIOUS)
    sim.settle()
    assert answers(sim) is None
    assert "no previous champion" in sim.records[-1].cause.message


def test_a_version_that_was_rolled_back_does_not_answer_for_a_killed_one() -> None:
    sim = challenged()
    approve(sim, "ok")
    calm(sim)
    sim.approve(approval("back", "RollBack", sim.now))
    calm(sim)
    sim.edit(PREVIOUS)
    calm(sim)
    assert answers(sim) is None


def test_a_kill_wins_over_pins_approvals_and_rollbacks() -> None:
    sim = challenged()
    sim.edit(KILL)
    calm(sim)
    approve(sim, "ok")
    calm(sim, 20)
    assert sim.actions[-1] == "Kill"
    assert sim.condition("PromotionPending")[1] == reasons.KILL_ENGAGED
    pin(sim, "2")
    calm(sim)
    assert answers(sim) is None
    assert sim.status.champion is not None
    assert sim.status.champion.version == "2", "a person may choose what comes back"
    resume(sim)
    assert answers(sim) == "2"


def test_who_answers_while_killed_does_not_change_with_the_champion() -> None:
    sim = challenged()
    approve(sim, "ok")
    calm(sim)
    sim.edit(PREVIOUS)
    calm(sim)
    pin(sim, "1")
    calm(sim)
    assert answers(sim) == "1"
    assert sim.status.champion is not None
    assert sim.status.champion.version == "1"
    resume(sim)
    assert answers(sim) == "1"


@pytest.mark.parametrize("killed_before", [True, False])
def test_a_kill_before_anything_is_served_keeps_it_so(killed_before: bool) -> None:
    from tests.unit.decide.lives import trained
    from tests.unit.decide.worlds import SERVED

    sim = SimulatedWorld(SERVED)
    sim.settle()
    if killed_before:
        act_now(sim, "kill", "Kill")
    trained(sim)
    if not killed_before:
        sim = SimulatedWorld(SERVED)
        sim.serving.node_works = False
        trained(sim)
        act_now(sim, "kill", "Kill")
        sim.settle()
        sim.serving.node_works = True
    calm(sim)
    assert answers(sim) is None
    assert sim.serving.route is None
    act_now(sim, "resume", "Resume")
    calm(sim)
    assert answers(sim) == "1"


def test_a_kill_on_a_route_that_cannot_be_made_any_more_takes_it_away() -> None:
    from dataclasses import replace

    from tests.unit.decide.worlds import PLATFORM

    sim = served()
    sim.world = replace(sim.world, platform=replace(PLATFORM, serving=None))
    sim.edit(KILL)
    sim.settle()
    assert sim.serving.route is None
    assert answers(sim) is None


def test_a_blocked_route_that_still_answers_is_told() -> None:
    sim = served()
    sim.serving.controller_works = False
    sim.edit(KILL)
    sim.advance(seconds=40)
    sim.settle()
    assert sim.condition("Ready")[0] == "False"
    sim.serving.controller_works = True
    calm(sim)
    assert "as a probe saw" in sim.condition("Served")[2]
