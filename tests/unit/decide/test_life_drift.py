"""What DriftPolicies ask of a model: one request at a time, each once, and never against people."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.history import fold
from tests.unit.decide.experiment.trials import XNYS
from tests.unit.decide.laboratory import AUTO, WATCHED
from tests.unit.decide.lives import (
    LINEAR,
    NO_SKILL,
    act_now,
    answers,
    approve,
    calm,
    digest_of,
    measured,
    pin,
    promoted,
    served,
    trained,
)
from tests.unit.decide.simulated_world import WRITES, Crash, SimulatedWorld
from tests.unit.decide.worlds import approval as act
from tests.unit.decide.worlds import asking, merged

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary.api.driftpolicy import DriftPolicy
    from fiduciary.api.modeldecision import ModelDecisionSpec

ROLLING = {"data": {"asOf": "Rolling"}}
DIGEST = "sha256:" + "a" * 64


def ask(sim: SimulatedWorld, kind: str, name: str = "inputs", **parts: Any) -> DriftPolicy:
    """A policy asks a second later; a second after that the operator looks."""
    sim.advance(seconds=1)
    policy = asking(name, kind, sim.now, **parts)
    sim.ask(*sim.world.policies, policy)
    sim.advance(seconds=1)
    return policy


def of_drift(sim: SimulatedWorld) -> list[ModelDecisionSpec]:
    """Records that carried a request out."""
    return [record for record in sim.records if record.cause.request is not None]


def held_by(sim: SimulatedWorld) -> str:
    return sim.condition("ActionHeld")[1]


# --- a retrain -------------------------------------------------------------------------------------------------------


def test_a_retrain_is_recorded_trained_judged_and_never_straight_to_champion() -> None:
    sim = served(ROLLING)
    sim.advance(days=30)
    policy = ask(sim, "Retrain")
    sim.settle()
    (record,) = of_drift(sim)
    assert (record.action, record.cause.kind) == ("Retrain", "Drift")
    assert (record.cause.policy, record.cause.request) == ("inputs", DIGEST)
    assert policy.status.requested_action is not None
    assert record.evidence.summary == policy.status.requested_action.evidence
    assert "DriftPolicy inputs asked" in record.cause.message
    assert "broken: 1 is above 0.5" in record.cause.message
    (job,) = [job for job in sim.jobs if not job.finished]
    assert job.trigger == {"requestId": DIGEST}
    assert job.as_of == sim.now.date(), "data as of now"
    sim.finish(measured(sim))
    calm(sim, 20)
    assert sim.actions[-1] == "Accept"
    assert (sim.records[-1].cause.kind, sim.records[-1].cause.trigger) == ("Drift", {"requestId": DIGEST})
    assert sim.status.challenger is not None
    assert answers(sim) == "1", "a challenger like any other"
    calm(sim, 20)
    assert len(of_drift(sim)) == 1
    assert len(sim.created) == 2


def test_a_retrain_is_a_refresh_and_needs_no_improvement() -> None:
    sim = served(merged(AUTO, ROLLING), WATCHED)
    sim.advance(days=30)
    ask(sim, "Retrain")
    trained(sim)
    calm(sim, 20)
    (mx,) = sim.world.experiments
    assert (mx.spec.purpose, mx.spec.challenger.version) == ("Refresh", "2")


def test_a_retrain_has_to_pass_the_gates() -> None:
    sim = served(ROLLING)
    sim.advance(days=30)
    ask(sim, "Retrain")
    trained(sim, NO_SKILL)
    calm(sim, 20)
    assert sim.actions[-2:] == ["Retrain", "Reject"]
    assert sim.records[-1].cause.kind == "Drift"
    assert sim.status.challenger is None
    assert len(sim.created) == 2, "and is not tried again"


def test_a_request_is_carried_out_once_though_the_status_is_lost_and_its_policy_slow() -> None:
    sim = served(ROLLING)
    sim.advance(days=30)
    ask(sim, "Retrain")
    trained(sim)
    sim.lose_status()
    sim.lose_jobs()
    calm(sim, 20)
    sim.advance(days=1)
    calm(sim, 20)
    assert sim.actions.count("Retrain") == 1
    assert len(sim.created) == 2


def test_a_person_ends_the_retrain_and_it_does_not_come_back() -> None:
    sim = served(ROLLING)
    sim.advance(days=30)
    ask(sim, "Retrain")
    sim.settle()
    act_now(sim, "enough", "Abort")
    calm(sim, 20)
    assert sim.actions[-2:] == ["Retrain", "Abort"]
    assert len(sim.created) == 2


HOLDS: list[tuple[str, str, Callable[[SimulatedWorld], object], dict[str, Any]]] = [
    ("the kill switch", reasons.KILL_ENGAGED, lambda sim: sim.edit({"kill": {"engaged": True}}), {}),
    ("suspend", reasons.SUSPENDED_BY_SPEC, lambda sim: sim.edit({"suspend": True}), {}),
    ("fixed data", reasons.NOTHING_NEW, lambda sim: sim.edit({"data": {"asOf": "2017-12-29"}}), {}),
    ("a training", reasons.MODEL_BUSY, lambda sim: sim.edit({"training": {"seed": 9}}), {}),
    ("frozen days", reasons.IN_FREEZE, lambda sim: None, {"guards": {"freeze": ["2026-12-24/2027-01-02"]}}),
    ("no such calendar", reasons.CALENDAR_UNKNOWN, lambda sim: None, {
        "guards": {"freeze": ["2026-12-24/2027-01-02"]},
        "window": {"rows": 21, "calendar": "XTKS", "length": None, "minCount": None},
    }),
]  # fmt: skip


@pytest.mark.parametrize(("why", "reason", "change", "spec"), HOLDS, ids=[row[0] for row in HOLDS])
def test_what_holds_a_retrain(why: str, reason: str, change: Callable[[SimulatedWorld], object], spec: Any) -> None:
    sim = served(ROLLING)
    sim.world = replace(sim.world, platform=replace(sim.world.platform, calendars={"XNYS": XNYS}))
    sim.advance(days=30)  # 24 December
    change(sim)
    if why == "fixed data":
        trained(sim)
    ask(sim, "Retrain", spec=spec)
    calm(sim, 20)
    assert held_by(sim) == reason, sim.condition("ActionHeld")
    assert "DriftPolicy inputs asks for a retrain" in sim.condition("ActionHeld")[2]
    assert of_drift(sim) == []


def test_what_held_a_request_ends_and_it_is_carried_out() -> None:
    sim = served(ROLLING)
    sim.advance(days=30)
    sim.edit({"suspend": True})
    ask(sim, "Retrain")
    calm(sim, 20)
    assert of_drift(sim) == []
    sim.edit({"suspend": False})
    calm(sim, 20)
    assert [record.action for record in of_drift(sim)] == ["Retrain"]
    assert held_by(sim) == ""


def test_an_edited_policy_is_judged_again_first() -> None:
    sim = served(ROLLING)
    sim.advance(days=30)
    asked = ask(sim, "Retrain")
    edited = asked.model_copy(update={"metadata": asked.metadata.model_copy(update={"generation": 2})})
    sim.ask(edited)
    calm(sim, 20)
    assert held_by(sim) == reasons.POLICY_EDITED
    deleted = asked.metadata.model_copy(update={"deletion_timestamp": sim.now})
    sim.ask(asked.model_copy(update={"metadata": deleted}))
    calm(sim, 20)
    assert held_by(sim) == ""
    assert of_drift(sim) == []


def test_an_experiment_that_is_under_way_is_waited_for() -> None:
    sim = served(merged(AUTO, ROLLING), WATCHED)
    sim.edit(LINEAR)
    trained(sim)
    calm(sim, 20)
    ask(sim, "Retrain")
    calm(sim, 20)
    assert held_by(sim) == reasons.MODEL_BUSY
    assert of_drift(sim) == []


def test_a_challenger_that_waits_for_people_keeps_nobody_from_training() -> None:
    sim = served(ROLLING)
    sim.edit(LINEAR)
    trained(sim)
    calm(sim, 20)
    sim.advance(days=30)
    ask(sim, "Retrain")
    calm(sim, 20)
    assert [record.action for record in of_drift(sim)] == ["Retrain"]


def test_two_policies_do_not_fight() -> None:
    sim = served(ROLLING)
    sim.advance(days=30)
    ask(sim, "Retrain", "zeta", digit="b")
    ask(sim, "Retrain", "alpha", digit="c")
    calm(sim, 20)
    assert [record.cause.policy for record in of_drift(sim)] == ["zeta"], "the oldest first"
    assert held_by(sim) == reasons.MODEL_BUSY
    assert "DriftPolicy alpha" in sim.condition("ActionHeld")[2]
    trained(sim, NO_SKILL)
    calm(sim, 20)
    assert [record.cause.policy for record in of_drift(sim)] == ["zeta", "alpha"]
    assert len(sim.created) == 3


def test_a_budget_that_another_policy_used_up_holds_what_was_asked_before_that() -> None:
    """While an operator was away, say, nobody took the second request back."""
    spec = {"actions": {"retrain": {"maxPerWeek": 1}}}
    sim = served(ROLLING)
    sim.advance(days=30)
    ask(sim, "Retrain", "zeta", digit="b", spec=spec)
    ask(sim, "Retrain", "alpha", digit="c", spec=spec)
    calm(sim, 20)
    trained(sim, NO_SKILL)
    calm(sim, 20)
    assert [record.cause.policy for record in of_drift(sim)] == ["zeta"]
    assert held_by(sim) == reasons.BUDGET_USED_UP
    sim.advance(days=7)
    calm(sim, 20)
    assert [record.cause.policy for record in of_drift(sim)] == ["zeta", "alpha"]


def test_a_policy_cools_down_though_it_asks_as_if_it_had_not() -> None:
    """A status that was restored, say, or written by a process that did not know of the record."""
    sim = served(ROLLING)
    sim.advance(days=30)
    ask(sim, "Retrain", digit="b")
    trained(sim, NO_SKILL)
    calm(sim, 20)
    sim.ask()
    ask(sim, "Retrain", digit="c")
    calm(sim, 20)
    assert held_by(sim) == reasons.COOLING_DOWN
    sim.advance(days=1)
    calm(sim, 20)
    assert len(of_drift(sim)) == 2


# --- a rollback ------------------------------------------------------------------------------------------------------


def test_a_rollback_is_one_record_and_one_write_to_the_route() -> None:
    sim = promoted()
    ask(sim, "RollBack")
    calm(sim, 20)
    (record,) = of_drift(sim)
    assert (record.action, record.cause.kind, record.to and record.to.version) == ("RollBack", "Drift", "1")
    assert (record.cause.policy, record.cause.request, record.actor.user) == ("inputs", DIGEST, None)
    assert record.evidence.summary["windows"] == {"last": 41, "judged": 40}
    assert answers(sim) == "1"
    assert sim.status.rejected_versions[0].reason == reasons.ROLLED_BACK_BY_DRIFT
    assert sim.registry.aliases == {"champion": "1"}
    assert held_by(sim) == "", "it is carried out, and asked for no more"
    calm(sim, 20)
    assert len(of_drift(sim)) == 1


def test_a_rollback_leads_to_the_last_approved_version_only() -> None:
    sim = promoted()
    ask(sim, "RollBack")
    calm(sim, 20)
    ask(sim, "RollBack", "again", digit="b")
    calm(sim, 20)
    assert held_by(sim) == reasons.ROLL_BACK_IMPOSSIBLE
    assert answers(sim) == "1", "version 2 was left, there is nothing before version 1"
    assert len(of_drift(sim)) == 1


def test_what_was_gone_back_to_is_not_left_for_an_older_one() -> None:
    """A feed that broke is broken for every version: each day's budget would lead one version further back."""
    sim = promoted()
    sim.edit({"training": {"seed": 9}})
    trained(sim)
    calm(sim, 20)
    approve(sim, "third")
    calm(sim, 20)
    assert answers(sim) == "3"
    ask(sim, "RollBack")
    calm(sim, 20)
    assert answers(sim) == "2"
    sim.advance(days=2)
    ask(sim, "RollBack", digit="b")
    calm(sim, 20)
    assert answers(sim) == "2"
    assert held_by(sim) == reasons.ROLL_BACK_IMPOSSIBLE
    assert len(of_drift(sim)) == 1


