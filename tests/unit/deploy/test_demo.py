"""The demo's reading of objects: streams of kubectl, and what a model's status says in a line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.demo import judged, judged_anew
from sandbox.experiment import claims, ended
from sandbox.kubectl import condition, documents, settled
from sandbox.story import describe

EVENTS: list[dict[str, Any]] = [
    {"type": "ADDED", "object": {"metadata": {"name": "a}"}}},
    {"type": "DELETED", "object": {}},
]


@pytest.mark.parametrize("indent", [None, 4], ids=["one line each", "spread over lines"])
def test_documents_of_a_stream(indent: int | None) -> None:
    text = "".join(json.dumps(event, indent=indent) + "\n" for event in EVENTS)
    assert list(documents(text.splitlines(keepends=True))) == EVENTS


def model(generation: int = 2, observed: int = 2, **status: Any) -> dict[str, Any]:
    return {"metadata": {"name": "m", "generation": generation}, "status": {"observedGeneration": observed, **status}}


def said(kind: str, status: str, generation: int = 2) -> dict[str, Any]:
    return {"type": kind, "status": status, "observedGeneration": generation}


def test_a_verdict_on_an_older_generation_is_none() -> None:
    old = model(conditions=[said("GatesPassed", "True", generation=1)])
    assert condition(old, "GatesPassed") == {}
    assert not judged(old)


def test_judged_once_nothing_is_on_its_way() -> None:
    passed = said("GatesPassed", "True")
    assert judged(model(conditions=[passed, said("Reconciling", "False")]))
    assert not judged(model(conditions=[passed, said("Reconciling", "True")]))
    assert not settled(model(observed=1))


def test_a_model_whose_second_training_ended_without_a_challenger_is_not_waited_for() -> None:
    assert judged_anew(model(challenger={"version": "2", "digest": "new"}), "old")
    assert judged_anew(model(runs=[{"outcome": "Rejected"}]), "old")
    assert not judged_anew(model(challenger={"version": "1", "digest": "old"}), "old")
    assert not judged_anew(model(runs=[{"outcome": "Accepted"}]), "old")
    assert not judged_anew(model(observed=1, challenger={"version": "2", "digest": "new"}), "old")


def test_progress_in_a_line() -> None:
    progress = {
        "epoch": 3,
        "epochs": 30,
        "percent": 10,
        "etaSeconds": 61,
        "lastMetric": {"name": "loss", "value": "0.2"},
    }
    training = {"phase": "Running", "progress": progress}
    phase, percent, detail = describe(model(phase="Training", training=training))
    assert (phase, percent) == ("Training", 10)
    assert detail == "Running · epoch 3/30 · loss 0.2 · about 1 min 01 s left"
    assert describe({"metadata": {"name": "m"}}) == ("Pending", None, "")


def test_claims_say_what_is_to_be_shown_before_what_would_roll_back() -> None:
    tests = [
        {"name": "errors", "side": "Harm", "logE": "4.0", "threshold": "3.7", "n": 2},
        {"name": "all", "side": "Harm", "logE": "3.4", "threshold": "3.0", "n": 2},
        {"name": "errors", "side": "NonInferiority", "logE": "-1.5", "threshold": "3.0", "n": 1},
        {"name": "loss", "side": "Superiority", "n": 0},
    ]
    found = claims({"tests": tests})
    assert [(claim.name, claim.side, claim.shown) for claim in found] == [
        ("errors", "NonInferiority", False),
        ("errors", "Harm", True),
    ]
    assert [claim.share for claim in found] == [0.0, 1.0]


def test_an_experiment_has_ended_once_its_verdict_is_recorded() -> None:
    def experiment(reason: str, **status: Any) -> dict[str, Any]:
        ready = {"type": "Ready", "status": "True", "reason": reason}
        return {"metadata": {"name": "m-2", "generation": 1}, "status": {"conditions": [ready], **status}}

    assert not ended(experiment("PodsFailed", phase="RolledBack", evidence={}))
    assert ended(experiment("VerdictRecorded", phase="RolledBack", evidence={}))
    assert ended(experiment("NeverStarted", phase="Kept"))
    assert not ended(experiment("GatheringEvidence", phase="Running", evidence={}))
