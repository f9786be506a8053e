"""Parts of the API that are accepted and validated before they do anything: said in a condition, never in silence."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiduciary.api.financialmodel import FinancialModelSpec
    from fiduciary.decide.world import Platform


def inactive_fields(spec: FinancialModelSpec, platform: Platform) -> tuple[str, ...]:
    """Fields of a FinancialModel that are set and have no effect in this release."""
    fields: list[str] = []
    if spec.training.engine == "External":
        fields.append("spec.training.engine External (no alias proposes a version)")
    if spec.promotion.experiment is not None and not platform.experiments:
        why = "the operator's settings name no Prometheus, so a challenger is promoted by people"
        fields.append(f"spec.promotion.experiment ({why})")
    template = spec.promotion.experiment
    if template is not None and template.traffic.sticky is not None:
        fields.append(
            "spec.promotion.experiment.traffic.sticky (no route keeps clients with one arm yet: an experiment with it "
            "is Stalled and gives its challenger no request; leave it out)"
        )
    return tuple(fields)
