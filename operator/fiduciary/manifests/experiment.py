"""The ModelExperiment that judges a challenger: the model's template, written out, and the version that it is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fiduciary.api import meta
from fiduciary.api.experiment import ExperimentTemplate
from fiduciary.manifests import owned

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModel
    from fiduciary.api.versions import VersionRef

COMPONENT = "experiment"


def experiment(
    model: FinancialModel, name: str, challenger: VersionRef, purpose: Literal["Improve", "Refresh"]
) -> dict[str, Any]:
    """Every default is written out: an operator that comes later must not change what evidence was gathered under.

    It names no champion: that is the one that serves when the experiment starts.
    """
    template = model.spec.promotion.experiment or ExperimentTemplate()
    if purpose == "Improve" and not template.objectives:
        template = template.model_copy(update={"objectives": ExperimentTemplate().objectives})
    metadata = owned.metadata(model, name, component=COMPONENT)
    # The experiment holds a finalizer until its verdict is in the log of the model: nothing may wait for both.
    metadata["ownerReferences"] = [{**owner, "blockOwnerDeletion": False} for owner in metadata["ownerReferences"]]
    return {
        "apiVersion": meta.API_VERSION,
        "kind": "ModelExperiment",
        "metadata": metadata,
        "spec": {
            "modelRef": {"name": model.metadata.name},
            "challenger": {"version": challenger.version},
            "purpose": purpose,
            **template.body(),
        },
    }
