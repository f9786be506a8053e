"""Controllers of Seldon Core v2 and KServe as far as a control plane shows them, on their real CRDs.

Seldon's writes the statuses that a real v2.6.0 was seen to write (facts/serving.md §1b): states in messages, causes in
reasons, no observedGeneration, an Experiment that becomes unready and ready again at each edit. What its mesh would do
is answered on the network. KServe's makes a Deployment of an InferenceService, as mode Standard does, labels and all;
pods are Kubernetes' own, with the kubelet's report of :class:`ServingNode`.
"""

from __future__ import annotations

import copy
import itertools
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.controlplane.engine.serving import URL, ServingNode, apps

if TYPE_CHECKING:
    from aiohttp import web

    from tests.controlplane.server import Api, Body

SELDON, KSERVE = "mlops.seldon.io/v1alpha1", "serving.kserve.io/v1beta1"
OWN = frozenset(
    {"minReplicas", "maxReplicas", "labels", "annotations", "deploymentStrategy", "scaleMetric", "scaleTarget"}
)
"""Fields of a predictor that are not a pod's."""
KEEP = {"finalizers": ["seldon.model.finalizer"]}


def seldon(namespace: str, kind: str, name: str = "") -> str:
    return f"/apis/{SELDON}/namespaces/{namespace}/{kind}" + (f"/{name}" if name else "")


def services(namespace: str, name: str = "") -> str:
    return f"/apis/{KSERVE}/namespaces/{namespace}/inferenceservices" + (f"/{name}" if name else "")


def server(namespace: str, capabilities: tuple[str, ...] = ("fiduciary-onnx",), replicas: int = 3) -> Body:
    """A Server as deploy/seldon makes it."""
    resources = {"requests": {"cpu": "1", "memory": "2Gi"}}
    return {
        "apiVersion": SELDON,
        "kind": "Server",
        "metadata": {"name": "fiduciary", "namespace": namespace},
        "spec": {
            "serverConfig": "mlserver",
            "capabilities": list(capabilities),
            "replicas": replicas,
            "podSpec": {"containers": [{"name": "mlserver", "resources": resources}]},
        },
    }


