"""Capacity before traffic, drain after it: what is loaded, with how many replicas, and when it may go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.decide import reasons
from fiduciary.decide.decision import Delete, Scale
from tests.unit.decide.lives import (
    LINEAR,
    answers,
    approve,
    calm,
    challenged,
    digest_of,
    pin,
    replicas,
    served,
    service_name,
    trained,
)
from tests.unit.decide.worlds import approval

if TYPE_CHECKING:
    from tests.unit.decide.simulated_world import SimulatedWorld

SCALED: dict[str, Any] = {"serving": {"replicas": None, "autoscaling": {"min": 2, "max": 9}}}


def promoted(spec: dict[str, Any] | None = None) -> SimulatedWorld:
    sim = challenged(spec)
    approve(sim, "ok")
    calm(sim)
    assert answers(sim) == "2"
    return sim


def next_version(sim: SimulatedWorld, number: int) -> None:
    """Another version is trained, approved and promoted."""
    sim.edit({"training": {"seed": 100 + number}})
    trained(sim)
    calm(sim)
    approve(sim, f"ok-{number}")
    calm(sim)
    assert answers(sim) == str(number)


def test_a_challenger_waits_small_and_is_known_to_the_gateway() -> None:
    sim = challenged()
    assert replicas(sim, "1") == 2
    assert replicas(sim, "2") == 1
    assert sim.serving.weights() == {
        service_name(sim, digest_of(sim, "1")): 100,
        service_name(sim, digest_of(sim, "2")): 0,
    }
    assert sim.serving.history[-1][0] == sim.serving.history[0][0], "no traffic moved, no record is needed"


def test_a_promotion_waits_for_as_many_ready_replicas_as_the_champion_has() -> None:
    sim = challenged({"serving": {"replicas": 3}})
    sim.serving.node_works = False
    approve(sim, "ok")
    sim.settle()
    assert replicas(sim, "2") == 3, "scaled up first"
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.condition("PromotionPending")[1] == reasons.STARTING
    assert "1 of 3" in sim.condition("PromotionPending")[2]
    assert sim.condition("Reconciling")[:2] == ("True", reasons.STARTING)
    assert sim.condition("Ready")[0] == "True"
    stored = sim.serving.deployment(digest_of(sim, "2"))
    assert stored is not None
    stored.ready = 2
    calm(sim, 10)
    assert answers(sim) == "1"
    stored.ready = 3
    calm(sim, 10)
    assert answers(sim) == "2"


def test_traffic_moves_only_to_what_the_gateways_have_known_for_a_moment() -> None:
    """A backend that is new to a route loses requests until proxies know its pods; the listing comes first."""
    sim = served()
    sim.edit({**LINEAR, "promotion": {"mode": "Manual"}})
    sim.serving.node_works = False
    trained(sim)
    calm(sim, 10)
    approve(sim, "ok")
    calm(sim, 10)
    writes = len(sim.serving.history)
    sim.serving.node_works = True
    sim.settle()
    assert answers(sim) == "1"
    [(_, weights)] = sim.serving.history[writes:]
    assert weights[service_name(sim, digest_of(sim, "2"))] == 0
    for _ in range(2):
        sim.advance(seconds=1)
        sim.settle()
        assert answers(sim) == "1"
    sim.advance(seconds=1)
    decision = sim.step()
    assert decision.record is not None
    assert decision.record.action == "Promote"


def test_a_listing_takes_ready_away_from_nobody() -> None:
    sim = served()
    before = next(found for found in sim.status.conditions if found.type == "Ready")
    sim.edit(LINEAR)
    trained(sim)
    sim.serving.controller_works = False
    calm(sim, 10)
    after = next(found for found in sim.status.conditions if found.type == "Ready")
    assert (after.status, after.last_transition_time) == ("True", before.last_transition_time)


def test_an_old_controller_does_not_move_traffic_on_a_listing_it_never_saw() -> None:
    sim = served()
    sim.serving.controller_works = False
    sim.edit(LINEAR)
    trained(sim)
    calm(sim, 10)
    approve(sim, "ok")
    calm(sim, 15)
    assert sim.actions[-1] == "Accept"
    sim.serving.controller_works = True
    calm(sim, 15)
    assert sim.actions[-1] == "Promote"


def test_the_previous_champion_keeps_its_replicas_for_the_window_and_stays_loaded() -> None:
    sim = promoted({"promotion": {"rollbackWindow": "1h"}})
    assert (replicas(sim, "1"), replicas(sim, "2")) == (2, 2)
    decision = sim.step()
    assert decision.wake_at is not None
    sim.advance(minutes=50)
    sim.settle()
    assert replicas(sim, "1") == 2
    sim.advance(minutes=15)
    calm(sim)
    assert replicas(sim, "1") == 1, "loaded, but small"
    assert answers(sim) == "2"


def test_nothing_is_scaled_down_before_the_drain_is_over() -> None:
    sim = challenged({"promotion": {"rollbackWindow": "0s"}})
    approve(sim, "ok")
    sim.settle()
    assert answers(sim) == "2"
    sim.advance(seconds=50)
    sim.settle()
    assert replicas(sim, "1") == 2
    sim.advance(seconds=15)
    sim.settle()
    assert replicas(sim, "1") == 1


def test_nothing_is_taken_away_while_the_route_is_not_confirmed() -> None:
    sim = challenged({"promotion": {"rollbackWindow": "0s"}, "serving": {"keepVersions": 1}})
    approve(sim, "ok")
    sim.serving.controller_works = False
    calm(sim, 600)
    assert replicas(sim, "1") == 2
    assert sim.condition("Ready")[0] == "False"
    sim.serving.controller_works = True
    calm(sim)
    assert replicas(sim, "1") is None


def test_a_version_goes_from_the_route_before_its_pods_go() -> None:
    sim = challenged({"promotion": {"rollbackWindow": "0s"}, "serving": {"keepVersions": 1}})
    approve(sim, "ok")
    sim.settle()
    old = service_name(sim, digest_of(sim, "1"))
    for _ in range(120):
        before = sim.serving.weights()
        decision = sim.step()
        if any(isinstance(child, Delete) for child in decision.children):
            assert old not in before
            assert old not in sim.serving.taken_over
        if not decision.again:
            sim.advance(seconds=1)
    assert old not in sim.serving.names("Deployment")
    assert old not in sim.serving.names("Service")


def test_keep_versions_stay_loaded_and_no_more() -> None:
    sim = promoted({"promotion": {"rollbackWindow": "1m"}, "serving": {"keepVersions": 3}})
    for number in (3, 4):
        next_version(sim, number)
    calm(sim, 300)
    assert [replicas(sim, str(number)) for number in (1, 2, 3, 4)] == [None, 1, 1, 2]
    assert len(sim.serving.names("Service")) == 6
    sim.edit({"serving": {"keepVersions": 2}})
    calm(sim)
    assert [replicas(sim, str(number)) for number in (2, 3, 4)] == [None, 1, 2]


def test_a_rollback_by_a_person_scales_up_first() -> None:
    sim = promoted({"promotion": {"rollbackWindow": "1m"}, "serving": {"replicas": 3}})
    calm(sim, 300)
    assert replicas(sim, "1") == 1
    sim.serving.node_works = False
    sim.approve(approval("back", "RollBack", sim.now))
    calm(sim, 20)
    assert replicas(sim, "1") == 3
    assert answers(sim) == "2"
    sim.serving.node_works = True
    calm(sim, 20)
    assert answers(sim) == "1"


def test_a_pod_that_is_being_deleted_takes_no_requests_though_it_is_ready() -> None:
    sim = promoted({"promotion": {"rollbackWindow": "1m"}, "serving": {"replicas": 1}})
    calm(sim, 300)
    sim.serving.node_works = False
    stored = sim.serving.deployment(digest_of(sim, "1"))
    assert stored is not None
    stored.leaving = 1  # a drain, an eviction: readiness is still what it was
    pin(sim, "1")
    calm(sim, 10)
    assert answers(sim) == "2"
    stored.leaving = 0  # its successor
    calm(sim, 10)
    assert answers(sim) == "1"


def test_a_champion_without_pods_holds_no_rollback_up() -> None:
    sim = promoted({"promotion": {"rollbackWindow": "1m"}})
    calm(sim, 300)
    sim.serving.broken[digest_of(sim, "2")] = {"reason": "Unschedulable"}
    calm(sim, 5)
    sim.approve(approval("back", "RollBack", sim.now))
    sim.settle()
    assert answers(sim) == "1", "one replica that answers is better than none"
    calm(sim)
    assert replicas(sim, "1") == 2


def test_a_challenger_that_is_replaced_gives_its_place_back() -> None:
    sim = challenged()
    sim.edit({"training": {"seed": 12}})
    trained(sim)
    calm(sim)
    assert replicas(sim, "2") is None
    assert replicas(sim, "3") == 1
    assert sim.condition("Ready")[0] == "True"


# --- autoscaling -----------------------------------------------------------------------------------------------------


def test_an_autoscaler_has_the_champions_number_and_nobody_elses() -> None:
    sim = challenged(SCALED)
    first, second = (service_name(sim, digest_of(sim, number)) for number in ("1", "2"))
    assert sim.serving.names("HorizontalPodAutoscaler") == [first]
    stored = sim.serving.deployment(digest_of(sim, "1"))
    assert stored is not None
    stored.replicas = 7  # the autoscaler's doing
    calm(sim, 20)
    assert stored.replicas == 7
    approve(sim, "ok")
    sim.settle()
    assert replicas(sim, "2") == 7, "it takes over the load of seven"
    calm(sim)
    assert answers(sim) == "2"
    assert sim.serving.names("HorizontalPodAutoscaler") == [second]
    assert (replicas(sim, "1"), replicas(sim, "2")) == (7, 7), "it keeps what it had"
    sim.advance(hours=25)
    calm(sim)
    assert replicas(sim, "1") == 1


def test_one_replica_has_no_disruption_budget() -> None:
    sim = served({"serving": {"replicas": 1}})
    assert sim.serving.names("PodDisruptionBudget") == []
    sim.edit({"serving": {"replicas": 2}})
    calm(sim, 20)
    assert sim.serving.names("PodDisruptionBudget") == [service_name(sim, digest_of(sim, "1"))]
    sim.edit({"serving": {"replicas": 1}})
    calm(sim, 90)
    assert sim.serving.names("PodDisruptionBudget") == []
    assert replicas(sim, "1") == 1


@pytest.mark.parametrize("more", [True, False])
def test_replicas_of_the_spec_are_followed(more: bool) -> None:
    sim = served({"serving": {"replicas": 2}})
    sim.edit({"serving": {"replicas": 4 if more else 1}})
    decision = sim.step()
    assert any(isinstance(child, Scale) for child in decision.children)
    calm(sim, 20)
    assert replicas(sim, "1") == (4 if more else 1)
    assert sim.actions == ["Accept", "Shift"]


def test_a_killed_models_stand_in_is_scaled_behind_the_switch() -> None:
    sim = promoted({"promotion": {"rollbackWindow": "1m"}, "serving": {"replicas": 3}})
    calm(sim, 300)
    assert replicas(sim, "1") == 1
    sim.edit({"kill": {"engaged": True, "action": "PreviousChampion"}})
    sim.step()
    sim.serving.turn(sim.now)
    assert answers(sim) == "1"
    calm(sim, 20)
    assert replicas(sim, "1") == 3


def test_a_pin_and_its_revert_need_no_pods_to_start() -> None:
    sim = promoted()
    starts = len([write for write in sim.serving.writes if write[0] == "scale"])
    pin(sim, "1")
    sim.settle()
    assert answers(sim) == "1"
    assert len([write for write in sim.serving.writes if write[0] == "scale"]) == starts
