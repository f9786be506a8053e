"""Carrying a decision out: the numbered writes of protocols §1, in their order.

A crash between any two of them leaves a cluster from which the next reconcile goes on. ``checkpoint`` is called with
the name of each write just before it; production passes nothing, the crash tests end the process there.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.clients.kube import Body, Cluster, Conflict, Resource
from fiduciary.decide import identity
from fiduciary.engine import kinds
from fiduciary.engine.children import Children
from fiduciary.engine.writes import Stale, Step, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from fiduciary.api.modeldecision import ModelDecisionSpec
    from fiduciary.decide.decision import Child, Decision, Event
    from fiduciary.engine.mirror import Store

REPORTER = "fiduciary.dev/operator"

#: What the API server takes for the note of an event, in bytes: a longer one is refused.
NOTE_BYTES = 1024


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
        self._children = Children(cluster, stores, checkpoint)

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

    async def children(self, target: Target, children: Sequence[Child]) -> None:
        """Write 2, in the order of the decision."""
        await self._children.write(target, children)

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

    def _put(self, resource: Resource, body: Body) -> None:
        store = self._stores.get(resource.kind)
        if store is not None and kinds.watched(resource, body):
            store.put(body)  # older than what a watch told meanwhile: dropped there

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
            "note": _note(event.message),
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


def _note(message: str) -> str:
    text = message.encode()
    if len(text) <= NOTE_BYTES:
        return message
    return text[: NOTE_BYTES - len("…".encode())].decode(errors="ignore") + "…"


def _decided(spec: Body) -> Body:
    """A record's content apart from when and by which build it was written."""
    return {key: value for key, value in spec.items() if key not in ("decidedAt", "actor")}
