"""The number of configurations that were tried, from the log."""

from __future__ import annotations

from typing import Any

from fiduciary.api.modeldecision import ModelDecisionSpec
from fiduciary.decide.experiment.tried import tried
from tests.unit.decide.worlds import NAME, T0, UID

KEYS = {"specKey": "s", "asOf": "2017-12-29"}


def record(sequence: int, action: str, **summary: Any) -> ModelDecisionSpec:
    return ModelDecisionSpec.model_validate(
        {
            "modelRef": {"name": NAME, "uid": UID},
            "sequence": sequence,
            "action": action,
            "cause": {"kind": "SpecChange", "generation": 1, "message": "a test"},
            "evidence": {"digest": "sha256:" + "0" * 64, "summary": summary},
            "actor": {"component": "test", "version": "0"},
            "decidedAt": T0.isoformat(),
        }
    )


def measured(sequence: int, config: str, action: str = "Accept") -> ModelDecisionSpec:
    return record(
        sequence,
        action,
        trainingKey=f"k{sequence}",
        specKey="s",
        configKey=config,
        asOf="2017-12-29",
        measured={"rows": 1},
    )


def test_each_configuration_counts_once_whether_it_passed_or_not() -> None:
    assert tried(()) == 1
    log = [measured(1, "har"), measured(2, "linear", "Reject"), measured(3, "linear"), measured(4, "mlp", "Reject")]
    assert [tried(log[: n + 1]) for n in range(4)] == [1, 2, 2, 3]


def test_what_gave_no_numbers_was_not_seen() -> None:
    failed = record(2, "TrainingFailed", **KEYS, trainingKey="k", configKey="broken")
    assert tried([measured(1, "har"), failed]) == 1


def test_a_discovery_begins_a_new_count_and_a_refresh_does_not() -> None:
    log = [measured(1, "har"), measured(2, "linear")]
    discovery = record(3, "Promote", purpose="Improve", test=1)
    assert tried([*log, discovery]) == 1
    assert tried([*log, discovery, measured(4, "linear"), measured(5, "mlp")]) == 2
    assert tried([*log, record(3, "Promote", purpose="Refresh", test=1), measured(4, "mlp")]) == 3
    assert tried([*log, record(3, "Promote"), measured(4, "mlp")]) == 3  # by a person, on no evidence
