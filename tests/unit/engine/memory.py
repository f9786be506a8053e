"""A cluster and a registry in memory, with the semantics that the engine relies on.

resourceVersions grow by one over all objects; a write with a wrong UID or resourceVersion is a conflict; an apply to an
object that does not exist creates it unless a UID was sent (which is what the real server does); finalizers hold an
object back; owners take their children along. Faults are part of it: a request may be lost before it is carried out or
after, and events reach the operator only when the test delivers them.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from fiduciary.clients.kube import (
    Body,
    Conflict,
    Forbidden,
    Listing,
    NotFound,
    Propagation,
    Resource,
    Unavailable,
    WebhookSilent,
)
from fiduciary.clients.mlflow import RegistryError
from fiduciary.decide.world import RunView, VersionView
from fiduciary.engine import kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Place = tuple[str, str, str]  # kind, namespace, name


@dataclass(frozen=True, slots=True)
class WatchEvent:
    resource: Resource
    type: str | None
    body: Body


def _selected(labels: str) -> dict[str, list[str]]:
    """Label -> values of a selector: ``a=b,c in (d,e)``."""
    found = re.findall(r"([^,=\s]+)(?:=([^,]*)| in \(([^)]*)\))", labels)
    return {name: several.split(",") if several else [one] for name, one, several in found}


class MemoryCluster:
    """Implements :class:`fiduciary.clients.kube.Cluster`."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.objects: dict[Place, Body] = {}
        known = (*kinds.WATCHED, *kinds.CHILDREN.values())
        self.resources: dict[str, Resource] = {resource.kind: resource for resource in known}
        self.version = 0
        self.uids = 0
        self.writes: list[tuple[str, str, str]] = []  # verb, kind, name
        self.created: list[Place] = []  # in order, also what is gone again
        self.outbox: list[WatchEvent] = []
        self.lose_next: str = ""  # "before" | "after": the next write is lost on its way there, or its answer is
        self.terminating: set[str] = set()
        self.absent: set[Resource] = set()  # kinds that the server does not know
        self.unadmitted: set[Resource] = set()  # kinds whose admission webhook gives no answer
        self.now = now

    # -- the protocol

    async def get(self, resource: Resource, namespace: str | None, name: str, *, metadata_only: bool = False) -> Body:
        if resource is kinds.NAMESPACE:
            metadata: Body = {"name": name}
            return {"metadata": metadata | ({"deletionTimestamp": "now"} if name in self.terminating else {})}
        return copy.deepcopy(self._at(resource, namespace, name))

    async def list(
        self, resource: Resource, namespace: str | None = None, *, labels: str = "", metadata_only: bool = False
    ) -> Listing:
        wanted = _selected(labels)
        items = [
            copy.deepcopy(body)
            for (kind, place, _), body in self.objects.items()
            if kind == resource.kind
            and namespace in (None, place)
            and all((body["metadata"].get("labels") or {}).get(name) in values for name, values in wanted.items())
        ]
        if resource in self.absent:
            raise NotFound(404, "NotFound", "the server could not find the requested resource")
        return Listing(items, str(self.version))

    async def create(self, resource: Resource, body: Body) -> Body:
        def write() -> Body:
            metadata = body["metadata"]
            place = (resource.kind, metadata.get("namespace", ""), metadata["name"])
            if metadata.get("namespace") in self.terminating:
                raise Forbidden(403, "Forbidden", "namespace is being terminated")
            if place in self.objects:
                raise Conflict(409, "AlreadyExists", f"{place} already exists")
            return self._make(resource, body)

        return self._write("create", resource, body["metadata"]["name"], write)

    async def apply(self, resource: Resource, body: Body, *, manager: str = "fiduciary", force: bool = True) -> Body:
        def write() -> Body:
            stored = self._match(resource, body)
            if stored is None:
                return self._make(resource, body)
            changed = copy.deepcopy(stored)
            metadata = changed["metadata"]
            if "finalizers" in body["metadata"]:
                held = metadata.get("finalizers", [])
                others = [name for name in held if not name.startswith("fiduciary")]
                metadata["finalizers"] = others + list(body["metadata"]["finalizers"])
            for kept in ("labels", "annotations"):
                if kept in body["metadata"]:
                    metadata[kept] = {**metadata.get(kept, {}), **body["metadata"][kept]}
            if "ownerReferences" in body["metadata"]:
                metadata["ownerReferences"] = body["metadata"]["ownerReferences"]
            if "spec" in body:
                changed["spec"] = {**changed.get("spec", {}), **copy.deepcopy(body["spec"])}
                if changed["spec"] != stored.get("spec"):
                    metadata["generation"] += 1
            return self._store(resource, stored, changed)

        return self._write("apply", resource, body["metadata"]["name"], write)

    async def apply_status(self, resource: Resource, body: Body) -> Body:
        def write() -> Body:
            stored = self._match(resource, body)
            if stored is None:
                raise NotFound(404, "NotFound", body["metadata"]["name"])
            answer = self._store(resource, stored, {**copy.deepcopy(stored), "status": copy.deepcopy(body["status"])})
            return {"metadata": answer["metadata"]}

        return self._write("apply_status", resource, body["metadata"]["name"], write)

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, *, uid: str, propagation: Propagation = "Background"
    ) -> None:
        def write() -> Body:
            stored = self._at(resource, namespace, name)
            if stored["metadata"]["uid"] != uid:
                raise Conflict(409, "Conflict", f"the UID in the precondition ({uid}) does not match")
            self.remove(resource, namespace or "", name)
            return {}

        self._write("delete", resource, name, write)

    # -- what other actors of the cluster do

    def put(self, resource: Resource, body: Body) -> Body:
        """Somebody else creates the object or changes its spec."""
        place = (resource.kind, body["metadata"].get("namespace", ""), body["metadata"]["name"])
        stored = self.objects.get(place)
        if stored is None:
            return self._make(resource, body)
        changed = {**copy.deepcopy(stored), "spec": copy.deepcopy(body["spec"])}
        if changed["spec"] != stored["spec"]:
            changed["metadata"]["generation"] += 1
        return self._store(resource, stored, changed)

    def touch(self, resource: Resource, namespace: str, name: str, **parts: Any) -> None:
        """A controller of Kubernetes changes a part, for example the status of a Job."""
        stored = self._at(resource, namespace, name)
        self._store(resource, stored, {**copy.deepcopy(stored), **parts})

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        """Delete as the API server does: with finalizers it is only marked."""
        stored = self._at(resource, namespace, name)
        if stored["metadata"].get("finalizers"):
            if "deletionTimestamp" not in stored["metadata"]:
                changed = copy.deepcopy(stored)
                changed["metadata"]["deletionTimestamp"] = _rfc3339(self.now())
                self._store(resource, stored, changed)
            return
        self._erase(resource, namespace, name)

    def relist(self, resource: Resource) -> list[WatchEvent]:
        """What a watch tells after it was broken: what is there, nothing of what is gone."""
        return [
            WatchEvent(resource, None, copy.deepcopy(body))
            for (kind, _, _), body in self.objects.items()
            if kind == resource.kind and kinds.watched(resource, body)
        ]

    # -- inside

    def _write(self, verb: str, resource: Resource, name: str, write: Callable[[], Body]) -> Body:
        if resource in self.unadmitted and verb in ("create", "apply"):
            raise WebhookSilent(500, "InternalError", f'failed calling webhook "{resource.plural}.example.com"')
        fault, self.lose_next = self.lose_next, ""
        if fault == "before":
            raise Unavailable(0, "Unreachable", "the request was lost")
        answer = write()
        self.writes.append((verb, resource.kind, name))
        if fault == "after":
            raise Unavailable(0, "Unreachable", "the answer was lost")
        return copy.deepcopy(answer)

    def _at(self, resource: Resource, namespace: str | None, name: str) -> Body:
        try:
            return self.objects[resource.kind, namespace or "", name]
        except KeyError:
            raise NotFound(404, "NotFound", f"{resource.kind} {namespace}/{name} not found") from None

    def _match(self, resource: Resource, body: Body) -> Body | None:
        metadata = body["metadata"]
        stored = self.objects.get((resource.kind, metadata.get("namespace", ""), metadata["name"]))
        if stored is None:
            if "uid" in metadata:
                raise Conflict(409, "Conflict", "uid mismatch: the object does not exist")
            return None
        for precondition in ("uid", "resourceVersion"):
            if precondition in metadata and metadata[precondition] != stored["metadata"][precondition]:
                raise Conflict(409, "Conflict", f"{precondition} does not match")
        return stored

    def _make(self, resource: Resource, body: Body) -> Body:
        self.version += 1
        self.uids += 1
        made = copy.deepcopy(body)
        made["metadata"] |= {
            "uid": f"uid-{self.uids}",
            "resourceVersion": str(self.version),
            "generation": 1,
            "creationTimestamp": _rfc3339(self.now()),
        }
        place = (resource.kind, made["metadata"].get("namespace", ""), made["metadata"]["name"])
        self.objects[place] = made
        self.created.append(place)
        self._tell(resource, "ADDED", made)
        return made

    def _store(self, resource: Resource, stored: Body, changed: Body) -> Body:
        if changed == stored:
            return stored  # the real server answers without a new version, too
        self.version += 1
        changed["metadata"] = {**changed["metadata"], "resourceVersion": str(self.version)}
        place = (resource.kind, changed["metadata"].get("namespace", ""), changed["metadata"]["name"])
        self.objects[place] = changed
        if "deletionTimestamp" in changed["metadata"] and not changed["metadata"].get("finalizers"):
            self._erase(resource, place[1], place[2])
        else:
            self._tell(resource, "MODIFIED", changed, stored)
        return changed

    def _erase(self, resource: Resource, namespace: str, name: str) -> None:
        gone = self.objects.pop((resource.kind, namespace, name))
        self.version += 1
        gone = {**gone, "metadata": {**gone["metadata"], "resourceVersion": str(self.version)}}
        self._tell(resource, "DELETED", gone)
        for (kind, place, child), body in list(self.objects.items()):
            owners = [owner["uid"] for owner in body["metadata"].get("ownerReferences") or []]
            if place == namespace and owners == [gone["metadata"]["uid"]]:
                self._erase(self.resources[kind], place, child)

    def _tell(self, resource: Resource, kind: str, body: Body, before: Body | None = None) -> None:
        """What a watch with our selector tells: what loses the label is gone for it, what gets it is new."""
        if resource not in kinds.WATCHED:
            return
        was, now = before is not None and kinds.watched(resource, before), kinds.watched(resource, body)
        if kind == "MODIFIED" and was != now:
            kind = "ADDED" if now else "DELETED"
        if now or was or (kind == "DELETED" and kinds.watched(resource, body)):
            self.outbox.append(WatchEvent(resource, kind, copy.deepcopy(body)))


