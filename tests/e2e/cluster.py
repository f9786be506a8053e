"""A small typed client of the sandbox's API server, for tests.

Acts of a user (apply, replace, describe, approve as somebody) go through ``kubectl``, because that is what a user
runs. Reading and waiting go over HTTP with the kubeconfig's own certificate: a watch costs nothing while nothing
happens, where a polled ``kubectl get`` would cost a core that the trainings need.
"""

from __future__ import annotations

import base64
import json
import ssl
import subprocess
import tempfile
import time
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import yaml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

T = TypeVar("T")
Object = dict[str, Any]
Objects = list[Object]

FIDUCIARY = "apis/fiduciary.dev/v1alpha1"
COLLECTIONS: Mapping[str, tuple[str, str]] = {  # what tests say -> (path of the API group, plural name)
    "fm": (FIDUCIARY, "financialmodels"),
    "md": (FIDUCIARY, "modeldecisions"),
    "ma": (FIDUCIARY, "modelapprovals"),
    "mx": (FIDUCIARY, "modelexperiments"),
    "dp": (FIDUCIARY, "driftpolicies"),
    "pod": ("api/v1", "pods"),
    "event": ("api/v1", "events"),
    "pvc": ("api/v1", "persistentvolumeclaims"),
    "secret": ("api/v1", "secrets"),
    "namespace": ("api/v1", "namespaces"),
    "node": ("api/v1", "nodes"),
    "job": ("apis/batch/v1", "jobs"),
    "deployment": ("apis/apps/v1", "deployments"),
    "networkpolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "lease": ("apis/coordination.k8s.io/v1", "leases"),
    "service": ("api/v1", "services"),
    "serviceaccount": ("api/v1", "serviceaccounts"),
    "poddisruptionbudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "horizontalpodautoscaler": ("apis/autoscaling/v2", "horizontalpodautoscalers"),
    "route": ("apis/gateway.networking.k8s.io/v1", "httproutes"),
}
CLUSTER_SCOPED = frozenset({"namespace", "node"})


class Refused(AssertionError):
    """kubectl ended with an error; the message is what a user would have read."""


class NotInTime(AssertionError):
    """A state did not come before its deadline; the message says what was there instead."""


@dataclass(frozen=True, slots=True)
class User:
    """Somebody whom the API server is told that a request is made by."""

    name: str
    groups: tuple[str, ...] = ()

    def flags(self) -> list[str]:
        return ["--as", self.name, *(f"--as-group={group}" for group in (*self.groups, "system:authenticated"))]


def _material(entry: Mapping[str, str], key: str, folder: Path) -> str:
    """Path of a kubeconfig's certificate or key, which is given inline or as a file."""
    if key in entry:
        return entry[key]
    path = folder / key
    path.write_bytes(base64.b64decode(entry[f"{key}-data"]))
    return str(path)


def _summary(item: Object) -> str:
    """The part of an object that explains why a wait did not end."""
    meta, status = item["metadata"], item.get("status", {})
    head = f"{item.get('kind', '')} {meta['name']} generation={meta.get('generation')}"
    rest = {key: status[key] for key in ("phase", "observedGeneration", "champion", "challenger") if key in status}
    lines = [f"{head} {json.dumps(rest)}"]
    lines += [
        f"    {c['type']}={c['status']} {c.get('reason', '')}: {c.get('message', '')}"
        for c in status.get("conditions", [])
    ]
    if item.get("kind") == "ModelDecision" or "sequence" in item.get("spec", {}):
        lines.append(f"    {json.dumps({k: item['spec'].get(k) for k in ('sequence', 'action', 'cause')})}")
    return "\n".join(lines)


