"""Several pods that train together: where they meet, and who may talk to them.

Each pod knows its number (Kubernetes sets ``JOB_COMPLETION_INDEX`` in pods of an Indexed Job, whoever made that Job)
and where number 0 listens; the rest is torch's (docs/trainer-contract.md, "Several pods").
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.api import meta
from fiduciary.manifests import owned

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModel

Body = dict[str, Any]

PORT = 29500
"""torch's own. The connections between the workers have ports of their own, which nobody knows beforehand."""

SET = "node"
"""Name of the one replicated Job of a JobSet."""


def several(model: FinancialModel) -> bool:
    """Whether the pods of a training share its batches."""
    return model.spec.training.nodes > 1


def subdomain(model: FinancialModel) -> str:
    """The headless Service under which the pods of a plain Job have names."""
    return f"{model.metadata.name}-training"


def environment(model: FinancialModel, job: str) -> dict[str, str]:
    """Where the first pod of a training listens; empty where there is one pod alone.

    A JobSet names its pods under a Service of its own, which has its name; a TrainJob makes a JobSet of its name.
    """
    if not several(model):
        return {}
    plain = model.spec.training.engine == "Job"
    first = f"{job}-0.{subdomain(model)}" if plain else f"{job}-{SET}-0-0.{job}"
    return {"MASTER_ADDR": first, "MASTER_PORT": str(PORT)}


def service(model: FinancialModel) -> Body:
    """Names for the pods of all trainings of a model: ``<Job>-<number>.<model>-training``."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": owned.metadata(model, subdomain(model)),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # they meet before any of them is ready
            "selector": owned.labels(model, meta.TRAINING),
            "ports": [{"name": "meeting", "port": PORT, "protocol": "TCP"}],
        },
    }


def peers(model: FinancialModel, labels: dict[str, str]) -> list[Body]:
    """The workers of this model, with the labels of their pods, as peers of a NetworkPolicy: on any port, and nobody
    else on any."""
    return [{"podSelector": {"matchLabels": labels}}] if several(model) else []