class OtherNode(ServingNode):
    """Also plays Seldon and KServe in its namespaces, where their CRDs are there."""

    def __init__(self, api: Api, *namespaces: str) -> None:
        super().__init__(api, *namespaces)
        self.plays: set[str] = set()  # "Seldon", "KServe"
        self.seldon_away = False
        self.leads: dict[str, str] = {}  # "<namespace>.<route>" -> Model whose name the route sets
        self.models: dict[str, tuple[str, str]] = {}  # "<namespace>/<Model>" -> version, digest; what is loaded
        self.holds: dict[str, dict[str, int]] = {}  # "<namespace>/<default>" -> candidates with weights
        self.mirrors: dict[str, str] = {}  # "<namespace>/<default>" -> Model that gets copies
        self.edits: list[dict[str, int]] = []  # splits in the order in which they were taken over
        self.deleted: list[str] = []  # kinds in the order of their deletion
        self._taken: dict[str, int] = {}
        self._draws = itertools.count(1)

    def serve_with(self, *names: str) -> None:
        self.plays |= set(names)

    # -- the network

    def reached(self, request: web.Request) -> tuple[int, str, str, dict[str, str]]:
        model = request.match_info["model"]
        if request.host.startswith("seldon-mesh."):
            namespace = request.host.split(".")[1]
            name, pin = request.headers.get("seldon-model", ""), request.headers.get("x-seldon-route")
            return self._mesh(namespace, name, pin)
        if request.host == URL.removeprefix("http://") and (model in self.leads) and not self.hijacked:
            live = [service for service, weight in self.forces.get(model, ()) if weight > 0]
            if live == ["seldon-mesh"]:
                return self._mesh(model.partition(".")[0], self.leads[model], None)
        return super().reached(request)

    def asked(self, request: web.Request) -> str:
        """The mesh knows Models; ours are versions of one model in each namespace here."""
        if request.host.startswith("seldon-mesh."):
            return f"{request.host.split('.')[1]}.spx"
        return super().asked(request)

    def _mesh(self, namespace: str, name: str, pin: str | None) -> tuple[int, str, str, dict[str, str]]:
        held = self.holds.get(f"{namespace}/{name}", {name: 100})
        live = {one: weight for one, weight in held.items() if f"{namespace}/{one}" in self.models}
        if pin is not None:
            chosen = pin.strip(":").rpartition("_")[0]
            chosen = chosen if chosen in live else ""
        else:
            total, place, chosen = sum(live.values()), (next(self._draws) * 0.6180339887498949) % 1.0, ""
            for one, weight in live.items():
                place -= weight / total if total else 0.0
                if place < 0 and not chosen:
                    chosen = one
        found = self.models.get(f"{namespace}/{chosen}")
        if found is None:
            return 404, "", "", {}
        return 200, *found, {"x-seldon-route": f":{chosen}_1:"}

    def shares(self, namespace: str) -> dict[str, int]:
        if not self._meshed(namespace):
            return super().shares(namespace)
        lead = self.leads.get(f"{namespace}.spx", "")
        held = self.holds.get(f"{namespace}/{lead}", {lead: 100})
        return {name: weight for name, weight in held.items() if f"{namespace}/{name}" in self.models}

    def copied(self, namespace: str) -> str:
        if not self._meshed(namespace):
            return super().copied(namespace)
        return self.mirrors.get(f"{namespace}/{self.leads.get(f'{namespace}.spx', '')}", "")

    def clients(self, namespace: str, name: str = "spx") -> set[str]:
        return self.mesh_clients(namespace) if self._meshed(namespace) else super().clients(namespace, name)

    def _meshed(self, namespace: str) -> bool:
        forces = self.forces.get(f"{namespace}.spx", ())
        return any(service == "seldon-mesh" and weight > 0 for service, weight in forces)

    def mesh_clients(self, namespace: str) -> set[str]:
        """Digests that clients of the route get from the mesh now."""
        model = f"{namespace}.spx"
        if not any(weight > 0 for _, weight in self.forces.get(model, ())):
            return set()
        lead = self.leads.get(model, "")
        held = self.holds.get(f"{namespace}/{lead}", {lead: 100})
        loaded = {one: self.models.get(f"{namespace}/{one}") for one, weight in held.items() if weight > 0}
        return {found[1] for found in loaded.values() if found is not None}

    def stop(self) -> None:
        """What it kept would outlive it: nobody else takes its finalizers away, and no CRD could be deleted."""
        super().stop()
        for namespace in self.namespaces:
            kept = [services(namespace)] if "KServe" in self.plays else []
            kept += [seldon(namespace, kind) for kind in ("models", "experiments")] if "Seldon" in self.plays else []
            for path in filter(self.api.exists, kept):
                for body in self.api.get(path)["items"]:
                    if body["metadata"].get("finalizers"):
                        self.api.merge(f"{path}/{body['metadata']['name']}", {"metadata": {"finalizers": None}})

    # -- the controllers

    def _turn(self) -> None:
        super()._turn()
        for namespace in self.namespaces:
            if "Seldon" in self.plays and not self.seldon_away:
                self._seldon(namespace)
            if "KServe" in self.plays:
                self._kserve(namespace)

    def _take_over(self, namespace: str, route: Body) -> list[tuple[str, int]]:
        taken = super()._take_over(namespace, route)
        key = f"{namespace}.{route['metadata']['name']}"
        sets = [
            header["value"]
            for entry in route["spec"]["rules"][0].get("filters", ())
            for header in entry.get("requestHeaderModifier", {}).get("set", ())
        ]
        self.leads.pop(key, None)
        if sets:
            self.leads[key] = sets[0]
        return taken

    def _seldon(self, namespace: str) -> None:
        servers = self.api.get(seldon(namespace, "servers"))["items"]
        for one in servers:
            if not (one.get("status") or {}).get("conditions"):
                said = _condition("Ready", "True", "StatefulSet replicas matches desired replicas", "")
                status = {"loadedModels": 0, "replicas": 0, "selector": "", "conditions": [said]}
                self.api.merge(seldon(namespace, "servers", one["metadata"]["name"]) + "/status", {"status": status})
        offered = {capability for one in servers for capability in one["spec"].get("capabilities", ())}
        present: dict[str, tuple[str, str]] = {}
        for one in self.api.get(seldon(namespace, "models"))["items"]:
            self._model(namespace, one, offered, present)
        others = {key: found for key, found in self.models.items() if not key.startswith(f"{namespace}/")}
        self.models = others | {f"{namespace}/{name}": found for name, found in present.items()}
        defaults: set[str] = set()
        for one in self.api.get(seldon(namespace, "experiments"))["items"]:
            self._experiment(namespace, one, present, defaults)
        for key in [key for key in self.holds if key.startswith(f"{namespace}/")]:
            if key.partition("/")[2] not in defaults:
                del self.holds[key]
                self.mirrors.pop(key, None)

    def _model(self, namespace: str, body: Body, offered: set[str], present: dict[str, tuple[str, str]]) -> None:
        metadata, spec = body["metadata"], body["spec"]
        path = seldon(namespace, "models", metadata["name"])
        if "deletionTimestamp" in metadata:
            if metadata.get("finalizers"):
                self.deleted.append("Model")
                self.api.merge(path, {"metadata": {"finalizers": None}})
            return
        if not metadata.get("finalizers"):
            self.api.merge(path, {"metadata": KEEP})
        missing = set(spec.get("requirements", ())) - offered
        if missing:
            trail = f"model requirements {spec['requirements']} replica capabilities {sorted(offered)}"
            why = f"failed to schedule model {metadata['name']}. [... RequirementsReplicaFilter {trail}]"
            said = [_condition(kind, "False", why, "ScheduleFailed") for kind in ("ModelReady", "Ready")]
        else:
            said = [_condition("ModelReady", "True", "", "ModelAvailable"), _condition("Ready", "True", "", "")]
            present[metadata["name"]] = (
                metadata["labels"]["fiduciary.dev/version"], metadata["annotations"]["fiduciary.dev/digest"]
            )  # fmt: skip
        before = (body.get("status") or {}).get("conditions") or []
        if [(c["type"], c["status"]) for c in before] != [(c["type"], c["status"]) for c in said]:
            self.api.merge(f"{path}/status", {"status": {"replicas": spec.get("replicas", 1), "conditions": said}})

    def _experiment(self, namespace: str, body: Body, present: dict[str, tuple[str, str]], defaults: set[str]) -> None:
        metadata, spec = body["metadata"], body["spec"]
        path = seldon(namespace, "experiments", metadata["name"])
        if "deletionTimestamp" in metadata:
            if metadata.get("finalizers"):
                self.deleted.append("Experiment")
                self.api.merge(path, {"metadata": {"finalizers": None}})
            return
        defaults.add(spec["default"])
        if not metadata.get("finalizers"):
            self.api.merge(path, {"metadata": {"finalizers": ["seldon.experiment.finalizer"]}})
        key = f"{metadata['uid']}/{metadata['generation']}"
        if self._taken.get(key):
            return
        self._taken[key] = 1
        weights = {candidate["name"]: candidate.get("weight", 0) for candidate in spec["candidates"]}
        assert any(weights.values()), "an Experiment whose weights are all 0 freezes the mesh"
        assert spec["default"] in weights
        unready = [
            _condition("CandidatesReady", "True", "Candidates ready", ""),
            _condition("ExperimentReady", "False", "", ""),
            _condition("MirrorReady", "True", "Mirror ready", ""),
            _condition("Ready", "False", "", ""),
        ]
        self.api.merge(f"{path}/status", {"status": {"conditions": unready}})
        if set(weights) <= set(present):
            self.holds[f"{namespace}/{spec['default']}"] = weights
            self.edits.append(weights)
            self.mirrors.pop(f"{namespace}/{spec['default']}", None)
            if "mirror" in spec:
                self.mirrors[f"{namespace}/{spec['default']}"] = spec["mirror"]["name"]
        said = [
            _condition("CandidatesReady", "True", "Candidates ready", ""),
            _condition("ExperimentReady", "True", "experiment active", ""),
            _condition("MirrorReady", "True", "Mirror ready", ""),
            _condition("Ready", "True", "", ""),
        ]
        self.api.merge(f"{path}/status", {"status": {"conditions": said}})

    def _kserve(self, namespace: str) -> None:
        loaded: dict[str, tuple[str, str]] = {}
        for body in self.api.get(services(namespace))["items"]:
            metadata, predictor = body["metadata"], body["spec"]["predictor"]
            path = services(namespace, metadata["name"])
            if "deletionTimestamp" in metadata:
                if metadata.get("finalizers"):
                    self.api.merge(path, {"metadata": {"finalizers": None}})
                continue
            if not metadata.get("finalizers"):
                self.api.merge(path, {"metadata": {"finalizers": ["inferenceservice.finalizers"]}})
            name = f"{metadata['name']}-predictor"
            own = {"serving.kserve.io/inferenceservice": metadata["name"], "component": "predictor"}
            copied = {
                "labels": {
                    **metadata.get("labels", {}), **predictor.get("labels", {}), **own, "app": f"isvc.{name}",
                },
                "annotations": {**metadata.get("annotations", {}), **predictor.get("annotations", {})},
            }  # fmt: skip
            owner = {
                "apiVersion": KSERVE, "kind": "InferenceService", "name": metadata["name"],
                "uid": metadata["uid"], "controller": True, "blockOwnerDeletion": True,
            }  # fmt: skip
            inside = copy.deepcopy({key: value for key, value in predictor.items() if key not in OWN})
            inside["containers"][0]["env"].append({"name": "INFERENCE_SERVICE_NAME", "value": metadata["name"]})
            wanted: dict[str, Any] = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name, "namespace": namespace, **copied, "ownerReferences": [owner]},
                "spec": {
                    "replicas": predictor["minReplicas"],
                    "selector": {"matchLabels": {"app": f"isvc.{name}"}},
                    "strategy": predictor["deploymentStrategy"],
                    "template": {"metadata": copied, "spec": inside},
                },
            }
            self.api.apply(apps(namespace, name), copy.deepcopy(wanted), manager="kserve")
            live = self.api.get(apps(namespace, name))
            for pod in self.api.request(
                "GET", f"/api/v1/namespaces/{namespace}/pods", params={"labelSelector": f"app=isvc.{name}"}
            )["items"]:
                self._run(namespace, pod)
            deployed = live.get("status", {})
            self._kserve_says(path, body.get("status") or {}, deployed)
            if deployed.get("readyReplicas", 0) >= predictor["minReplicas"]:
                version = metadata["labels"]["fiduciary.dev/version"], metadata["annotations"]["fiduciary.dev/digest"]
                loaded[f"{metadata['name']}-ks.{namespace}"] = version
        # In one assignment: requests are answered from it at any moment.
        self.lent = {key: found for key, found in self.lent.items() if not key.endswith(f".{namespace}")} | loaded
        self.versions = {**self.versions, **loaded}

    def _kserve_says(self, path: str, before: Body, deployed: Body) -> None:
        """What v0.20.0 was seen to say: not ready, without reason or generation, until the Deployment's controller has
        looked; Unknown while that only makes progress; then what it says of availability, and the Deployment's
        generation as its own. Ready gives a reason only while it is not True."""
        found = {entry["type"]: entry for entry in deployed.get("conditions", ())}
        available, progressing = found.get("Available", {}), found.get("Progressing", {})
        why = available or progressing
        if progressing.get("reason") == "NewReplicaSetAvailable" and available.get("status") == "True":
            why = progressing
        status = available.get("status", "Unknown" if progressing else "False")
        reason, message = why.get("reason", ""), why.get("message", "")
        said = [
            _condition("IngressReady", "True", "", ""),
            _condition("PredictorReady", status, reason, message),
            _condition("Ready", status, *(("", "") if status == "True" else (reason, message))),
            {**_condition("Stopped", "False", "", ""), "severity": "Info"},
        ]
        made: Body = {"deploymentMode": "Standard", "url": f"http://{path.rpartition('/')[2]}.example.com"}
        if "observedGeneration" in deployed:
            made["observedGeneration"] = deployed["observedGeneration"]
        known = [(entry["type"], entry["status"], entry.get("reason", "")) for entry in before.get("conditions", ())]
        if known != [(entry["type"], entry["status"], entry.get("reason", "")) for entry in said]:
            made["conditions"] = said
        if any(before.get(key) != value for key, value in made.items()):
            self.api.merge(path + "/status", {"status": made})


def _condition(kind: str, status: str, reason: str, message: str) -> Body:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    made = {"type": kind, "status": status, "lastTransitionTime": now}
    return made | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})
