"""The same models on every backend, and what clients of a simulated cluster get there."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.decide.world import Connection
from tests.unit.decide.lives import LINEAR, calm, trained
from tests.unit.decide.simulated_world import SimulatedWorld
from tests.unit.decide.worlds import PLATFORM, SERVED, merged

if TYPE_CHECKING:
    from collections.abc import Mapping

GATEWAY: dict[str, Any] = SERVED
KSERVE: dict[str, Any] = merged(SERVED, {"serving": {"backend": "KServe"}})
SELDON: dict[str, Any] = merged(SERVED, {"serving": {"backend": "Seldon"}})
MESH: dict[str, Any] = merged(SERVED, {"serving": {"backend": "Seldon", "gateway": None}})
"""Seldon without a Gateway: clients send the header of the status."""

ALL = {"Gateway": GATEWAY, "KServe": KSERVE, "Seldon": SELDON, "Mesh": MESH}
WORKLOAD = {"Gateway": "Deployment", "KServe": "InferenceService", "Seldon": "Model", "Mesh": "Model"}

_MLFLOW = PLATFORM.connections["mlflow"]
HERE = replace(
    PLATFORM,
    connections={"mlflow": Connection("mlflow", _MLFLOW.tracking_uri, _MLFLOW.trainer_uri, "s3://mlflow")},
)
"""The platform with the store behind MLflow, which Seldon's Servers read."""


def world(spec: Mapping[str, Any]) -> SimulatedWorld:
    return SimulatedWorld(dict(spec), HERE)


def served(spec: Mapping[str, Any]) -> SimulatedWorld:
    """A world whose model serves its first champion."""
    sim = world(spec)
    trained(sim)
    calm(sim)
    assert sim.condition("Ready")[0] == "True", sim.status.body()
    return sim


def challenged(spec: Mapping[str, Any]) -> SimulatedWorld:
    """A served model whose second version waits to be promoted."""
    sim = served(spec)
    sim.edit(LINEAR)
    trained(sim)
    calm(sim)
    assert sim.status.challenger is not None
    return sim


def clients(sim: SimulatedWorld) -> dict[str, int]:
    """Version -> share in percent of what clients get now; nothing: they get errors."""
    serving = sim.serving
    numbers = {record.to.digest: str(record.to.version) for record in sim.records if record.to is not None}

    def number(kind: str, name: str) -> str:
        stored = serving.objects[kind, name]
        digest = stored.body["metadata"]["annotations"][meta.ANNOTATION_DIGEST]
        return str(numbers[serving.loads.get(digest, digest)])

    endpoint = sim.status.endpoint
    lead = endpoint.headers.get("seldon-model", "") if endpoint is not None else ""
    if not lead:
        live = {name: weight for name, weight in serving.taken_over.items() if weight > 0}
        if "seldon-mesh" not in live:
            kinds = {
                name: ("InferenceService", name[:-3]) if name.endswith("-ks") else ("Deployment", name) for name in live
            }
            return {number(*kinds[name]): weight for name, weight in live.items() if serving.objects[kinds[name]].ready}
        lead = serving.taken_lead
    return {number("Model", name): round(100 * share) for name, share in serving.mesh.shares(lead).items()}