BACK: list[tuple[str, str, Callable[[SimulatedWorld], object]]] = [
    ("the kill switch", reasons.KILL_ENGAGED, lambda sim: sim.edit({"kill": {"engaged": True}})),
    ("suspend", reasons.SUSPENDED_BY_SPEC, lambda sim: sim.edit({"suspend": True})),
    ("a pin", reasons.OVERRIDDEN_BY_PIN, lambda sim: pin(sim, "2")),
    ("onlyWithin", reasons.TOO_LATE_TO_ROLL_BACK, lambda sim: sim.advance(days=7, seconds=1)),
]


@pytest.mark.parametrize(("why", "reason", "change"), BACK, ids=[row[0] for row in BACK])
def test_what_holds_a_rollback(why: str, reason: str, change: Callable[[SimulatedWorld], object]) -> None:
    sim = promoted()
    change(sim)
    calm(sim, 20)
    ask(sim, "RollBack")
    calm(sim, 20)
    assert held_by(sim) == reason, sim.condition("ActionHeld")
    assert of_drift(sim) == []
    assert digest_of(sim, "2") == (sim.status.champion and sim.status.champion.digest)


def test_a_rollback_of_another_policy_uses_the_budget_of_a_day_up() -> None:
    sim = promoted()
    ask(sim, "RollBack", "first")
    calm(sim, 20)
    assert answers(sim) == "1"
    sim.edit({"training": {"seed": 10}})
    trained(sim)
    calm(sim, 20)
    approve(sim, "third")
    calm(sim, 20)
    serves = answers(sim)
    assert serves != "1"
    ask(sim, "RollBack", "second", digit="b")
    calm(sim, 20)
    assert held_by(sim) == reasons.BUDGET_USED_UP
    assert answers(sim) == serves
    sim.advance(days=1)
    calm(sim, 20)
    assert answers(sim) == "1"


