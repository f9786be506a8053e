"""How a model carries out what an experiment rules: harm before everything, promotions once they can be, one record."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.decide import financialmodel, reasons
from fiduciary.decide.experiment.recorded import recorded
from fiduciary.decide.world import Questions
from tests.unit.decide.experiment.trials import XNYS
from tests.unit.decide.laboratory import Laboratory, laboratory, newcomer, tried_to
from tests.unit.decide.lives import act_now, answers, calm, deleted, digest_of, pin, replicas, service_name
from tests.unit.decide.logs import spending
from tests.unit.decide.worlds import NAME, approval

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.unit.decide.simulated_world import SimulatedWorld

FIRST = f"{NAME}-2"


def promoted(spec: dict[str, Any] | None = None) -> Laboratory:
    """Version 2 was promoted by its experiment, which watches it."""
    lab = tried_to("half", spec)
    lab.ruled(FIRST, "Promote", reasons.PROMOTED, **spending())
    lab.stopped = True
    calm(lab.sim, 30)
    assert answers(lab.sim) == "2", lab.sim.condition("PromotionPending")
    lab.stopped = False
    lab.seconds(20)
    return lab


def tried_again() -> Laboratory:
    """The first challenger is champion for good, and the trial of another one is under way."""
    lab = promoted({"promotion": {"rollbackWindow": "1m"}})
    lab.seconds(60)
    newcomer(lab, 8)
    for _ in range(60):
        lab.seconds(10)
        if lab.history.trial is not None:
            break
    assert lab.history.trial is not None
    return lab


def weights(sim: SimulatedWorld) -> dict[str, int]:
    """Version -> weight in the stored route; those with none left out."""
    found, numbers = sim.serving.weights(), sorted({r.to.version for r in sim.records if r.to and r.to.version})
    named = {number: found.get(service_name(sim, digest_of(sim, number)), 0) for number in numbers}
    return {number: weight for number, weight in named.items() if weight > 0}


def last(lab: Laboratory) -> tuple[str, str | None, str | None]:
    """(action, from, to) of the newest record."""
    record = lab.sim.records[-1]
    left, takes = record.from_, record.to
    return record.action, left.version if left is not None else None, takes.version if takes is not None else None


# --- harm ------------------------------------------------------------------------------------------------------------

OBSTACLES: dict[str, Callable[[Laboratory], None]] = {
    "nothing": lambda lab: None,
    "a suspension": lambda lab: lab.sim.edit({"suspend": True}),
    "MLflow away": lambda lab: setattr(lab.sim.registry, "up", False),
    "a training that is due": lambda lab: lab.sim.edit({"training": {"seed": 8}}),
    "a training that ended": lambda lab: (lab.sim.edit({"training": {"seed": 8}}), lab.sim.settle(), _finish(lab.sim)),
    "an approval of a person": lambda lab: lab.sim.approve(approval("again", "Retrain", lab.sim.now)),
    "no probes": lambda lab: lab.sim.serving.results.clear(),
    "a dead gateway controller": lambda lab: setattr(lab.sim.serving, "controller_works", False),
    "a model that nobody follows": lambda lab: lab.sim.lose_status(),
    "a pin": lambda lab: pin(lab.sim, "1"),
    "a resume that is asked for": lambda lab: lab.sim.approve(approval("go", "Resume", lab.sim.now)),
}  # type: ignore[dict-item]


def _finish(sim: SimulatedWorld) -> None:
    from tests.unit.decide.lives import measured

    sim.finish(measured(sim))


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_harm_is_recorded_and_routed_in_the_very_next_reconcile(obstacle: str) -> None:
    lab = tried_to("canary")
    OBSTACLES[obstacle](lab)
    lab.ruled(FIRST, "RollBack", reasons.HARM_SHOWN, **spending())
    seen = lab.sim.serving.observed(lab.sim.world)
    assert financialmodel.questions(seen, lab.sim.now) == Questions(), "MLflow is not asked before"
    lab.sim.step()
    assert last(lab) == ("RollBack", "2", "1")
    assert weights(lab.sim) == {"1": 100}
    record = lab.sim.records[-1]
    assert (record.cause.kind, record.cause.experiment) == ("Experiment", FIRST)
    assert [reason.reason for reason in record.cause.reasons] == [reasons.HARM_SHOWN]
    assert record.evidence.summary["uid"] == lab.one(FIRST).metadata.uid
    assert record.evidence.summary["test"] == 1
    assert lab.history.refused == {digest_of(lab.sim, "2")}


def test_a_challenger_that_was_rolled_back_goes_and_is_not_tried_again() -> None:
    lab = tried_to("half")
    lab.bad["2"] = 0.2
    lab.until("RollBack", 10)
    assert last(lab) == ("RollBack", "2", "1")
    lab.seconds(240, 20)
    sim = lab.sim
    assert lab.sim.actions[-1] == "RollBack"
    assert sim.status.challenger is None
    assert [entry.version for entry in sim.status.rejected_versions] == ["2"]
    assert sim.condition("CandidateRejected")[0] == "True"
    assert sim.condition("Ready")[0] == "True"
    assert sim.condition("PromotionPending") == ("", "", "")
    assert replicas(sim, "2") is None
    assert sorted(lab.experiments) == [FIRST]
    assert lab.one(FIRST).status.phase == "RolledBack"
    assert sim.status.champion is not None
    assert sim.status.champion.decision == 1, "it never lost its place"
    assert sim.status.active_experiment is None


def test_harm_that_no_record_can_be_written_of_is_taken_off_the_route() -> None:
    lab = tried_to("canary")
    lab.ruled(FIRST, "RollBack", reasons.HARM_SHOWN)
    lab.sim.world = replace(lab.sim.world, records=lab.sim.world.records[:-1])  # the route knows of one more
    lab.sim.step()
    assert lab.sim.condition("Stalled")[1] == reasons.LOG_BROKEN
    assert weights(lab.sim) == {"1": 100}
    lab.sim.settle()
    assert weights(lab.sim) == {"1": 100}


def test_harm_during_a_kill_is_recorded_and_does_not_come_back_with_the_resume() -> None:
    lab = tried_to("canary")
    act_now(lab.sim, "stop", "Kill")
    lab.sim.settle()
    lab.ruled(FIRST, "RollBack", reasons.HARM_SHOWN)
    lab.sim.settle()
    assert last(lab) == ("RollBack", "2", "1")
    assert weights(lab.sim) == {}
    act_now(lab.sim, "go", "Resume", "bob@desk")
    lab.sim.settle()
    assert weights(lab.sim) == {"1": 100}


# --- promotions ------------------------------------------------------------------------------------------------------


def test_a_promotion_is_one_record_with_its_evidence_and_the_old_champion_stays_warm() -> None:
    lab = laboratory()
    lab.until("Promote")
    record = lab.sim.records[-1]
    assert last(lab) == ("Promote", "1", "2")
    assert record.traffic is not None
    assert (record.traffic.champion, record.traffic.challenger) == (100, 0)
    assert {reason.reason for reason in record.cause.reasons} == {reasons.PREQUENTIAL_EVIDENCE, reasons.NOT_WORSE}
    assert record.evidence.summary["objectives"]["loss"]["what"] == "PairedLoss"
    status = lab.sim.status
    assert status.anchor is not None
    assert status.anchor.version == "2"
    assert status.alpha_spending is not None
    assert (status.alpha_spending.tests, status.alpha_spending.discoveries) == (1, 1)
    assert replicas(lab.sim, "1") == 2
    assert lab.sim.registry.aliases["champion"] == "2"
    assert status.active_experiment is not None
    assert status.active_experiment.name == FIRST, "it watches"
    lab.seconds(3600, 100)
    assert lab.sim.status.active_experiment is None
    assert replicas(lab.sim, "1") == 1
    assert lab.one(FIRST).status.phase == "Promoted"


HELD: dict[str, tuple[Callable[[Laboratory], Any], Callable[[Laboratory], Any]]] = {
    "a suspension": (lambda lab: lab.sim.edit({"suspend": True}), lambda lab: lab.sim.edit({"suspend": False})),
    "pods": (lambda lab: _pods(lab.sim, 1), lambda lab: _pods(lab.sim, 2)),
}


def _pods(sim: SimulatedWorld, ready: int) -> None:
    sim.serving.node_works = ready == 2
    stored = sim.serving.deployment(digest_of(sim, "2"))
    assert stored is not None
    stored.ready = ready


@pytest.mark.parametrize("what", HELD)
def test_a_promotion_waits_for(what: str) -> None:
    hold, let_go = HELD[what]
    lab = tried_to("half")
    hold(lab)
    lab.stopped = True
    lab.ruled(FIRST, "Promote", reasons.PROMOTED, **spending())
    calm(lab.sim, 20)
    assert (lab.sim.actions[-1], weights(lab.sim)) == ("Shift", {"1": 50, "2": 50})
    assert lab.sim.condition("PromotionPending")[0] == "True"
    let_go(lab)
    calm(lab.sim, 20)
    assert last(lab) == ("Promote", "1", "2")


def at_exchanges(lab: Laboratory) -> Laboratory:
    """The operator's settings have a calendar."""
    lab.sim.world = replace(lab.sim.world, platform=replace(lab.sim.world.platform, calendars={"XNYS": XNYS}))
    return lab


