"""How a challenger becomes champion."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ApiModel, Rule
from fiduciary.api.experiment import ExperimentTemplate
from fiduciary.api.quantities import Digest, Duration, VersionNumber


class Pinned(ApiModel):
    """The version that has to serve."""

    version: VersionNumber
    """Number of the version in the registry, in quotes."""
    digest: Digest
    """Digest of the version. It decides where number and digest disagree, for example after a restored registry."""


class PromotionSpec(ApiModel):
    """How a challenger becomes champion."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.mode == 'Pinned') == has(self.pinned)",
            "pinned {version, digest} belongs to mode Pinned, which needs it",
        ),
    )

    mode: Literal["Auto", "Manual", "Pinned"] = "Auto"
    """Auto: the experiment decides. Manual with a template in experiment: it decides, and at least one ModelApproval of
    its evidence is needed as well. Manual without a template: people alone decide, by ModelApprovals of the evidence in
    status.approvalRequest; so they do in every mode where nothing is served, or where the operator knows no Prometheus.
    Pinned: the version named in pinned serves, whatever experiments, drift and schedules say. Default: Auto."""
    pinned: Pinned | None = None
    """The version that has to serve; mode Pinned only. It must have passed the gates. `git revert` of the commit that
    pins is the rollback."""
    approvals: Annotated[int, Field(ge=0, le=10, json_schema_extra={"format": "int32"})] = 0
    """Approvals by different people that a promotion needs; the larger of this and the experiment's counts. 0 to 10.
    Default: 0."""
    rollback_window: Duration = "24h"
    """How long the previous champion keeps its replicas, and the new one is watched by breakers and tests for harm.
    Default: 24h."""
    experiment: ExperimentTemplate | None = None
    """Template of the ModelExperiment that is created for each challenger; a change counts for those created later.
    Absent: the defaults of ModelExperiment, and in mode Manual no experiment at all."""
