"""Parsing and writing of whole objects, and the conditions in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from fiduciary.api import conditions
from fiduciary.api.conditions import Condition
from fiduciary.api.financialmodel import FinancialModel, FinancialModelStatus
from fiduciary.api.gates import METRICS, GateMetric
from fiduciary.api.modeldecision import ModelDecision
from fiduciary.api.modelexperiment import ModelExperimentSpec
from fiduciary.api.modelstatus import MetricValue
from fiduciary.api.training import REFERENCE_ARCHITECTURES, Architecture

NOW = datetime(2026, 11, 24, 12, 0, 0, 123456, tzinfo=UTC)


def _model() -> dict[str, Any]:
    return {
        "apiVersion": "fiduciary.dev/v1alpha1",
        "kind": "FinancialModel",
        "metadata": {
            "name": "spx",
            "namespace": "quant",
            "uid": "u",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": "2026-11-24T00:00:00Z",
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {
            "data": {
                "source": {"dataset": {"name": "arch/sp500"}},
                "time": "date",
                "asOf": "2017-12-29",
                "features": {"set": "ohlcv-v1"},
                "label": {"kind": "Volatility"},
                "fieldOfTheFuture": {"a": 1},
            },
            "training": {"architecture": "HAR", "hyperparameters": {"window": 20, "learningRate": "0.001"}},
        },
        "status": {"observedGeneration": -1},
    }


def test_unknown_fields_are_ignored_and_defaults_filled_in() -> None:
    model = FinancialModel.model_validate(_model())
    assert model.metadata.resource_version == "7"
    assert model.spec.training.validation.embargo == 66
    assert model.spec.training.hyperparameters == {"window": 20, "learningRate": "0.001"}
    assert model.spec.serving is None
    assert model.status.observed_generation == -1


def test_a_model_survives_the_way_to_json_and_back() -> None:
    model = FinancialModel.model_validate(_model())
    body = model.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert body["metadata"] == {
        "name": "spx",
        "namespace": "quant",
        "uid": "u",
        "resourceVersion": "7",
        "generation": 2,
        "creationTimestamp": "2026-11-24T00:00:00Z",
    }
    assert FinancialModel.model_validate(body) == model


def test_metadata_that_the_server_has_not_set_is_absent() -> None:
    body = FinancialModel.model_validate({**_model(), "metadata": {"name": "spx"}}).body()
    assert body["metadata"] == {"name": "spx"}, "an empty uid would be a precondition that nothing meets"


def test_a_date_that_yaml_made_is_read_as_its_text() -> None:
    body = _model()
    body["spec"]["data"]["asOf"] = datetime(2017, 12, 29, tzinfo=UTC).date()
    assert FinancialModel.model_validate(body).spec.data.as_of == "2017-12-29"


def test_objects_are_frozen() -> None:
    model = FinancialModel.model_validate(_model())
    with pytest.raises(ValidationError, match="frozen"):
        model.spec.training.seed = 8


def test_times_have_whole_seconds_in_utc() -> None:
    """A fraction would make two equal states differ, and write a status for nothing."""
    made = Condition(type="Ready", status="True", reason="Serving", last_transition_time=NOW)
    assert made.body()["lastTransitionTime"] == "2026-11-24T12:00:00Z"
    local = "2026-11-24T13:00:00.5+01:00"
    parsed = Condition.model_validate({**made.body(), "lastTransitionTime": local})
    assert parsed.body()["lastTransitionTime"] == "2026-11-24T12:00:00Z"


def test_long_texts_are_clipped_not_refused() -> None:
    made = Condition(type="Ready", status="False", reason="Training", message="x" * 5000, last_transition_time=NOW)
    assert len(made.message) == 4096
    assert made.message.endswith("…")


def test_a_transition_time_moves_with_the_status_only() -> None:
    later = NOW + timedelta(hours=1)
    first = conditions.condition((), "Ready", "False", "Training", "epoch 1", generation=1, now=NOW)
    same = conditions.condition((first,), "Ready", "False", "GatesRefused", "refused", generation=2, now=later)
    assert same.last_transition_time == first.last_transition_time
    assert (same.reason, same.message, same.observed_generation) == ("GatesRefused", "refused", 2)
    turned = conditions.condition((same,), "Ready", "True", "Serving", "", generation=2, now=later)
    assert turned.last_transition_time == later.replace(microsecond=0)
    assert conditions.is_true((turned,), "Ready")
    assert not conditions.is_true((), "Ready")


def test_a_metric_of_the_trainer_becomes_a_text_of_five_digits() -> None:
    assert MetricValue.model_validate({"name": "loss", "value": 0.123456789}).value == "0.12346"
    assert MetricValue.model_validate({"name": "loss", "value": "0.1"}).value == "0.1"


def test_a_record_survives_the_way_to_json_and_back() -> None:
    spec = {
        "modelRef": {"name": "spx", "uid": "u"},
        "sequence": 2,
        "action": "Accept",
        "from": {"version": "1", "role": "Champion"},
        "to": {"version": "2", "role": "Challenger", "digest": "sha256:" + "a" * 64},
        "cause": {"kind": "SpecChange", "generation": 3, "message": "passed", "reasons": []},
        "evidence": {"summary": {"metrics": {"har_skill": {"e": 0.07, "f": [0.05, 0.09], "n": 3100}}}},
        "actor": {"component": "fiduciary-operator", "version": "0.1.0"},
        "previous": "sha256:" + "b" * 64,
        "decidedAt": "2026-11-24T12:00:00Z",
    }
    body = {
        "apiVersion": "fiduciary.dev/v1alpha1",
        "kind": "ModelDecision",
        "metadata": {"name": "spx-2"},
        "spec": spec,
    }
    record = ModelDecision.model_validate(body)
    assert record.spec.from_ is not None
    assert record.spec.from_.version == "1"
    again = record.body()["spec"]
    assert again.pop("cause") == {**spec["cause"], "trigger": {}}  # type: ignore[dict-item]
    assert again == {name: value for name, value in spec.items() if name != "cause"}


def test_status_knows_no_version_it_was_not_told() -> None:
    status = FinancialModelStatus()
    assert status.champion is None
    assert status.challenger is None
    assert status.body() == {
        "observedGeneration": -1,
        "conditions": [],
        "rejectedVersions": [],
        "runs": [],
    }


def test_every_gate_metric_belongs_to_a_label_kind() -> None:
    known = set(GateMetric.__args__)  # type: ignore[attr-defined]
    assert known == {metric for metrics in METRICS.values() for metric in metrics}
    assert set(METRICS) == {"Volatility", "Direction", "Return"}
    assert set(Architecture.__args__) > REFERENCE_ARCHITECTURES  # type: ignore[attr-defined]


def test_every_field_of_an_experiment_is_fixed_or_named_as_changeable() -> None:
    """A field that is added later must be decided about: the evidence was gathered under it, or it was not."""
    fields = {field.alias for field in ModelExperimentSpec.model_fields.values()}
    fixed = {
        rule.field_path.removeprefix(".") for rule in ModelExperimentSpec.rules if "cannot be changed" in rule.message
    }
    assert fields - fixed == {"mode", "suspend", "approvals"}
