"""Whole lives of a model in a simulated world: what each thing that happens comes to in the end."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fiduciary.api.meta import ANNOTATION_EDITED_BY, FINALIZER
from fiduciary.decide import identity, reasons
from fiduciary.decide.world import Claim, QuotaView, ReferenceView
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import PLATFORM, metric, result
from tests.unit.decide.worlds import approval as act

LINEAR = {"training": {"architecture": "Linear"}}
NO_SKILL = {"metrics": {"ewma_skill": metric(-0.05, 0.01, [-0.05] * 6)}}


def measured(sim: SimulatedWorld, change: dict[str, Any] | None = None) -> dict[str, Any]:
    """What the live Job would report."""
    return result(sim.jobs[-1].key, change=change)


def trained(sim: SimulatedWorld, change: dict[str, Any] | None = None) -> None:
    """Let the claimed training run, end with numbers, and be judged."""
    sim.settle()
    sim.advance(seconds=40)
    sim.finish(measured(sim, change))
    sim.settle()


def champion(spec: dict[str, Any] | None = None) -> SimulatedWorld:
    """A world whose model has a champion."""
    sim = SimulatedWorld(spec)
    trained(sim)
    assert sim.status.champion is not None
    return sim


def act_now(sim: SimulatedWorld, name: str, decision: str, approver: str = "ana@desk") -> None:
    """A person acts a second later; a second after that the operator looks."""
    sim.advance(seconds=1)
    sim.approve(act(name, decision, sim.now, approver))
    sim.advance(seconds=1)


# --- the happy path --------------------------------------------------------------------------------------------------


def test_apply_claims_then_creates_the_job() -> None:
    sim = SimulatedWorld()
    first = sim.step()
    assert first.claim
    assert first.again
    assert sim.jobs == ()
    assert sim.status.training is not None
    assert sim.status.training.phase == reasons.CLAIMED
    second = sim.step()
    assert not second.claim
    assert sim.created == [sim.status.training.job]
    assert sim.condition("Reconciling")[0] == "True"
    assert sim.condition("Ready")[:2] == ("False", reasons.TRAINING)
    assert [event.reason for event in sim.events] == [reasons.TRAINING_STARTED]


def test_first_accepted_version_is_champion() -> None:
    sim = champion()
    assert sim.actions == ["Accept"]
    status = sim.status
    assert status.champion is not None
    assert (status.champion.version, status.champion.decision) == ("1", 1)
    assert status.champion == status.anchor
    assert status.training is None
    assert status.phase == "Registered"
    assert sim.condition("Ready")[:2] == ("False", reasons.SERVING_NOT_REQUESTED)
    assert sim.condition("Reconciling")[0] == sim.condition("Stalled")[0] == "False"
    assert sim.condition("Trained")[0] == sim.condition("GatesPassed")[0] == "True"
    assert sim.registry.aliases == {"champion": "1"}
    assert sim.registry.versions[0].tags["fiduciary.dev/owner"] == "sandbox/quant/spx-volatility"
    assert FINALIZER in sim.model.metadata.finalizers
    assert status.alpha_spending is not None
    assert status.alpha_spending.configurations == 1
    assert [run.outcome for run in status.runs] == ["Accepted"]


def test_identifiers_agree() -> None:
    sim = champion()
    standing, record = sim.status.champion, sim.records[0]
    assert standing is not None
    assert record.to is not None
    for field in ("version", "digest", "run_id", "training_key", "data_digest"):
        assert getattr(standing, field) == getattr(record.to, field)
    assert record.evidence.digest == identity.digest(dict(record.evidence.summary))
    assert len(identity.canonical(dict(record.evidence.summary))) <= 4096


def test_an_idle_model_writes_nothing() -> None:
    sim = champion()
    before, writes = sim.world, sim.status_writes
    for _ in range(20):
        sim.advance(minutes=3)
        decision = sim.step()
        assert decision.record is decision.registration is decision.mirror is None
        assert decision.events == ()
    assert replace(sim.world, jobs=()) == replace(before, jobs=())
    assert sim.status_writes == writes


def test_second_version_becomes_challenger_and_a_newer_one_replaces_it() -> None:
    sim = champion()
    sim.edit(LINEAR)
    trained(sim)
    assert sim.actions == ["Accept", "Accept"]
    assert sim.registry.aliases == {"champion": "1", "challenger": "2"}
    assert sim.records[1].cause.kind == "SpecChange"
    sim.edit({"training": {"seed": 8}})
    trained(sim)
    assert sim.registry.aliases == {"champion": "1", "challenger": "3"}
    assert sim.status.champion is not None
    assert sim.status.champion.version == "1"
    assert sim.records[2].evidence.summary["trials"] == 3


def test_refused_version_is_not_registered_nor_trained_again() -> None:
    sim = SimulatedWorld(LINEAR)
    trained(sim, NO_SKILL)
    assert sim.actions == ["Reject"]
    assert sim.registry.versions == []
    assert sim.condition("Ready")[:2] == ("False", reasons.GATES_REFUSED)
    assert sim.condition("GatesPassed")[0] == "False"
    assert sim.condition("CandidateRejected")[0] == "True"
    assert "ewma_skill: lower 95 % bound" in sim.condition("GatesPassed")[2]
    assert sim.status.phase == "Refused"
    assert [version.reason for version in sim.status.rejected_versions] == [reasons.NO_SKILL]
    sim.lose_jobs()
    sim.advance(days=3)
    sim.settle()
    assert len(sim.created) == 1


def test_a_refused_candidate_leaves_the_champion_alone() -> None:
    sim = champion()
    before = sim.status.champion
    sim.edit(LINEAR)
    trained(sim, NO_SKILL)
    assert sim.status.champion == before
    assert sim.condition("Ready")[:2] == ("False", reasons.SERVING_NOT_REQUESTED)
    assert sim.condition("CandidateRejected")[0] == "True"
    assert sim.condition("Stalled")[0] == "False"


# --- never trained twice ---------------------------------------------------------------------------------------------


def test_lost_status_is_rebuilt_from_the_records() -> None:
    sim = champion()
    before = sim.status
    sim.lose_status()
    sim.settle()
    again = sim.status
    assert again.champion == before.champion
    assert again.runs == before.runs
    assert again.last_decision == before.last_decision
    assert len(sim.created) == 1
    assert sim.actions == ["Accept"]


def test_lost_status_while_training_keeps_the_job() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.lose_status()
    sim.settle()
    assert len(sim.created) == 1
    assert sim.status.training is not None
    assert sim.status.training.job == sim.created[0]


def test_lost_termination_message_is_asked_of_the_run() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.finish(measured(sim), message=False)
    sim.settle()
    assert sim.actions == ["Accept"]


def test_a_job_that_vanished_after_it_measured_is_not_repeated() -> None:
    """The operator was away, somebody removed the Job: the MLflow run still has the result."""
    sim = SimulatedWorld()
    sim.settle()
    sim.finish(measured(sim))
    sim.lose_jobs()
    sim.settle()
    assert sim.actions == ["Accept"]
    assert len(sim.created) == 1


def test_a_model_that_was_restored_without_its_records_is_judged_from_its_run() -> None:
    sim = champion()
    sim.lose_status()
    sim.world = replace(sim.world, records=(), jobs=())
    sim.settle()
    assert sim.actions == ["Accept"]
    assert len(sim.created) == 1
    assert len(sim.registry.versions) == 1


def test_a_removed_job_is_not_made_again() -> None:
    sim = champion()
    sim.lose_jobs()
    sim.settle()
    assert len(sim.created) == 1


def test_the_job_goes_its_ttl_after_the_verdict() -> None:
    sim = champion()
    assert len(sim.jobs) == 1
    decision = sim.step()
    assert decision.wake_at is not None
    sim.advance(seconds=PLATFORM.job_ttl_seconds - 120)
    sim.settle()
    assert len(sim.jobs) == 1
    sim.advance(seconds=121)
    sim.settle()
    assert sim.jobs == ()
    assert len(sim.created) == 1


def test_a_job_that_is_deleted_by_hand_is_made_again_but_not_for_ever() -> None:
    sim = SimulatedWorld({"training": {"retry": {"limit": 2}}})
    for attempt in (1, 2, 3):
        sim.settle()
        assert sim.created[-1].endswith(f"-{attempt}")
        sim.lose_jobs()
    sim.settle()
    assert len(sim.created) == 3
    assert sim.actions == ["TrainingFailed"]
    assert sim.condition("Trained")[:2] == ("False", reasons.JOB_LOST)


# --- edits -----------------------------------------------------------------------------------------------------------


def test_spec_changed_in_training_trains_the_new_one_only() -> None:
    sim = SimulatedWorld()
    sim.settle()
    old = sim.created[0]
    sim.edit({"training": {"seed": 8}})
    sim.settle()
    assert [job.name for job in sim.jobs] == sim.created[1:]
    assert sim.actions == ["Abort"]
    assert sim.records[0].cause.kind == "SpecChange"
    assert reasons.TRAINING_SUPERSEDED in [event.reason for event in sim.events]
    sim.finish(measured(sim))
    sim.settle()
    assert sim.actions == ["Abort", "Accept"]
    assert old not in [job.name for job in sim.jobs]


def test_an_edit_that_is_taken_back_trains_the_first_spec_after_all() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.edit({"training": {"seed": 8}})
    sim.settle()
    sim.advance(minutes=1)
    sim.edit({"training": {"seed": 7}})
    sim.settle()
    trained(sim)
    assert sim.actions == ["Abort", "Abort", "Accept"]


def test_changed_gate_judges_again_without_a_job_and_without_mlflow() -> None:
    sim = champion()
    before = sim.status.champion
    sim.registry.up = False
    sim.edit({"gates": [{"metric": "har_skill", "above": "0.5"}]})
    sim.settle()
    assert sim.condition("GatesPassed")[:2] == ("False", reasons.CHAMPION_FAILS_GATES)
    assert "is not above 0.5" in sim.condition("GatesPassed")[2]
    assert sim.status.champion == before
    assert sim.status.rejected_versions == (), "the champion was not refused"
    assert sim.condition("CandidateRejected")[0] == "False"
    sim.edit({"gates": []})
    sim.settle()
    assert sim.condition("GatesPassed")[0] == "True"
    assert sim.status.champion == before
    assert sim.actions == ["Accept", "Reject", "Accept"]
    assert [record.cause.kind for record in sim.records[1:]] == ["GatesChanged", "GatesChanged"]
    assert len(sim.created) == 1


def test_a_challenger_that_fails_new_gates_is_none_any_more() -> None:
    sim = champion()
    sim.edit(LINEAR)
    trained(sim)
    sim.edit({"gates": [{"metric": "ewma_skill", "above": "0.9"}]})
    sim.settle()
    assert sim.status.challenger is None
    assert sim.registry.aliases == {"champion": "1"}
    sim.edit({"gates": []})
    sim.settle()
    assert sim.registry.aliases == {"champion": "1", "challenger": "2"}
    assert len(sim.registry.versions) == 2


def test_a_loosened_gate_accepts_what_was_refused() -> None:
    sim = SimulatedWorld({"gates": [{"metric": "ewma_skill", "above": "0.5"}]})
    trained(sim)
    assert sim.actions == ["Reject"]
    sim.edit({"gates": []})
    sim.settle()
    assert sim.actions == ["Reject", "Accept"]
    assert sim.registry.aliases == {"champion": "1"}
    assert len(sim.created) == 1
    assert sim.records[1].evidence.summary["trials"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"training": {"resources": {"requests": {"cpu": "2"}}}},
        {"training": {"retry": {"limit": 5}}},
        {"training": {"queueName": "night"}},
        {"governance": {"owner": "desk", "purpose": "a purpose"}},
        {"data": {"checks": {"minRows": 900}}},
    ],
)
def test_edits_beside_the_training_train_nothing(change: dict[str, Any]) -> None:
    sim = champion()
    sim.edit(change)
    sim.settle()
    assert len(sim.created) == 1
    assert sim.actions == ["Accept"]
    assert sim.status.observed_generation == 2
    assert all(condition.observed_generation == 2 for condition in sim.status.conditions)


# --- failures --------------------------------------------------------------------------------------------------------


def test_refused_data_is_a_record_and_needs_a_person() -> None:
    sim = SimulatedWorld()
    sim.settle()
    said = {"outcome": "DataRefused", "reason": "StaleData", "message": "newest row 2017-10-06, asOf 2017-12-29"}
    sim.fail(42, said)
    sim.settle()
    assert sim.actions == ["TrainingFailed"]
    assert sim.condition("Trained") == ("False", "StaleData", said["message"])
    assert sim.condition("Stalled")[0] == "True"
    assert sim.condition("Ready")[:2] == ("False", reasons.TRAINING_FAILED)
    sim.advance(days=2)
    sim.settle()
    assert len(sim.created) == 1


def test_retrain_after_a_failure_looks_at_the_data_again() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.fail(42, {"outcome": "DataRefused", "reason": "StaleData", "message": "stale"})
    sim.settle()
    act_now(sim, "retrain-1", "Retrain")
    trained(sim)
    assert sim.actions == ["TrainingFailed", "Accept"]
    assert sim.records[1].cause.trigger == {"requestId": "retrain-1"}
    sim.advance(days=1)
    sim.settle()
    assert len(sim.created) == 2


def test_a_failure_without_words_quotes_kubernetes() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.fail(137, None, reason="BackoffLimitExceeded")
    sim.settle()
    assert sim.actions == ["TrainingFailed"]
    assert "137" in sim.condition("Trained")[2]


def test_a_failed_spec_change_needs_a_person_though_a_champion_stands() -> None:
    sim = champion()
    sim.edit(LINEAR)
    sim.settle()
    sim.fail(64, {"outcome": "BadContract", "reason": "EmbargoTooSmall", "message": "raise it"})
    sim.settle()
    assert sim.condition("Stalled")[0] == "True"
    assert sim.condition("Ready")[:2] == ("False", reasons.SERVING_NOT_REQUESTED)


def test_changed_artifact_is_not_registered() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.finish(measured(sim))
    sim.registry.tampered.add(str(measured(sim)["runId"]))
    sim.settle()
    assert sim.actions == ["TrainingFailed"]
    assert sim.registry.versions == []
    assert sim.condition("Trained")[:2] == ("False", reasons.ARTIFACT_MISMATCH)


# --- MLflow away -----------------------------------------------------------------------------------------------------


def test_a_result_waits_for_mlflow() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.registry.up = False
    sim.finish(measured(sim))
    decision = sim.settle()
    assert sim.actions == []
    assert sim.condition("Reconciling")[:2] == ("True", "RegistryUnreachable")
    assert sim.condition("Stalled")[0] == "False"
    assert "http://mlflow" in sim.condition("Reconciling")[2]
    assert decision.wake_at is not None
    assert decision.wake_at - sim.now <= timedelta(seconds=60)
    sim.registry.up = True
    sim.settle()
    assert sim.actions == ["Accept"]
    assert len(sim.created) == 1


def test_no_training_is_started_while_mlflow_is_away() -> None:
    sim = SimulatedWorld()
    sim.registry.up = False
    decision = sim.settle()
    assert sim.created == []
    assert sim.condition("Reconciling")[:2] == ("True", "RegistryUnreachable")
    assert decision.wake_at is not None
    sim.registry.up = True
    sim.settle()
    assert len(sim.created) == 1


def test_a_running_training_says_that_mlflow_is_away() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.start()
    sim.registry.up = False
    sim.settle()
    assert sim.condition("Reconciling")[0] == "True"
    assert "MLflow" in sim.condition("Reconciling")[2]
    assert sim.condition("Stalled")[0] == "False"


def test_moved_alias_is_set_back_and_named() -> None:
    sim = champion()
    sim.edit(LINEAR)
    trained(sim)
    sim.advance(minutes=5)
    sim.settle()
    sim.registry.aliases["champion"] = "2"
    decision = sim.step()
    assert decision.mirror is not None
    assert sim.condition("RegistryDrift")[0] == "True"
    assert sim.registry.aliases["champion"] == "1"
    sim.settle()
    assert sim.condition("RegistryDrift")[0] in ("", "False")


# --- progress --------------------------------------------------------------------------------------------------------


def test_progress_is_written_at_most_every_fifteen_seconds_and_only_on_change() -> None:
    sim = SimulatedWorld()
    sim.settle()
    writes = 0
    for second in range(60):
        sim.start({"epoch": second // 4, "epochs": 15, "percent": second, "etaSeconds": 60 - second})
        before = sim.status_writes
        sim.step()
        writes += sim.status_writes - before
        sim.advance(seconds=1)
    assert writes <= 6
    assert sim.status.training is not None
    assert sim.status.training.progress is not None
    assert sim.status.training.progress.percent is not None
    assert sim.status.training.progress.percent >= 44
    before = sim.status_writes
    for _ in range(10):
        sim.advance(seconds=15)
        sim.step()
    assert sim.status_writes - before <= 1


# --- suspend, kill, abort, retrain -----------------------------------------------------------------------------------


def test_suspended_model_starts_nothing_and_is_one_write() -> None:
    sim = SimulatedWorld({"suspend": True})
    sim.settle()
    assert sim.created == []
    assert sim.condition("Suspended")[0] == "True"
    assert sim.status_writes == 1
    assert sim.events == []
    assert sim.status.phase == "Suspended"
    sim.advance(days=2)
    sim.settle()
    assert sim.status_writes == 1
    sim.edit({"suspend": False})
    sim.settle()
    assert len(sim.created) == 1


def test_a_running_training_of_a_suspended_model_ends_and_is_judged() -> None:
    sim = SimulatedWorld()
    sim.settle()
    sim.edit({"suspend": True})
    sim.settle()
    assert len(sim.jobs) == 1
    sim.finish(measured(sim))
    sim.settle()
    assert sim.actions == ["Accept"]
    sim.edit({"training": {"seed": 8}})
    sim.settle()
    assert len(sim.created) == 1


def test_kill_latches_until_a_newer_resume() -> None:
    sim = champion()
    sim.edit({"kill": {"engaged": True}})
    sim.settle()
    assert sim.actions[-1] == "Kill"
    assert sim.condition("Killed")[:2] == ("True", reasons.KILL_ENGAGED)
    assert sim.status.phase == "Killed"
    act_now(sim, "too-early", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Kill", "an engaged field keeps it engaged"
    sim.edit({"kill": {"engaged": False}})
    sim.settle()
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Resume"
    assert sim.condition("Killed")[0] in ("", "False")
    assert sim.status.kill is not None
    assert not sim.status.kill.engaged


def test_latched_kill_says_what_to_do() -> None:
    sim = SimulatedWorld({"kill": {"engaged": True}})
    sim.settle()
    sim.advance(seconds=5)
    sim.edit({"kill": {"engaged": False}})
    sim.settle()
    status, reason, message = sim.condition("Killed")
    assert (status, reason) == ("True", reasons.RESUME_NEEDED)
    assert "Resume" in message
    assert sim.created == []


def test_a_resume_of_the_same_second_is_not_newer() -> None:
    sim = SimulatedWorld({"kill": {"engaged": True}})
    sim.approve(act("resume-1", "Resume", sim.now))
    sim.settle()
    sim.edit({"kill": {"engaged": False}})
    sim.settle()
    assert sim.actions == ["Kill"]


def test_a_kill_of_the_second_of_the_resume_is_not_lost() -> None:
    sim = champion()
    act_now(sim, "kill-1", "Kill")
    sim.settle()
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Resume"
    sim.approve(act("kill-2", "Kill", sim.now))
    sim.settle()
    assert sim.actions[-1] == "Kill"


def test_kill_by_approval_counts_without_policies_and_resume_does_not() -> None:
    sim = champion()
    sim.world = replace(sim.world, platform=replace(PLATFORM, approval_policies_active=False))
    act_now(sim, "kill-1", "Kill", "bob@desk")
    sim.settle()
    assert sim.actions[-1] == "Kill"
    assert sim.records[-1].actor.user == "bob@desk"
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Kill"
    assert sim.condition("Killed")[1] == reasons.APPROVALS_NOT_GUARDED
    sim.world = replace(sim.world, platform=replace(PLATFORM, approval_policies_since=sim.now))
    sim.settle()
    assert sim.actions[-1] == "Kill", "the policies are newer than the approval"


def test_who_edited_the_spec_cannot_resume_it() -> None:
    sim = champion()
    sim.annotate(**{ANNOTATION_EDITED_BY: "ana@desk"})
    act_now(sim, "kill-1", "Kill")
    sim.settle()
    act_now(sim, "resume-1", "Resume", "ana@desk")
    sim.settle()
    assert sim.actions[-1] == "Kill"
    assert "ana@desk" in sim.condition("Killed")[2]
    act_now(sim, "resume-2", "Resume", "bob@desk")
    sim.settle()
    assert sim.actions[-1] == "Resume"


def test_a_gitops_editor_is_nobody_who_approves() -> None:
    robot = "system:serviceaccount:argocd:controller"
    sim = champion()
    sim.world = replace(sim.world, platform=replace(PLATFORM, gitops_editors=(robot,)))
    sim.annotate(**{ANNOTATION_EDITED_BY: robot})
    act_now(sim, "kill-1", "Kill")
    sim.settle()
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert sim.actions[-1] == "Resume"


def test_nothing_is_started_while_killed() -> None:
    sim = champion()
    act_now(sim, "kill-1", "Kill")
    sim.settle()
    sim.edit(LINEAR)
    sim.settle()
    assert len(sim.created) == 1
    act_now(sim, "resume-1", "Resume")
    sim.settle()
    assert len(sim.created) == 2


def test_abort_ends_the_training_for_good() -> None:
    sim = SimulatedWorld()
    sim.settle()
    act_now(sim, "abort-1", "Abort")
    sim.settle()
    assert sim.jobs == ()
    assert sim.actions == ["Abort"]
    assert sim.records[0].actor.user == "ana@desk"
    sim.advance(days=1)
    sim.settle()
    assert len(sim.created) == 1
    act_now(sim, "retrain-1", "Retrain")
    trained(sim)
    assert sim.actions == ["Abort", "Accept"]


def test_an_old_abort_does_not_end_a_later_training() -> None:
    sim = champion()
    act_now(sim, "abort-1", "Abort")
    sim.settle()
    sim.advance(minutes=1)
    sim.edit(LINEAR)
    trained(sim)
    assert sim.actions == ["Accept", "Accept"]


def test_retrain_of_fixed_data_says_that_nothing_is_new() -> None:
    sim = champion()
    act_now(sim, "retrain-1", "Retrain")
    sim.settle()
    assert len(sim.created) == 1
    assert sim.condition("NothingNew")[0] == "True"
    assert "2017-12-29" in sim.condition("NothingNew")[2]
    sim.edit({"data": {"asOf": "2018-06-29"}})
    trained(sim)
    assert len(sim.created) == 2
    assert sim.condition("NothingNew")[0] in ("", "False")


def test_retrain_of_rolling_data_trains_once_with_todays_date() -> None:
    sim = champion({"data": {"asOf": "Rolling"}})
    sim.advance(days=2)
    act_now(sim, "retrain-1", "Retrain")
    trained(sim)
    assert [record.cause.kind for record in sim.records] == ["Initial", "Retrain"]
    assert sim.records[1].evidence.summary["asOf"] == "2026-11-26"
    assert sim.records[1].evidence.summary["trials"] == 1, "a refresh is no new configuration"
    sim.advance(days=2)
    sim.settle()
    assert len(sim.created) == 2


# --- schedule --------------------------------------------------------------------------------------------------------

NIGHTLY: dict[str, Any] = {
    "data": {"asOf": "Rolling", "calendar": None},
    "training": {"schedule": {"cron": "0 22 * * *", "timeZone": "America/New_York"}},
}


def test_schedule_trains_at_its_tick_with_that_days_data() -> None:
    sim = champion(NIGHTLY)
    decision = sim.step()
    assert sim.status.next_training is not None
    assert decision.wake_at is not None
    assert decision.wake_at <= sim.status.next_training
    sim.now = sim.status.next_training
    trained(sim)
    assert [record.cause.kind for record in sim.records] == ["Initial", "Schedule"]
    assert sim.records[1].evidence.summary["asOf"] == "2026-11-24", "the date in New York"
    assert sim.records[1].cause.trigger == {"scheduleTick": "2026-11-25T03:00:00Z"}
    sim.settle()
    assert len(sim.created) == 2


def test_missed_ticks_are_one_training() -> None:
    sim = champion(NIGHTLY)
    sim.edit({"suspend": True})
    sim.settle()
    sim.advance(days=5)
    sim.settle()
    assert len(sim.created) == 1
    sim.edit({"suspend": False})
    trained(sim)
    assert len(sim.created) == 2
    sim.settle()
    assert len(sim.created) == 2


def test_a_tick_during_a_training_waits_for_its_end() -> None:
    sim = champion(NIGHTLY)
    sim.advance(days=1)
    sim.settle()
    assert len(sim.created) == 2
    sim.advance(days=1)
    sim.settle()
    assert len(sim.created) == 2
    sim.finish(measured(sim))
    sim.settle()
    assert len(sim.created) == 3


def test_a_schedule_on_fixed_data_says_so_and_writes_nothing_at_its_ticks() -> None:
    sim = champion({"data": {"calendar": None}, "training": {"schedule": {"cron": "* * * * *"}}})
    sim.advance(minutes=2)
    sim.settle()
    assert sim.condition("NothingNew")[0] == "True"
    writes = sim.status_writes
    for _ in range(10):
        sim.advance(minutes=1)
        sim.settle()
    assert sim.status_writes == writes
    assert len(sim.created) == 1


def test_a_schedule_on_an_unknown_exchange_is_stalled() -> None:
    sim = SimulatedWorld({"training": {"schedule": {"cron": "0 22 * * *", "calendar": "XLON"}}})
    sim.settle()
    assert sim.condition("Stalled")[:2] == ("True", reasons.CALENDAR_UNKNOWN)


# --- before a training -----------------------------------------------------------------------------------------------


def test_an_obstacle_is_said_before_anything_is_created() -> None:
    sim = SimulatedWorld()
    sim.world = replace(sim.world, quotas=(QuotaView("desk", {"requests.cpu": "100m"}, {}),))
    sim.settle()
    assert sim.created == []
    assert sim.condition("Ready")[:2] == ("False", reasons.QUOTA_EXCEEDED)
    sim.world = replace(sim.world, quotas=())
    sim.settle()
    assert len(sim.created) == 1


def test_a_reference_is_looked_at_again_soon() -> None:
    sim = SimulatedWorld()
    sim.world = replace(sim.world, references=(ReferenceView("Secret", "desk-s3", "Found"),))
    decision = sim.settle()
    assert sim.condition("Stalled")[0] == "True"
    assert decision.wake_at is not None
    assert decision.wake_at - sim.now <= timedelta(seconds=30)


def test_second_claim_on_a_registered_model_is_stalled_and_touches_no_alias() -> None:
    sim = champion()
    first = Claim("desk", "spx", "0", sim.now - timedelta(days=9))
    sim.world = replace(sim.world, claims=(first,))
    sim.registry.aliases = {"champion": "9"}
    decision = sim.step()
    assert decision.mirror is None
    assert sim.condition("Stalled")[:2] == ("True", reasons.REGISTRY_MODEL_TAKEN)
    assert "desk/spx" in sim.condition("Stalled")[2]


@pytest.mark.parametrize("engine", ["JobSet", "TrainJob"])
def test_engines_that_do_not_run_yet_train_nothing(engine: str) -> None:
    sim = SimulatedWorld({"training": {"engine": engine}})
    sim.settle()
    assert sim.created == []
    assert sim.condition("NotYetActive")[0] == "True"
    assert "spec.training.engine" in sim.condition("NotYetActive")[2]


def test_parts_that_are_not_active_are_named_and_stop_nothing() -> None:
    sim = champion({"serving": {"replicas": 2}, "promotion": {"mode": "Manual"}})
    message = sim.condition("NotYetActive")[2]
    assert "spec.serving" in message
    assert "spec.promotion" in message


# --- deletion --------------------------------------------------------------------------------------------------------


def test_deleted_model_leaves_its_records_and_takes_its_aliases() -> None:
    sim = champion()
    sim.delete()
    sim.settle()
    assert sim.gone
    assert sim.registry.aliases == {}
    assert sim.actions == ["Accept", "Retire"]
    assert len(sim.registry.versions) == 1


def test_a_model_that_is_back_takes_its_version_again_without_training() -> None:
    sim = champion()
    sim.delete()
    sim.settle()
    sim.advance(minutes=1)
    sim.create_again()
    sim.settle()
    assert sim.actions == ["Accept", "Retire", "Adopt"]
    assert sim.registry.aliases == {"champion": "1"}
    assert len(sim.created) == 1


def test_retained_model_keeps_its_aliases_and_is_known_again() -> None:
    retain = {"deletionPolicy": "Retain"}
    sim = champion(retain)
    before = sim.status.champion
    sim.delete()
    sim.settle()
    assert sim.gone
    assert sim.registry.aliases == {"champion": "1"}
    sim.create_again(retain)
    sim.settle()
    assert before is not None
    assert sim.status.champion is not None
    assert sim.status.champion.digest == before.digest
    assert len(sim.created) == 1


def test_mlflow_does_not_hold_a_deletion_up_for_ever() -> None:
    sim = champion()
    sim.registry.up = False
    sim.delete()
    decision = sim.settle()
    assert not sim.gone
    assert decision.wake_at is not None
    sim.advance(minutes=10)
    sim.settle()
    assert sim.gone
    assert "left in MLflow" in sim.records[-1].cause.message


def test_terminating_namespace_takes_no_record() -> None:
    sim = champion()
    sim.world = replace(sim.world, namespace_terminating=True)
    sim.registry.up = False
    sim.delete()
    sim.settle()
    assert sim.gone
    assert sim.actions == ["Accept"]


def test_a_deletion_that_others_hold_up_is_left_to_them() -> None:
    """No version was registered, so there is no finalizer of ours and nothing to clean up."""
    sim = SimulatedWorld()
    sim.settle()
    sim.delete()
    sim.settle()
    assert sim.actions == []
    assert sim.status.phase == "Retiring"
    assert len(sim.created) == 1


def test_aliases_in_another_models_name_are_left_alone() -> None:
    sim = champion()
    sim.world = replace(sim.world, claims=(Claim("desk", "spx", "0", sim.now - timedelta(days=9)),))
    sim.delete()
    sim.settle()
    assert sim.gone
    assert sim.registry.aliases == {"champion": "1"}


def test_deletion_in_training_creates_nothing_more() -> None:
    sim = champion()
    sim.edit(LINEAR)
    sim.step()
    sim.delete()
    sim.settle()
    assert sim.gone
    assert len(sim.created) == 1


# --- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["missing", "changed"])
def test_broken_log_is_a_condition_and_nothing_is_built_on_it(harm: str) -> None:
    sim = champion()
    sim.edit({"gates": [{"metric": "har_skill", "above": "0.5"}]})
    sim.settle()
    sim.edit({"gates": []})
    sim.settle()
    first, second, third = sim.world.records
    if harm == "missing":
        broken = (first, third)
    else:
        forged = first.spec.model_copy(update={"action": "Reject"})
        broken = (first.model_copy(update={"spec": forged}), second, third)
    sim.world = replace(sim.world, records=broken)
    sim.edit(LINEAR)
    sim.settle()
    assert sim.condition("Stalled")[:2] == ("True", reasons.LOG_BROKEN)
    assert len(sim.created) == 1
    act_now(sim, "kill-1", "Kill")
    sim.settle()
    assert sim.actions[-1] == "Kill", "a kill works whatever else is wrong"
    assert sim.status.phase == "Killed"
    sim.delete()
    sim.settle()
    assert sim.gone