def test_days_without_retrain_do_not_hold_a_rollback() -> None:
    sim = promoted()
    today = f"{sim.now:%Y-%m-%d}"
    ask(sim, "RollBack", spec={"guards": {"freeze": [f"{today}/{today}"]}})
    calm(sim, 20)
    assert answers(sim) == "1"


def test_a_request_about_an_earlier_champion_is_about_nothing_any_more() -> None:
    sim = served()
    sim.edit(LINEAR)
    trained(sim)
    calm(sim, 20)
    ask(sim, "RollBack")
    approve(sim, "ok")
    calm(sim, 20)
    assert answers(sim) == "2"
    assert held_by(sim) == reasons.BEGUN_ANEW
    assert of_drift(sim) == []


def test_people_go_before_policies() -> None:
    sim = promoted()
    sim.advance(seconds=2)
    sim.approve(act("back", "RollBack", sim.now))
    ask(sim, "RollBack")
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.records[-1].cause.kind == "Approval"
    assert of_drift(sim) == []


def test_a_rollback_goes_before_a_retrain() -> None:
    sim = promoted(ROLLING)
    ask(sim, "Retrain", "a", digit="b")
    ask(sim, "RollBack", "z")
    calm(sim, 20)
    assert [record.action for record in of_drift(sim)] == ["RollBack"]
    assert answers(sim) == "1"
    assert held_by(sim) == reasons.BEGUN_ANEW, "the retrain was asked for because of the version that is left"


