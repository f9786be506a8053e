"""The document that a serving pod is told by: which version, from where, and what to count (FIDUCIARY_SERVING)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api.experiment import ExperimentTemplate
from fiduciary.api.quantities import timedelta_of
from fiduciary.manifests import outcomes
from fiduciary.manifests.json_text import compact
from fiduciary.manifests.resources import container_resources, threads

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModelSpec
    from fiduciary.manifests.plans import VersionPlan

CONTRACT_VERSION = 1
SERVING_REQUESTS = {"cpu": "100m", "memory": "256Mi"}
EDGES = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Latency edges in seconds. Where an objective needs another one it is added: a share of slow requests is exact only
at an edge."""
RECORDS_BUFFER, RECORDS_BATCH, RECORDS_FLUSH_SECONDS = 10_000, 1_000, 1.0


def latency_edges(spec: FinancialModelSpec) -> list[float]:
    """Edges of the latency histogram in seconds, those of guardrails and breakers among them."""
    template = spec.promotion.experiment or ExperimentTemplate()
    named = [
        rule.threshold for rule in (*template.guardrails, *template.circuit_breakers) if rule.threshold is not None
    ]
    return sorted({*EDGES, *(timedelta_of(threshold).total_seconds() for threshold in named)})


def serving_document(plan: VersionPlan) -> dict[str, Any]:
    """The document as data."""
    metadata, version, environment = plan.model.metadata, plan.version, plan.environment
    serving = plan.model.spec.serving
    resources = container_resources(serving.resources, SERVING_REQUESTS) if serving is not None else {}
    return {
        "contractVersion": CONTRACT_VERSION,
        "namespace": metadata.namespace,
        "model": metadata.name,
        "version": version.version or "",
        "digest": version.digest or "",
        "source": {"runId": version.run_id or "", "uri": version.uri or "", "trackingUri": plan.tracking_uri},
        "latencyEdges": latency_edges(plan.model.spec),
        "records": {
            "url": records_url(plan),
            "buffer": RECORDS_BUFFER,
            "batch": RECORDS_BATCH,
            "flushSeconds": RECORDS_FLUSH_SECONDS,
        },
        "probeKey": environment.probe_key,
        "threads": threads(resources),
        "drainSeconds": environment.drain_seconds,
    }


def records_url(plan: VersionPlan) -> str | None:
    """Where prediction records go: the settings' sink, else the namespace's own scorer if outcomes decide here."""
    environment = plan.environment
    return outcomes.records_url(plan.model.metadata.namespace) if sends_to_scorer(plan) else environment.records_url


def sends_to_scorer(plan: VersionPlan) -> bool:
    """Whether the version's records go to the scorer of its own namespace."""
    environment = plan.environment
    return environment.records_url is None and environment.scoring is not None and outcomes.scored(plan.model.spec)


def serving_text(plan: VersionPlan) -> str:
    """The document as canonical JSON: equal plans make equal pods."""
    return compact(serving_document(plan))
