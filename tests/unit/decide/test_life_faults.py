"""Lives in which something is wrong: data, images, MLflow, quotas, the log itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.world import Claim, QuotaView, ReferenceView
from tests.unit.decide.lives import LINEAR, act_now, champion, measured, trained
from tests.unit.decide.simulated_world import SimulatedWorld

# --- failures ---------------------------------------------------------------------------------------------------------


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


# --- MLflow away ------------------------------------------------------------------------------------------------------


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


# --- before a training ------------------------------------------------------------------------------------------------


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


def test_an_engine_that_does_not_run_yet_trains_nothing() -> None:
    sim = SimulatedWorld({"training": {"engine": "External", "external": {"alias": "proposed"}, "architecture": None}})
    sim.settle()
    assert sim.created == []
    assert sim.condition("NotYetActive")[0] == "True"
    assert "spec.training.engine" in sim.condition("NotYetActive")[2]


def test_parts_that_are_not_active_are_named_and_stop_nothing() -> None:
    sim = champion({"promotion": {"experiment": {"mode": "Advise"}}})
    message = sim.condition("NotYetActive")[2]
    assert "spec.promotion.experiment" in message
    assert sim.registry.aliases == {"champion": "1"}


# --- the log ----------------------------------------------------------------------------------------------------------


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
