"""Carrying a decision out: the numbered writes of protocols §1, in their order.

A crash between any two of them leaves a cluster from which the next reconcile goes on. ``checkpoint`` is called with
the name of each write just before it; production passes nothing, the crash tests end the process there.
"""

from __future__ import annotations

import enum
import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.clients.kube import Body, Cluster, Conflict, NotFound, Resource
from fiduciary.decide import identity
from fiduciary.decide.decision import Apply, Create, Decision, Delete
from fiduciary.engine import kinds
from fiduciary.engine.mirror import Change, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from fiduciary.api.modeldecision import ModelDecisionSpec
    from fiduciary.decide.decision import Event

REPORTER = "fiduciary.dev/operator"


class Step(enum.Enum):
    """What a decision may consist of. The values are the names that logs and crash tests use."""

    FINALIZER = "finalizer"  # before anything exists that deletion would have to clean up
    REGISTRATION = "0-registration"
    RECORD = "1-record"
    CHILDREN = "2-children"
    STATUS = "3-status"
    EVENTS = "4-events"  # told after it is true
    MIRROR = "5-mirror"
    RELEASE = "release"  # the finalizer goes last: with it, the object


ORDER: tuple[Step, ...] = tuple(Step)


class Stale(Exception):
    """The world that was judged is not the world that is: observe again."""


class ForeignObject(Exception):
    """A name that we need is taken by something that we did not make. No retry mends that."""


@dataclass(slots=True)
class Target:
    """The object that is reconciled. ``version`` follows our own writes, so that each one builds on the last."""

    resource: Resource
    namespace: str
    name: str
    uid: str
    version: str

    @property
    def metadata(self) -> Body:
        return {"name": self.name, "namespace": self.namespace, "uid": self.uid, "resourceVersion": self.version}

    def body(self, **parts: Any) -> Body:
        """A server-side apply to exactly this object in exactly this state."""
        return {
            "apiVersion": self.resource.api_version,
            "kind": self.resource.kind,
            "metadata": self.metadata | parts.pop("metadata", {}),
            **parts,
        }


