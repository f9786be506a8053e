"""Whether this operator can serve what the spec asks for, and whether its route can be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.decide import reasons
from fiduciary.decide.step import Note
from fiduciary.serving.gateway import GatewayBackend

if TYPE_CHECKING:
    from fiduciary.api.serving import GatewayServing, ServingSpec
    from fiduciary.decide.case import Case
    from fiduciary.manifests.plans import Environment
    from fiduciary.serving.protocol import Backend


@dataclass(frozen=True, slots=True)
class Able:
    """Everything that plans need."""

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
    if serving.backend != "Gateway":
        return _unable(f"spec.serving.backend is {serving.backend}; this release serves with backend Gateway only")
    if serving.runtime != "Fiduciary":
        return _unable(f"spec.serving.runtime is {serving.runtime}; this release serves with runtime Fiduciary only")
    if serving.gateway is None:
        return _unable("spec.serving.gateway.parentRefs is missing: name the Gateway that clients reach")
    connection = platform.connections.get(case.spec.registry.connection)
    if connection is None:
        return Note(
            reasons.CONNECTION_UNKNOWN,
            f"spec.registry.connection {case.spec.registry.connection!r} is not in the operator's settings: serving "
            "pods would not know where to fetch a version",
            stalled=True,
        )
    return Able(GatewayBackend(), serving, serving.gateway, platform.serving, connection.trainer_uri)


def route_obstacle(case: Case, able: Able) -> Note | None:
    """Why the route cannot be written; None if it can."""
    for kind, how in able.backend.kinds.items():
        if kind in case.world.missing_kinds:
            message = f"the cluster does not know the kind {kind}: {how}. It is noticed when it is there"
            return Note(reasons.GATEWAY_API_MISSING, message, stalled=True)
    namespace = case.world.model.metadata.namespace
    for hostname in able.gateway.hostnames:
        if not _allowed(case, hostname):
            message = (
                f"namespace {namespace} may not use the host name {hostname}: the operator's settings allow "
                f"{', '.join(_patterns(case)) or 'none'}. Use one of those, or have it added"
            )
            return Note(reasons.HOSTNAME_NOT_ALLOWED, message, stalled=True)
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
