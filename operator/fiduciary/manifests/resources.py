"""What a pod asks of the cluster."""

from __future__ import annotations

from decimal import ROUND_CEILING
from typing import TYPE_CHECKING, Any

from fiduciary.manifests.quantity import parse_quantity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.pods import Resources

TRAINING_REQUESTS = {"cpu": "500m", "memory": "1Gi"}
"""Used for what the spec neither requests nor limits: a pod without requests is the first to be evicted, and is
refused wherever a ResourceQuota counts requests."""


def container_resources(resources: Resources, defaults: Mapping[str, str] = TRAINING_REQUESTS) -> dict[str, Any]:
    """``resources`` of the container: the user's, with the defaults for what is neither requested nor limited."""
    limits = {name: str(value) for name, value in resources.limits.items()}
    requests = {name: str(value) for name, value in resources.requests.items()}
    for name, value in defaults.items():
        if name not in requests and name not in limits:
            requests[name] = value
    made: dict[str, Any] = {"requests": requests}
    return {**made, "limits": limits} if limits else made


def threads(resources: dict[str, Any]) -> int:
    """Threads for numerical libraries: the CPU request rounded up, at least 1. Without it they take every core of the
    node, and a sum over another number of threads is another sum."""
    text = resources.get("requests", {}).get("cpu") or resources.get("limits", {}).get("cpu", "1")
    return max(1, int(parse_quantity(text).to_integral_value(rounding=ROUND_CEILING)))
