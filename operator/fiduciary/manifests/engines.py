"""What runs a training, by ``spec.training.engine``: the objects that are made for it, in their order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fiduciary.manifests import jobset, trainjob, workers
from fiduciary.manifests.job import training_job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.manifests.contract import Training

Body = dict[str, Any]

API_VERSIONS: Mapping[str, str] = {
    "Job": "batch/v1",
    "JobSet": jobset.API_VERSION,
    "TrainJob": trainjob.API_VERSION,
    "TrainingRuntime": trainjob.API_VERSION,
}
"""Of each kind that a training may consist of. The engine's own kind has its name."""

RUNTIME = "TrainingRuntime"


def training_objects(model: FinancialModel, training: Training, egress: str) -> tuple[Body, ...]:
    """Everything of one training but what confines it; what trains comes last."""
    match model.spec.training.engine:
        case "JobSet":
            return (jobset.training_jobset(model, training, egress),)
        case "TrainJob":
            return (trainjob.training_runtime(model, training, egress), trainjob.training_trainjob(model, training))
        case _:
            named = (workers.service(model),) if workers.several(model) else ()
            return (*named, training_job(model, training, egress))