def test_a_promotion_that_waited_into_a_freeze_waits_for_its_end() -> None:
    """Ruled on an open day, it waited for the end of a suspension: the calendar counts when it is carried out."""
    lab = at_exchanges(tried_to("half"))
    lab.sim.edit({"suspend": True})
    lab.stopped = True
    lab.ruled(FIRST, "Promote", reasons.PROMOTED, **spending())
    calm(lab.sim, 20)
    lab.edit(FIRST, calendar={"exchange": "XNYS", "freeze": [f"{lab.sim.now:%Y-%m-%d}/{lab.sim.now:%Y-%m-%d}"]})
    lab.sim.edit({"suspend": False})
    calm(lab.sim, 20)
    assert (lab.sim.actions[-1], weights(lab.sim)) == ("Shift", {"1": 50, "2": 50})
    status, reason, message = lab.sim.condition("PromotionPending")
    assert (status, reason) == ("True", reasons.IN_FREEZE)
    assert "until" in message
    wake = lab.sim.settle().wake_at
    assert wake is not None
    assert wake - lab.sim.now <= timedelta(days=1), "nobody calls when a freeze ends"
    lab.sim.advance(days=1)
    calm(lab.sim, 30)
    assert last(lab) == ("Promote", "1", "2")


@pytest.mark.parametrize("found", ["harm", "an unknown calendar"])
def test_while_the_calendar_holds_a_promotion(found: str) -> None:
    lab = at_exchanges(tried_to("half"))
    exchange = "XNYS" if found == "harm" else "XXXX"
    lab.edit(FIRST, calendar={"exchange": exchange, "freeze": [f"{lab.sim.now:%Y-%m-%d}/{lab.sim.now:%Y-%m-%d}"]})
    lab.stopped = True
    lab.ruled(FIRST, "Promote", reasons.PROMOTED, **spending())
    calm(lab.sim, 20)
    assert lab.sim.actions[-1] == "Shift"
    if found == "harm":
        lab.ruled(FIRST, "RollBack", reasons.HARM_SHOWN, **spending())
        lab.sim.step()
        assert last(lab) == ("RollBack", "2", "1"), "rolling back is always possible"
    else:
        assert lab.sim.condition("PromotionPending")[1] == reasons.CALENDAR_UNKNOWN


