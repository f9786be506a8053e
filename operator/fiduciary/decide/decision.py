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
    """Server-side apply of a child. ``uid``/``resource_version`` set: the object must be that one, else it is new."""

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
    """

    status: FinancialModelStatus
    registration: Registration | None = None
    record: ModelDecisionSpec | None = None
    children: tuple[Create | Apply | Delete, ...] = ()
    mirror: Mirror | None = None
    finalizer: Literal["Keep", "Add", "Remove"] = "Keep"
    events: tuple[Event, ...] = ()
    wake_at: datetime | None = None
    claim: bool = False
    again: bool = False
