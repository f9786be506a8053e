"""The training as a JobSet (jobset.x-k8s.io/v1alpha2): one Job of all its pods, restarted as a whole.

Our Job, inside: the JobSet gives its pods names, and starts all of them anew when the Job has failed, so the Job itself
has no retries. What ends a Job for good (a final exit code, the deadline) ends the JobSet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.manifests import workers
from fiduciary.manifests.job import job_spec, metadata

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.manifests.contract import Training

Body = dict[str, Any]

API_VERSION = "jobset.x-k8s.io/v1alpha2"
FINAL = ("PodFailurePolicy", "DeadlineExceeded")
"""Reasons of a failed Job after which a restart would only repeat it."""


def training_jobset(model: FinancialModel, training: Training, egress: str) -> Body:
    """The JobSet of one training; ``egress`` names the rules of its NetworkPolicy."""
    return {
        "apiVersion": API_VERSION,
        "kind": "JobSet",
        "metadata": metadata(model, training),
        "spec": jobset_spec(model, training, egress),
    }


def jobset_spec(model: FinancialModel, training: Training, egress: str) -> Body:
    """``spec`` of the JobSet; also of the template in a TrainingRuntime."""
    spec = job_spec(model, training, egress)
    # Retries by number would restart one pod of several, and maxFailedIndexes goes with them.
    inner = {name: value for name, value in spec.items() if name not in ("backoffLimitPerIndex", "maxFailedIndexes")}
    numbered = {"completionMode": "Indexed", "completions": 1, "parallelism": 1}
    return {
        "failurePolicy": {
            "maxRestarts": model.spec.training.retry.limit,
            "rules": [{"name": "final", "action": "FailJobSet", "onJobFailureReasons": list(FINAL)}],
        },
        "replicatedJobs": [
            {"name": workers.SET, "replicas": 1, "template": {"spec": {**numbered, **inner, "backoffLimit": 0}}}
        ],
    }
