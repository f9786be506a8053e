"""The end of serving: withdrawn, deleted, left behind, and found again."""

from __future__ import annotations

from typing import Any

import pytest

from fiduciary.api.meta import LABEL_RETAINED
from fiduciary.decide import reasons
from tests.unit.decide.lives import answers, approve, calm, challenged, deleted, served, trained
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import SERVED, merged

RETAIN: dict[str, Any] = {"deletionPolicy": "Retain"}


def test_removing_serving_takes_the_route_first_and_the_pods_after_the_drain() -> None:
    sim = served()
    sim.edit({"serving": None})
    sim.settle()
    assert sim.records[-1].action == "Shift"
    assert sim.records[-1].traffic is not None
    assert sim.records[-1].traffic.champion == 0
    assert sim.serving.route is None
    assert sim.serving.names("Deployment"), "requests under way are ended by pods"
    assert sim.condition("Ready")[:2] == ("False", reasons.SERVING_NOT_REQUESTED)
    assert sim.status.phase == "Registered"
    assert sim.status.endpoint is None
    sim.advance(seconds=61)
    calm(sim, 10)
    assert sim.serving.objects == {}
    assert sim.registry.aliases == {"champion": "1"}
    sim.edit({"serving": SERVED["serving"]})
    calm(sim, 20)
    assert answers(sim) == "1"
    assert sim.actions == ["Accept", "Shift", "Shift", "Shift"]


def test_deletion_takes_route_then_pods_then_aliases_then_itself() -> None:
    sim = challenged()
    sim.delete()
    order: list[str] = []
    while not sim.gone:
        before = len(sim.serving.writes)
        aliases = dict(sim.registry.aliases)
        sim.step()
        order += [kind for verb, kind, _ in sim.serving.writes[before:] if verb == "delete"]
        if aliases and not sim.registry.aliases:
            order.append("aliases")
        sim.advance(seconds=1)
    assert order[0] == "HTTPRoute"
    assert order.count("Deployment") == 2
    assert order[-1] == "aliases"
    assert order.index("aliases") > max(place for place, kind in enumerate(order) if kind == "Deployment")
    assert sim.serving.objects == {}
    assert sim.actions[-1] == "Retire"


@pytest.mark.parametrize("killed", [True, False])
def test_retained_serving_goes_on_and_is_found_again(killed: bool) -> None:
    sim = challenged(RETAIN)
    approve(sim, "ok")
    calm(sim)
    if killed:
        sim.edit({"kill": {"engaged": True}})
        calm(sim)
    weights, objects = sim.serving.weights(), set(sim.serving.objects)
    deleted(sim)
    assert sim.serving.weights() == weights
    assert set(sim.serving.objects) == objects
    for stored in sim.serving.objects.values():
        metadata = stored.body["metadata"]
        assert "ownerReferences" not in metadata
        assert metadata["labels"][LABEL_RETAINED] == "true"
        assert "finalizers" not in metadata
    assert answers(sim) == (None if killed else "2")
    assert sim.registry.aliases == {"champion": "2"}
    trainings = len(sim.created)
    sim.create_again(merged(SERVED, {**RETAIN, "training": {"architecture": "Linear"}}))
    calm(sim)
    assert sim.actions[-2:] == ["Retire", "Adopt"]
    assert answers(sim) == (None if killed else "2")
    assert sim.status.champion is not None
    assert sim.status.champion.version == "2"
    assert len(sim.created) == trainings, "what the log knows is not trained again"
    for stored in sim.serving.objects.values():
        metadata = stored.body["metadata"]
        assert metadata["ownerReferences"][0]["uid"] == sim.model.metadata.uid
        assert LABEL_RETAINED not in metadata["labels"]
    assert sim.condition("Ready")[0] == ("False" if killed else "True")
    assert all(decision >= 1 for decision, _ in sim.serving.history)
    numbers = [decision for decision, _ in sim.serving.history]
    assert numbers == sorted(numbers)


def test_a_model_that_is_back_after_a_full_deletion_serves_again_without_training() -> None:
    sim = served()
    deleted(sim)
    assert sim.serving.objects == {}
    sim.create_again(SERVED)
    calm(sim, 30)
    assert sim.actions == ["Accept", "Shift", "Retire", "Adopt", "Shift"]
    assert answers(sim) == "1"
    assert len(sim.created) == 1


def test_mlflow_does_not_keep_a_deleted_model_serving() -> None:
    sim = served()
    sim.registry.up = False
    sim.delete()
    for _ in range(5):
        sim.step()
        sim.advance(seconds=1)
    assert not sim.gone
    assert sim.serving.objects == {}


def test_records_that_go_with_their_namespace_are_not_lost_records() -> None:
    from dataclasses import replace

    sim = served()
    sim.world = replace(sim.world, namespace_terminating=True, records=sim.world.records[1:])
    decision = sim.step()
    assert decision.children == ()
    assert decision.record is None
    assert sim.condition("Stalled")[0] == "False"
    assert sim.condition("Ready")[:2] == ("False", reasons.DELETING)


def test_a_terminating_namespace_takes_everything_at_once() -> None:
    from dataclasses import replace

    sim = served()
    sim.world = replace(sim.world, namespace_terminating=True)
    sim.delete()
    sim.step()
    assert sim.gone


def test_deletion_in_the_middle_of_the_first_start() -> None:
    sim = SimulatedWorld(SERVED)
    sim.serving.node_works = False
    trained(sim)
    deleted(sim)
    assert sim.serving.objects == {}