def test_a_pin_beats_the_verdict_of_an_experiment() -> None:
    lab = tried_to("half")
    pin(lab.sim, "1")
    lab.ruled(FIRST, "Promote", reasons.PROMOTED, **spending())
    lab.stopped = True
    calm(lab.sim, 20)
    assert weights(lab.sim) == {"1": 100}
    assert "Promote" not in lab.sim.actions


def test_signatures_of_the_experiment_are_named_in_the_record() -> None:
    lab = laboratory({"promotion": {"mode": "Manual", "approvals": 2}})
    lab.until(reasons.AWAITING_APPROVAL)
    lab.sim.settle()
    assert lab.sim.condition("PromotionPending")[1] == reasons.AWAITING_APPROVAL
    assert lab.sim.status.approval_request is None
    request = lab.one(FIRST).status.approval_request
    assert request is not None
    lab.act(FIRST, "Approve", "dev@desk", evidenceDigest=request.digest)  # who wrote the spec does not count
    lab.act(FIRST, "Approve", "ana@desk", evidenceDigest=request.digest)
    lab.seconds(20)
    assert lab.sim.actions[-1] == "Shift"
    lab.act(FIRST, "Approve", "bob@desk", evidenceDigest=request.digest)
    lab.seconds(20)
    record = lab.sim.records[-1]
    assert (record.action, record.actor.user, record.cause.approval) == ("Promote", "bob@desk", "act-3")
    assert record.evidence.summary["approvals"] == ["act-2", "act-3"]
    assert record.evidence.summary["signed"] == request.digest
    assert {"act-2", "act-3"} <= lab.history.approvals


