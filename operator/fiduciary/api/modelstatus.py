"""Status of a FinancialModel: derived from the decision log and the live training, never the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fiduciary.api.base import ATOMIC, ApiModel, CamelCase, ShortText, Text, Time
from fiduciary.api.conditions import CONDITIONS_SCHEMA, Conditions
from fiduciary.api.quantities import Date, Decimal, Digest, DnsLabel, Percent, VersionNumber
from fiduciary.api.versions import StandingVersion


def _as_text(value: Any) -> Any:
    return f"{value:.5g}" if isinstance(value, int | float) and not isinstance(value, bool) else value


class MetricValue(ApiModel):
    """A metric with its value."""

    name: ShortText
    """Name of the metric."""
    value: Annotated[ShortText, BeforeValidator(_as_text)]
    """Value, five significant digits."""


class Progress(ApiModel):
    """How far a training is. Written at most every 15 seconds, and only when it changed."""

    epoch: Annotated[int, Field(ge=0)] | None = None
    """Epochs done, over all folds and members."""
    epochs: Annotated[int, Field(ge=0)] | None = None
    """Epochs to do, over all folds and members."""
    percent: Annotated[int, Field(ge=0, le=100, json_schema_extra={"format": "int32"})] | None = None
    """Share done, in percent."""
    eta_seconds: Annotated[int, Field(ge=0)] | None = None
    """Estimated time to the end, in seconds."""
    last_metric: MetricValue | None = None
    """Metric that was logged last."""
    at: Time | None = None
    """When this was read from the run."""


class SearchProgress(ApiModel):
    """How far the search of a training is."""

    trials: Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})]
    """Trials that have ended, whatever came of them."""
    total: Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})]
    """Trials of the search."""
    running: Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})] = 0
    """Trials that are being carried out."""
    pruned: Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})] = 0
    """Trials that were given up by the pruner."""
    failed: Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})] = 0
    """Trials that failed; their child runs in MLflow say why."""
    best: Annotated[ShortText, BeforeValidator(_as_text)] | None = None
    """Smallest loss of the final model's search so far, inside its training rows; five significant digits."""


class TrainingStatus(ApiModel):
    """The training that is claimed or running."""

    key: Digest
    """Training key: hash of what defines this training."""
    spec_key: Digest | None = None
    """The same hash without asOf and trigger: what the spec asks for."""
    trigger: Mapping[str, str] = Field(default_factory=dict[str, str], max_length=4)
    """What asked for it: {} the spec, {scheduleTick: <RFC 3339>} the schedule, {requestId: <ModelApproval>} a
    person."""
    as_of: Date | None = None
    """Last date whose data may be read, resolved when the training was triggered."""
    job: ShortText | None = None
    """Name of the Job."""
    attempt: Annotated[int, Field(ge=1, json_schema_extra={"format": "int32"})] = 1
    """Number of the Job for this key: a new one is made only after the old one vanished without a verdict."""
    run_id: ShortText | None = None
    """MLflow run."""
    progress: Progress | None = None
    """How far it is."""
    search: SearchProgress | None = None
    """How far its search for hyperparameters is, where it has one."""
    phase: CamelCase | None = None
    """Claimed, Queued, Pending, Running, Retrying, Judging or Registering."""
    since: Time | None = None
    """Since when it has been in this phase."""
    message: Text | None = None
    """What it waits for, and what to do about it."""


class RunRecord(ApiModel):
    """A training that ended."""

    key: Digest
    """Training key."""
    run_id: ShortText | None = None
    """MLflow run."""
    job: ShortText | None = None
    """Name of the Job."""
    attempt: Annotated[int, Field(ge=1, json_schema_extra={"format": "int32"})] | None = None
    """Number of the Job for this key."""
    trigger: Mapping[str, str] = Field(default_factory=dict[str, str], max_length=4)
    """What asked for it."""
    as_of: Date | None = None
    """Last date whose data was read."""
    architecture: ShortText | None = None
    """What was trained."""
    outcome: CamelCase
    """What came of it: Accepted, Rejected, Failed or Aborted."""
    reason: CamelCase | None = None
    """Stable word for why."""
    message: Text | None = None
    """Why, in a sentence."""
    version: VersionNumber | None = None
    """Version in the registry, if it was accepted."""
    digest: Digest | None = None
    """Digest of the artifact, if there is one."""
    decision: Annotated[int, Field(ge=1)] | None = None
    """Sequence number of the ModelDecision with the verdict."""
    report: str | None = Field(default=None, max_length=2048)
    """Where its report can be read in a browser, in MLflow: what was measured, with plots."""
    finished_at: Time | None = None
    """When the verdict was recorded."""


class RejectedVersion(ApiModel):
    """A version that was refused or rolled back; it is not tried again."""

    version: VersionNumber | None = None
    """Number in the registry, if it was registered."""
    digest: Digest | None = None
    """Digest of the artifact."""
    training_key: Digest | None = None
    """Training key."""
    reason: CamelCase
    """Stable word for why."""
    message: Text | None = None
    """Why, with the numbers."""
    at: Time
    """When."""
    decision: Annotated[int, Field(ge=1)] | None = None
    """Sequence number of the ModelDecision."""


class KillStatus(ApiModel):
    """The latched kill switch."""

    engaged: bool
    """Whether the switch is latched."""
    action: Literal["Block", "PreviousChampion"] = "Block"
    """What it does: Block answers no request, PreviousChampion serves the last approved version."""
    since: Time | None = None
    """When it was engaged."""
    by: ShortText | None = None
    """Who engaged it: spec, or the approver of a ModelApproval."""
    decision: Annotated[int, Field(ge=1)] | None = None
    """Sequence number of the ModelDecision that recorded it."""


