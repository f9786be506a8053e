"""One experiment in memory, with everything around it: pods that count, Prometheus, and a model that follows.

What the FinancialModel does is done here by hand: it writes the record that the status of the experiment asks for, then
the split of its own status, then finds it in force. The experiment's reconcile, its questions and its judgement are the
real ones; the process may end at each of its writes.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from fiduciary.api.modelexperiment import ModelExperiment
from fiduciary.decide.decision import Decision
from fiduciary.decide.world import Questions
from fiduciary.engine import kinds
from fiduciary.engine.experiments.kept import Stored, stored
from fiduciary.manifests.versionnames import version_name
from tests.unit.decide.logs import Log, digest, version
from tests.unit.decide.worlds import NAME, NAMESPACE, PLATFORM, SERVED, SPEC, merged
from tests.unit.engine.counting import SCRAPE, Counter, MemoryPrometheus
from tests.unit.engine.memory import MemoryCluster, MemoryRegistry
from tests.unit.engine.mortal import Mortal
from tests.unit.engine.rig import Clock, Process

MX = f"{NAME}-2"
TRIAL: dict[str, Any] = {
    "modelRef": {"name": NAME},
    "challenger": {"version": "2"},
    "purpose": "Refresh",
    "traffic": {
        "steps": [
            {"name": "shadow", "mirror": 100, "minBlocks": 2},
            {"name": "half", "weight": 50, "minBlocks": 3},
        ]
    },
    "evidence": {"dispersion": "1"},
    "guardrails": [{"name": "errors", "metric": "ErrorRate", "margin": {"absolute": "0.05"}}],
    "stopping": {"minDuration": "1m", "maxDuration": "1d"},
}


class Still:
    """A model's judge that changes nothing: what the model does is done by hand."""

    @staticmethod
    def questions(world: Any, now: Any) -> Questions:
        return Questions()

    @staticmethod
    def decide(world: Any, now: Any) -> Decision:
        return Decision(status=world.model.status)