def test_people_who_approve_the_model_do_not_promote_what_an_experiment_judges() -> None:
    lab = laboratory()
    lab.sim.advance(seconds=1)
    lab.sim.approve(approval("ok", "Approve", lab.sim.now, evidenceDigest=lab.history.challenger_evidence))
    calm(lab.sim, 20)
    assert "Promote" not in lab.sim.actions
    assert lab.sim.condition("ActRefused")[:2] == ("True", reasons.EXPERIMENT_DECIDES)
    assert lab.sim.condition("Ready")[0] == "True"


def refusal(lab: Laboratory) -> str:
    lab.sim.settle()
    status, reason, message = lab.sim.condition("ActRefused")
    assert (status, reason) == ("True", reasons.EXPERIMENT_DECIDES), message
    return message


def test_an_approval_of_the_model_itself_is_told_where_it_belongs() -> None:
    """Before the experiment asks, while it asks, and with either digest; an approval in its place is enough."""
    lab = tried_to("shadow", {"promotion": {"mode": "Manual", "approvals": 1}})
    assert lab.sim.condition("ActRefused") == ("", "", "")
    lab.sim.advance(seconds=1)
    lab.sim.approve(approval("early", "Approve", lab.sim.now, evidenceDigest=lab.history.challenger_evidence))
    told = refusal(lab)
    assert f"ModelApproval early approves version 2 itself, but ModelExperiment {FIRST} decides about it" in told
    assert "it asks nobody for an approval now" in told
    lab.until(reasons.AWAITING_APPROVAL)
    request = lab.one(FIRST).status.approval_request
    assert request is not None
    assert f"{{decision: Approve, experiment: {FIRST}, evidenceDigest: {request.digest}}}" in refusal(lab)
    lab.sim.advance(seconds=1)
    lab.sim.approve(approval("late", "Approve", lab.sim.now, evidenceDigest=request.digest))
    assert "ModelApproval late approves" in refusal(lab)
    lab.seconds(20)
    assert "Promote" not in lab.sim.actions
    lab.act(FIRST, "Approve", "bob@desk", evidenceDigest=request.digest)
    lab.seconds(20)
    assert lab.sim.actions[-1] == "Promote"
    assert lab.sim.condition("ActRefused") == ("", "", ""), "it was about a challenger, which is champion now"