class Applier:
    """Writes to the cluster. ``stores`` take in the answers, so that the next observation sees them."""

    def __init__(
        self,
        cluster: Cluster,
        stores: dict[str, Store[Any]],
        *,
        checkpoint: Callable[[str], None] = lambda name: None,
        reporter: str = "",
    ) -> None:
        self._cluster = cluster
        self._stores = stores
        self._checkpoint = checkpoint
        self._reporter = reporter

    async def finalizer(self, target: Target, wanted: bool) -> None:
        """Own exactly our finalizer, or none: an apply of an empty list takes away what this manager applied."""
        self._checkpoint(Step.FINALIZER.value if wanted else Step.RELEASE.value)
        finalizers = [meta.FINALIZER] if wanted else []
        answer = await self._cluster.apply(target.resource, target.body(metadata={"finalizers": finalizers}))
        target.version = answer["metadata"]["resourceVersion"]
        if wanted:
            self._put(target.resource, answer)

    async def record(self, target: Target, spec: ModelDecisionSpec) -> bool:
        """Write 1, the compare-and-swap: record n+1 can be created once. True: this call created it."""
        self._checkpoint(Step.RECORD.value)
        name = identity.record_name(target.name, spec.sequence)
        body: Body = {
            "apiVersion": kinds.MODELDECISION.api_version,
            "kind": kinds.MODELDECISION.kind,
            "metadata": {
                "name": name,
                "namespace": target.namespace,
                "labels": {meta.LABEL_MODEL: target.name, meta.LABEL_MANAGED_BY: meta.MANAGED_BY},
            },
            # What is stored is what is hashed: the CRD adds no defaults to a record.
            "spec": identity.set_fields(spec),
        }
        try:
            answer = await self._cluster.create(kinds.MODELDECISION, body)
        except Conflict:
            existing = await self._cluster.get(kinds.MODELDECISION, target.namespace, name)
            self._put(kinds.MODELDECISION, existing)
            if _decided(existing["spec"]) != _decided(body["spec"]):
                raise Stale(f"record {name} exists with other content") from None
            return False
        self._put(kinds.MODELDECISION, answer)
        return True

    async def children(self, target: Target, children: Sequence[Create | Apply | Delete]) -> None:
        for number, child in enumerate(children):
            self._checkpoint(f"{Step.CHILDREN.value}.{number}")
            match child:
                case Create():
                    await self._create(dict(child.body))
                case Apply():
                    await self._apply(child)
                case Delete():
                    resource = _child(child.api_version, child.kind)
                    try:
                        await self._cluster.delete(
                            resource, target.namespace, child.name, uid=child.uid, propagation=child.propagation
                        )
                    except NotFound:
                        if (store := self._stores.get(resource.kind)) is not None:
                            store.remove((target.namespace, child.name), child.uid)
                    except Conflict as error:  # another object of this name: what was decided on is gone
                        raise Stale(str(error)) from error

    async def status(self, target: Target, status: Body, written: Callable[[str], Any]) -> None:
        """Write 3. ``written`` makes the object as it is at the new version: nobody needs to parse it again."""
        self._checkpoint(Step.STATUS.value)
        answer = await self._cluster.apply_status(target.resource, target.body(status=status))
        target.version = answer["metadata"]["resourceVersion"]
        store = self._stores.get(target.resource.kind)
        if store is not None:
            store.put_value(answer["metadata"], written(target.version))

    async def events(self, target: Target, events: Sequence[Event], now: datetime) -> None:
        for event in events:
            self._checkpoint(Step.EVENTS.value)
            try:
                await self._cluster.create(kinds.EVENT, self._event(target, event, now))
            except Conflict:
                continue  # the same thing was told of the same state

    async def _create(self, body: Body) -> None:
        resource = _child(body["apiVersion"], body["kind"])
        metadata = body["metadata"]
        try:
            answer = await self._cluster.create(resource, body)
        except Conflict:
            answer = await self._cluster.get(resource, metadata["namespace"], metadata["name"])
            if not _same_work(answer, body):
                raise ForeignObject(
                    f"{resource.kind} {metadata['namespace']}/{metadata['name']} exists already and was not made for "
                    f"this work; delete or rename it"
                ) from None
        self._put(resource, answer)

    async def _apply(self, child: Apply) -> None:
        resource = _child(child.body["apiVersion"], child.body["kind"])
        body: Body = {**child.body, "metadata": dict(child.body["metadata"])}
        if child.uid is None:  # new: a bare apply would bring back what somebody deleted on purpose
            await self._create(body)
            return
        body["metadata"]["uid"] = child.uid
        if child.resource_version is not None:
            body["metadata"]["resourceVersion"] = child.resource_version
        try:
            self._put(resource, await self._cluster.apply(resource, body))
        except (Conflict, NotFound) as error:
            raise Stale(str(error)) from error

    def _put(self, resource: Resource, body: Body) -> None:
        store = self._stores.get(resource.kind)
        if store is not None and store.put(body) is Change.STALE:
            return  # a watch event of a later state was faster

    def _event(self, target: Target, event: Event, now: datetime) -> Body:
        told = f"{target.uid}/{target.version}/{event.reason}/{event.message}"
        return {
            "apiVersion": kinds.EVENT.api_version,
            "kind": kinds.EVENT.kind,
            "metadata": {
                "name": f"{target.name}.{hashlib.sha256(told.encode()).hexdigest()[:16]}",
                "namespace": target.namespace,
            },
            "eventTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": REPORTER,
            "reportingInstance": self._reporter[:128] or "operator",
            "action": "Reconcile",
            "type": event.type,
            "reason": event.reason,
            "note": event.message[:1024],
            "regarding": {
                "apiVersion": target.resource.api_version,
                "kind": target.resource.kind,
                "name": target.name,
                "namespace": target.namespace,
                "uid": target.uid,
                "resourceVersion": target.version,
            },
        }


def has_work(decision: Decision, step: Step) -> bool:
    """Whether the decision consists of this step too. STATUS is compared elsewhere, with what is stored."""
    match step:
        case Step.FINALIZER:
            return decision.finalizer == "Add"
        case Step.REGISTRATION:
            return decision.registration is not None
        case Step.RECORD:
            return decision.record is not None
        case Step.CHILDREN:
            return bool(decision.children)
        case Step.EVENTS:
            return bool(decision.events)
        case Step.MIRROR:
            return decision.mirror is not None
        case Step.RELEASE:
            return decision.finalizer == "Remove"
        case Step.STATUS:
            return decision.finalizer != "Remove"  # it would be the status of nothing


def _child(api_version: str, kind: str) -> Resource:
    try:
        return kinds.CHILDREN[api_version, kind]
    except KeyError:
        raise ForeignObject(f"{api_version} {kind} is no kind that the operator makes") from None


def _same_work(existing: Body, wanted: Body) -> bool:
    """Whether the object was made for the same content: by its training key, else by being managed by us."""
    key = meta.ANNOTATION_TRAINING_KEY
    wanted_key = kinds.annotations_of(wanted).get(key)
    if wanted_key is not None:
        return kinds.annotations_of(existing).get(key) == wanted_key
    return kinds.labels_of(existing).get(meta.LABEL_MANAGED_BY) == meta.MANAGED_BY


def _decided(spec: Body) -> Body:
    """A record's content apart from when and by which build it was written."""
    return {key: value for key, value in spec.items() if key not in ("decidedAt", "actor")}
