"""The job document of ``docs/trainer-contract.md``: everything that a training pod is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fiduciary.manifests.json_text import compact

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.financialmodel import FinancialModel

CONTRACT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Training:
    """One training of a model: its identity, and the settings of the operator that it runs with.

    Attributes:
        key, spec_key, config_key: ``sha256:...``, see ``fiduciary.decide.identity``.
        attempt: from 1; another Job for the same key, after the one before vanished without a verdict.
        as_of: YYYY-MM-DD, resolved.
        trigger: ``{}``, ``{"scheduleTick": RFC 3339}`` or ``{"requestId": name of the ModelApproval}``.
        image: the user's, else the trainer of the operator's release.
        tracking_uri: MLflow as training pods reach it.
    """

    key: str
    spec_key: str
    config_key: str
    attempt: int
    as_of: str
    trigger: Mapping[str, str]
    job: str
    cluster: str
    image: str
    tracking_uri: str
    operator_version: str


def document(model: FinancialModel, training: Training) -> dict[str, Any]:
    """The document as data. Credentials are not in it: they are mounted, and not even their Secret's name is told."""
    data = model.spec.data.body()
    del data["asOf"]  # as written in the spec; the resolved date stands at the top
    for source in data["source"].values():
        source.pop("secretRef", None)
        source.pop("configSecretRef", None)
    everything = model.spec.training.body()
    kept = ("architecture", "hyperparameters", "quantiles", "validation", "search", "seed")
    if (checkpoint := everything.get("checkpoint")) is not None:
        checkpoint.pop("secretRef", None)
    nodes = {"nodes": model.spec.training.nodes} if model.spec.training.nodes > 1 else {}
    metadata = model.metadata
    return {
        "contractVersion": CONTRACT_VERSION,
        "model": {
            "cluster": training.cluster,
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
        },
        "trainingKey": training.key,
        "specKey": training.spec_key,
        "configKey": training.config_key,
        "attempt": training.attempt,
        "trigger": dict(training.trigger),
        "asOf": training.as_of,
        "data": data,
        "training": {name: everything[name] for name in kept if name in everything} | nodes,
        "checkpoint": checkpoint,
        "mlflow": {"trackingUri": training.tracking_uri, "experiment": f"{metadata.namespace}.{metadata.name}"},
        "provenance": {"image": training.image, "operatorVersion": training.operator_version},
    }


def text(model: FinancialModel, training: Training) -> str:
    """The document as canonical JSON: equal trainings make equal Jobs."""
    return compact(document(model, training))
