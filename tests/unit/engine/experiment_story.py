"""A served model whose retrain is tried on live requests, by the real judges of model and experiment, in memory.

Requests go where the route in force sends them; pods count them, a Prometheus in memory scrapes the pods. The process
may end at any numbered write of either kind; the next one goes on.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fiduciary.decide import financialmodel
from fiduciary.engine.experiments.kept import Stored, stored
from fiduciary.engine.writes import ORDER, Step
from tests.unit.decide.worlds import PLATFORM, SERVED, merged
from tests.unit.engine.counting import SCRAPE, Counter, MemoryPrometheus
from tests.unit.engine.rig import Process
from tests.unit.engine.serving_story import GUARD, ServingStory

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body

TEMPLATE: dict[str, Any] = {
    "traffic": {
        "steps": [
            {"name": "shadow", "mirror": 100, "minBlocks": 1},
            {"name": "half", "weight": 50, "minBlocks": 2},
        ]
    },
    "evidence": {"dispersion": "1"},
    "guardrails": [{"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.05"}}],
    "stopping": {"minDuration": "1m", "maxDuration": "1d"},
}
TRIED = merged(
    SERVED,
    {
        "data": {"asOf": "Rolling"},
        "promotion": {"mode": "Auto", "rollbackWindow": "2m", "experiment": TEMPLATE},
    },
)


class ExperimentStory(ServingStory):
    """``bad``: share of failed requests by version number."""

    horizon = 1.0  # scrapes come in time

    def __init__(self, die_at: int = -1, **options: Any) -> None:
        self.prometheus = MemoryPrometheus()
        self.requests = 60_000  # a scrape interval
        self.bad = {"1": 0.02, "2": 0.02}
        self.scraped = 0
        self.second = ""  # digest of the retrain
        self.log_of_weights: list[tuple[int, int]] = []
        super().__init__(die_at, **options)

    def born(self) -> Process:
        process = Process(
            self.cluster,
            self.registry,
            self.clock,
            judge=financialmodel,
            order=self.order,
            checkpoint=self.point,
            platform=replace(PLATFORM, experiments=True),
            servers=self.node,
            guards=(GUARD,),
            prometheus=self.prometheus,
        )
        process.start()
        return process

    # -- requests

    def calm(self, seconds: int = 20) -> None:
        until = self.clock.seconds + seconds
        while self.clock.seconds < until:
            super().calm(1)
            if self.clock.seconds >= self.scraped + SCRAPE // 1000:
                self.scraped += SCRAPE // 1000
                self.serve()

    def serve(self) -> None:
        """One interval's requests, split and copied as the Gateway does, then the scrape."""
        at = round(self.clock.now().timestamp() * 1000) - round(1000 * (self.clock.seconds - self.scraped))
        live: dict[str, int] = {}
        shares = self.node.forces.get(("quant", "spx"), [])
        total = sum(weight for _, weight in shares)
        for service, weight in shares:
            live[service] = self.requests * weight // total if total else 0
        rules = ((self.route() or {}).get("spec") or {}).get("rules") or [{}]
        for one in rules[0].get("filters") or []:
            mirrored = one["requestMirror"]["backendRef"]["name"].removesuffix("-mirror")
            live[mirrored] = live.get(mirrored, 0) + self.requests
        for (kind, namespace, name), body in list(self.cluster.objects.items()):
            if kind == "Pod" and (body["metadata"].get("labels") or {}).get("fiduciary.dev/component") == "serving":
                counter = self.prometheus.pods.setdefault(name, Counter(namespace, name, at))
                service = name.rsplit("-", 2)[0]
                number = body["metadata"]["labels"].get("fiduciary.dev/version", "1")
                pods = sum(other.startswith(service) for other in self.prometheus.pods)
                counter.take(live.get(service, 0) // pods, self.bad.get(number, 0.0))
        self.prometheus.scrape(at)

    # -- what is there

    def experiments(self) -> list[Body]:
        return [body for (kind, _, _), body in self.cluster.objects.items() if kind == "ModelExperiment"]

    @property
    def mx(self) -> Body:
        (found,) = self.experiments()
        return found

    def ruled(self, verdict: str, minutes: int = 40) -> None:
        """Until the log has a verdict."""
        until = self.clock.seconds + 60 * minutes
        while self.log()[-1]["action"] != verdict:
            mx = self.experiments()
            assert self.clock.seconds < until, mx and mx[0].get("status", {}).get("conditions")
            self.calm(5)

    # -- the life

    def begin(self) -> None:
        """A champion serves, and its retrain has ended."""
        self.apply(TRIED)
        self.serves(self.train())
        self.clock.seconds += 86_400  # another day's data
        self.scraped = int(self.clock.seconds)
        self.calm(90)
        self.act("Retrain")
        self.second = self.train()

    def run(self) -> None:
        self.begin()
        self.try_it()

    def try_it(self) -> None:
        """From the verdict on the retrain to the end of the window in which its promotion is watched."""
        self.ruled("Promote")
        self.serves(self.second)
        self.calm(200)

    @classmethod
    def begun(cls) -> ExperimentStory:
        """A story up to the end of the retrain; nobody is at work."""
        story = cls()
        story.begin()
        del story.process
        story.points.clear()
        return story

    def goes_on(self, die_at: int, order: tuple[Step, ...] = ORDER) -> ExperimentStory:
        """A copy of this story in which a process is at work that ends at its n-th write."""
        story = copy.deepcopy(self)
        story.die_at, story.order = die_at, order
        story.process = story.born()
        return story

    def untrue(self) -> list[str]:
        found = super().untrue()
        for mx in self.experiments():
            status = mx.get("status") or {}
            if status.get("evidence") and not isinstance(stored_of(mx), Stored):
                found.append("the evidence of an experiment cannot be read")
            records = [record for record in self.log() if record["cause"].get("experiment") == mx["metadata"]["name"]]
            if records and not status.get("evidence"):
                found.append("a record follows an experiment whose status does not know that it has begun")
            verdicts = [record for record in records if record["action"] != "Shift"]
            if verdicts and not status.get("ruling"):
                found.append("a verdict is recorded that no status held")
        return found

    def check_end(self) -> None:
        assert not self.broken
        actions = [record["action"] for record in self.log()]
        assert actions == ["Accept", "Shift", "Accept", "Shift", "Shift", "Promote"], actions
        shifts = [record["traffic"] for record in self.log() if record["action"] in ("Shift", "Promote")]
        assert [(one.get("challenger", 0), one.get("mirror", 0)) for one in shifts] == [
            (0, 0),
            (0, 100),
            (50, 0),
            (0, 0),
        ]
        status = self.mx["status"]
        assert (status["phase"], status["ruling"]["verdict"]) == ("Promoted", "Promote")
        assert status["evidence"]["counters"] == ""
        jobs = [name for kind, _, name in self.cluster.created if kind == "ModelExperiment"]
        assert len(jobs) == 1


def stored_of(mx: Body) -> Any:
    from fiduciary.api.modelexperiment import ModelExperiment

    evidence = ModelExperiment.model_validate(mx).status.evidence
    assert evidence is not None
    return stored(evidence)
