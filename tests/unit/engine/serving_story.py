"""A served model's life in memory: trained, served, challenged, promoted, killed, resumed, deleted, by the real judge.

The process may end at any numbered write; the next one goes on. After each death the truths of protocols §1, §4 and §6
are looked at.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fiduciary.decide import financialmodel
from fiduciary.engine import kinds
from fiduciary.engine.served import decision_of
from fiduciary.engine.writes import ORDER, Step
from tests.unit.decide.worlds import PLATFORM, SERVED, SPEC, merged, result
from tests.unit.engine.memory import MemoryCluster, MemoryRegistry
from tests.unit.engine.mortal import Mortal
from tests.unit.engine.rig import Clock, Process
from tests.unit.engine.serving_node import ServingNode, ready

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body
    from fiduciary.decide.world import Platform

GUARD = "fiduciary-modelapproval"
CHALLENGER = {"training": {"architecture": "Linear"}}


class ServingStory(Mortal):
    """One cluster with a node and a Gateway, and the processes that look after it one after the other."""

    horizon = 10.0

    def __init__(
        self,
        die_at: int = -1,
        order: tuple[Step, ...] = ORDER,
        *,
        gateway: bool = True,
        refusals: bool = False,
        platform: Platform = PLATFORM,
    ) -> None:
        super().__init__(die_at, order)
        self.clock = Clock()
        self.cluster = MemoryCluster(self.clock.now)
        self.registry = MemoryRegistry()
        self.node = ServingNode(self.cluster, gateway=gateway)
        self.refusals = refusals
        self.platform = platform
        self.expected: str | None = None  # digest that clients must get, whatever dies
        self._acts = 0
        label = {"app.kubernetes.io/part-of": "fiduciary"}
        self.cluster.put(kinds.POLICY, {"metadata": {"name": GUARD, "labels": label}, "spec": {}})
        self.cluster.put(kinds.BINDING, {"metadata": {"name": GUARD, "labels": label}, "spec": {"policyName": GUARD}})
        self.process = self.born()

    def born(self) -> Process:
        process = Process(
            self.cluster,
            self.registry,
            self.clock,
            judge=financialmodel,
            order=self.order,
            checkpoint=self.point,
            platform=self.platform,
            servers=self.node,
            guards=(GUARD,),
            refusals=self.refusals,
        )
        process.start()
        return process

    # -- time

    def calm(self, seconds: int = 20) -> None:
        """The operator, the node and the Gateway work in turn for some seconds."""
        until = self.clock.seconds + seconds
        while self.clock.seconds < until:
            self.settle()
            self.node.turn()
            self.settle()
            self.clock.seconds += 1

    def serves(self, digest: str, seconds: int = 120) -> None:
        """Until clients get this version and the status says so; then some time more, in which nothing may change."""
        until = self.clock.seconds + seconds
        while self.clock.seconds < until:
            self.calm(1)
            if self.ready() == ("True", "Serving") and self.node.clients("quant", "spx") == {digest}:
                break
        self.calm()
        assert self.node.clients("quant", "spx") == {digest}
        assert self.ready() == ("True", "Serving"), self.status

    # -- people

    def apply(self, change: dict[str, Any], name: str = "spx", namespace: str = "quant") -> None:
        body = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "FinancialModel", "spec": merged(SPEC, change)}
        metadata = {"namespace": namespace, "name": name, "annotations": {"fiduciary.dev/edited-by": "ed"}}
        self.cluster.put(kinds.FINANCIALMODEL, {**body, "metadata": metadata})

    def act(self, decision: str, **spec: Any) -> None:
        self._acts += 1
        self.clock.seconds += 1
        metadata = {"namespace": "quant", "name": f"{decision.lower()}-{self._acts}"}
        acted = {"modelRef": {"name": "spx"}, "decision": decision, "approver": "ana", "reason": "a test", **spec}
        body = {"apiVersion": "fiduciary.dev/v1alpha1", "kind": "ModelApproval", "metadata": metadata, "spec": acted}
        self.cluster.put(kinds.MODELAPPROVAL, body)

    def train(self) -> str:
        """The node runs every Job that waits; the digest of the last version."""
        digest = ""
        self.settle()
        for (kind, namespace, name), job in list(self.cluster.objects.items()):
            if kind != "Job" or (job.get("status") or {}).get("conditions"):
                continue
            key = job["metadata"]["annotations"]["fiduciary.dev/training-key"]
            document = result(key)
            digest = document["digest"]
            self.registry.manifests[document["runId"]] = digest
            ended = {"exitCode": 0, "message": json.dumps(document), "reason": "Completed"}
            metadata = {
                "namespace": namespace,
                "name": f"{name}-x",
                "labels": {**job["metadata"]["labels"], "job-name": name},
            }
            status = {"phase": "Succeeded", "containerStatuses": [{"name": "trainer", "state": {"terminated": ended}}]}
            owner = {"ownerReferences": [{"kind": "Job", "uid": job["metadata"]["uid"]}]}
            self.cluster.put(kinds.POD, {"metadata": metadata | owner, "spec": {}, "status": status})
            done = {"type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
            self.cluster.touch(kinds.JOB, namespace, name, status={"conditions": [done]})
        return digest

    # -- what is there

    def model(self, name: str = "spx", namespace: str = "quant") -> Body | None:
        return self.cluster.objects.get(("FinancialModel", namespace, name))

    @property
    def status(self) -> Body:
        return (self.model() or {}).get("status", {})

    def ready(self) -> Any:
        return ready(self.model())

    def log(self) -> list[Body]:
        bodies = [body for (kind, _, _), body in self.cluster.objects.items() if kind == "ModelDecision"]
        return sorted((body["spec"] for body in bodies), key=lambda spec: spec["sequence"])

    def route(self) -> Body | None:
        return self.cluster.objects.get(("HTTPRoute", "quant", "spx"))

    def weights(self) -> dict[str, int]:
        """Service -> weight of the route as it is stored."""
        refs = (self.route() or {"spec": {"rules": [{}]}})["spec"]["rules"][0].get("backendRefs", [])
        return {ref["name"]: ref.get("weight", 1) for ref in refs}

    # -- the life

    def run(self) -> None:
        self.apply(SERVED)
        first = self.train()
        self.serves(first)
        self.expected = first
        self.apply(merged(SERVED, CHALLENGER))
        second = self.train()
        self.serves(first)  # nobody promoted the other one yet
        self.act("Approve", evidenceDigest=self.status["approvalRequest"]["digest"])
        self.expected = None  # one or the other
        self.serves(second)
        self.act("Kill")
        self.settle()
        assert not any(self.weights().values()), "a kill waits for nobody"
        self.calm()
        assert self.node.clients("quant", "spx") == set()
        self.act("Resume")
        self.serves(second)
        self.expected = second
        self.clock.seconds += 2 * 86400  # rollbackWindow is over
        self.calm(40)
        self.expected = None
        self.cluster.remove(kinds.FINANCIALMODEL, "quant", "spx")
        self.calm(40)

    def died(self, where: str) -> None:
        self.broken += [f"{truth} (died before {where})" for truth in self.untrue()]

    def untrue(self) -> list[str]:
        """Which of the truths does not hold now."""
        found: list[str] = []
        records, route, model = self.log(), self.route(), self.model()
        accepted = {record["to"]["digest"] for record in records if record["action"] == "Accept"}
        decision = 0 if route is None else decision_of(route)
        if decision > len(records):
            found.append("the route carries out a record that does not exist")
        if (model or {}).get("status", {}).get("lastDecision", {}).get("sequence", 0) > len(records):
            found.append("the status names a record that does not exist")
        for service, weight in self.weights().items():
            deployment = self.cluster.objects.get(("Deployment", "quant", service))
            digest = ((deployment or {}).get("metadata") or {}).get("annotations", {}).get("fiduciary.dev/digest")
            if weight > 0 and digest not in accepted:
                found.append("clients are sent to what no record accepted")
        if 0 < decision <= len(records) and any(self.weights().values()) and records[decision - 1]["action"] == "Kill":
            found.append("the route of a kill lets requests through")
        if self.expected is not None and self.node.clients("quant", "spx") != {self.expected}:
            found.append("clients do not get the champion")
        if model is None and records and records[-1]["action"] != "Retire":
            found.append("the model is gone and no record says so")
        return found

    def check_end(self) -> None:
        """Nothing is left behind, nothing was done twice, and clients saw what the log says."""
        assert not self.broken
        jobs = [name for kind, _, name in self.cluster.created if kind == "Job"]
        assert len(jobs) == len(set(jobs)) == 2, "trained twice"
        actions = [record["action"] for record in self.log()]
        assert [action for action in actions if action not in ("Accept", "Retire")] == [
            "Shift",
            "Promote",
            "Kill",
            "Resume",
        ]
        left = {kind for kind, _, _ in self.cluster.objects}
        kept = {"ModelDecision", "ModelApproval", "Event", "Gateway"}
        assert left <= kept | {kinds.POLICY.kind, kinds.BINDING.kind}
        digests = [record["to"]["digest"] for record in self.log() if record["action"] == "Accept"]
        assert self.node.seen == [(digests[0],), (digests[1],), (), (digests[1],)]
        assert not self.node.forces
