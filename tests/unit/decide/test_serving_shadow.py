"""Copies to the version before, while a DriftPolicy compares the champion with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api.driftpolicy import DriftPolicy
from fiduciary.manifests.versionnames import mirror_name
from tests.unit.decide.lives import answers, calm, digest_of, pin, promoted, replicas
from tests.unit.decide.worlds import NAME, NAMESPACE, approval

if TYPE_CHECKING:
    from tests.unit.decide.simulated_world import SimulatedWorld

WINDOW = {"promotion": {"rollbackWindow": "1m"}}


def watching(name: str = "worse", within: str = "7d", **monitor: Any) -> DriftPolicy:
    its = {"name": "worse", "realisedLoss": {"against": "PreviousVersion"}, "actions": ["Alert", "RollBack"], **monitor}
    return DriftPolicy.model_validate(
        {
            "metadata": {"name": name, "namespace": NAMESPACE, "uid": f"dp-{name}", "generation": 1},
            "spec": {
                "modelRef": {"name": NAME},
                "window": {"rows": 21},
                "monitors": [its],
                "actions": {"rollBack": {"onlyWithin": within}},
            },
        }
    )


def copied(sim: SimulatedWorld) -> list[str]:
    """Services that get a copy of each request, by every rule of the route."""
    route = sim.serving.route
    assert route is not None
    rules = [
        [entry["requestMirror"]["backendRef"]["name"] for entry in rule.get("filters", ())]
        for rule in route.body["spec"]["rules"]
    ]
    assert all(one == rules[0] for one in rules)
    return rules[0]


def test_the_version_before_gets_copies_as_long_as_a_policy_could_go_back_to_it() -> None:
    sim = promoted(WINDOW)
    records = len(sim.records)
    calm(sim, 300)
    assert (copied(sim), replicas(sim, "1")) == ([], 1)
    sim.ask(watching())
    calm(sim, 30)
    assert copied(sim) == [mirror_name(NAME, digest_of(sim, "1"))]
    assert replicas(sim, "1") == 2, "it takes as many copies as the champion takes requests"
    assert (answers(sim), len(sim.records)) == ("2", records), "copies move no request, and take no record"
    assert sim.condition("Ready")[0] == "True"
    decision = sim.step()
    assert decision.wake_at is not None
    sim.advance(days=7)
    calm(sim, 120)
    assert (copied(sim), replicas(sim, "1")) == ([], 1), "nobody would go back that far"


def test_a_policy_that_compares_with_validation_alone_needs_no_copies() -> None:
    sim = promoted(WINDOW)
    sim.ask(watching(realisedLoss={"against": "Reference"}, actions=["Alert"]))
    calm(sim, 30)
    assert copied(sim) == []


def test_copies_end_with_the_policy() -> None:
    sim = promoted(WINDOW)
    sim.ask(watching())
    calm(sim, 30)
    assert copied(sim)
    sim.ask()
    calm(sim, 120)
    assert copied(sim) == []


def test_a_version_without_ready_pods_gets_none_and_comes_up_for_them() -> None:
    sim = promoted({**WINDOW, "serving": {"keepVersions": 1}})
    calm(sim, 300)
    assert replicas(sim, "1") is None
    sim.serving.node_works = False
    sim.ask(watching())
    calm(sim, 30)
    assert (replicas(sim, "1"), copied(sim)) == (2, [])
    sim.serving.node_works = True
    calm(sim, 30)
    assert copied(sim) == [mirror_name(NAME, digest_of(sim, "1"))]


def test_what_was_gone_back_to_is_compared_with_nothing_older() -> None:
    sim = promoted(WINDOW)
    sim.ask(watching())
    calm(sim, 30)
    sim.approve(approval("back", "RollBack", sim.now))
    calm(sim, 120)
    assert (answers(sim), copied(sim)) == ("1", [])


def test_with_the_kill_switch_nothing_is_copied() -> None:
    sim = promoted(WINDOW)
    sim.ask(watching())
    calm(sim, 30)
    sim.approve(approval("stop", "Kill", sim.now))
    calm(sim, 30)
    assert copied(sim) == []


def test_a_pin_on_the_version_before_ends_the_comparison() -> None:
    sim = promoted(WINDOW)
    sim.ask(watching())
    calm(sim, 30)
    pin(sim, "1")
    calm(sim, 120)
    assert (answers(sim), copied(sim)) == ("1", [])
