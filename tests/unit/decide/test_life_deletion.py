"""The end of a model, and its return."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from fiduciary.decide.world import Claim
from tests.unit.decide.lives import LINEAR, champion
from tests.unit.decide.simulated_world import SimulatedWorld

# --- deletion ---------------------------------------------------------------------------------------------------------


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


def test_a_deletion_that_waits_does_not_spin_on_a_job_that_is_due() -> None:
    sim = champion()
    sim.registry.up = False
    sim.delete()
    sim.advance(hours=2)  # the Job's time is over
    sim.delete()
    for _ in range(3):
        decision = sim.step()
        assert decision.wake_at is not None
        assert decision.wake_at > sim.now


def test_deletion_in_training_creates_nothing_more() -> None:
    sim = champion()
    sim.edit(LINEAR)
    sim.step()
    sim.delete()
    sim.settle()
    assert sim.gone
    assert len(sim.created) == 1
