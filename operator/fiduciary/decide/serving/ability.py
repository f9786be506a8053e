"""Whether this operator can serve what the spec asks for, and whether its route can be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.api.serving import GatewayServing
from fiduciary.decide import reasons
from fiduciary.decide.serving.backends import backend_of, in_force
from fiduciary.decide.step import Note
from fiduciary.serving.gateway import GATEWAY_API

if TYPE_CHECKING:
    from fiduciary.api.serving import ServingSpec
    from fiduciary.decide.case import Case
    from fiduciary.manifests.plans import Environment
    from fiduciary.serving.protocol import Backend


NO_GATEWAY = GatewayServing.model_construct(parent_refs=(), hostnames=())


@dataclass(frozen=True, slots=True)
class Able:
    """Everything that plans need. ``gateway`` names no Gateway where clients use a mesh."""

    backend: Backend
    serving: ServingSpec
    gateway: GatewayServing
    environment: Environment
    tracking_uri: str


def ability(case: Case) -> Able | Note | None:
    """What serves this model; a note where it cannot be served here; None where serving is not asked for."""
    serving, platform = case.spec.serving, case.world.platform
    if serving is None:
        return None
    if platform.serving is None:
        return _unable("the operator's settings name no image of the serving runtime (FIDUCIARY_SERVER_IMAGE)")
    if serving.runtime != "Fiduciary":
        return _unable(f"spec.serving.runtime is {serving.runtime}; this release serves with runtime Fiduciary only")
    if serving.gateway is None and in_force(case) != "Seldon":
        wanted = f" until {serving.backend} serves" if serving.backend != in_force(case) else ""
        return _unable(
            f"backend {in_force(case)} serves and spec.serving.gateway.parentRefs is missing: name the Gateway that "
            f"clients reach{wanted}"
        )
    connection = platform.connections.get(case.spec.registry.connection)
    if connection is None:
        return Note(
            reasons.CONNECTION_UNKNOWN,
            f"spec.registry.connection {case.spec.registry.connection!r} is not in the operator's settings: serving "
            "pods would not know where to fetch a version",
            stalled=True,
        )
    return Able(backend_of(case), serving, serving.gateway or NO_GATEWAY, platform.serving, connection.trainer_uri)


def route_obstacle(case: Case, able: Able) -> Note | None:
    """Why the route cannot be written; None if it can."""
    missing = kinds_missing(case, able)
    if missing is not None:
        return missing
    namespace = case.world.model.metadata.namespace
    for hostname in able.gateway.hostnames:
        if not _allowed(case, hostname):
            message = (
                f"namespace {namespace} may not use the host name {hostname}: the operator's settings allow "
                f"{', '.join(_patterns(case)) or 'none'}. Use one of those, or have it added"
            )
            return Note(reasons.HOSTNAME_NOT_ALLOWED, message, stalled=True)
    return None


def kinds_missing(case: Case, able: Able) -> Note | None:
    """Which kind the cluster does not know, and how it is installed."""
    needed = dict(able.backend.kinds)
    if able.gateway.parent_refs:
        needed |= dict.fromkeys(("HTTPRoute", "Gateway"), GATEWAY_API)
    for kind, how in needed.items():
        if kind in case.world.missing_kinds:
            message = f"the cluster does not know the kind {kind}: {how}. It is noticed when it is there"
            reason = reasons.GATEWAY_API_MISSING if how == GATEWAY_API else reasons.BACKEND_MISSING
            return Note(reason, message, stalled=True)
    return None


def _unable(message: str) -> Note:
    return Note(reasons.SERVING_NOT_ACTIVE, f"{message}. What is loaded and routed stays as it is", stalled=True)


def _patterns(case: Case) -> tuple[str, ...]:
    hostnames = case.world.platform.hostnames
    return (*hostnames.get(case.world.model.metadata.namespace, ()), *hostnames.get("*", ()))


def _allowed(case: Case, hostname: str) -> bool:
    if not case.world.platform.hostnames:
        return True  # the platform restricts nothing
    return any(
        hostname == pattern or (pattern.startswith("*.") and hostname.endswith(pattern[1:]))
        for pattern in _patterns(case)
    )
