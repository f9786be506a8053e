"""The numbered writes: their names and order, what they go to, and the two ways in which one can be wrong."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fiduciary.clients.kube import Body, Resource


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
