"""Any order of promotions, kills, pins, rollbacks, faults and crashes: what was promised about traffic holds.

After each reconcile, and after each crash between two writes, the stored route is looked at: who could answer a client
now? In the end everything works again, and the model must have settled: clients are answered by the version that the
log names, nothing is left over, and nothing is written any more.
"""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fiduciary.api.meta import FINALIZER
from fiduciary.decide.decision import Delete
from fiduciary.decide.history import after, fold
from fiduciary.decide.serving.routing import routing
from tests.unit.decide.lives import NO_SKILL, calm, served, service_name
from tests.unit.decide.simulated_serving import GATEWAY
from tests.unit.decide.simulated_world import WRITES, Crash, SimulatedWorld, Unreachable, Write
from tests.unit.decide.worlds import SERVED, approval, asking, merged, result

UNKNOWN = "sha256:" + "e" * 64
EDITS: list[dict[str, Any]] = [
    {"training": {"seed": 8}},
    {"training": {"seed": 9}},
    {"training": {"architecture": "Linear"}},
    {"gates": [{"metric": "ewma_skill", "above": "0.9"}]},
    {"gates": []},
    {"suspend": True},
    {"suspend": False},
    {"kill": {"engaged": True, "action": "Block"}},
    {"kill": {"engaged": True, "action": "PreviousChampion"}},
    {"kill": {"engaged": False}},
    {"promotion": {"mode": "Manual", "pinned": None}},
    {"promotion": {"mode": "Pinned", "pinned": {"version": "1", "digest": UNKNOWN}}},
    {"promotion": {"approvals": 2}},
    {"promotion": {"rollbackWindow": "1m"}},
    {"serving": {"replicas": 1}},
    {"serving": {"replicas": 3}},
    {"serving": {"keepVersions": 1}},
    {"serving": None},
    {"serving": SERVED["serving"]},
    {"deletionPolicy": "Retain"},
    {"deletionPolicy": "Delete"},
    {"data": {"asOf": "Rolling"}},
]
PEOPLE = ["ana@desk", "bob@desk", "dev@desk"]  # dev@desk wrote the spec


