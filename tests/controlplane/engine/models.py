"""FinancialModels for tests of the engine, and what they should become."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.controlplane.server import GROUP, path_of
from tests.unit.decide.worlds import SPEC, merged

if TYPE_CHECKING:
    from tests.controlplane.server import Api, Body


def model(namespace: str, name: str = "spx", change: dict[str, Any] | None = None) -> Body:
    """The HAR model of the samples."""
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": GROUP, "kind": "FinancialModel", "metadata": metadata, "spec": merged(SPEC, change or {})}


def suspended(namespace: str, name: str = "spx") -> Body:
    return model(namespace, name, {"suspend": True})


def status(api: Api, namespace: str, name: str = "spx") -> Body:
    return api.get(path_of("FinancialModel", namespace, name)).get("status") or {}


def phase(api: Api, namespace: str, name: str = "spx") -> str:
    return status(api, namespace, name).get("phase", "")


def settled(api: Api, namespace: str, name: str = "spx") -> bool:
    """The status tells of the present generation."""
    body = api.get(path_of("FinancialModel", namespace, name))
    return (body.get("status") or {}).get("observedGeneration") == body["metadata"]["generation"]


def records(api: Api, namespace: str) -> list[Body]:
    items = api.get(f"/apis/{GROUP}/namespaces/{namespace}/modeldecisions")["items"]
    return sorted((item["spec"] for item in items), key=lambda spec: spec["sequence"])