class Waits(BaseException):
    """Who asked would wait now. A BaseException, as nothing in the process may handle it."""


@dataclass
class MemoryRegistry:
    """Implements :class:`fiduciary.engine.registry.RegistryClient`.

    ``away``: it refuses connections. ``silent``: it takes them and never answers; who asks it waits.
    """

    away: bool = False
    silent: bool = False
    versions: dict[str, list[VersionView]] = field(default_factory=dict)
    alias: dict[str, dict[str, str]] = field(default_factory=dict)
    runs: dict[str, RunView] = field(default_factory=dict)
    manifests: dict[str, str] = field(default_factory=dict)
    writes: int = 0

    async def run_for_key(self, experiment: str, training_key: str) -> RunView | None:
        await self._answer()
        return self.runs.get(training_key)

    async def version_by_digest(self, model: str, digest: str) -> VersionView | None:
        await self._answer()
        found = [version for version in self.versions.get(model, []) if version.tags["fiduciary.dev/digest"] == digest]
        return found[0] if found else None

    async def manifest_digest(self, run_id: str) -> str | None:
        await self._answer()
        return self.manifests.get(run_id)

    async def aliases(self, model: str) -> dict[str, str]:
        await self._answer()
        return dict(self.alias.get(model, {}))

    async def ensure_model(self, model: str) -> None:
        await self._answer()
        self.versions.setdefault(model, [])

    async def create_version(
        self, model: str, *, source: str, run_id: str, digest: str, tags: Mapping[str, str]
    ) -> VersionView:
        await self._answer(write=True)
        versions = self.versions[model]
        made = VersionView(str(len(versions) + 1), run_id, source, {**tags, "fiduciary.dev/digest": digest})
        versions.append(made)
        return made

    async def version_tags(self, model: str, version: str) -> dict[str, str]:
        await self._answer()
        return dict(self.versions[model][int(version) - 1].tags)

    async def set_version_tag(self, model: str, version: str, key: str, value: str) -> None:
        await self._answer(write=True)
        before = self.versions[model][int(version) - 1]
        self.versions[model][int(version) - 1] = VersionView(
            before.version, before.run_id, before.source, {**before.tags, key: value}
        )

    async def set_alias(self, model: str, alias: str, version: str) -> None:
        await self._answer(write=True)
        self.alias.setdefault(model, {})[alias] = version

    async def delete_alias(self, model: str, alias: str) -> None:
        await self._answer(write=True)
        self.alias.get(model, {}).pop(alias, None)

    async def _answer(self, *, write: bool = False) -> None:
        if self.silent:
            raise Waits("MLflow was asked, and does not answer")
        if self.away:
            raise RegistryError("RegistryUnreachable", "no answer from http://mlflow:5000 (away)")
        self.writes += write


def _rfc3339(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
