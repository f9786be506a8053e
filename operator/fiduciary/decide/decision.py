"""What ``decide`` answers: the writes that should happen, as data. The engine owns their order.

The order is that of protocols §1 and is the same for every kind: 0 registration, 1 record, 2 children, 3 status,
5 mirror. A crash between any two of them leaves a world from which the next ``decide`` goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.financialmodel import FinancialModelStatus
    from fiduciary.api.modeldecision import ModelDecisionSpec
    from fiduciary.serving.observed import ProbeTarget


@dataclass(frozen=True, slots=True)
class Registration:
    """Write 0: the version in MLflow. The engine looks for the digest tag first and creates only what is missing."""

    connection: str
    model: str  # registered model
    run_id: str
    digest: str
    source: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Create:
    """POST only; 409 with the same content key means that it is done."""

    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Apply:
    """Server-side apply of a child. ``uid``/``resource_version`` set: the object must be that one.

    Without them it is new: an apply that takes over no field of anybody else, so that an object that was not ours
    refuses, and what is left out later is taken away (a POST would leave it behind: other operation, other owner).
    """

    body: Mapping[str, Any]
    uid: str | None = None
    resource_version: str | None = None


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete one child with a UID precondition."""

    api_version: str
    kind: str
    name: str
    uid: str
    propagation: Literal["Background", "Foreground", "Orphan"] = "Background"


@dataclass(frozen=True, slots=True)
class Scale:
    """Set the number of replicas of a Deployment or Model that exists, by a patch with its UID.

    Written under a field manager of its own: an apply of the Deployment, which never names the number, then takes it
    neither away from us nor from an autoscaler.
    """

    name: str
    uid: str
    replicas: int
    api_version: str = "apps/v1"
    kind: str = "Deployment"


Child = Create | Apply | Scale | Delete


@dataclass(frozen=True, slots=True)
class Mirror:
    """Write 5: aliases and tags in MLflow. Retried for ever, never waited for."""

    connection: str
    model: str
    set_aliases: Mapping[str, str] = field(default_factory=dict[str, str])
    delete_aliases: tuple[str, ...] = ()
    version_tags: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Mapping[str, str]])


@dataclass(frozen=True, slots=True)
class Event:
    """A Kubernetes event on the resource: what `kubectl describe` tells."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """One answer of ``decide``.

    ``claim``: this status claims a training; the engine first observes again past the mirror and decides again.
    ``again``: the world changes with these writes; reconcile at once afterwards.
    ``children``: in this order, the route first: what it points to was seen at work before the record, and a kill
    waits for nobody. One that the cluster refuses must not keep the others from being written.
    ``probes``: what should be probed from now on, in place of what was asked before; a result that changes or goes
    stale is a reason to reconcile.
    """

    status: FinancialModelStatus
    registration: Registration | None = None
    record: ModelDecisionSpec | None = None
    children: tuple[Child, ...] = ()
    mirror: Mirror | None = None
    finalizer: Literal["Keep", "Add", "Remove"] = "Keep"
    events: tuple[Event, ...] = ()
    wake_at: datetime | None = None
    claim: bool = False
    again: bool = False
    probes: tuple[ProbeTarget, ...] = ()
