"""What must hold whatever serves: first traffic, promotion, rollback, kill, pin, crash at each write, deletion."""

from __future__ import annotations

import contextlib
from datetime import timedelta
from typing import Any

import pytest

from fiduciary.decide import reasons
from tests.unit.decide.backends import ALL, WORKLOAD, challenged, clients, served, world
from tests.unit.decide.lives import act_now, approve, calm, pin, trained
from tests.unit.decide.simulated_world import WRITES, Crash, SimulatedWorld, Write
from tests.unit.decide.worlds import merged

EVERY = pytest.mark.parametrize("backend", list(ALL))


@EVERY
def test_the_first_version_serves_by_itself(backend: str) -> None:
    sim = served(ALL[backend])
    assert sim.actions == ["Accept", "Shift"]
    assert clients(sim) == {"1": 100}
    kinds = {kind for kind, _ in sim.serving.objects}
    assert WORKLOAD[backend] in kinds
    assert ("HTTPRoute" in kinds) == (backend != "Mesh")
    assert "Experiment" not in kinds, "one version needs no split"
    assert sim.records[1].backend == {"Gateway": None, "KServe": "KServe"}.get(backend, "Seldon")
    endpoint = sim.status.endpoint
    assert endpoint is not None
    if backend == "Mesh":
        assert endpoint.url.startswith("http://seldon-mesh.quant.svc/v2/models/spx-volatility-")
        assert endpoint.headers == {"seldon-model": endpoint.url.rpartition("/")[2]}
    else:
        assert endpoint.url == "http://10.0.0.1/v2/models/quant.spx-volatility"


@EVERY
def test_an_idle_model_writes_nothing(backend: str) -> None:
    sim = challenged(ALL[backend])
    before, objects = sim.status_writes, len(sim.serving.writes)
    for _ in range(30):
        decision = sim.step()
        assert decision.record is None
        assert decision.children == ()
        sim.advance(minutes=2)
        sim.lose_jobs()
    assert (sim.status_writes, len(sim.serving.writes)) == (before, objects)