class TrialStory(Mortal):
    """Everything may be changed between two calls of :meth:`run_for`."""

    horizon = 0.0
    platform = PLATFORM
    exports: Any = None  # what takes folded blocks; None: nothing does
    ledgers: Any = None  # what reads the scorer; None: there is none

    def __init__(self, die_at: int = -1, spec: dict[str, Any] | None = None, *, seen: bool = True) -> None:
        super().__init__(die_at)
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock.now)
        self.prometheus = MemoryPrometheus()
        self.seen = seen
        self.log = Log()
        self.requests = 20_000  # a scrape interval
        self.bad = {"1": 0.02, "2": 0.02}
        self.follows = True
        self.traffic: dict[str, Any] = {"champion": 100}
        self.places: dict[str, Any] = {}
        self.decided = self.clock.now()
        self.confirms = True
        self.facts: list[Any] = []  # what status said, each time it was another
        self._model()
        for number in ("1", "2"):
            self._version(number)
        self.scraped = self.milliseconds
        self.cluster.put(kinds.MODELEXPERIMENT, self.body(spec))
        self._activate()
        self.process = self.born()

    # -- what is there

    @property
    def milliseconds(self) -> int:
        return round(self.clock.now().timestamp() * 1000)

    def body(self, spec: dict[str, Any] | None = None) -> dict[str, Any]:
        metadata = {"namespace": NAMESPACE, "name": MX}
        head = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "ModelExperiment", "metadata": metadata}
        return {**head, "spec": merged(TRIAL, spec or {})}

    @property
    def mx(self) -> dict[str, Any]:
        return self.cluster.objects["ModelExperiment", NAMESPACE, MX]

    @property
    def status(self) -> dict[str, Any]:
        return self.mx.get("status") or {}

    @property
    def experiment(self) -> ModelExperiment:
        return ModelExperiment.model_validate(self.mx)

    @property
    def there(self) -> bool:
        return ("ModelExperiment", NAMESPACE, MX) in self.cluster.objects

    def stored(self) -> Stored:
        evidence = self.experiment.status.evidence
        assert evidence is not None
        found = stored(evidence)
        assert isinstance(found, Stored), found
        return found

    def condition(self, kind: str) -> tuple[str, str]:
        found = {one["type"]: one for one in self.status.get("conditions", ())}[kind]
        return found["status"], found["reason"]

    def born(self) -> Process:
        process = Process(
            self.cluster,
            MemoryRegistry(),
            self.clock,
            judge=Still,
            order=self.order,
            checkpoint=self.point,
            platform=self.platform,
            prometheus=self.prometheus if self.seen else None,
            ledgers=self.ledgers,
            exports=self.exports,
        )
        process.start()
        return process

    def died(self, where: str) -> None:
        """Nothing was acted on that is not in the status: the model only reads that. So look at the status itself."""
        evidence = self.experiment.status.evidence if self.there else None
        if evidence is not None and not isinstance(stored(evidence), Stored):
            self.broken.append(f"the stored evidence cannot be read (died before {where})")

    # -- the model, by hand

    def _model(self) -> None:
        head = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "FinancialModel"}
        metadata = {"namespace": NAMESPACE, "name": NAME}
        promotion = {"promotion": {"mode": "Auto", "rollbackWindow": "10m"}}
        spec = merged(SPEC, merged(SERVED, promotion))
        self.cluster.put(kinds.FINANCIALMODEL, {**head, "metadata": metadata, "spec": spec})
        self.write("Accept", "1", role="Champion")
        self.write("Shift", "1", traffic={"champion": 100})
        self.write("Accept", "2", role="Challenger")
        self.places = {"champion": version("1"), "challenger": version("2")}
        self.tell()

    def _activate(self) -> None:
        self.active = {"name": MX, "uid": self.mx["metadata"]["uid"]}
        self.tell()

    def _version(self, number: str) -> None:
        name = version_name(NAME, digest(number))
        labels = {
            "app.kubernetes.io/managed-by": "fiduciary",
            "fiduciary.dev/model": NAME,
            "fiduciary.dev/component": "serving",
            "fiduciary.dev/version": number,
        }
        annotations = {"fiduciary.dev/digest": digest(number)}
        metadata = {"namespace": NAMESPACE, "name": name, "labels": labels, "annotations": annotations}
        self.cluster.put(kinds.DEPLOYMENT, {"metadata": metadata, "spec": {"replicas": 1}})
        self.cluster.touch(kinds.DEPLOYMENT, NAMESPACE, name, status={"readyReplicas": 1, "replicas": 1})
        owner = {"kind": "ReplicaSet", "name": f"{name}-6f9d8", "uid": "r", "controller": True}
        pod = {"namespace": NAMESPACE, "name": f"{name}-6f9d8-0", "labels": labels, "ownerReferences": [owner]}
        self.cluster.put(kinds.POD, {"metadata": pod, "spec": {}, "status": {}})
        self.pod(number)
        self.prometheus.pods[number] = Counter(NAMESPACE, pod["name"], self.milliseconds)

    def pod(self, number: str, *, ready: bool = True, restarts: int = 0, killed: bool = False, ended: str = "") -> None:
        """What the kubelet says of the only pod of a version. ``ended``: why its last run did."""
        why = "OOMKilled" if killed else ended
        last = {"terminated": {"exitCode": 137, "reason": why}} if why else {}
        container = {"name": "server", "state": {"running": {}}, "restartCount": restarts, "lastState": last}
        status = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [container],
        }
        name = version_name(NAME, digest(number))
        self.cluster.touch(kinds.POD, NAMESPACE, f"{name}-6f9d8-0", status=status)
        self.cluster.touch(kinds.DEPLOYMENT, NAMESPACE, name, status={"readyReplicas": int(ready), "replicas": 1})

    def drained(self, number: str) -> None:
        """The only pod of a version was evicted; the one that takes its place is being made on another node."""
        waits = {"name": "server", "state": {"waiting": {"reason": "ContainerCreating"}}, "restartCount": 0}
        status = {"phase": "Pending", "containerStatuses": [waits]}
        name = version_name(NAME, digest(number))
        self.cluster.touch(kinds.POD, NAMESPACE, f"{name}-6f9d8-0", status=status)
        self.cluster.touch(kinds.DEPLOYMENT, NAMESPACE, name, status={"readyReplicas": 0, "replicas": 1})

    def write(self, action: str, number: str, **parts: Any) -> None:
        """One more record."""
        if action == "Accept":
            self.log.accept(number, role=parts["role"])
            body = self.log.records.pop().spec.model_dump(by_alias=True, exclude_none=True, mode="json")
            for name in ("sequence", "previous", "action", "modelRef", "decidedAt"):
                body.pop(name, None)
            summary = body.pop("evidence")["summary"]
            made = self.log.write("Accept", summary=summary, decidedAt=self.clock.now().isoformat(), **body)
        else:
            made = self.log.write(action, to=version(number), decidedAt=self.clock.now().isoformat(), **parts)
        spec = made.spec.model_dump(by_alias=True, exclude_none=True, mode="json")
        metadata = {"namespace": NAMESPACE, "name": made.metadata.name}
        head = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "ModelDecision", "metadata": metadata}
        self.cluster.put(kinds.MODELDECISION, {**head, "spec": spec})

    def tell(self, confirmed: Any = None) -> None:
        """The model's status."""
        traffic = {"champion": 0, "challenger": 0, "mirror": 0, **self.traffic}
        traffic |= {"decision": self.log.history.routed, "since": self.decided.isoformat()}
        if confirmed is not None:
            traffic["confirmedAt"] = confirmed.isoformat()
        status = {**self.places, "traffic": traffic}
        if hasattr(self, "active"):
            status["activeExperiment"] = self.active
        self.cluster.touch(kinds.FINANCIALMODEL, NAMESPACE, NAME, status=status)

    def follow(self) -> None:
        """What the model does about the experiment's status."""
        if not self.follows or not self.there:
            return
        status = self.status
        cause = {"cause": {"experiment": MX}}
        ruling = status.get("ruling")
        its = {"experiment": MX, "uid": self.mx["metadata"]["uid"], "purpose": self.mx["spec"]["purpose"]}
        recorded = [one.spec for one in self.log.records if one.spec.evidence.summary.get("uid") == its["uid"]]
        verdicts = [one.action for one in recorded if one.action != "Shift"]
        if ruling is not None and status.get("evidence") is not None:
            done = {"Promote": "Promote", "RollBack": "RollBack", "KeepChampion": "Reject"}[ruling["verdict"]]
            if not verdicts or (verdicts == ["Promote"] and done == "RollBack"):
                self._record(done, ruling, its, back=bool(verdicts))
            return
        wish = status.get("desiredTraffic")
        if wish is None or (recorded and verdicts):
            return
        wish = {name: value for name, value in wish.items() if name != "step" and value}
        if wish != {name: value for name, value in self.traffic.items() if value}:
            self.decided = self.clock.now()
            self.write("Shift", "2", traffic=wish, summary=its, **cause)
            self.traffic = wish
            self.tell()

    def _record(self, action: str, ruling: dict[str, Any], its: dict[str, Any], *, back: bool) -> None:
        self.decided = self.clock.now()
        cause = {"experiment": MX, "message": ruling["message"], "reasons": ruling.get("reasons", [])}
        if action == "Promote":
            left, takes, places = "1", "2", {"champion": version("2"), "previousChampion": version("1")}
        else:
            left, takes, places = "2", "1", {"champion": version("1")}
            if action == "Reject":
                left, takes = "1", "2"
        self.traffic, self.places = {"champion": 100}, places
        summary = {**ruling["summary"], **its}
        self.write(action, takes, **{"from": version(left)}, traffic=self.traffic, summary=summary, cause=cause)
        self.tell()

    def confirm(self) -> None:
        """The route is in force."""
        traffic = self.cluster.objects["FinancialModel", NAMESPACE, NAME]["status"]["traffic"]
        if self.confirms and "confirmedAt" not in traffic:
            self.tell(confirmed=self.clock.now())

    # -- time

    def run_for(self, seconds: int) -> None:
        """Requests, scrapes, the model and the operator, second by second."""
        until = self.clock.seconds + seconds
        while self.clock.seconds < until:
            self.turn()

    def until(self, reason: str, minutes: int = 60) -> None:
        """Until the status has this reason."""
        until = self.clock.seconds + 60 * minutes
        while self.status.get("reason") != reason:
            assert self.clock.seconds < until, (reason, self.status.get("reason"), self.status.get("conditions"))
            self.turn()

    def reaches(self, step: str, minutes: int = 60) -> None:
        """Until this step was entered and is in force."""
        until = self.clock.seconds + 60 * minutes
        while (self.status.get("step"), self.status.get("reason")) != (step, "GatheringEvidence"):
            assert self.clock.seconds < until, (step, self.status.get("step"), self.status.get("reason"))
            self.turn()

    def turn(self) -> None:
        self.settle()
        self.follow()
        self.settle()
        self.confirm()
        self.clock.seconds += 5
        if self.milliseconds >= self.scraped + SCRAPE:
            self.scraped += SCRAPE
            self.serve()
            self.prometheus.scrape(self.scraped)

    def serve(self) -> None:
        """What clients sent in the last interval, split as the route says."""
        challenger = self.places["champion"]["version"] == "2"
        weight = 100 if challenger else self.traffic.get("challenger", 0)
        shares = {"1": self.requests * (100 - weight) // 100, "2": self.requests * weight // 100}
        shares["2"] += self.requests * self.traffic.get("mirror", 0) // 100
        for number, count in shares.items():
            if count:
                self.prometheus.pods[number].take(count, self.bad[number])


def elapsed(story: TrialStory) -> timedelta:
    return timedelta(seconds=story.clock.seconds)
