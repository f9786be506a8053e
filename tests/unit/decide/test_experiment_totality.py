"""Whatever an experiment's status says, a decision comes of it: the same one each time, and one that can be stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cache
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.decide import financialmodel
from fiduciary.decide.history import after
from tests.unit.decide.laboratory import Laboratory, tried_to
from tests.unit.decide.lives import digest_of
from tests.unit.decide.worlds import NAME, T0, approval

FIRST = f"{NAME}-2"


@cache
def lived(step: str) -> Laboratory:
    """A trial in this step; nobody changes it."""
    return tried_to(step)


def versions(lab: Laboratory) -> st.SearchStrategy[dict[str, Any]]:
    known = [{"version": number, "digest": digest_of(lab.sim, number)} for number in ("1", "2")]
    return st.sampled_from([*known, {"version": "2", "digest": "sha256:" + "f" * 64}])


shares = st.sampled_from([0, 1, 10, 50, 100])
traffics = st.fixed_dictionaries({"champion": shares, "challenger": shares, "mirror": shares})
rulings = st.fixed_dictionaries(
    {
        "verdict": st.sampled_from(["Promote", "RollBack", "KeepChampion"]),
        "reason": st.sampled_from(["HarmShown", "Superseded", "NotShown", "Promoted", "Weird"]),
        "message": st.text(max_size=20),
        "at": st.just("2026-11-24T12:10:00Z"),
        "summary": st.sampled_from([{}, {"purpose": "Improve"}, {"signed": "sha256:" + "a" * 64}]),
    }
)


@st.composite
def experiments(draw: st.DrawFn, lab: Laboratory) -> tuple[ModelExperiment, ...]:
    """Some of the model's experiments: the one of the trial or not, ended or not, about this version or another."""
    found: list[ModelExperiment] = []
    for number in range(draw(st.integers(0, 3))):
        body = lab.one(FIRST).body()
        status: dict[str, Any] = {"step": draw(st.sampled_from([None, "shadow", "half", "none"]))}
        for name, parts in {
            "champion": versions(lab), "challenger": versions(lab), "desiredTraffic": traffics, "ruling": rulings,
            "harm": st.just({"at": "2026-11-24T12:10:00Z", "test": "errors"}),
        }.items():  # fmt: skip
            status[name] = draw(st.none() | parts)
        uid = draw(st.sampled_from([body["metadata"]["uid"], f"other-{number}"]))
        metadata = {**body["metadata"], "name": FIRST if number == 0 else f"{FIRST}-{number}", "uid": uid}
        if draw(st.booleans()):
            metadata["deletionTimestamp"] = "2026-11-24T12:10:00Z"
        spec = {
            **body["spec"],
            "challenger": {"version": draw(st.sampled_from(["1", "2", "9"]))},
            "mode": draw(st.sampled_from(["Enforce", "Advise", "DryRun"])),
        }
        kept = {name: part for name, part in status.items() if part is not None}
        found.append(ModelExperiment.model_validate({**body, "metadata": metadata, "spec": spec, "status": kept}))
    return tuple({one.metadata.uid: one for one in found}.values())


EDITS: list[dict[str, Any]] = [
    {},
    {"suspend": True},
    {"promotion": {"mode": "Manual"}},
    {"promotion": {"mode": "Manual", "experiment": None}},
    {"serving": None},
]


@given(
    data=st.data(), step=st.sampled_from(["shadow", "half"]), edit=st.sampled_from(EDITS), seconds=st.integers(0, 9999)
)
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_status_is_judged(data: st.DataObject, step: str, edit: dict[str, Any], seconds: int) -> None:
    lab = lived(step)
    before = lab.sim.world
    try:
        lab.sim.edit(edit)
        world = replace(
            lab.sim.world,
            experiments=data.draw(experiments(lab)),
            approvals=(approval("act", "Abort", T0, experiment=FIRST),) if data.draw(st.booleans()) else (),
        )
    finally:
        lab.sim.world = before
    now = lab.sim.now + timedelta(seconds=seconds)
    decision = financialmodel.decide(world, now)
    assert decision == financialmodel.decide(world, now)
    financialmodel.questions(world, now)
    decision.status.body()
    if decision.record is not None:
        decision.record.body()
        assert after(lab.history, decision.record).broken is None
    trial = lab.history.trial
    assert trial is not None
    mine = next((one for one in world.experiments if one.metadata.uid == trial.uid), None)
    if mine is not None and mine.status.ruling is not None and mine.status.ruling.verdict == "RollBack":
        assert decision.record is not None
        assert decision.record.action in ("RollBack", "Abort"), "harm comes first"
    if mine is None:
        assert decision.record is not None, "what nobody follows goes back"
