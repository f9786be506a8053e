"""What makes the memory cluster serve: a node that starts pods, a Gateway controller, and what clients then get.

The node and the controller write statuses as Kubernetes' own do, when the test lets them; a probe sees what the
controller took over last, not what was written last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fiduciary.api import meta
from fiduciary.clients.inference import Answer, Example, NoExample
from fiduciary.clients.kube import NotFound
from fiduciary.engine import kinds
from fiduciary.engine.kinds import annotations_of, entries, labels_of

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body
    from fiduciary.serving.observed import ProbeTarget
    from tests.unit.engine.memory import MemoryCluster

GATEWAY = {"namespace": "projectcontour", "name": "contour"}
IMAGE_ID = "docker.io/fiduciary-server@sha256:" + "5" * 64


class ServingNode:
    """Node and Gateway of one :class:`MemoryCluster`; also the network that probes go through."""

    def __init__(self, cluster: MemoryCluster, *, gateway: bool = True) -> None:
        self.cluster = cluster
        self.forces: dict[tuple[str, str], list[tuple[str, int]]] = {}  # model -> what its Gateway does
        self.seen: list[tuple[str, ...]] = []  # digests that clients got, in order, each change once
        self.hijacked = False
        if gateway:
            self.install()

    def install(self) -> None:
        """A Gateway with an address."""
        listener = {"name": "http", "protocol": "HTTP", "port": 80}
        body: Body = {
            "apiVersion": kinds.GATEWAY.api_version,
            "kind": "Gateway",
            "metadata": dict(GATEWAY),
            "spec": {"gatewayClassName": "test", "listeners": [listener]},
            "status": {
                "addresses": [{"type": "IPAddress", "value": "10.0.0.1"}],
                "conditions": [{"type": "Programmed", "status": "True"}],
            },
        }
        self.cluster.put(kinds.GATEWAY, body)

    def turn(self) -> None:
        """Kubernetes looks at everything once."""
        for (kind, namespace, name), body in list(self.cluster.objects.items()):
            if kind == "Deployment":
                self._run(namespace, name, body)
            elif kind == "HTTPRoute":
                self._take_over(namespace, name, body)
        for place in [place for place in self.forces if ("HTTPRoute", *place) not in self.cluster.objects]:
            del self.forces[place]

    def _run(self, namespace: str, name: str, body: Body) -> None:
        wanted = body["spec"].get("replicas", 1)
        status: Body = {"observedGeneration": body["metadata"]["generation"]}
        status |= dict.fromkeys(("replicas", "readyReplicas", "updatedReplicas", "availableReplicas"), wanted)
        self.cluster.touch(kinds.DEPLOYMENT, namespace, name, status=status)
        uid = body["metadata"]["uid"]
        for number in range(wanted):
            pod = f"{name}-6f9d8-{number}"
            if ("Pod", namespace, pod) not in self.cluster.objects:
                owner = {"kind": "ReplicaSet", "name": f"{name}-6f9d8", "uid": uid, "controller": True}
                template = body["spec"]["template"]["metadata"]["labels"]
                container = {"name": "server", "state": {"running": {}}, "imageID": IMAGE_ID}
                ready = [{"type": "Ready", "status": "True"}]
                self.cluster.put(
                    kinds.POD,
                    {
                        "metadata": {
                            "namespace": namespace,
                            "name": pod,
                            "labels": template,
                            "ownerReferences": [owner],
                        },
                        "spec": {},
                        "status": {"phase": "Running", "conditions": ready, "containerStatuses": [container]},
                    },
                )
        surplus = [
            other
            for kind, place, other in list(self.cluster.objects)
            if (kind, place) == ("Pod", namespace) and other.startswith(f"{name}-6f9d8-")
        ][wanted:]
        for other in surplus:
            self.cluster.remove(kinds.POD, namespace, other)

    def _take_over(self, namespace: str, name: str, body: Body) -> None:
        generation = body["metadata"]["generation"]
        states = [
            {"type": kind, "status": "True", "observedGeneration": generation} for kind in ("Accepted", "ResolvedRefs")
        ]
        parents = [
            {"parentRef": ref, "controllerName": "example.com/gateway", "conditions": states}
            for ref in body["spec"]["parentRefs"]
        ]
        self.cluster.touch(kinds.HTTPROUTE, namespace, name, status={"parents": parents})
        rule = body["spec"]["rules"][0]
        self.forces[namespace, name] = [(ref["name"], ref.get("weight", 1)) for ref in entries(rule, "backendRefs")]
        answers = tuple(sorted(self.clients(namespace, name)))
        if not self.seen or self.seen[-1] != answers:
            self.seen.append(answers)

    def clients(self, namespace: str, name: str) -> set[str]:
        """Digests that requests to the model reach now."""
        return {
            digest
            for service, weight in self.forces.get((namespace, name), [])
            if weight > 0 and (digest := self._digest(namespace, service)) is not None
        }

    def _digest(self, namespace: str, service: str) -> str | None:
        """What answers at a Service: it and a Deployment of its name have to be there."""
        if ("Service", namespace, service) not in self.cluster.objects:
            return None
        deployment = self.cluster.objects.get(("Deployment", namespace, service))
        if deployment is None or not (deployment.get("status") or {}).get("readyReplicas"):
            return None
        return annotations_of(deployment)[meta.ANNOTATION_DIGEST]

    # -- fiduciary.engine.probes.Client

    async def example(self, target: ProbeTarget) -> Example:
        answer = self._answer(target)
        if not answer.ok:
            raise NoExample(answer)
        return {"inputs": [{"name": "close", "data": [1.0]}]}

    async def infer(self, target: ProbeTarget, example: Example) -> Answer:
        return self._answer(target)

    def _answer(self, target: ProbeTarget) -> Answer:
        namespace, _, model = target.model.partition(".")
        if target.via == "Route":
            if self.hijacked:
                return Answer(False, 200, message="an answer came, but not from a model server of this operator")
            if (namespace, model) not in self.forces:
                return Answer(False, 404, message="HTTP 404")
            digests = self.clients(namespace, model)
            if not digests:
                return Answer(False, 500, message="HTTP 500")
            digest = min(digests)
        else:
            found = self._digest(namespace, (urlsplit(target.url).hostname or "").partition(".")[0])
            if found is None:
                return Answer(False, None, message="connection refused")
            digest = found
        return Answer(True, 200 if target.protocol == "rest" else None, self._version(namespace, digest), digest)

    def _version(self, namespace: str, digest: str) -> str:
        for (kind, place, _), body in self.cluster.objects.items():
            serves = annotations_of(body).get(meta.ANNOTATION_DIGEST)
            if (kind, place, serves) == ("Deployment", namespace, digest):
                return labels_of(body)[meta.LABEL_VERSION]
        raise NotFound(404, "NotFound", digest)


def ready(model: Body | None) -> Any:
    """(status, reason) of a model's condition Ready."""
    conditions = {entry["type"]: entry for entry in entries((model or {}).get("status") or {}, "conditions")}
    found = conditions.get("Ready", {})
    return found.get("status"), found.get("reason")