class Cluster:
    """One API server, reached with one kubeconfig."""

    def __init__(self, kubeconfig: Path, kubectl: str = "kubectl") -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        server = config["clusters"][0]["cluster"]
        user = config["users"][0]["user"]
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            context = ssl.create_default_context(cafile=_material(server, "certificate-authority", folder))
            context.load_cert_chain(
                _material(user, "client-certificate", folder), _material(user, "client-key", folder)
            )
        self.kubeconfig = kubeconfig
        self._kubectl = kubectl
        self.http = httpx.Client(base_url=server["server"], verify=context, timeout=30)

    # --- what a user types ---------------------------------------------------------------------------------------

    def kubectl(
        self,
        *args: str,
        stdin: str | None = None,
        namespace: str | None = None,
        user: User | None = None,
        within: float = 120,
    ) -> str:
        """Standard output of ``kubectl ARGS``; raises :class:`Refused` with standard error when it fails."""
        command = [self._kubectl, "--kubeconfig", str(self.kubeconfig)]  # options first: what follows `--` is not ours
        command += ["-n", namespace] if namespace else []
        command += [*(user.flags() if user else []), *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=within, check=False)
        if done.returncode:
            raise Refused(f"kubectl {' '.join(args)}\n{done.stderr.strip()}")
        return done.stdout

    def apply(self, *docs: Object, namespace: str | None = None, user: User | None = None) -> None:
        """``kubectl apply -f -``, server-side, so that no annotation is added that the operator would see."""
        text = yaml.safe_dump_all(docs)
        self.kubectl(
            "apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text, namespace=namespace, user=user
        )

    def create(self, doc: Object, namespace: str, user: User | None = None) -> None:
        """``kubectl create -f -``: what somebody can do who may not change what exists."""
        self.kubectl("create", "-f", "-", stdin=yaml.safe_dump(doc), namespace=namespace, user=user)

    def replace(self, doc: Object, namespace: str) -> None:
        self.kubectl("replace", "-f", "-", stdin=yaml.safe_dump(doc), namespace=namespace)

    # --- reading -------------------------------------------------------------------------------------------------

    @staticmethod
    def path(kind: str, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        group, plural = COLLECTIONS[kind]
        scope = "" if kind in CLUSTER_SCOPED or namespace is None else f"/namespaces/{namespace}"
        return "/" + "/".join(part for part in (f"{group}{scope}/{plural}", name, subresource) if part)

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        answer = self.http.get(self.path(kind, namespace, name))
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        return answer.raise_for_status().json()

    def read(self, kind: str, name: str, namespace: str | None = None) -> Object:
        found = self.get(kind, name, namespace)
        assert found is not None, f"{kind} {namespace}/{name} does not exist"
        return found

    def list(self, kind: str, namespace: str | None = None, selector: str = "") -> Objects:
        params = {"labelSelector": selector} if selector else {}
        return self.http.get(self.path(kind, namespace), params=params).raise_for_status().json()["items"]

    def patch(
        self, kind: str, name: str, body: Object, namespace: str | None = None, subresource: str | None = None
    ) -> Object:
        """Merge patch; comes again, as client-go does, while an API server that just started is not ready for it."""
        for _ in range(10):
            answer = self.http.patch(
                self.path(kind, namespace, name, subresource),
                content=json.dumps(body),
                headers={"Content-Type": "application/merge-patch+json"},
            )
            if answer.status_code != 503:
                break
            time.sleep(float(answer.headers.get("Retry-After", "1")))
        return answer.raise_for_status().json()

    def delete(self, kind: str, name: str, namespace: str | None = None, propagation: str = "Background") -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation}
        answer = self.http.request("DELETE", self.path(kind, namespace, name), json=body)
        if answer.status_code != httpx.codes.NOT_FOUND:
            answer.raise_for_status()

    def evict(self, pod: str, namespace: str) -> bool:
        """What `kubectl drain` does to each pod. False where a PodDisruptionBudget does not allow it now."""
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
        answer = self.http.post(self.path("pod", namespace, pod, "eviction"), json=body)
        if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
            answer.raise_for_status()
        return answer.is_success

    def logs(self, namespace: str, selector: str, since_seconds: float | None = None, previous: bool = False) -> str:
        """Logs of all pods of a selector; empty where there are none."""
        texts: list[str] = []
        for pod in self.list("pod", namespace, selector):
            params: dict[str, str] = {"previous": "true"} if previous else {}
            if since_seconds is not None:
                params["sinceSeconds"] = str(max(1, int(since_seconds)))
            answer = self.http.get(self.path("pod", namespace, pod["metadata"]["name"], "log"), params=params)
            texts.append(answer.text if answer.is_success else "")
        return "".join(texts)

    # --- waiting -------------------------------------------------------------------------------------------------

    def until_all(
        self,
        kind: str,
        namespace: str | None,
        holds: Callable[[Objects], bool],
        within: float,
        what: str,
        selector: str = "",
        name: str | None = None,
    ) -> Objects:
        """Watch a collection until ``holds`` is true of all its objects; ``within`` is in seconds.

        Raises :class:`NotInTime` with the state that was there at the deadline. An API server that goes away in
        between is waited for: its restart is one of the things under test.
        """
        deadline = time.monotonic() + within
        objects: dict[str, Object] = {}
        for current in self._states(kind, namespace, deadline, selector, name):
            objects = current
            if holds([*objects.values()]):
                return [*objects.values()]
        seen = "\n".join(_summary(item) for item in objects.values()) or "no such object"
        raise NotInTime(f"not within {within:.0f} s: {what}\nseen at the deadline:\n{seen}")

    def until(
        self, kind: str, name: str, namespace: str | None, holds: Callable[[Object], bool], within: float, what: str
    ) -> Object:
        """The same for one object, which may not exist yet."""
        return self.until_all(
            kind, namespace, lambda found: bool(found) and holds(found[0]), within, f"{name}: {what}", name=name
        )[0]

    def until_gone(self, kind: str, name: str, namespace: str | None, within: float) -> None:
        self.until_all(kind, namespace, lambda found: not found, within, f"{kind} {name} is gone", name=name)

    def _states(
        self, kind: str, namespace: str | None, deadline: float, selector: str, name: str | None
    ) -> Iterator[dict[str, Object]]:
        """States of a collection as they come: a list, then every change of it, until the deadline."""
        params = {"labelSelector": selector} if selector else {}
        params |= {"fieldSelector": f"metadata.name={name}"} if name else {}
        path = self.path(kind, namespace)
        objects: dict[str, Object] = {}
        while time.monotonic() < deadline:
            try:
                listed = self.http.get(path, params=params).raise_for_status().json()
                objects = {item["metadata"]["uid"]: item for item in listed["items"]}
                yield objects
                for event, item in self._watch(path, params, listed["metadata"]["resourceVersion"], deadline):
                    if event == "DELETED":
                        objects.pop(item["metadata"]["uid"], None)
                    else:
                        objects[item["metadata"]["uid"]] = item
                    yield objects
            except httpx.HTTPError:
                time.sleep(0.2)  # the server is away: there is nothing to watch until it answers again

    def _watch(
        self, path: str, params: Mapping[str, str], version: str, deadline: float
    ) -> Iterator[tuple[str, Object]]:
        left = max(1, int(deadline - time.monotonic()))
        query = {**params, "watch": "1", "resourceVersion": version, "timeoutSeconds": str(left)}
        with self.http.stream("GET", path, params=query, timeout=httpx.Timeout(10, read=left + 5)) as answer:
            answer.raise_for_status()
            for line in answer.iter_lines():
                change = json.loads(line)
                if change["type"] == "ERROR":  # 410 Gone: list again
                    return
                yield change["type"], change["object"]

    def until_after(self, moment: str) -> None:
        """Wait for the API server's next second: its times have no fractions, so what came later may look as old."""
        while parsedate_to_datetime(self.http.get("/version").headers["Date"]) <= datetime.fromisoformat(moment):
            time.sleep(0.05)

    @staticmethod
    def poll(look: Callable[[], T], holds: Callable[[T], bool], within: float, what: str, every: float = 0.3) -> T:
        """Wait for something that cannot be watched. Raises :class:`NotInTime` with what was seen last."""
        deadline = time.monotonic() + within
        while not holds(seen := look()):
            if time.monotonic() > deadline:
                raise NotInTime(f"not within {within:.0f} s: {what}\nseen at the deadline: {seen}")
            time.sleep(every)
        return seen

    # --- services in the cluster ---------------------------------------------------------------------------------

    def service(self, namespace: str, name: str, port: int, path: str, **kwargs: Any) -> httpx.Response:
        """A request to a Service through the API server, which works wherever the cluster runs.

        The Host header is the Service's own name, as a client in the cluster sends it.
        """
        url = f"/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy/{path.lstrip('/')}"
        return self.http.request(
            kwargs.pop("method", "GET"), url, headers={"Host": f"{name}.{namespace}.svc:{port}"}, **kwargs
        )

    def pod(self, namespace: str, name: str, port: int, path: str) -> httpx.Response:
        """What a pod answers, through the API server."""
        return self.http.get(f"/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy/{path}").raise_for_status()

    def query(self, promql: str) -> Objects:
        """The vector that Prometheus answers now."""
        answer = self.service("monitoring", "prometheus", 9090, "api/v1/query", params={"query": promql})
        return answer.raise_for_status().json()["data"]["result"]


def condition(item: Object, kind: str) -> Mapping[str, str]:
    """A condition of an object; an empty mapping where it has none of this type."""
    found = [c for c in item.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def has(item: Object, kind: str, status: str, reason: str | None = None) -> bool:
    """Is the condition there with this status (and reason), and does it speak of the present generation?"""
    found = condition(item, kind)
    return (
        found.get("status") == status
        and (reason is None or found.get("reason") == reason)
        and found.get("observedGeneration", 0) >= item["metadata"]["generation"]
    )


def observed(item: Object) -> bool:
    """Has the operator answered for the present generation?"""
    return item.get("status", {}).get("observedGeneration", -1) == item["metadata"]["generation"]


def names(items: Sequence[Object]) -> list[str]:
    return sorted(item["metadata"]["name"] for item in items)


def completion_index(pod: Object) -> str | None:
    """Number of a pod of an Indexed Job."""
    return pod["metadata"].get("annotations", {}).get("batch.kubernetes.io/job-completion-index")
