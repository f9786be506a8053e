"""Whole lives of a model in a simulated world: what each thing that happens comes to in the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fiduciary.api.meta import FINALIZER
from fiduciary.decide import identity, reasons
from tests.unit.decide.lives import LINEAR, NO_SKILL, champion, measured, trained
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import PLATFORM

# --- the happy path ---------------------------------------------------------------------------------------------------


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


# --- never trained twice ----------------------------------------------------------------------------------------------


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


# --- edits ------------------------------------------------------------------------------------------------------------


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
