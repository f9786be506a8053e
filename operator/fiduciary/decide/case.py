"""One FinancialModel under judgement: its world, the time, and what follows from both before anything is decided."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from fiduciary.api import meta
from fiduciary.decide import identity
from fiduciary.decide.belief import objection
from fiduciary.decide.history import History, Verdict, fold

if TYPE_CHECKING:
    from datetime import datetime

    from fiduciary.api.financialmodel import FinancialModelSpec
    from fiduciary.api.modelapproval import ApprovalDecision, ModelApproval
    from fiduciary.api.modelstatus import FinancialModelStatus, TrainingStatus
    from fiduciary.decide.world import JobView, RegistryView, World


@dataclass(frozen=True)
class Case:
    """What policies look at. Every property is derived, none is stored anywhere.

    ``assumed``: a backend that is taken to serve, whatever the log says: how one that is to take over is looked at.
    """

    world: World
    now: datetime
    assumed: str | None = None

    @property
    def spec(self) -> FinancialModelSpec:
        return self.world.model.spec

    @property
    def status(self) -> FinancialModelStatus:
        return self.world.model.status

    @property
    def name(self) -> str:
        return self.world.model.metadata.name

    @property
    def generation(self) -> int:
        return self.world.model.metadata.generation

    @property
    def registry(self) -> RegistryView | None:
        return self.world.registry

    @property
    def registered_model(self) -> str:
        return self.spec.registry.model or f"{self.world.model.metadata.namespace}.{self.name}"

    @property
    def owner(self) -> str:
        """Owner tag on MLflow versions; names, not UIDs, which a restore changes."""
        metadata = self.world.model.metadata
        return f"{self.world.platform.cluster}/{metadata.namespace}/{metadata.name}"

    @cached_property
    def history(self) -> History:
        known = self.world.history
        return fold(self.world.records) if known is None else known

    @cached_property
    def spec_key(self) -> str:
        return identity.spec_key(self.spec)

    @cached_property
    def gates_digest(self) -> str:
        return identity.gates_digest(self.spec.gates)

    @cached_property
    def current(self) -> Verdict | None:
        """The verdict on the newest training that the present spec asked for."""
        if not self.history.verdicts:
            return None  # said before the spec is hashed
        return self.history.newest(self.spec_key)

    @cached_property
    def champion_verdict(self) -> Verdict | None:
        champion = self.history.champion
        return None if champion is None else self.history.verdicts.get(champion.training_key or "")

    @cached_property
    def live_jobs(self) -> tuple[JobView, ...]:
        """Jobs without a stored verdict."""
        return tuple(job for job in self.world.jobs if job.key not in self.history.verdicts and not job.deleting)

    @cached_property
    def job(self) -> JobView | None:
        """The Job of the training that the present spec asks for."""
        wanted = [job for job in self.live_jobs if job.spec_key == self.spec_key]
        return max(wanted, key=lambda job: (job.created_at, job.attempt), default=None)

    @cached_property
    def claim(self) -> TrainingStatus | None:
        """The stored claim, while it is of this spec and has no verdict."""
        claim = self.status.training
        if claim is None or claim.spec_key != self.spec_key or claim.key in self.history.verdicts:
            return None
        return claim

    @property
    def killed(self) -> bool:
        return self.history.kill is not None and self.history.kill.engaged

    def approvals(self, *decisions: ApprovalDecision) -> tuple[ModelApproval, ...]:
        """Acts that no record has answered yet, oldest first."""
        return tuple(
            approval
            for approval in self.world.approvals
            if approval.spec.decision in decisions and approval.metadata.name not in self.history.approvals
        )

    def objection(self, approval: ModelApproval) -> tuple[str, str] | None:
        """Why an act that loosens something is not believed (reason, message); None if it counts."""
        editor = self.world.model.metadata.annotations.get(meta.ANNOTATION_EDITED_BY)
        return objection(approval, self.world.platform, editor)