def test_an_approval_of_an_earlier_challenger_is_refused_no_more() -> None:
    lab = tried_to("canary")
    lab.sim.approve(approval("old", "Approve", lab.sim.now, evidenceDigest=lab.history.challenger_evidence))
    refusal(lab)
    lab.ruled(FIRST, "RollBack", reasons.HARM_SHOWN, **spending())
    lab.sim.step()
    lab.sim.settle()
    newcomer(lab, 9)
    lab.seconds(30)
    assert lab.history.challenger is not None
    assert lab.history.challenger.version == "3"
    assert lab.sim.condition("ActRefused") == ("", "", "")


# --- the champion is kept --------------------------------------------------------------------------------------------


def test_a_challenger_that_was_not_shown_to_be_better_is_refused() -> None:
    lab = tried_to("canary")
    newcomer(lab, 8)
    lab.seconds(20)
    lab.ruled(FIRST, "KeepChampion", reasons.NOT_SHOWN, **spending())
    lab.sim.step()
    assert last(lab) == ("Reject", "1", "2")
    assert weights(lab.sim) == {"1": 100}
    assert lab.history.refused == {digest_of(lab.sim, "2")}
    assert lab.sim.status.challenger is not None
    assert lab.sim.status.challenger.version == "3", "who waited is next"
    lab.seconds(60)
    assert lab.history.trial is not None
    assert lab.history.trial.experiment == f"{NAME}-3"


@pytest.mark.parametrize("mode", ["Advise", "Enforce"])
def test_what_was_shown_and_nobody_acted_on_in_time_is_not_refused(mode: str) -> None:
    """All was shown; it was only advised, or nobody signed: the challenger keeps its place until a person decides."""
    lab = tried_to("half", {"promotion": {"approvals": 1, "experiment": {"mode": mode}}})
    lab.ruled(FIRST, "KeepChampion", reasons.EXPIRED, **spending())
    lab.sim.step()
    assert last(lab) == ("Abort", "1", "2")
    assert lab.sim.records[-1].cause.message.startswith("version 2 is not promoted, version 1 stays champion")
    assert weights(lab.sim) == {"1": 100}
    lab.seconds(60)
    assert (lab.sim.actions[-1], sorted(lab.experiments)) == ("Abort", [FIRST]), "it has said what it had to say"
    assert lab.history.refused == frozenset()
    assert lab.sim.status.challenger is not None
    status, reason, message = lab.sim.condition("PromotionPending")
    assert (status, reason) == ("True", reasons.EXPIRED)
    assert "Delete it (another one is made" in message
    lab.sim.approve(approval("late", "Approve", lab.sim.now, evidenceDigest=lab.history.challenger_evidence))
    assert f"ModelExperiment {FIRST} ended" in refusal(lab)
    lab.remove(lab.one(FIRST))
    lab.seconds(60)
    assert lab.one(FIRST).status.ruling is None, "another one goes on"
    assert lab.history.trial is not None


def test_a_newer_version_takes_the_place_of_what_nobody_acted_on() -> None:
    lab = tried_to("half")
    newcomer(lab, 8)
    lab.ruled(FIRST, "KeepChampion", reasons.EXPIRED, **spending())
    lab.sim.step()
    assert last(lab) == ("Abort", "1", "2")
    assert lab.sim.status.challenger is not None
    assert lab.sim.status.challenger.version == "3"
    assert lab.history.refused == frozenset()


@pytest.mark.parametrize("decision", ["Abort", "Reject"])
def test_an_act_on_the_experiment_ends_it_under_the_name_of_who_acted(decision: str) -> None:
    lab = tried_to("canary")
    digest = {"evidenceDigest": lab.one(FIRST).status.evidence_digest} if decision == "Reject" else {}
    lab.act(FIRST, decision, **digest)
    lab.seconds(20)
    record = lab.sim.records[-1]
    assert (record.action, record.actor.user, record.cause.approval) == ("Reject", "ana@desk", "act-1")
    assert weights(lab.sim) == {"1": 100}