class Traffic(RuleBasedStateMachine):
    """A served model, the people and things around it, and an operator that dies now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.sim: SimulatedWorld = self.start()
        self.acts = 0

    def start(self) -> SimulatedWorld:
        """The served model that it begins with."""
        return served({"promotion": {"rollbackWindow": "10m"}})

    @initialize()
    def begin(self) -> None:
        self.sim.edit({"training": {"architecture": "Linear"}})
        self.sim.settle()
        self.sim.finish(result(self.sim.jobs[-1].key))

    # -- the operator

    @rule()
    def reconcile(self) -> None:
        sim = self.sim
        if sim.gone:
            return
        champion = sim.status.champion
        deleting = sim.model.metadata.deletion_timestamp is not None
        sim.serving.turn(sim.now)  # as the operator will see it
        ready = {name: stored.ready for (kind, name), stored in sim.serving.objects.items() if kind == "Deployment"}
        listed = set(sim.serving.weights())
        with contextlib.suppress(Unreachable):
            decision = sim.step()
            record = decision.record
            waited = record is not None and not (record.action == "RollBack" and record.cause.kind == "Experiment")
            if record is not None and record.action in ("Promote", "RollBack") and record.traffic and waited:
                assert record.to is not None
                took, had = (
                    service_name(sim, record.to.digest),
                    service_name(sim, champion.digest if champion else None),
                )
                assert ready[took] >= max(1, min(ready.get(had, 0), 3)), "traffic came before capacity"
                assert took in listed or not listed, "traffic came to what the gateways do not know"
            if record is not None and record.cause.request is not None:
                spec, kill = sim.model.spec, fold(sim.world.records).kill
                assert not spec.suspend, "a policy acted on a suspended model"
                assert kill is None or not kill.engaged, "a policy acted against the kill switch"
                assert record.action == "Retrain" or spec.promotion.mode != "Pinned", "a policy acted against a pin"
            if not deleting:
                pods = ("Deployment", "Service")
                gone = {child.name for child in decision.children if isinstance(child, Delete) and child.kind in pods}
                assert not gone & listed, "pods went before the route"
            self.nobody_answers_who_must_not()

    @rule(write=st.sampled_from(WRITES))
    def die(self, write: Write) -> None:
        if not self.sim.gone:
            with contextlib.suppress(Crash, Unreachable):
                self.sim.step(die_before=write)

    @rule(child=st.integers(0, 8))
    def die_between_children(self, child: int) -> None:
        if not self.sim.gone:
            self.sim.spoil = child
            with contextlib.suppress(Crash, Unreachable):
                self.sim.step()
            self.sim.spoil = None

    @rule(seconds=st.sampled_from([1, 4, 15, 70, 900, 90_000]))
    def wait(self, seconds: int) -> None:
        self.sim.advance(seconds=seconds)

    # -- people

    @precondition(lambda self: not self.sim.gone)
    @rule(change=st.sampled_from(EDITS))
    def edit(self, change: dict[str, Any]) -> None:
        if self.sim.model.spec.serving is None and "serving" in change and change["serving"]:
            change = {"serving": merged(SERVED["serving"], change["serving"])}
        self.sim.edit(change)

    @precondition(lambda self: not self.sim.gone)
    @rule(place=st.integers(0, 5))
    def pin(self, place: int) -> None:
        known = [record.to for record in self.sim.records if record.to is not None and record.to.digest is not None]
        version = known[place % len(known)]
        pinned = {"version": version.version or "9", "digest": version.digest}
        self.sim.edit({"promotion": {"mode": "Pinned", "pinned": pinned}})

    @rule(who=st.sampled_from(PEOPLE), decision=st.sampled_from(["Approve", "Approve", "Reject"]))
    def answer(self, who: str, decision: str) -> None:
        request = self.sim.status.approval_request
        digest = request.digest if request is not None else UNKNOWN
        self._act(decision, who, evidenceDigest=digest)

    @rule(who=st.sampled_from(PEOPLE), version=st.sampled_from([None, "1", "2", "3", "9"]))
    def roll_back(self, who: str, version: str | None) -> None:
        self._act("RollBack", who, **({} if version is None else {"version": version}))

    @rule(who=st.sampled_from(PEOPLE), decision=st.sampled_from(["Kill", "Resume", "Retrain"]))
    def act(self, who: str, decision: str) -> None:
        self._act(decision, who)

    @precondition(lambda self: not self.sim.gone)
    @rule(kind=st.sampled_from(["RollBack", "Retrain"]), digit=st.sampled_from("abcdef"))
    def policy_asks(self, kind: str, digit: str) -> None:
        self.sim.ask(asking("inputs", kind, self.sim.now, digit=digit))

    @rule()
    def policies_ask_nothing(self) -> None:
        self.sim.ask()

    def _act(self, decision: str, who: str, **spec: Any) -> None:
        self.acts += 1
        self.sim.approve(approval(f"act-{self.acts}", decision, self.sim.now, who, **spec))

    @precondition(lambda self: not self.sim.gone)
    @rule()
    def delete(self) -> None:
        self.sim.delete()
        if FINALIZER not in self.sim.model.metadata.finalizers:  # nobody holds it: the API server lets it go
            self.sim.gone = True
            self.sim.serving.collect(self.sim.model.metadata.uid)

    @precondition(lambda self: self.sim.gone)
    @rule()
    def create_again(self) -> None:
        self.sim.create_again(SERVED)

    # -- what happens

    @precondition(lambda self: any(not job.finished for job in self.sim.jobs))
    @rule(good=st.sampled_from([True, True, False]))
    def finish(self, good: bool) -> None:
        live = [job for job in self.sim.jobs if not job.finished][-1]
        self.sim.finish(result(live.key, change=None if good else NO_SKILL))

    @rule(part=st.sampled_from(["node_works", "controller_works", "prober_works"]))
    def part_fails_or_returns(self, part: str) -> None:
        setattr(self.sim.serving, part, not getattr(self.sim.serving, part))

    @rule(there=st.booleans())
    def gateway_goes_or_comes(self, there: bool) -> None:
        self.sim.serving.gateways = (GATEWAY,) if there else ()

    @rule()
    def mlflow_goes_or_comes(self) -> None:
        self.sim.registry.up = not self.sim.registry.up

    @precondition(lambda self: not self.sim.gone)
    @rule()
    def lose_status(self) -> None:
        self.sim.lose_status()

    @precondition(lambda self: bool(self.sim.serving.objects))
    @rule(place=st.integers(0, 30))
    def somebody_deletes_an_object(self, place: int) -> None:
        names = sorted(self.sim.serving.objects)
        self.sim.serving.delete(*names[place % len(names)])

    @precondition(lambda self: self.sim.serving.route is not None)
    @rule(weights=st.lists(st.sampled_from([0, 50, 100]), min_size=1, max_size=4))
    def somebody_edits_the_route(self, weights: list[int]) -> None:
        route = self.sim.serving.route
        assert route is not None
        spec = route.body["spec"]
        rules = [
            {
                **entry,
                "backendRefs": [
                    {**ref, "weight": weights[number % len(weights)]} for number, ref in enumerate(entry["backendRefs"])
                ],
            }
            for entry in spec["rules"]
        ]
        self.sim.serving.edit("HTTPRoute", route.body["metadata"]["name"], {"spec": {**spec, "rules": rules}})

    # -- what must hold

    def nobody_answers_who_must_not(self) -> None:
        """Right after a reconcile that carried everything out."""
        sim = self.sim
        history = fold(sim.world.records)
        route = routing(history)
        shares = {service for service, weight in sim.serving.weights().items() if weight > 0}
        allowed = {service_name(sim, digest) for digest in route.answering} if route is not None else set[str]()
        if sim.model.metadata.deletion_timestamp is None and sim.model.spec.serving is not None:
            assert shares <= allowed, "the route does not follow the log"
        kill = history.kill
        if kill is not None and kill.engaged and sim.model.metadata.deletion_timestamp is None:
            stands_in = history.kill_serves
            assert shares <= ({service_name(sim, stands_in.digest)} if stands_in is not None else set())

    @invariant()
    def only_versions_that_passed_were_ever_routed(self) -> None:
        sim = self.sim
        passed = {
            service_name(sim, record.to.digest)
            for record in sim.records
            if record.action == "Accept" and record.to is not None
        }
        for _, weights in sim.serving.history:
            assert {service for service, weight in weights.items() if weight > 0} <= passed

    @invariant()
    def every_move_went_to_a_version_that_passes_now(self) -> None:
        history = fold([])
        for record in self.sim.records:
            if record.action in ("Promote", "RollBack"):
                assert record.to is not None
                newest = [
                    one for one in history.verdicts.values() if one.version and one.version.digest == record.to.digest
                ]
                former = {version.digest for version in (history.champion, *history.former) if version is not None}
                assert newest
                assert newest[-1].action == "Accept" or record.to.digest in former
            history = after(history, record)

    @invariant()
    def what_a_policy_asks_is_done_once(self) -> None:
        done = [record.cause.request for record in self.sim.records if record.cause.request is not None]
        assert len(done) == len(set(done))

    @invariant()
    def the_number_on_the_route_never_falls(self) -> None:
        numbers = [number for number, _ in self.sim.serving.history]
        assert numbers == sorted(numbers)

    @invariant()
    def no_act_has_two_records(self) -> None:
        answered = [record.cause.approval for record in self.sim.records if record.cause.approval is not None]
        assert len(answered) == len(set(answered))

    @invariant()
    def the_log_holds_together(self) -> None:
        assert fold(self.sim.world.records).broken is None

    def teardown(self) -> None:
        """All parts work again and nobody does anything more."""
        sim = self.sim
        if sim.gone:
            return
        sim.registry.up = True
        sim.serving.gateways = (GATEWAY,)
        sim.serving.node_works = sim.serving.controller_works = sim.serving.prober_works = True
        sim.advance(minutes=11)
        for _ in range(8):
            sim.settle(60)
            if sim.gone:
                return
            sim.advance(seconds=20)
        sim.advance(hours=25)
        calm(sim)
        history = fold(sim.world.records)
        route = routing(history)
        shares = {service for service, weight in sim.serving.weights().items() if weight > 0}
        if route is not None:
            assert shares == {service_name(sim, digest) for digest in route.answering}
            if not route.blocked:
                assert sim.condition("Served")[0] == "True", sim.status.body()
        loaded = len(sim.serving.names("Deployment"))
        keep = sim.model.spec.serving.keep_versions if sim.model.spec.serving is not None else 0
        assert loaded <= keep + 2, "a challenger and a stand-in at most, beside what is kept"
        assert len(sim.serving.names("Service")) == 2 * loaded
        status, records, writes = sim.status, len(sim.records), len(sim.serving.writes)
        calm(sim, 60)
        assert (sim.status, len(sim.records), len(sim.serving.writes)) == (status, records, writes), "it is not quiet"


Traffic.TestCase.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
test_traffic_is_what_was_promised = Traffic.TestCase
