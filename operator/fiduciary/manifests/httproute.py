"""The HTTPRoute of a model: who answers clients, over REST and over gRPC.

What clients see of a stopped model (kill switch, action Block): every share is 0, which the Gateway API answers with
500 (gRPC: UNKNOWN). Rules without backends would answer 404 (gRPC: UNIMPLEMENTED), which a client could take for a
wrong address and fall back in silence; and a route that is gone leaves host and path to anybody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.api.quantities import timedelta_of
from fiduciary.manifests import owned, versionnames
from fiduciary.manifests.content import sealed

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.serving import GatewayServing, ParentRef
    from fiduciary.manifests.plans import Arm, RoutePlan

Body = dict[str, Any]

GRPC_SERVICE = "/inference.GRPCInferenceService/"
MODEL_HEADER = "fiduciary-model"
"""gRPC metadata with the name of the model: its path names none."""
BUCKET_HEADER = "fiduciary-bucket"
MOST_BUCKETS = 32


def http_route(plan: RoutePlan, gateway: GatewayServing) -> Body:
    """The route as record ``plan.decision`` wants it."""
    model = plan.model
    annotations = {meta.ANNOTATION_DECISION: str(plan.decision)}
    spec: Body = {
        "parentRefs": [parent(ref) for ref in gateway.parent_refs],
        "hostnames": list(gateway.hostnames),  # also where there are none: what somebody adds is taken away then
        "rules": _rules(plan, duration(gateway.timeouts.request)),
    }
    return sealed(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": owned.metadata(
                model, model.metadata.name, annotations, component=meta.SERVING, owned=plan.owned
            ),
            "spec": spec,
        }
    )


def duration(text: str) -> str:
    """A duration as the Gateway API writes it (GEP-2257): no days, at most five digits a unit."""
    milliseconds = int(timedelta_of(text).total_seconds() * 1000)
    parts = ((3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms"))
    made = ""
    for size, unit in parts:
        number, milliseconds = divmod(milliseconds, size)
        made += f"{number}{unit}" if number else ""
    return made or "0s"


def parent(ref: ParentRef) -> Body:
    """A Gateway as a route names it."""
    made: Body = {"name": ref.name}
    if ref.namespace is not None:
        made["namespace"] = ref.namespace
    if ref.section_name is not None:
        made["sectionName"] = ref.section_name
    return made


def _rules(plan: RoutePlan, timeout: str) -> list[Body]:
    """Sticky rules first to the reader's eye; the Gateway API prefers them anyway, as they match one header more."""
    rules: list[Body] = []
    sticky = plan.sticky
    arms = plan.arms
    if sticky is not None:
        if not 0 < len(sticky.buckets) <= MOST_BUCKETS:
            raise ValueError(f"1 to {MOST_BUCKETS} buckets can be listed, not {len(sticky.buckets)}")
        listed = tuple(arm for arm in arms if arm.version.digest == sticky.version.digest)
        arms = tuple(arm for arm in arms if arm.version.digest != sticky.version.digest)
        rules += [
            _rule(plan, [_bucket(match, bucket) for bucket in sticky.buckets], listed, port, timeout)
            for match, port in _matches(plan.model)
        ]
    rules += [_rule(plan, [match], arms, port, timeout) for match, port in _matches(plan.model)]
    return rules


def _matches(model: FinancialModel) -> tuple[tuple[Body, int], ...]:
    """What is ours on the gateway, and the port of the pods that speaks it."""
    rest: Body = {"path": {"type": "PathPrefix", "value": versionnames.model_path(model)}}
    grpc: Body = {
        "path": {"type": "PathPrefix", "value": GRPC_SERVICE},
        "headers": [{"type": "Exact", "name": MODEL_HEADER, "value": versionnames.served_name(model)}],
    }
    return ((rest, versionnames.REST_PORT), (grpc, versionnames.GRPC_PORT))


def _bucket(match: Body, bucket: int) -> Body:
    header = {"type": "Exact", "name": BUCKET_HEADER, "value": str(bucket)}
    return {**match, "headers": [*match.get("headers", []), header]}


def _rule(plan: RoutePlan, matches: list[Body], arms: tuple[Arm, ...], port: int, timeout: str) -> Body:
    name, rest = plan.model.metadata.name, port == versionnames.REST_PORT
    made: Body = {
        "matches": matches,
        "backendRefs": [
            {
                "name": versionnames.service_name(name, arm.version.digest or "", plan.pods),
                "port": port,
                "weight": arm.weight,
            }
            for arm in arms
        ]
        + [{"name": service, "port": at or port, "weight": 0} for service, at in plan.also if at is None or rest],
        "timeouts": {"request": timeout},
    }
    filters = [
        {
            "type": "RequestMirror",
            "requestMirror": {
                "backendRef": {
                    "name": versionnames.mirror_name(name, mirrored.version.digest or "", plan.pods),
                    "port": port,
                },
                # Left out at 100: controllers that know no share mirror everything.
                **({"percent": mirrored.percent} if mirrored.percent < 100 else {}),
            },
        }
        for mirrored in plan.mirrored
    ]
    if filters:
        made["filters"] = filters
    return made