def test_an_experiment_whose_champion_changed_says_nothing_of_its_challenger() -> None:
    """A rollback by a person during the trial: another experiment compares the challenger with who serves now."""
    lab = tried_again()
    second = f"{NAME}-3"
    act_now(lab.sim, "back", "RollBack")
    for _ in range(8):
        lab.seconds(20)
    assert "Abort" in lab.sim.actions
    record = next(one for one in lab.sim.records if one.action == "Abort")
    assert (record.from_ and record.from_.version, record.to and record.to.version) == ("2", "3")
    assert recorded(lab.sim.world.records, lab.one(second)) is not None
    assert lab.history.challenger is not None
    assert lab.history.challenger.version == "3"
    again = lab.one(f"{second}-2")
    assert again.status.champion is not None
    assert again.status.champion.version == "1"
    assert lab.history.trial is not None
    assert lab.history.trial.uid == again.metadata.uid


def test_a_deleted_experiment_ends_with_its_record() -> None:
    lab = tried_to("canary")
    lab.delete(FIRST)
    lab.seconds(30)
    assert last(lab) == ("Reject", "1", "2")
    assert lab.sim.records[-1].evidence.summary["test"] == 1
    assert lab.experiments == {}


# --- the window after a promotion ------------------------------------------------------------------------------------


def harmed(lab: Laboratory) -> None:
    lab.ruled(FIRST, "RollBack", reasons.HARM_AFTER_PROMOTION, **spending())


def test_harm_in_the_window_goes_back_at_once() -> None:
    lab = promoted()
    lab.sim.serving.results.clear()
    lab.sim.registry.up = False
    harmed(lab)
    lab.sim.step()
    assert last(lab) == ("RollBack", "2", "1")
    assert weights(lab.sim) == {"1": 100}
    found = recorded(lab.sim.world.records, lab.one(FIRST))
    assert found is not None
    assert found.rolled_back is not None
    assert (found.rolled_back.sequence, found.rolled_back.reason) == (
        lab.sim.records[-1].sequence,
        reasons.HARM_AFTER_PROMOTION,
    )
    lab.seconds(120, 20)
    assert lab.sim.actions[-1] == "RollBack"
    shown = lab.one(FIRST).status
    assert (shown.phase, shown.verdict, shown.reason) == ("RolledBack", "RollBack", reasons.HARM_AFTER_PROMOTION)
    status = lab.sim.status
    assert [entry.version for entry in status.rejected_versions] == ["2"]
    assert status.anchor is not None
    assert status.anchor.version == "1"


def test_the_watch_finds_harm_by_itself() -> None:
    lab = laboratory()
    lab.until("Promote")
    lab.bad["2"] = 0.3
    lab.until("RollBack", 20)
    assert last(lab) == ("RollBack", "2", "1")


def test_one_pod_is_enough_and_the_others_come_behind_it() -> None:
    lab = promoted({"serving": {"replicas": 3}})
    stored = lab.sim.serving.deployment(digest_of(lab.sim, "1"))
    assert stored is not None
    lab.sim.serving.node_works = False
    stored.ready = 1
    harmed(lab)
    lab.sim.step()
    assert last(lab) == ("RollBack", "2", "1")
    lab.sim.serving.node_works = True
    calm(lab.sim, 20)
    assert replicas(lab.sim, "1") == 3


def test_bad_answers_are_better_than_none() -> None:
    lab = promoted()
    lab.stopped = True
    stored = lab.sim.serving.deployment(digest_of(lab.sim, "1"))
    assert stored is not None
    lab.sim.serving.node_works = False
    stored.ready = 0
    harmed(lab)
    calm(lab.sim, 20)
    assert (lab.sim.actions[-1], weights(lab.sim)) == ("Promote", {"2": 100})
    assert lab.sim.condition("PromotionPending")[0] == "True"
    lab.sim.serving.node_works = True
    calm(lab.sim, 10)
    assert last(lab) == ("RollBack", "2", "1")


