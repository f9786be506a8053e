"""The training as a TrainJob of Kubeflow Trainer v2 (trainer.kubeflow.org/v1alpha1).

A TrainJob takes its pods from a runtime. Ours is a TrainingRuntime of the same name, in the model's namespace, whose
pods are confined like those of a Job: nothing of the platform's runtimes, which may ask for anything, is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.manifests import owned
from fiduciary.manifests.job import deadline_seconds, metadata, pods
from fiduciary.manifests.jobset import jobset_spec

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.manifests.contract import Training

Body = dict[str, Any]

API_VERSION = "trainer.kubeflow.org/v1alpha1"
STEP = "trainer.kubeflow.org/trainjob-ancestor-step"
"""Label by which a TrainJob finds the replicated Job that trains."""


def training_runtime(model: FinancialModel, training: Training, egress: str) -> Body:
    """The pods of a TrainJob; it is made first, and goes after it."""
    spec = jobset_spec(model, training, egress)
    for replicated in spec["replicatedJobs"]:
        replicated["template"]["metadata"] = {"labels": {STEP: "trainer"}}
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingRuntime",
        "metadata": owned.metadata(model, training.job),
        "spec": {"mlPolicy": {"numNodes": pods(model)}, "template": {"spec": spec}},
    }


def training_trainjob(model: FinancialModel, training: Training) -> Body:
    """The TrainJob of one training."""
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainJob",
        "metadata": metadata(model, training),
        "spec": {
            "runtimeRef": {"apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": training.job},
            "activeDeadlineSeconds": deadline_seconds(model),
        },
    }