# --- a process that dies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Retrain", "RollBack"])
def test_dying_before_any_write_carries_nothing_out_twice(kind: str) -> None:
    sim = promoted(ROLLING)
    sim.advance(days=1)
    ask(sim, kind)
    for write in (*WRITES, *reversed(WRITES)):
        with contextlib.suppress(Crash):
            sim.step(die_before=write)
        sim.advance(seconds=1)
    if kind == "Retrain":
        trained(sim)
    calm(sim, 20)
    assert [record.action for record in of_drift(sim)] == [kind]
    assert len(sim.created) == (3 if kind == "Retrain" else 2)
    assert answers(sim) == ("2" if kind == "Retrain" else "1")


# --- what policies are told ------------------------------------------------------------------------------------------


def test_the_log_says_what_was_carried_out_and_when() -> None:
    sim = promoted(ROLLING)
    ask(sim, "RollBack")
    calm(sim, 20)
    (acted,) = fold(sim.world.records).acted
    assert (acted.kind, acted.policy, acted.digest) == ("RollBack", "inputs", DIGEST)
    assert (acted.at, acted.sequence) == (sim.records[-1].decided_at, sim.records[-1].sequence)


def test_a_model_without_a_champion_has_nothing_to_ask_of() -> None:
    sim = SimulatedWorld(ROLLING)
    trained(sim, NO_SKILL)
    ask(sim, "Retrain")
    sim.settle()
    assert held_by(sim) == reasons.NOTHING_SERVES