class ActiveExperiment(ApiModel):
    """The one ModelExperiment that the model follows; others wait as Queued."""

    name: DnsLabel
    """Name of the ModelExperiment."""
    uid: Annotated[str, Field(max_length=64)]
    """Its UID."""


class ApprovalRequest(ApiModel):
    """What people are asked to approve or reject. It stays as it is until the challenger is promoted or gone."""

    digest: Digest
    """Digest of the evidence: what a ModelApproval has to name as evidenceDigest."""
    version: VersionNumber | None = None
    """The version that wants to serve."""
    needed: Annotated[int, Field(ge=1, json_schema_extra={"format": "int32"})] = 1
    """Approvals by different people that are needed."""
    given: Annotated[int, Field(ge=0, json_schema_extra={"format": "int32"})] = 0
    """Approvals that count so far."""
    at: Time | None = None
    """Since when it is asked for."""


class AlphaSpending(ApiModel):
    """How much of the error budget is used up."""

    configurations: Annotated[int, Field(ge=0)] = 0
    """Distinct configurations whose test result somebody saw (N): gates become stricter with it."""
    tests: Annotated[int, Field(ge=0)] = 0
    """Superiority tests started so far (j of e-LOND)."""
    discoveries: Annotated[int, Field(ge=0)] = 0
    """Promotions on superiority so far (R of e-LOND)."""
    margin_consumed: Decimal = "0"
    """Part of the non-inferiority margin that refreshes have consumed since the anchor."""


class TrafficStatus(ApiModel):
    """The split of requests that the log asks for, and whether it is in force."""

    champion: Percent = 0
    """Share of live requests for the champion, in percent."""
    challenger: Percent = 0
    """Share of live requests for the challenger, in percent."""
    mirror: Percent = 0
    """Share of live requests that are copied to the challenger, in percent."""
    step: DnsLabel | None = None
    """Step of the experiment that asked for it."""
    decision: Annotated[int, Field(ge=1)]
    """Sequence number of the ModelDecision that asks for it."""
    since: Time
    """When it was decided: before that moment the split was another one."""
    confirmed_at: Time | None = None
    """When every gateway had taken it over and probes reached the versions that it names; absent while that is not
    so."""


class Endpoint(ApiModel):
    """Where predictions are asked for."""

    url: Annotated[str, Field(max_length=2048)]
    """URL of the model."""
    headers: Mapping[str, str] = Field(default_factory=dict[str, str], max_length=8)
    """Headers that a request needs, for example Host."""


class LastDecision(ApiModel):
    """The newest record of the log."""

    sequence: Annotated[int, Field(ge=1)]
    """Sequence number."""
    action: CamelCase
    """What was decided."""
    digest: Digest | None = None
    """SHA-256 of its spec: what the next record names as previous."""
    at: Time | None = None
    """When it was decided."""


class FinancialModelStatus(ApiModel):
    """What is true of the model now. Lost status is rebuilt from the ModelDecisions."""

    observed_generation: Annotated[int, Field(ge=-1)] = -1
    """The metadata.generation that this status was computed for; -1 before the first time."""
    phase: CamelCase | None = None
    """One word for the list: Pending, Training, Judging, Refused, Registered, Starting, Serving, Shifting, Degraded,
    Suspended, Stalled, Killed or Retiring. The conditions are the truth."""
    conditions: Annotated[Conditions, Field(max_length=32, json_schema_extra=CONDITIONS_SCHEMA)] = ()
    """Ready, Reconciling, Stalled, Trained, GatesPassed, Served, CandidateRejected, RegistryDrift, RouteHijacked,
    PromotionPending, ActRefused, Killed, Suspended, NotYetActive and others, each with what was seen, what was expected
    and what to do."""
    champion: StandingVersion | None = None
    """The version that serves, or will as soon as it is loaded."""
    previous_champion: StandingVersion | None = None
    """The version that served before: what a rollback goes back to."""
    anchor: StandingVersion | None = None
    """The last version promoted on superiority (at first the first champion): refreshes are measured against it."""
    challenger: StandingVersion | None = None
    """The version that wants to serve."""
    approval_request: ApprovalRequest | None = None
    """What people are asked to approve; absent where nobody is asked, or where a ModelExperiment asks them."""
    active_experiment: ActiveExperiment | None = None
    """The one ModelExperiment that the model follows."""
    traffic: TrafficStatus | None = None
    """The split of requests; absent where nothing was ever routed."""
    kill: KillStatus | None = None
    """The latched kill switch; absent if it was never engaged."""
    rejected_versions: Annotated[tuple[RejectedVersion, ...], Field(max_length=20, json_schema_extra=ATOMIC)] = ()
    """Versions that were refused or rolled back, newest first; at most 20."""
    training: TrainingStatus | None = None
    """The training that is claimed or running; absent when none is."""
    runs: Annotated[tuple[RunRecord, ...], Field(max_length=10, json_schema_extra=ATOMIC)] = ()
    """Trainings that ended, newest first; at most 10. The log has them all."""
    alpha_spending: AlphaSpending | None = None
    """How much of the error budget is used up."""
    gates_digest: Digest | None = None
    """Digest of the gates that the stored metrics were last judged by."""
    serving_runtime_digest: Digest | None = None
    """Image digest of the serving runtime that is rolled out."""
    endpoint: Endpoint | None = None
    """Where predictions are asked for."""
    last_decision: LastDecision | None = None
    """The newest record of the log."""
    next_training: Time | None = None
    """Next tick of the schedule."""
