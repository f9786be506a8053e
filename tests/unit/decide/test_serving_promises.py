"""What serving promises whoever disturbs it: kills, returns, names and clocks. Each of these failed once."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.decision import Apply
from fiduciary.manifests.versionnames import version_name
from tests.unit.decide.lives import (
    LINEAR,
    act_now,
    answers,
    approve,
    calm,
    challenged,
    champion,
    deleted,
    replicas,
    served,
    service_name,
    trained,
)
from tests.unit.decide.simulated_world import Crash, SimulatedWorld
from tests.unit.decide.worlds import PLATFORM, SERVED, approval, merged

PREVIOUS: dict[str, Any] = {"kill": {"engaged": True, "action": "PreviousChampion"}}
STRICTER: dict[str, Any] = {"gates": [{"metric": "ewma_skill", "above": "0.9"}]}


def promoted(spec: dict[str, Any] | None = None) -> SimulatedWorld:
    sim = challenged(spec)
    approve(sim, "ok")
    calm(sim)
    return sim


def test_a_kill_takes_an_unwritable_route_away_from_whom_it_does_not_name() -> None:
    sim = promoted()
    sim.world = replace(sim.world, platform=replace(PLATFORM, serving=None))
    sim.edit(PREVIOUS)
    calm(sim, 5)
    assert answers(sim) != "2"


def test_a_latch_survives_deletion_and_return() -> None:
    sim = served()
    act_now(sim, "kill", "Kill")
    calm(sim, 5)
    deleted(sim)
    sim.create_again(SERVED)
    calm(sim)
    assert answers(sim) is None
    assert sim.condition("Killed")[0] == "True"
    act_now(sim, "resume", "Resume")
    calm(sim)
    assert answers(sim) == "1"


@pytest.mark.parametrize("people", ["nobody", "Reject"])
def test_a_return_promotes_nobody(people: str) -> None:
    sim = challenged()
    if people == "Reject":
        approve(sim, "no", decision="Reject")
        calm(sim)
    spec = merged(SERVED, LINEAR)
    deleted(sim)
    sim.create_again(spec)
    calm(sim)
    assert answers(sim) == "1"
    assert sim.status.champion is not None
    assert sim.status.champion.version == "1"
    challenger = sim.status.challenger
    assert (challenger.version if challenger is not None else None) == ("2" if people == "nobody" else None)
    if people == "nobody":
        approve(sim, "now")
        calm(sim)
        assert answers(sim) == "2"
    assert len(sim.created) == 2


def test_a_return_does_not_bring_back_what_was_rolled_back() -> None:
    sim = promoted()
    sim.approve(approval("back", "RollBack", sim.now))
    calm(sim)
    deleted(sim)
    sim.create_again(merged(SERVED, LINEAR))
    calm(sim)
    assert answers(sim) == "1"
    assert sim.status.challenger is None


def test_a_first_version_that_fails_newer_gates_gets_no_requests() -> None:
    sim = SimulatedWorld(SERVED)
    sim.serving.node_works = False
    trained(sim)
    sim.edit(STRICTER)
    calm(sim, 5)
    sim.serving.node_works = True
    calm(sim)
    assert answers(sim) is None
    assert sim.condition("Ready")[0] == "False"
    sim.edit({"gates": []})
    calm(sim)
    assert answers(sim) == "1"


def test_no_way_leads_back_to_what_does_not_pass() -> None:
    sim = promoted()
    sim.edit({"training": {"architecture": "HAR"}, **STRICTER})
    calm(sim, 20)
    assert sim.condition("GatesPassed")[0] == "False"
    sim.approve(approval("back", "RollBack", sim.now))
    calm(sim, 20)
    assert answers(sim) == "2"
    assert sim.condition("ActRefused")[1] == reasons.ROLL_BACK_IMPOSSIBLE
    sim.edit(PREVIOUS)
    calm(sim, 5)
    assert answers(sim) is None


def test_what_is_kept_is_the_way_back() -> None:
    sim = promoted({"promotion": {"rollbackWindow": "1m"}, "serving": {"keepVersions": 2}})
    sim.edit({"training": {"seed": 103}})
    trained(sim)
    calm(sim)
    approve(sim, "ok-3")
    calm(sim)
    sim.approve(approval("back", "RollBack", sim.now))
    calm(sim, 300)
    assert answers(sim) == "2"
    assert sim.status.previous_champion is not None
    assert sim.status.previous_champion.version == "1"
    assert replicas(sim, "1") == 1
    assert replicas(sim, "3") is None


def test_a_number_that_a_hand_wrote_disarms_nothing() -> None:
    sim = served()
    assert sim.serving.route is not None
    metadata = sim.serving.route.body["metadata"]
    annotations = {**metadata["annotations"], "fiduciary.dev/decision": "999"}
    spec = sim.serving.route.body["spec"]
    rules = [{**rule, "backendRefs": [{**ref, "weight": 0} for ref in rule["backendRefs"]]} for rule in spec["rules"]]
    change = {"metadata": {**metadata, "annotations": annotations}, "spec": {**spec, "rules": rules}}
    sim.serving.edit("HTTPRoute", "spx-volatility", change)
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.condition("Stalled")[0] == "False"
    assert sim.serving.route.body["metadata"]["annotations"]["fiduciary.dev/decision"] == "2"


def test_whose_clock_is_ahead_does_not_decide_whose_act_is_newer() -> None:
    """Acts have times of the API server; so must what they are compared with."""
    sim = promoted()
    ahead = timedelta(seconds=300)
    sim.world = replace(
        sim.world,
        records=tuple(
            record.model_copy(
                update={
                    "metadata": record.metadata.model_copy(
                        update={"creation_timestamp": record.spec.decided_at - ahead}
                    )
                }
            )
            for record in sim.world.records
        ),
    )
    sim.approve(approval("back", "RollBack", sim.records[-1].decided_at - ahead + timedelta(seconds=10)))
    calm(sim, 10)
    assert answers(sim) == "1"


def test_a_retirement_is_recognised_by_whose_it_is() -> None:
    sim = served({"deletionPolicy": "Retain"})
    sim.delete()
    metadata = sim.model.metadata
    later = metadata.model_copy(update={"deletion_timestamp": sim.now + timedelta(seconds=90)})  # the server is ahead
    sim._store(sim.model.model_copy(update={"metadata": later}))
    for _ in range(10):
        if not sim.gone:
            with_crash = sim.actions.count("Retire") == 0
            if with_crash:
                with contextlib.suppress(Crash):
                    sim.step(die_before="release")
            else:
                sim.step()
    assert sim.gone
    assert sim.actions.count("Retire") == 1


def test_a_name_that_another_artifact_has_is_not_written() -> None:
    sim = served()
    [view] = sim.world.deployments
    other = replace(view, digest="sha256:" + "f" * 64)
    assert len(version_name("m", view.digest)) == len("m-") + 12
    observed = sim.serving.observed
    sim.serving.observed = lambda world: replace(observed(world), deployments=(other,))  # pyright: ignore[reportAttributeAccessIssue]
    decision = sim.step()
    assert not any(isinstance(child, Apply) and child.body["kind"] == "Deployment" for child in decision.children)
    assert sim.condition("Stalled")[:2] == ("True", reasons.NAME_TAKEN)


def test_a_kill_works_on_a_model_that_is_going() -> None:
    sim = served({"deletionPolicy": "Retain"})
    metadata = sim.model.metadata
    both = metadata.model_copy(update={"finalizers": (*metadata.finalizers, "example.com/hold")})
    sim._store(sim.model.model_copy(update={"metadata": both}))
    sim.delete()
    keep = sim._finalizers

    def released(finalizers: tuple[str, ...]) -> None:
        keep((*finalizers, "example.com/hold"))

    sim._finalizers = released  # pyright: ignore[reportAttributeAccessIssue]
    for _ in range(10):
        sim.step()
        sim.gone = False
        sim.advance(seconds=1)
    assert answers(sim) == "1"
    act_now(sim, "kill", "Kill")
    sim.step()
    assert "Kill" in sim.actions
    assert answers(sim) is None
    for _ in range(4):
        sim.step()
        sim.gone = False
    assert answers(sim) is None
    assert sim.actions.count("Retire") == 1


def test_a_route_that_cannot_be_written_is_not_said_to_take_requests() -> None:
    sim = champion()
    sim.world = replace(sim.world, platform=replace(PLATFORM, hostnames={"quant": ("*.ours.example.com",)}))
    sim.edit(merged(SERVED, {"serving": {"gateway": {"hostnames": ["bank.example.com"]}}}))
    calm(sim, 20)
    assert "Shift" not in sim.actions
    assert sim.condition("Stalled")[:2] == ("True", reasons.HOSTNAME_NOT_ALLOWED)


def test_what_cannot_be_left_behind_is_not_thrown_away() -> None:
    sim = served({"deletionPolicy": "Retain"})
    sim.world = replace(sim.world, platform=replace(PLATFORM, serving=None))
    sim.delete()
    for _ in range(5):
        sim.step()
        sim.advance(seconds=1)
    assert not sim.gone
    assert answers(sim) == "1"
    assert sim.condition("Stalled")[:2] == ("True", reasons.SERVING_NOT_ACTIVE)
    sim.world = replace(sim.world, platform=PLATFORM)
    deleted(sim)
    assert answers(sim) == "1"


def test_names_of_versions_that_share_digits_are_apart() -> None:
    assert service_name(served(), "sha256:" + "ab" * 32) == "spx-volatility-" + "ab" * 6
