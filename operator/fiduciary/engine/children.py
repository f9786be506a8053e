"""Write 2: the objects that a decision asks for. Jobs by POST only, others by server-side apply with UID and version.

An apply to a name that is free creates; to one that is taken it would merge, into whatever is there. So a new object is
looked for first: ours, and the mirror was late: observe again; made for us, but without the label that we watch: taken
back; anybody else's: refused, by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.clients.kube import Body, Cluster, Conflict, Forbidden, Invalid, NotFound, Resource, WebhookSilent
from fiduciary.decide.decision import Apply, Create, Delete, Scale
from fiduciary.engine import kinds, served
from fiduciary.engine.writes import ForeignObject, Stale, Step, Target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from fiduciary.decide.decision import Child
    from fiduciary.engine.mirror import Store

#: Who owns the number of replicas: an apply of the Deployment, which never names it, then leaves it alone.
SCALER = "fiduciary-scale"

#: The write that moves traffic; crash tests end the process there.
ROUTE = "2-route"
MOVING = frozenset({kinds.HTTPROUTE.kind, kinds.EXPERIMENT.kind})


class Children:
    """Writes the children of one decision; ``stores`` take in the answers."""

    def __init__(self, cluster: Cluster, stores: dict[str, Store[Any]], checkpoint: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._stores = stores
        self._checkpoint = checkpoint

    async def write(self, target: Target, children: Sequence[Child]) -> None:
        """In the order of the decision. What the cluster refuses keeps nothing else from being written."""
        refused: Exception | None = None
        for number, child in enumerate(children):
            moves = isinstance(child, Apply) and child.body["kind"] in MOVING
            self._checkpoint(ROUTE if moves else f"{Step.CHILDREN.value}.{number}")
            try:
                await self._one(target, child)
            except (Forbidden, Invalid, ForeignObject, WebhookSilent) as error:
                refused = refused or error
        if refused is not None:
            raise refused

    async def _one(self, target: Target, child: Child) -> None:
        match child:
            case Create():
                await self._create(dict(child.body))
            case Apply():
                await self._apply(target, child)
            case Scale():
                await self._scale(target, child)
            case Delete():
                await self._delete(target, child)

    async def _create(self, body: Body) -> None:
        resource = _child(body["apiVersion"], body["kind"])
        metadata = body["metadata"]
        try:
            answer = await self._cluster.create(resource, body)
        except Conflict:
            answer = await self._cluster.get(resource, metadata["namespace"], metadata["name"])
            if not _same_work(answer, body):
                raise _foreign(resource, metadata["namespace"], metadata["name"]) from None
        self._put(resource, answer)

    async def _apply(self, target: Target, child: Apply) -> None:
        resource = _child(child.body["apiVersion"], child.body["kind"])
        body: Body = {**child.body, "metadata": dict(child.body["metadata"])}
        uid, version = child.uid, child.resource_version
        there: Body | None = None
        if uid is None:
            # A bare apply would merge into whatever has the name: look first.
            there = await self._there(resource, target, body["metadata"]["name"])
            if there is None:
                try:
                    self._put(resource, await self._cluster.apply(resource, body, force=False))
                except Conflict as error:
                    raise Stale(str(error)) from error
                return
            uid, version = there["metadata"]["uid"], there["metadata"]["resourceVersion"]
        body["metadata"]["uid"] = uid
        if version is not None:
            body["metadata"]["resourceVersion"] = version
        if resource.kind in MOVING:
            self._forward(target, body, there)
        try:
            self._put(resource, await self._cluster.apply(resource, body))
        except (Conflict, NotFound) as error:
            raise Stale(str(error)) from error

    async def _there(self, resource: Resource, target: Target, name: str) -> Body | None:
        """An object of this name that was made for the target but lost the label that we know it by.

        None: there is none. Raises :class:`Stale` where the mirror only had not seen it, :class:`ForeignObject` where
        it is somebody else's.
        """
        try:
            found = await self._cluster.get(resource, target.namespace, name)
        except NotFound:
            return None
        if kinds.watched(resource, found):
            self._put(resource, found)
            raise Stale(f"{resource.kind} {name} is there already")
        if any(owner["uid"] == target.uid for owner in kinds.entries(found["metadata"], "ownerReferences")):
            return found
        raise _foreign(resource, target.namespace, name)

    def _forward(self, target: Target, body: Body, there: Body | None) -> None:
        """A route never goes back to an older record: whoever asks for that does not know the whole log."""
        name, wanted = body["metadata"]["name"], served.decision_of(body)
        if there is not None:
            carried = served.decision_of(there)
        else:
            store = self._stores.get(body["kind"])
            present = None if store is None else store.get((target.namespace, name))
            carried = 0 if present is None else present.decision
        if carried > wanted:
            raise ForeignObject(
                f"{body['kind']} {target.namespace}/{name} carries out decision {carried}, but the newest record that "
                f"the cluster shows is {wanted}: records are missing. Restore them, or delete the route, which is then "
                "made anew"
            )

    async def _scale(self, target: Target, child: Scale) -> None:
        metadata = {"name": child.name, "namespace": target.namespace, "uid": child.uid}
        resource = _child(child.api_version, child.kind)
        head = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        body: Body = {**head, "spec": {"replicas": child.replicas}}
        try:
            self._put(resource, await self._cluster.apply(resource, body, manager=SCALER))
        except (Conflict, NotFound) as error:
            raise Stale(str(error)) from error

    async def _delete(self, target: Target, child: Delete) -> None:
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

    def _put(self, resource: Resource, body: Body) -> None:
        store = self._stores.get(resource.kind)
        if store is not None and kinds.watched(resource, body):
            store.put(body)  # older than what a watch told meanwhile: dropped there


def _child(api_version: str, kind: str) -> Resource:
    try:
        return kinds.CHILDREN[api_version, kind]
    except KeyError:
        raise ForeignObject(f"{api_version} {kind} is no kind that the operator makes") from None


def _foreign(resource: Resource, namespace: str, name: str) -> ForeignObject:
    return ForeignObject(
        f"{resource.kind} {namespace}/{name} exists already and was not made for this work; delete or rename it"
    )


def _same_work(existing: Body, wanted: Body) -> bool:
    """Whether the object was made for the same content: by its training key, else by being managed by us."""
    key = meta.ANNOTATION_TRAINING_KEY
    wanted_key = kinds.annotations_of(wanted).get(key)
    if wanted_key is not None:
        return kinds.annotations_of(existing).get(key) == wanted_key
    return kinds.labels_of(existing).get(meta.LABEL_MANAGED_BY) == meta.MANAGED_BY
