"""Report: a status goes to its object, and into the mirror, so that the next observation sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.engine.writes import Target

if TYPE_CHECKING:
    from fiduciary.clients.kube import Resource
    from fiduciary.engine.apply import Applier
    from fiduciary.engine.stores import Stores


def target_of(resource: Resource, body: Any) -> Target:
    """This object in the state in which it was observed."""
    metadata = body.metadata
    return Target(resource, metadata.namespace, metadata.name, metadata.uid, metadata.resource_version)


async def write_status(applier: Applier, stores: Stores, target: Target, resource: Any, status: Any) -> None:
    """Write the status, and let the next observation see it without parsing the answer."""
    if resource.metadata.resource_version != target.version:  # with the finalizer that this very reconcile put on
        resource = stores.by_kind[target.resource.kind].get((target.namespace, target.name)) or resource
    written = resource.model_copy(update={"status": status})
    await applier.status(target, status.body(), lambda version: _at(written, version))


def _at(resource: Any, version: str) -> Any:
    metadata = resource.metadata.model_copy(update={"resource_version": version})
    return resource.model_copy(update={"metadata": metadata})
