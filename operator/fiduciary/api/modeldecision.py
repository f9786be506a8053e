"""ModelDecision: record n of a model's log. The log is the truth; status and registry follow it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ApiModel, CamelCase, Rule, ShortText, Text, Time
from fiduciary.api.meta import Column, Kind, ModelRef, Resource, name_rules
from fiduciary.api.quantities import Digest, DnsLabel, Percent, SubdomainName
from fiduciary.api.versions import VersionRef

DecisionAction = Literal[
    "Accept",
    "Reject",
    "TrainingFailed",
    "Abort",
    "Retrain",
    "Adopt",
    "Shift",
    "Promote",
    "RollBack",
    "Kill",
    "Resume",
    "Retire",
    "Alarm",
]

CauseKind = Literal[
    "Initial",
    "SpecChange",
    "Schedule",
    "Retrain",
    "GatesChanged",
    "Approval",
    "Kill",
    "Resume",
    "Experiment",
    "Drift",
    "Pinned",
    "Breaker",
    "Serving",
    "Restore",
    "Deletion",
]


class DecidedModelRef(ModelRef):
    """The FinancialModel that the record belongs to."""

    uid: Annotated[str, Field(min_length=1, max_length=64)]
    """UID of the FinancialModel when the record was written. A restored model has another one and the same log."""


class Traffic(ApiModel):
    """Weights that the route has to have from this record on, in percent."""

    champion: Percent = 0
    """Share of live requests for the champion, in percent."""
    challenger: Percent = 0
    """Share of live requests for the challenger, in percent."""
    mirror: Percent = 0
    """Share of live requests that are copied to the challenger, in percent."""
    step: DnsLabel | None = None
    """Step of the experiment that asks for these weights."""


class Reason(ApiModel):
    """One of the reasons for a verdict."""

    reason: CamelCase
    """A stable CamelCase word for programs, for example GateFailed."""
    message: Text
    """For people: metric, value, threshold, sample, and what to do."""


class Cause(ApiModel):
    """Why the decision was taken."""

    kind: CauseKind
    """What led to the decision."""
    trigger: Mapping[str, str] = Field(default_factory=dict[str, str], max_length=4)
    """Trigger of the training: {} for the first one, {scheduleTick: <RFC 3339>} or {requestId: <ModelApproval, or
    digest of a request of a DriftPolicy>}."""
    approval: SubdomainName | None = None
    """Name of the ModelApproval that asked for it."""
    experiment: DnsLabel | None = None
    """Name of the ModelExperiment whose verdict it carries out."""
    policy: DnsLabel | None = None
    """Name of the DriftPolicy that asked for it."""
    request: Digest | None = None
    """Digest of what the DriftPolicy asked for: status.requestedAction.digest. Each is carried out once."""
    generation: int | None = Field(default=None, ge=0)
    """metadata.generation of the FinancialModel that was judged."""
    message: Text = ""
    """The verdict in a sentence: metric, value, threshold, and what happens next."""
    reasons: tuple[Reason, ...] = Field(default=(), max_length=64)
    """Each reason by itself: every gate that failed, every check that was not met."""


class Evidence(ApiModel):
    """What the decision rests on: enough to judge again without training."""

    digest: Digest | None = None
    """SHA-256 of the canonical JSON of summary, or of the evidence that an experiment exported."""
    summary: Mapping[str, Any] = Field(default_factory=dict[str, Any], max_length=64)
    """The numbers: what the trainer measured, trainingKey, specKey, configKey, asOf, trigger, gatesDigest, number of
    trials. At most 3 KiB of JSON."""


class Actor(ApiModel):
    """Who wrote the record and on whose behalf."""

    component: ShortText = "fiduciary-operator"
    """Program that wrote the record."""
    version: ShortText = ""
    """Its version."""
    user: ShortText | None = None
    """Person on whose act it rests, as the API server knew them; absent where the operator decided by itself."""


class ModelDecisionSpec(ApiModel):
    """One decision with its evidence. Immutable."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self == oldSelf", "a ModelDecision is a record and cannot be changed; a new decision is a new record"),
        Rule(
            "(self.sequence == 1) == !has(self.previous)",
            "previous is the SHA-256 of the record before: absent in record 1, present in every other one",
            field_path=".previous",
        ),
    )

    model_ref: DecidedModelRef
    """The FinancialModel that the decision is about."""
    sequence: Annotated[int, Field(ge=1)]
    """Number of the record in the log of this model, from 1, without gaps. It is part of the object's name."""
    action: DecisionAction
    """What was decided; Alarm: a DriftPolicy found a drift, and nothing was changed."""
    from_: VersionRef | None = Field(default=None, alias="from")
    """The version that held the place before."""
    to: VersionRef | None = None
    """The version that the decision is about, or that takes the place."""
    traffic: Traffic | None = None
    """Weights that the route has to have from now on; absent where the decision changes none."""
    backend: Literal["Gateway", "Seldon", "KServe"] | None = None
    """What serves from now on: Gateway, Seldon or KServe. Absent: the same as before, and Gateway at first."""
    cause: Cause
    """Why."""
    evidence: Evidence = Evidence()
    """What it rests on."""
    actor: Actor = Actor()
    """Who wrote it."""
    previous: Digest | None = None
    """SHA-256 over the canonical JSON of the spec of record n-1: a chain that cannot be changed unnoticed."""
    decided_at: Time
    """When it was decided."""


class ModelDecision(Resource):
    """Record n of a FinancialModel's decision log, named <model>-<n>.

    Written by the operator only, never changed, and kept when the model is deleted. The chain of hashes in
    spec.previous shows that none was removed or changed.
    """

    registration: ClassVar[Kind] = Kind(
        singular="modeldecision",
        plural="modeldecisions",
        short="md",
        has_status=False,
        columns=(
            Column("Model", ".spec.modelRef.name"),
            Column("Action", ".spec.action"),
            Column("From", ".spec.from.version"),
            Column("To", ".spec.to.version"),
            Column("Cause", ".spec.cause.kind"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Message", ".spec.cause.message", wide=True),
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = (
        *name_rules("ModelDecision", 63),
        Rule(
            "self.metadata.name.startsWith(self.spec.modelRef.name + '-') && "
            "self.metadata.name.substring(size(self.spec.modelRef.name) + 1).matches('^[1-9][0-9]{0,17}$') && "
            "int(self.metadata.name.substring(size(self.spec.modelRef.name) + 1)) == self.spec.sequence",
            "a ModelDecision is named <model>-<sequence>, so that record n can exist once only",
            field_path=".metadata.name",
        ),
    )

    kind: Literal["ModelDecision"] = "ModelDecision"
    spec: ModelDecisionSpec
    """The record."""
