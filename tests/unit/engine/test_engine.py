"""The whole engine against a cluster in memory: whatever happens on the way, the same end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fiduciary.api import meta
from fiduciary.engine import kinds
from tests.unit.engine import toy_judge
from tests.unit.engine.memory import MemoryCluster, MemoryRegistry, WatchEvent
from tests.unit.engine.rig import Clock, Killed, Process, finish_jobs, wait

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body, Resource

MODEL = ("FinancialModel", "quant", "m")


class EngineMachine(RuleBasedStateMachine):
    """Events late, twice, out of order or lost; writes lost before or after; the registry away; restarts anywhere."""

    @initialize()
    def start(self) -> None:
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock.now)
        self.registry = MemoryRegistry()
        self.process = Process(self.cluster, self.registry, self.clock)
        self.delivered: list[WatchEvent] = []
        self.seeds: set[int] = set()
        self.process.start()
        self.cluster.put(kinds.FINANCIALMODEL, toy_judge.body(seed=1))
        self.seed = 1
        self.seeds.add(1)

    @rule(seed=st.integers(1, 3))
    def edit(self, seed: int) -> None:
        if MODEL in self.cluster.objects:
            self.cluster.put(kinds.FINANCIALMODEL, toy_judge.body(seed=seed))
            self.seed = seed
            self.seeds.add(seed)

    @rule()
    def work(self) -> None:
        self.process.step()

    @rule()
    def mirror(self) -> None:
        self.process.mirror()

    @rule(data=st.data())
    def deliver_any(self, data: st.DataObject) -> None:
        if self.cluster.outbox:
            position = data.draw(st.integers(0, len(self.cluster.outbox) - 1))
            event = self.cluster.outbox.pop(position)
            self.delivered.append(event)
            self.process.deliver(event)

    @precondition(lambda self: self.delivered)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        self.process.deliver(data.draw(st.sampled_from(self.delivered)))

    @rule(resource=st.sampled_from([kinds.FINANCIALMODEL, kinds.JOB, kinds.MODELDECISION]))
    def break_a_watch(self, resource: Resource) -> None:
        """Everything of this kind that was not delivered is lost; then the watch lists anew."""
        self.cluster.outbox[:] = [event for event in self.cluster.outbox if event.resource != resource]
        for event in self.cluster.relist(resource):
            self.process.deliver(event)

    @rule()
    def jobs_end(self) -> None:
        finish_jobs(self.cluster)

    @rule()
    def somebody_deletes_the_jobs(self) -> None:
        """Only those whose verdict is stored: the others' loss is a loss of work, which `decide` is about."""
        judged = {record["spec"]["evidence"]["summary"]["trainingKey"] for record in self.records()}
        for (kind, namespace, name), body in list(self.cluster.objects.items()):
            if kind == "Job" and body["metadata"]["annotations"][meta.ANNOTATION_TRAINING_KEY] in judged:
                self.cluster.remove(kinds.JOB, namespace, name)

    @rule(how=st.sampled_from(["before", "after"]))
    def lose_a_write(self, how: str) -> None:
        self.cluster.lose_next = how

    @rule(away=st.booleans())
    def registry_goes_or_comes(self, away: bool) -> None:
        self.registry.away = away

    @rule()
    def restart(self) -> None:
        self.delivered.clear()
        self.process = Process(self.cluster, self.registry, self.clock)
        self.process.start()

    @rule(number=st.integers(0, 6))
    def die_at_a_write(self, number: int) -> None:
        """The process ends just before its number-th write from now, and a new one starts."""
        left = number

        def count(name: str) -> None:
            nonlocal left
            if left == 0:
                raise Killed(name)
            left -= 1

        self.process = Process(self.cluster, self.registry, self.clock, checkpoint=count)
        self.process.start()
        try:
            for _ in range(20):
                if self.process.step() is None:
                    break
        except Killed:
            pass
        self.restart()

    @rule(seconds=st.floats(0, 100))
    def time_passes(self, seconds: float) -> None:
        self.clock.seconds += seconds

    def records(self) -> list[Body]:
        return [body for (kind, _, _), body in self.cluster.objects.items() if kind == "ModelDecision"]

    @invariant()
    def never_trained_twice(self) -> None:
        jobs = [name for kind, _, name in self.cluster.created if kind == "Job"]
        assert len(jobs) == len(set(jobs)), jobs

    @invariant()
    def one_verdict_and_one_version_a_key(self) -> None:
        keys = [record["spec"]["evidence"]["summary"]["trainingKey"] for record in self.records()]
        assert len(keys) == len(set(keys))
        digests = [v.tags["fiduciary.dev/digest"] for v in self.registry.versions.get("quant.m", [])]
        assert len(digests) == len(set(digests))

    @invariant()
    def a_recorded_version_is_registered(self) -> None:
        registered = {v.tags["fiduciary.dev/digest"] for v in self.registry.versions.get("quant.m", [])}
        assert {record["spec"]["to"]["digest"] for record in self.records()} <= registered

    def teardown(self) -> None:
        """Whatever happened: let the world be kind, and the end is what the last spec asks for."""
        if not hasattr(self, "process"):
            return
        self.cluster.lose_next = ""
        self.registry.away = False
        self.clock.seconds += 1000
        for _ in range(4):
            for resource in kinds.WATCHED:  # a relist brings what exists, the sweep takes away what does not
                for event in self.cluster.relist(resource):
                    self.process.deliver(event)
                wait(self.process.loop.sweep(resource))
            self.process.settle()
            finish_jobs(self.cluster)
        self.process.settle()
        status = self.cluster.objects[MODEL]["status"]
        assert status["phase"] == "Registered"
        assert status["champion"]["digest"] == self.records()[-1]["spec"]["to"]["digest"]
        judged = {record["spec"]["evidence"]["summary"]["trainingKey"] for record in self.records()}
        assert toy_judge.key_of(self.seed) in judged
        assert not [place for place in self.cluster.objects if place[0] == "Job"]
        before = list(self.cluster.writes)
        self.clock.seconds += 1000
        self.process.settle()
        assert self.cluster.writes == before, "an idle operator writes"


EngineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestEngine = EngineMachine.TestCase