def watched(sim: SimulatedWorld, seconds: int = 200) -> list[dict[str, int]]:
    """What clients get while time passes; nobody is ever refused."""
    seen = [clients(sim)]
    for _ in range(seconds // 5):
        for _ in range(25):
            decision, written = sim.step(), len(sim.serving.writes)
            got = clients(sim)
            assert got, (sim.status.body(), sim.serving.writes[-5:])
            if seen[-1] != got:
                seen.append(got)
            if not decision.again and len(sim.serving.writes) == written and not decision.children:
                break
        sim.advance(seconds=5)
    return seen


@EVERY
def test_a_promotion_and_a_rollback_answer_every_request(backend: str) -> None:
    sim = challenged(ALL[backend])
    approve(sim, "ok")
    assert watched(sim) == [{"1": 100}, {"2": 100}]
    assert sim.actions[-1] == "Promote"
    assert sim.condition("Ready")[:2] == ("True", reasons.SERVING)
    assert "Experiment" not in {kind for kind, _ in sim.serving.objects} or backend == "Mesh"
    act_now(sim, "back", "RollBack")
    assert watched(sim) == [{"2": 100}, {"1": 100}]
    assert sim.actions[-1] == "RollBack"
    assert sim.condition("Ready")[:2] == ("True", reasons.SERVING)


@EVERY
def test_a_pin_and_its_revert(backend: str) -> None:
    sim = challenged(ALL[backend])
    pin(sim, "2")
    assert watched(sim, 120) == [{"1": 100}, {"2": 100}]
    pin(sim, "1")
    assert watched(sim, 120) == [{"2": 100}, {"1": 100}]
    assert sim.actions[-2:] == ["Promote", "RollBack"]


@EVERY
def test_a_kill_stops_all_and_a_resume_brings_the_same_back(backend: str) -> None:
    sim = challenged(ALL[backend])
    sim.edit({"kill": {"engaged": True}})
    calm(sim, 30)
    assert clients(sim) == {}
    assert sim.status.phase == "Killed"
    assert sim.condition("Ready")[:2] == ("False", reasons.KILL_ENGAGED)
    sim.edit({"kill": {"engaged": False}})
    act_now(sim, "resume", "Resume")
    calm(sim, 60)
    assert clients(sim) == {"1": 100}
    assert sim.condition("Ready")[:2] == ("True", reasons.SERVING)


@EVERY
def test_a_kill_may_leave_the_previous_champion(backend: str) -> None:
    sim = challenged(ALL[backend])
    approve(sim, "ok")
    calm(sim)
    sim.edit({"kill": {"engaged": True, "action": "PreviousChampion"}})
    calm(sim, 60)
    assert clients(sim) == {"1": 100}
    sim.edit({"kill": {"engaged": False}})
    act_now(sim, "resume", "Resume")
    calm(sim, 60)
    assert clients(sim) == {"2": 100}


@EVERY
@pytest.mark.parametrize("write", WRITES)
def test_a_process_that_dies_at_any_write_of_a_promotion(backend: str, write: Write) -> None:
    sim = challenged(ALL[backend])
    approve(sim, "ok")
    for _ in range(24):
        with contextlib.suppress(Crash):
            sim.step(die_before=write)
        sim.step()
        assert clients(sim)
        sim.advance(seconds=5)
    calm(sim, 60)
    assert clients(sim) == {"2": 100}
    assert [action for action in sim.actions if action == "Promote"] == ["Promote"]
    assert sim.condition("Ready")[:2] == ("True", reasons.SERVING)


@EVERY
@pytest.mark.parametrize("child", range(3))
def test_a_process_that_dies_between_two_children(backend: str, child: int) -> None:
    sim = challenged(ALL[backend])
    approve(sim, "ok")
    for _ in range(24):
        sim.spoil = child
        with contextlib.suppress(Crash):
            sim.step()
        sim.spoil = None
        assert clients(sim)
        sim.advance(seconds=5)
    calm(sim, 60)
    assert clients(sim) == {"2": 100}


@EVERY
def test_lost_status_is_rebuilt_and_clients_do_not_notice(backend: str) -> None:
    sim = challenged(ALL[backend])
    approve(sim, "ok")
    calm(sim)
    sim.lose_status()
    calm(sim, 30)
    assert clients(sim) == {"2": 100}
    assert sim.status.champion is not None
    assert sim.status.champion.version == "2"
    assert sim.condition("Ready")[0] == "True"


@EVERY
def test_deletion_takes_what_leads_requests_before_what_answers_them(backend: str) -> None:
    sim = challenged(ALL[backend])
    sim.delete()
    order: list[str] = []
    for _ in range(60):
        before = len(sim.serving.writes)
        sim.step()
        order += [kind for verb, kind, _ in sim.serving.writes[before:] if verb == "delete"]
        if sim.gone:
            break
        sim.advance(seconds=1)
    assert sim.gone
    leading = [place for place, kind in enumerate(order) if kind in ("HTTPRoute", "Experiment")]
    assert order.count(WORKLOAD[backend]) == 2
    assert all(place < order.index(WORKLOAD[backend]) for place in leading)
    assert sim.serving.objects == {}
    assert sim.actions[-1] == "Retire"


@EVERY
def test_what_a_retained_model_leaves_goes_on_and_is_found_again(backend: str) -> None:
    sim = challenged(merged(ALL[backend], {"deletionPolicy": "Retain"}))
    approve(sim, "ok")
    calm(sim)
    objects = set(sim.serving.objects)
    sim.advance(seconds=5)
    sim.delete()
    for _ in range(24):
        if sim.gone:
            break
        sim.step()
        sim.advance(seconds=1)
    assert sim.gone
    assert set(sim.serving.objects) == objects
    for stored in sim.serving.objects.values():
        assert "ownerReferences" not in stored.body["metadata"]
    spec = merged(ALL[backend], {"deletionPolicy": "Retain", "training": {"architecture": "Linear"}})
    sim.create_again(spec)
    calm(sim)
    assert clients(sim) == {"2": 100}
    assert sim.condition("Ready")[0] == "True"
    assert set(sim.serving.objects) == objects


@EVERY
def test_hand_edits_are_put_back(backend: str) -> None:
    sim = challenged(ALL[backend])
    kind = "HTTPRoute" if backend != "Mesh" else "Model"
    name = next(name for found, name in sim.serving.objects if found == kind)
    spec: dict[str, Any] = sim.serving.objects[kind, name].body["spec"]
    changed = (
        {**spec, "hostnames": ["mine.example.com"]} if kind == "HTTPRoute" else {**spec, "storageUri": "s3://mine"}
    )
    sim.serving.edit(kind, name, {"spec": changed})
    calm(sim, 30)
    assert sim.serving.objects[kind, name].body["spec"] == spec
    assert any(event.reason in (reasons.ROUTE_RESTORED, reasons.SERVING_OBJECT_RESTORED) for event in sim.events)
    assert sim.condition("Ready")[0] == "True"


@EVERY
def test_kinds_that_are_missing_are_told_until_they_come(backend: str) -> None:
    sim = world(ALL[backend])
    missing = {"Gateway": {"HTTPRoute"}, "KServe": {"InferenceService"}}.get(backend, {"Model", "Experiment"})
    sim.serving.missing_kinds = frozenset(missing)
    trained(sim)
    calm(sim, 20)
    status, reason, message = sim.condition("Stalled")
    wanted = reasons.GATEWAY_API_MISSING if backend == "Gateway" else reasons.BACKEND_MISSING
    assert (status, reason) == ("True", wanted)
    assert "install" in message
    assert sim.condition("Ready")[:2] == ("False", wanted)
    assert not any(kind in missing for kind, _ in sim.serving.objects)
    sim.serving.missing_kinds = frozenset()
    calm(sim)
    assert sim.condition("Ready")[:2] == ("True", reasons.SERVING)
    assert clients(sim) == {"1": 100}


# --- another backend -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", [name for name in ALL if name != "Mesh"])
def test_a_route_that_is_made_again_is_looked_at_soon(backend: str) -> None:
    """Its label was taken away and put back: for its controller nothing changed, and our own write is no news to us."""
    sim = served(ALL[backend])
    sim.serving.route_status = {"accepted": False}
    calm(sim, 5)
    assert sim.condition("Served")[0] == "False"
    sim.serving.route_status = {}
    sim.serving.delete("HTTPRoute", next(name for kind, name in sim.serving.objects if kind == "HTTPRoute"))
    decision = sim.step()
    assert sim.serving.route is not None
    assert not decision.again
    assert decision.wake_at is not None
    assert decision.wake_at <= sim.now + timedelta(seconds=5)


MOVES = [
    (one, other) for one in ("Gateway", "KServe", "Seldon") for other in ("Gateway", "KServe", "Seldon") if one != other
]


@pytest.mark.parametrize(("before", "after"), MOVES)
def test_a_live_model_changes_its_backend_and_nobody_notices(before: str, after: str) -> None:
    sim = challenged(ALL[before])
    old = {place for place in sim.serving.objects if place[0] == WORKLOAD[before]}
    sim.edit({"serving": {"backend": after}})
    assert watched(sim) == [{"1": 100}]
    record = sim.records[-1]
    assert (record.action, record.cause.kind, record.backend) == ("Shift", "SpecChange", after)
    assert record.traffic is not None
    assert record.traffic.champion == 100
    assert sim.condition("Ready")[:2] == ("True", reasons.SERVING)
    assert not old & set(sim.serving.objects), "what served before is gone"
    assert len([kind for kind, _ in sim.serving.objects if kind == WORKLOAD[after]]) == 2
    approve(sim, "ok")
    assert watched(sim)[-1] == {"2": 100}


@pytest.mark.parametrize(("before", "after"), MOVES)
@pytest.mark.parametrize("write", ["record", "children", "status"])
def test_a_process_that_dies_while_the_backend_changes(before: str, after: str, write: Write) -> None:
    sim = served(ALL[before])
    sim.edit({"serving": {"backend": after}})
    for _ in range(24):
        with contextlib.suppress(Crash):
            sim.step(die_before=write)
        sim.step()
        sim.step()
        assert clients(sim) == {"1": 100}
        sim.advance(seconds=5)
    assert [record.backend for record in sim.records if record.cause.kind == "SpecChange"] == [after]
    assert not any(kind == WORKLOAD[before] for kind, _ in sim.serving.objects)


def test_a_backend_that_never_gets_ready_takes_nothing_over() -> None:
    sim = served(ALL["Gateway"])
    objects = set(sim.serving.objects)
    sim.serving.mesh.servers = ()
    sim.edit({"serving": {"backend": "Seldon"}})
    assert watched(sim, 120) == [{"1": 100}]
    assert sim.actions[-1] == "Shift"
    assert sim.records[-1].backend is None
    assert sim.condition("Ready")[:2] == ("True", reasons.SERVING)
    status, reason, message = sim.condition("Stalled")
    assert (status, reason) == ("True", reasons.SERVER_NOT_READY)
    assert "Gateway serves until then" in message
    assert set(sim.serving.objects) == objects
    sim.edit({"serving": {"backend": "Gateway"}})
    calm(sim, 30)
    assert sim.condition("Stalled")[0] == "False"
    assert set(sim.serving.objects) == objects


def test_a_backend_whose_kinds_are_missing_is_waited_for() -> None:
    sim = served(ALL["Gateway"])
    sim.serving.missing_kinds = frozenset({"InferenceService"})
    sim.edit({"serving": {"backend": "KServe"}})
    assert watched(sim, 60) == [{"1": 100}]
    status, reason, message = sim.condition("Stalled")
    assert (status, reason) == ("True", reasons.BACKEND_MISSING)
    assert "install KServe" in message
    sim.serving.missing_kinds = frozenset()
    assert watched(sim) == [{"1": 100}]
    assert sim.records[-1].backend == "KServe"


def test_a_change_of_mind_while_the_backend_changes() -> None:
    sim = served(ALL["Gateway"])
    sim.serving.mesh.says = {}
    sim.edit({"serving": {"backend": "Seldon"}})
    sim.step()
    sim.edit({"serving": {"backend": "Gateway"}})
    assert watched(sim, 120) == [{"1": 100}]
    assert not any(kind == "Model" for kind, _ in sim.serving.objects)
    assert all(record.backend is None for record in sim.records)


def test_a_kill_wins_over_a_change_of_backend() -> None:
    sim = served(ALL["Gateway"])
    sim.edit({"serving": {"backend": "KServe"}, "kill": {"engaged": True}})
    calm(sim, 60)
    assert clients(sim) == {}
    assert sim.actions[-1] == "Kill"
    sim.edit({"kill": {"engaged": False}})
    act_now(sim, "resume", "Resume")
    sim.settle()
    assert watched(sim)[-1] == {"1": 100}
    assert sim.records[-1].backend == "KServe"
