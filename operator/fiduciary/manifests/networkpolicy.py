"""What training pods may talk to: DNS, MLflow, and the storage that the spec names. Nobody may talk to them but, where
several train together, the others of them.

The policy is named after its content and selects pods by that name, so that each pod keeps the policy that it was
started with, and another data source makes another policy instead of changing one under a running training.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.manifests import workers
from fiduciary.manifests.json_text import compact
from fiduciary.manifests.mounts import data_uri
from fiduciary.manifests.owned import labels, metadata

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fiduciary.api.financialmodel import FinancialModel

LABEL_EGRESS = f"{meta.GROUP}/egress"
"""Pod label: hash of the rules that the pod was started with."""

DNS: dict[str, Any] = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
OBJECT_STORAGE: dict[str, Any] = {"ports": [{"protocol": "TCP", "port": 443}]}


def egress_rules(model: FinancialModel, mlflow_egress: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Egress rules of this model's training.

    Object storage, and what a feature store reads, is reached over HTTPS anywhere: its address is in a Secret that the
    operator does not read. An endpoint on another port needs a policy of the namespace's owner for the pods of this
    model.
    """
    checkpoint = model.spec.training.checkpoint
    uris = (data_uri(model.spec), checkpoint.uri if checkpoint is not None else None)
    remote = model.spec.data.source.feast is not None or any(
        uri is not None and uri.startswith("s3://") for uri in uris
    )
    return [DNS, *(dict(rule) for rule in mlflow_egress), *([OBJECT_STORAGE] if remote else [])]


def egress_id(model: FinancialModel, mlflow_egress: Sequence[Mapping[str, Any]]) -> str:
    """Name of the rules: eight hexadecimal digits of their hash. That workers may talk to each other is one too."""
    rules = [*egress_rules(model, mlflow_egress), *([{"workers": True}] if workers.several(model) else [])]
    return hashlib.sha256(compact(rules).encode()).hexdigest()[:8]


def network_policy(model: FinancialModel, mlflow_egress: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Default deny for the training pods of this model, with the rules above."""
    rules = egress_id(model, mlflow_egress)
    pods = {**labels(model, meta.TRAINING), LABEL_EGRESS: rules}
    with_each_other = workers.peers(model, pods)
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(model, f"{model.metadata.name}-training-{rules}"),
        "spec": {
            "podSelector": {"matchLabels": pods},
            "policyTypes": ["Ingress", "Egress"],
            **({"ingress": [{"from": with_each_other}]} if with_each_other else {}),
            "egress": [*egress_rules(model, mlflow_egress), *({"to": [peer]} for peer in with_each_other)],
        },
    }