def test_harm_of_what_is_pinned_is_not_gone_back_on() -> None:
    lab = promoted()
    pin(lab.sim, "2")
    harmed(lab)
    lab.stopped = True
    calm(lab.sim, 20)
    assert weights(lab.sim) == {"2": 100}


def test_the_next_experiment_begins_when_the_watch_is_over() -> None:
    lab = promoted({"promotion": {"rollbackWindow": "10m"}})
    newcomer(lab, 8)
    lab.seconds(60)
    assert sorted(lab.experiments) == [FIRST, f"{NAME}-3"]
    status, reason, message = lab.sim.condition("PromotionPending")
    assert (status, reason) == ("True", reasons.QUEUED)
    assert "watches it until" in message
    assert lab.one(f"{NAME}-3").status.reason == reasons.QUEUED
    assert lab.history.trial is None
    lab.seconds(600, 20)
    assert lab.history.trial is not None
    assert lab.history.trial.experiment == f"{NAME}-3"


def test_or_when_the_promoted_version_was_rolled_back() -> None:
    lab = promoted()
    newcomer(lab, 8)
    lab.seconds(20)
    harmed(lab)
    lab.seconds(60)
    assert lab.sim.actions.count("RollBack") == 1
    assert lab.history.trial is not None
    assert lab.history.trial.experiment == f"{NAME}-3"
    mx = lab.one(f"{NAME}-3")
    assert mx.status.champion is not None
    assert mx.status.champion.version == "1"


@pytest.mark.parametrize("version", [None, "1"])
def test_a_person_goes_back_in_the_window(version: str | None) -> None:
    lab = promoted()
    lab.sim.advance(seconds=1)
    lab.sim.approve(approval("back", "RollBack", lab.sim.now, **({} if version is None else {"version": version})))
    lab.seconds(20)
    assert last(lab) == ("RollBack", "2", "1")
    assert lab.sim.records[-1].cause.kind == "Approval"
    found = recorded(lab.sim.world.records, lab.one(FIRST))
    assert found is not None
    assert found.rolled_back is not None
    assert found.rolled_back.sequence == lab.sim.records[-1].sequence
    lab.seconds(20)
    shown = lab.one(FIRST).status
    assert (shown.phase, shown.verdict) == ("RolledBack", "RollBack")
    assert shown.ruling is not None
    assert shown.ruling.verdict == "Promote", "what the experiment itself found stays in its ruling"
    assert lab.sim.status.active_experiment is None


def test_a_person_goes_back_during_a_trial_of_another_version() -> None:
    lab = tried_again()
    act_now(lab.sim, "back", "RollBack")
    lab.stopped = True
    calm(lab.sim, 20)
    assert last(lab) == ("RollBack", "2", "1")
    assert weights(lab.sim) == {"1": 100}, "the trial's share went with it"


# --- the end of the model --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["Delete", "Retain"])
def test_a_model_with_a_trial_goes(policy: str) -> None:
    lab = tried_to("half")
    lab.sim.edit({"deletionPolicy": policy})
    deleted(lab.sim)
    lab.turn()
    assert lab.experiments == {}
    assert lab.sim.actions[-1] == "Retire"
    assert lab.history.trial is None
    if policy == "Retain":
        assert lab.sim.actions[-2] == "Abort"
        assert weights(lab.sim) == {"1": 100}, "nobody watches it any more"
    else:
        assert lab.sim.serving.route is None


def test_a_model_that_comes_back_has_spent_what_its_trial_began() -> None:
    lab = tried_to("half")
    deleted(lab.sim)
    lab.turn()
    lab.sim.create_again({**lab.sim.model.spec.body()})
    lab.sim.settle()
    spending = lab.sim.status.alpha_spending
    assert spending is not None
    assert spending.tests == 1
