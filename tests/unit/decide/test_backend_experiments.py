"""What an experiment must hold whatever serves: steps, promotion, rollback, and a backend that is changed meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from fiduciary.decide import reasons
from tests.unit.decide.backends import ALL, WORKLOAD, clients
from tests.unit.decide.laboratory import Laboratory, laboratory, tried_to
from tests.unit.decide.lives import calm

EVERY = pytest.mark.parametrize("backend", list(ALL))


def serving(backend: str) -> dict[str, Any]:
    return {"serving": ALL[backend]["serving"]}


def copied(lab: Laboratory) -> bool:
    """Whether clients' requests are copied to somebody now, by the route or by the mesh."""
    route = lab.sim.serving.route
    filters = () if route is None else route.body["spec"]["rules"][0].get("filters", ())
    by_mesh = any(split.mirror for split in lab.sim.serving.mesh.holds.values())
    return by_mesh or any(one["type"] == "RequestMirror" for one in filters)


@EVERY
def test_an_experiment_shadows_splits_and_promotes(backend: str) -> None:
    lab = laboratory(serving(backend))
    seen: dict[str, tuple[dict[str, int], bool]] = {}
    for _ in range(180):
        lab.seconds(20, step=10)
        told = lab.sim.status.traffic
        if told is not None and told.step is not None and told.confirmed_at is not None:
            seen.setdefault(told.step, (clients(lab.sim), copied(lab)))
        if lab.sim.actions[-1] == "Promote":
            break
    assert seen == {
        "shadow": ({"1": 100}, True),
        "canary": ({"1": 90, "2": 10}, False),
        "half": ({"1": 50, "2": 50}, False),
    }
    calm(lab.sim)
    assert clients(lab.sim) == {"2": 100}
    assert lab.sim.condition("Ready")[:2] == ("True", reasons.SERVING)
    assert not copied(lab)
    record = next(record for record in lab.sim.records if record.action == "Promote")
    assert record.cause.experiment == "spx-volatility-2"


@EVERY
def test_harm_takes_every_request_back_and_nobody_is_refused(backend: str) -> None:
    lab = tried_to("half", serving(backend))
    lab.bad["2"] = 0.2
    for _ in range(60):
        lab.seconds(20, step=10)
        assert clients(lab.sim), "somebody always answers"
        if lab.sim.actions[-1] == "RollBack":
            break
    assert lab.sim.actions[-1] == "RollBack", lab.told()
    calm(lab.sim)
    assert clients(lab.sim) == {"1": 100}
    assert lab.sim.condition("Ready")[0] == "True"


def moved(lab: Laboratory, since: int) -> list[str | None]:
    """Backends of the records after the first ``since``."""
    return [record.backend for record in lab.sim.records[since:] if record.backend is not None]


@pytest.mark.parametrize(("before", "after"), [("Gateway", "Seldon"), ("Seldon", "Gateway")])
def test_a_change_of_backend_waits_for_the_experiment(before: str, after: str) -> None:
    """Its evidence would be of two places, counted by others in the second."""
    lab = tried_to("half", serving(before))
    records = len(lab.sim.records)
    lab.sim.edit({"serving": {"backend": after}})
    lab.seconds(60)
    assert clients(lab.sim) == {"1": 50, "2": 50}
    assert len(lab.sim.records) == records
    assert not any(kind == WORKLOAD[after] for kind, _ in lab.sim.serving.objects)
    status, reason, message = lab.sim.condition("Reconciling")
    assert (status, reason) == ("True", reasons.BACKEND_CHANGING)
    assert "ModelExperiment spx-volatility-2 compares version 2" in message
    lab.bad["2"] = 0.2
    lab.until("RollBack")
    for _ in range(8):
        lab.seconds(20)
        assert clients(lab.sim) == {"1": 100}
    assert moved(lab, records)[-1] == after
    assert lab.sim.condition("Ready")[:2] == ("True", reasons.SERVING)


@pytest.mark.parametrize(("before", "after"), [("Gateway", "Seldon"), ("Gateway", "KServe")])
def test_an_experiment_that_has_not_begun_waits_for_a_change_of_backend(before: str, after: str) -> None:
    """It would put the change off until it ends, and the next one again."""
    lab = laboratory(serving(before))
    lab.sim.settle()
    assert not any(one.status.challenger for one in lab.sim.world.experiments)
    records = len(lab.sim.records)
    lab.sim.edit({"serving": {"backend": after}})
    seen: set[str | None] = set()
    for _ in range(60):
        lab.seconds(5)
        if moved(lab, records):
            break
        assert not any(one.status.challenger for one in lab.sim.world.experiments)
        seen |= {one.status.reason for one in lab.sim.world.experiments}
    assert moved(lab, records) == [after]
    assert seen == {reasons.QUEUED}
    lab.until("Promote")
    assert clients(lab.sim) == {"2": 100}


@pytest.mark.parametrize("after", ["Seldon", "KServe"])
def test_a_promoted_version_is_watched_to_the_end_where_its_requests_are_counted(after: str) -> None:
    lab = tried_to("half")
    lab.until("Promote")
    records = len(lab.sim.records)
    lab.sim.edit({"serving": {"backend": after}})
    lab.seconds(120)
    if after == "KServe":
        assert moved(lab, records) == ["KServe"], "the same counters go on"
        return
    assert moved(lab, records) == []
    _, reason, message = lab.sim.condition("Reconciling")
    assert reason == reasons.BACKEND_CHANGING
    assert "watches version 2 until" in message
    lab.sim.advance(hours=1)
    lab.seconds(120)
    assert moved(lab, records) == ["Seldon"]
    assert clients(lab.sim) == {"2": 100}
