"""The demo's reading of objects: streams of kubectl, and what a model's status says in a line."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from sandbox.demo import NAMESPACE, VOLATILITY, judged, judged_anew, stopped, told_by
from sandbox.experiment import claims, ended
from sandbox.kubectl import Kubectl, condition, documents, settled
from sandbox.kubectl import said as itself
from sandbox.steps import StepFailed
from sandbox.story import describe

if TYPE_CHECKING:
    from pathlib import Path

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


# --- what it says when it cannot go on --------------------------------------------------------------------------------


class Objects:
    """kubectl, with what is stored."""

    def __init__(self, **lists: list[dict[str, Any]]) -> None:
        self.lists = lists

    def get(self, *words: str) -> dict[str, Any]:
        kind, *name = [word for word in words if not word.startswith("-") and word != NAMESPACE]
        if kind not in self.lists and f"{kind}s" not in self.lists:
            raise StepFailed(f"`kubectl get {kind}` failed: connection refused")
        if name:
            return next(item for item in self.lists[f"{kind}s"] if item["metadata"]["name"] == name[0])
        return {"items": self.lists[kind]}


def decision(sequence: int, action: str, left: str, takes: str, reason: str) -> dict[str, Any]:
    why = [{"reason": reason, "message": "…"}]
    cause = {"kind": "Experiment", "experiment": f"{VOLATILITY}-2", "message": f"{reason} was seen", "reasons": why}
    ends = {"from": {"version": left}, "to": {"version": takes}}
    spec = {"modelRef": {"name": VOLATILITY}, "sequence": sequence, "action": action, "cause": cause, **ends}
    return {"metadata": {"name": f"{VOLATILITY}-{sequence}"}, "spec": spec}


WATCHED = [decision(5, "RollBack", "2", "1", "HarmAfterPromotion"), decision(4, "Promote", "1", "2", "NotWorse")]


def stored(champion: str) -> Any:
    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": "it answers", "observedGeneration": 2}
    found = model(phase="Serving", champion={"version": champion}, conditions=[ready])
    found |= {"metadata": {**found["metadata"], "name": VOLATILITY}, "spec": {}}
    other = {**WATCHED[0], "spec": {**WATCHED[0]["spec"], "modelRef": {"name": "another"}, "sequence": 99}}
    return Objects(financialmodels=[found], modelexperiments=[], modeldecisions=[*WATCHED, other])


def test_a_champion_that_its_watch_took_back_is_told_with_the_record_and_what_to_do() -> None:
    with pytest.raises(StepFailed) as told:
        told_by(stored("1")).still_champion("2")
    assert "version 2 is champion no more, version 1 is: record 5, RollBack (HarmAfterPromotion)" in str(told.value)
    assert "HarmAfterPromotion was seen" in str(told.value)
    assert "while nothing else runs here" in str(told.value)
    told_by(stored("2")).still_champion("2")


def test_answers_that_never_come_are_told_by_who_took_the_champion_s_place() -> None:
    def asked(objects: Any) -> None:
        with told_by(objects).while_champion("2"):
            raise StepFailed("400 answers of version 2: not within 60 s")

    with pytest.raises(StepFailed, match="champion no more"):
        asked(stored("1"))
    with pytest.raises(StepFailed, match="not within 60 s"):
        asked(stored("2"))


def test_whoever_stops_says_what_the_objects_and_the_log_say() -> None:
    out = io.StringIO()
    stopped(Console(file=out, width=300), StepFailed("no pods [0/1]"), stored("1"))
    text = out.getvalue()
    assert "The demo stopped: no pods [0/1]" in text
    assert f"{VOLATILITY} (Serving): Ready is True, Serving: it answers" in text
    assert text.index("record 4, Promote") < text.index("record 5, RollBack")
    assert "record 99" not in text
    stopped(Console(file=out, width=300), StepFailed("nobody is there"), Objects())  # type: ignore[arg-type]
    assert "nobody is there" in out.getvalue()


def test_what_a_person_has_to_do_is_said_before_what_is_on_its_way() -> None:
    ready, stalled = ({**said(kind, status), "reason": "Why", "message": "see"} for kind, status in
                      (("Ready", "False"), ("Stalled", "True")))  # fmt: skip
    assert itself(model(conditions=[ready, stalled], phase="Refused")) == "m (Refused): Stalled is True, Why: see"
    assert itself({"metadata": {"name": "m"}}) == "m (not looked at yet)"


def test_a_wait_that_ends_without_its_end_says_what_was_seen(tmp_path: Path) -> None:
    program = tmp_path / "kubectl"
    event = {"type": "ADDED", "object": model(phase="Training", conditions=[])}
    program.write_text(f"#!/bin/sh\necho '{json.dumps(event)}'\n")
    program.chmod(0o755)
    kubectl = Kubectl(program, tmp_path / "config")
    with pytest.raises(StepFailed, match=r"A verdict did not happen within 1 s\.\nSeen: m \(Training\)"):
        list(kubectl.follow("financialmodels", "quant", lambda _: False, seconds=0.6, what="A verdict"))
