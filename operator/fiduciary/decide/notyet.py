"""Parts of the API that are accepted and validated before they do anything: said in a condition, never in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fiduciary.api.conditions import Condition, condition
from fiduciary.decide import reasons

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.driftpolicy import DriftPolicy, DriftPolicyStatus
    from fiduciary.api.financialmodel import FinancialModelSpec
    from fiduciary.decide.world import Platform


def inactive_fields(spec: FinancialModelSpec, platform: Platform) -> tuple[str, ...]:
    """Fields of a FinancialModel that are set and have no effect in this release."""
    fields: list[str] = []
    if spec.training.engine != "Job":
        fields.append(f"spec.training.engine {spec.training.engine} (nothing is trained)")
    if spec.promotion.experiment is not None and not platform.experiments:
        why = "the operator's settings name no Prometheus, so a challenger is promoted by people"
        fields.append(f"spec.promotion.experiment ({why})")
    template = spec.promotion.experiment
    if template is not None and spec.serving is not None and spec.serving.backend == "Seldon":
        fields.append(
            "spec.promotion.experiment (requests that Seldon's Servers answer are not counted yet, so a challenger is "
            "promoted by people)"
        )
    if template is not None and template.traffic.sticky is not None:
        fields.append("spec.promotion.experiment.traffic.sticky (each request is drawn by itself)")
    if spec.training.nodes != 1:
        fields.append("spec.training.nodes")
    if spec.data.source.feast is not None:
        fields.append("spec.data.source.feast")
    return tuple(fields)


def decide_driftpolicy(policy: DriftPolicy, now: datetime) -> DriftPolicyStatus:
    """The status of a policy that nothing watches yet."""
    return policy.status.model_copy(update=_not_yet(policy, now, "nothing is watched and nothing is done"))


def _not_yet(resource: DriftPolicy, now: datetime, what: str) -> dict[str, object]:
    message = f"accepted and validated; this release does not act on {resource.kind}s yet: {what}"
    said = (
        (reasons.READY, reasons.NOT_YET_ACTIVE, message),
        (reasons.RECONCILING, reasons.IDLE, "nothing is on its way"),
        (reasons.STALLED, reasons.NO_ACTION_NEEDED, "no person needs to act"),
    )
    before, generation = resource.status.conditions, resource.metadata.generation
    conditions: list[Condition] = [
        condition(before, kind, "False", reason, text, generation=generation, now=now) for kind, reason, text in said
    ]
    return {
        "observed_generation": resource.metadata.generation,
        "phase": "NotYetActive",
        "conditions": tuple(conditions),
    }
