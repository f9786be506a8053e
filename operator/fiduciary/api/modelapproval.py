"""ModelApproval: one act of a person, immutable, as the API server saw who made it."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ApiModel, Rule
from fiduciary.api.meta import Column, Kind, ModelRef, Resource, name_rules
from fiduciary.api.quantities import Digest, DnsLabel, VersionNumber

ApprovalDecision = Literal["Approve", "Reject", "Abort", "Retrain", "RollBack", "Kill", "Resume"]


class ModelApprovalSpec(ApiModel):
    """What a person decided. The spec can never be changed; to change your mind, create another ModelApproval."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self == oldSelf",
            "a ModelApproval cannot be changed; create a new one with what you decide now",
        ),
        Rule(
            "!(self.decision in ['Approve', 'Reject']) || has(self.evidenceDigest)",
            "Approve and Reject need evidenceDigest: copy status.approvalRequest.digest of the FinancialModel, or of "
            "the ModelExperiment that you name, so that it is clear which evidence you judged",
        ),
        Rule(
            "self.decision in ['Approve', 'Reject', 'Abort'] || !has(self.experiment)",
            "experiment belongs to Approve, Reject and Abort only; remove it",
        ),
        Rule(
            "self.decision in ['Approve', 'Reject'] || !has(self.evidenceDigest)",
            "evidenceDigest belongs to Approve and Reject only; remove it",
        ),
        Rule(
            "self.decision == 'RollBack' || !has(self.version)",
            "version belongs to RollBack only; remove it",
        ),
    )

    model_ref: ModelRef
    """The FinancialModel that the decision is about."""
    decision: ApprovalDecision
    """Approve or Reject: the challenger. Abort: end the running training, or the experiment that
    is named. Retrain: train once more with newest data. RollBack: go back to the previous champion or to `version`.
    Kill: engage the kill switch. Resume: clear the kill switch, once spec.kill.engaged is false."""
    experiment: DnsLabel | None = None
    """Name of the ModelExperiment that Approve, Reject or Abort is about. Absent: the challenger, or the training, of
    the model itself."""
    evidence_digest: Digest | None = None
    """The evidence that was judged: status.approvalRequest.digest of the model or of the experiment. Needed for Approve
    and Reject."""
    version: VersionNumber | None = None
    """Version to go back to, for RollBack: one that was champion before. Default: the previous champion."""
    approver: Annotated[str, Field(min_length=1, max_length=256)]
    """Who decides. Must be the name under which the API server knows you (`kubectl auth whoami`)."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, in a sentence that will still be understood in a year. It is kept in the decision log."""


class ModelApproval(Resource):
    """A person's act on a FinancialModel: approve, reject, abort, retrain, roll back, kill or resume.

    It is immutable, and who made it is checked against the identity of the request. Records of what followed from it
    are ModelDecisions.
    """

    registration: ClassVar[Kind] = Kind(
        singular="modelapproval",
        plural="modelapprovals",
        short="ma",
        has_status=False,
        columns=(
            Column("Model", ".spec.modelRef.name"),
            Column("Decision", ".spec.decision"),
            Column("Approver", ".spec.approver"),
            Column("Experiment", ".spec.experiment"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Reason", ".spec.reason", wide=True),
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = name_rules("ModelApproval", 63)

    kind: Literal["ModelApproval"] = "ModelApproval"
    spec: ModelApprovalSpec
    """What was decided, by whom and why. Immutable."""
