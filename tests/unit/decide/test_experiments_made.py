"""Which ModelExperiments a model makes, and which it clears away."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fiduciary.api import meta
from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.decide import reasons
from tests.unit.decide.laboratory import AUTO, TEMPLATE, Laboratory, laboratory, newcomer, tried_to
from tests.unit.decide.lives import answers, approve, calm, challenged, measured, pin, served, trained
from tests.unit.decide.worlds import NAME, PLATFORM

FIRST = f"{NAME}-2"


def names(lab: Laboratory) -> list[str]:
    return sorted(lab.experiments)


def ended(lab: Laboratory, name: str, number: int) -> None:
    """An experiment of a version of long ago, of our making, that ended without having started."""
    ours = lab.one(FIRST)
    at = (lab.sim.now + timedelta(minutes=number)).isoformat()
    made = ModelExperiment.model_validate(
        {
            "metadata": {**ours.metadata.body(), "name": name, "uid": name},
            "spec": {**ours.spec.body(), "challenger": {"version": "77"}},
            "status": {"ruling": {"verdict": "KeepChampion", "reason": "Superseded", "message": "so", "at": at}},
        }
    )
    lab.sim.world = replace(lab.sim.world, experiments=(*lab.sim.world.experiments, made))


def test_a_challenger_gets_an_experiment_of_the_template() -> None:
    lab = laboratory()
    assert names(lab) == [FIRST]
    mx = lab.one(FIRST)
    assert (mx.spec.model_ref.name, mx.spec.challenger.version, mx.spec.purpose) == (NAME, "2", "Improve")
    assert mx.spec.champion is None, "the one that serves when it starts"
    assert [step.name for step in mx.spec.traffic.steps] == ["shadow", "canary", "half"]
    assert mx.metadata.labels[meta.LABEL_MANAGED_BY] == meta.MANAGED_BY
    assert mx.metadata.labels[meta.LABEL_MODEL] == NAME
    assert [event.reason for event in lab.sim.events].count(reasons.EXPERIMENT_CREATED) == 1
    active = lab.sim.status.active_experiment
    assert active is not None
    assert (active.name, active.uid) == (FIRST, mx.metadata.uid)
    assert lab.sim.status.approval_request is None, "its experiment asks people"
    calm(lab.sim)
    assert names(lab) == [FIRST], "one"


NONE: list[tuple[str, dict[str, Any]]] = [
    ("people alone decide", {"promotion": {"mode": "Manual", "experiment": None}}),
    ("suspended", {"suspend": True}),
    ("killed", {"kill": {"engaged": True}}),
]


@pytest.mark.parametrize(("why", "spec"), NONE, ids=[why for why, _ in NONE])
def test_no_experiment(why: str, spec: dict[str, Any]) -> None:
    lab = laboratory(spec) if why == "people alone decide" else _edited(spec)
    calm(lab.sim, 20)
    assert names(lab) == []


def _edited(spec: dict[str, Any]) -> Laboratory:
    """The spec was changed while the second version was trained."""
    lab = Laboratory(served(AUTO, _watched()))
    lab.sim.edit({"training": {"architecture": "Linear"}})
    lab.sim.settle()
    lab.sim.advance(seconds=40)
    lab.sim.finish(measured(lab.sim))
    lab.sim.edit(spec)
    lab.sim.settle()
    return lab


def _watched() -> Any:
    from tests.unit.decide.laboratory import WATCHED

    return WATCHED


def test_without_a_prometheus_people_decide_and_the_template_says_so() -> None:
    sim = challenged({"promotion": {"mode": "Auto", "experiment": TEMPLATE}})
    assert sim.world.platform == PLATFORM
    assert sim.world.experiments == ()
    assert "no Prometheus" in sim.condition("PromotionPending")[2]
    assert "spec.promotion.experiment" in sim.condition("NotYetActive")[2]
    approve(sim, "ok")
    calm(sim)
    assert answers(sim) == "2"


def test_a_pin_makes_none() -> None:
    lab = Laboratory(served(AUTO, _watched()))
    pin(lab.sim, "1")
    lab.sim.edit({"training": {"architecture": "Linear"}})
    trained(lab.sim)
    calm(lab.sim, 20)
    assert names(lab) == []
    assert lab.sim.condition("PromotionPending")[1] == reasons.OVERRIDDEN_BY_PIN


def test_manual_with_a_template_is_judged_by_an_experiment() -> None:
    lab = laboratory({"promotion": {"mode": "Manual"}})
    assert names(lab) == [FIRST]
    assert lab.sim.status.approval_request is None


def test_a_retrain_of_the_same_configuration_is_a_refresh() -> None:
    assert laboratory(retrain=True).one(FIRST).spec.purpose == "Refresh"


def test_the_same_configuration_without_a_retrain_has_to_improve() -> None:
    lab = Laboratory(served(AUTO, _watched()))
    lab.sim.edit({"data": {"asOf": "2017-12-28"}})
    trained(lab.sim)
    assert lab.one(FIRST).spec.purpose == "Improve"


def test_what_has_to_improve_has_an_objective() -> None:
    lab = laboratory({"promotion": {"experiment": {"objectives": []}}})
    assert [one.metric for one in lab.one(FIRST).spec.objectives] == ["PairedLoss"]
    assert laboratory({"promotion": {"experiment": {"objectives": []}}}, retrain=True).one(FIRST).spec.objectives == ()


def test_one_made_by_hand_is_the_experiment_of_its_version() -> None:
    lab = laboratory()
    mx = lab.one(FIRST)
    lab.remove(mx)
    hand = mx.model_copy(update={"metadata": mx.metadata.model_copy(update={"name": "by-hand", "labels": {}})})
    lab.sim.world = replace(lab.sim.world, experiments=(hand,))
    calm(lab.sim, 20)
    assert names(lab) == ["by-hand"]
    active = lab.sim.status.active_experiment
    assert active is not None
    assert active.name == "by-hand"


def test_a_name_that_is_taken_is_numbered_on() -> None:
    lab = laboratory()
    mx = lab.one(FIRST)
    other = {**mx.spec.body(), "challenger": {"version": "1"}}
    lab.put(mx, spec=other)
    lab.sim.settle()
    assert names(lab) == [FIRST, f"{FIRST}-2"]


def test_a_queued_experiment_of_an_older_version_is_superseded_by_a_newer_one() -> None:
    lab = laboratory()
    lab.sim.serving.node_works = False  # it cannot begin
    newcomer(lab, 8)
    lab.seconds(20)
    assert names(lab) == [FIRST, f"{NAME}-3"]
    ruling = lab.one(FIRST).status.ruling
    assert ruling is not None
    assert ruling.reason == reasons.SUPERSEDED
    assert lab.sim.status.active_experiment is not None
    assert lab.sim.status.active_experiment.name == f"{NAME}-3"
    assert lab.sim.actions[-1] == "Accept", "what never began needs no record"


def test_one_that_could_not_begin_is_not_made_again_until_a_person_deletes_it() -> None:
    lab = laboratory()
    lab.ruled(FIRST, "KeepChampion", reasons.INFEASIBLE)
    lab.stopped = True
    lab.seconds(60)
    assert names(lab) == [FIRST]
    assert lab.sim.actions == ["Accept", "Shift", "Accept"]
    status, reason, message = lab.sim.condition("PromotionPending")
    assert (status, reason) == ("True", reasons.INFEASIBLE)
    assert "delete it" in message
    before = lab.one(FIRST).metadata.uid
    lab.remove(lab.one(FIRST))
    lab.seconds(20)
    assert names(lab) == [FIRST]
    assert lab.one(FIRST).metadata.uid != before


def test_a_dry_run_that_ended_is_not_made_again() -> None:
    lab = laboratory({"promotion": {"experiment": {"mode": "DryRun"}}})
    lab.seconds(60)
    assert lab.one(FIRST).status.challenger is not None, "it began"
    lab.ruled(FIRST, "KeepChampion", reasons.NOT_SHOWN, purpose="Improve")
    lab.stopped = True
    lab.seconds(60)
    assert lab.sim.actions[-1] == "Abort"
    assert lab.sim.status.challenger is not None, "nobody was to act on it"
    assert names(lab) == [FIRST]
    assert lab.sim.condition("PromotionPending")[1] == reasons.NOT_SHOWN


def test_ten_that_ended_are_kept() -> None:
    lab = tried_to("shadow")
    for number in range(13):
        ended(lab, f"old-{number:02}", number)
    lab.sim.settle()
    assert names(lab) == [f"old-{number:02}" for number in range(3, 13)] + [FIRST]


def test_those_made_by_hand_count_like_ours() -> None:
    """Each is read at each reconcile of its model, whoever made it; what it found is in the log."""
    lab = tried_to("shadow")
    for number in range(13):
        ended(lab, f"old-{number:02}", number)
    by_hand = tuple(
        one.model_copy(update={"metadata": one.metadata.model_copy(update={"labels": {}})})
        if one.metadata.name in ("old-01", "old-05", "old-11")
        else one
        for one in lab.sim.world.experiments
    )
    lab.sim.world = replace(lab.sim.world, experiments=by_hand)
    lab.sim.settle()
    assert names(lab) == [f"old-{number:02}" for number in range(3, 13)] + [FIRST]


def test_one_made_by_hand_that_goes_on_or_is_owed_a_record_stays() -> None:
    lab = tried_to("shadow")
    for number in range(13):
        ended(lab, f"old-{number:02}", number)
    owed, waits = lab.one("old-00"), lab.one("old-01")
    status = {**owed.status.body(), "challenger": {"version": "77", "digest": "sha256:" + "7" * 64}}
    lab.put(owed, metadata={**owed.metadata.body(), "labels": {}}, status=status)
    lab.put(waits, metadata={**waits.metadata.body(), "labels": {}}, status={})
    lab.stopped = True
    lab.sim.step()
    assert {"old-00", "old-01"} <= set(names(lab))


def test_why_no_pod_of_a_challenger_is_ready_is_told_while_its_experiment_waits() -> None:
    """The experiment can only count pods; the model's condition says what keeps them."""
    lab = Laboratory(served(AUTO, _watched()))
    lab.sim.edit({"training": {"architecture": "Linear"}})
    lab.sim.settle()
    lab.sim.advance(seconds=40)
    document = measured(lab.sim)
    said = json.dumps({"reason": "BadVersion", "message": "ONNX Runtime cannot load model.onnx"})
    pod = {"container": "server", "reason": "Error", "termination_message": said}
    lab.sim.serving.broken[str(document["digest"])] = pod
    lab.sim.finish(document)
    lab.seconds(60)
    assert lab.one(FIRST).status.reason == reasons.WAITING_FOR_CAPACITY
    status, reason, message = lab.sim.condition("PromotionPending")
    assert (status, reason) == ("True", "BadVersion")
    assert f"ModelExperiment {FIRST}" in message
    assert "cannot load model.onnx" in message
    assert answers(lab.sim) == "1"
    assert lab.sim.condition("Ready")[0] == "True"
