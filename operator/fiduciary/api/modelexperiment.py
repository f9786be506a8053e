"""ModelExperiment: one challenger against one champion, judged by evidence that stays valid however often one looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ATOMIC, ApiModel, CamelCase, Rule, ShortText, Text, Time, list_map
from fiduciary.api.conditions import CONDITIONS_SCHEMA, Conditions
from fiduciary.api.experiment import ExperimentTemplate
from fiduciary.api.meta import Column, Kind, ModelRef, Resource, name_rules
from fiduciary.api.modeldecision import Reason, Traffic
from fiduciary.api.quantities import Decimal, Digest, DnsLabel, Percent, VersionNumber

_FIXED = (
    "modelRef",
    "champion",
    "challenger",
    "purpose",
    "traffic",
    "evidence",
    "objectives",
    "guardrails",
    "circuitBreakers",
    "stopping",
    "noData",
    "calendar",
)


def _unchanged(field: str) -> str:
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"


class ExperimentVersion(ApiModel):
    """A version of the model's registry."""

    version: VersionNumber
    """Number of the version, in quotes."""


class ModelExperimentSpec(ExperimentTemplate):
    """What is compared and how. Only mode, suspend, and approvals (upwards) can be changed."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *(
            Rule(
                _unchanged(field),
                f"{field} of a ModelExperiment cannot be changed, because evidence was gathered under it; only mode, "
                "suspend and approvals (upwards) can: create another ModelExperiment",
                field_path=f".{field}",
            )
            for field in _FIXED
        ),
        Rule(
            "self.approvals >= oldSelf.approvals",
            "approvals may only rise while an experiment exists",
            field_path=".approvals",
        ),
        Rule(
            "!has(self.champion) || self.champion.version != self.challenger.version",
            "champion and challenger must be different versions",
        ),
        Rule(
            "self.purpose != 'Improve' || size(self.objectives) > 0",
            "purpose Improve needs at least one objective",
            field_path=".objectives",
        ),
    )

    model_ref: ModelRef
    """The FinancialModel whose versions are compared."""
    champion: ExperimentVersion | None = None
    """The version that serves. Default: the champion when the experiment starts."""
    challenger: ExperimentVersion
    """The version that wants to serve."""
    purpose: Literal["Improve", "Refresh"] = "Improve"
    """Improve: the challenger has to be better. Refresh: a retrain of the same spec, which has to be no worse than the
    last version that was promoted for being better. Default: Improve."""
    suspend: bool = False
    """No further step and no promotion; safety goes on. Default: false."""


class Harm(ApiModel):
    """The latch that keeps the challenger at weight 0 until the record exists."""

    at: Time
    """When harm was found."""
    test: ShortText
    """Which test found it."""


class Segment(ApiModel):
    """A stretch of the experiment under equal conditions."""

    since: Time
    """When it began."""
    step: DnsLabel | None = None
    """Step of the traffic plan."""
    reason: CamelCase
    """Why a new segment began: StepEntered, or Promoted."""
    blocks: Annotated[int, Field(ge=0)] = 0
    """Blocks folded in it."""


class Interval(ApiModel):
    """A confidence sequence at the present time."""

    low: Decimal
    """Lower end."""
    high: Decimal
    """Upper end."""


Side = Literal["Superiority", "NonInferiority", "Harm", "Watch"]


class DecidingTest(ApiModel):
    """The test that is furthest from shown: status.logE and status.n are its."""

    name: ShortText
    """Objective or guardrail."""
    side: Side
    """What it would show."""
    threshold: Decimal | None = None
    """Value that status.logE has to reach."""


class TestStatus(ApiModel):
    """One test with its evidence."""

    name: ShortText
    """Objective or guardrail that is tested; all: the harm tests together, which is what a rollback rests on."""
    side: Side
    """What the test would show: Superiority (better), NonInferiority (no worse than the margin), Harm (worse), or Watch
    (worse since the promotion, alone, than the previous champion is known to have been)."""
    log_e: Decimal | None = None
    """Natural logarithm of the e-value."""
    threshold: Decimal | None = None
    """Value that logE has to reach, natural logarithm."""
    n: Annotated[int, Field(ge=0)] = 0
    """Blocks or sessions folded."""
    estimate: Decimal | None = None
    """Estimated difference, challenger minus champion, in the metric's unit; of a Watch, to the champion before."""
    interval: Interval | None = None
    """Confidence sequence of the difference: true at all times together with probability 1 - alpha.promote."""
    last_block: Time | None = None
    """End of the last block that was folded, or the day of the last session."""
    waits_for: Text | None = None
    """What the test waits for; absent where it is shown, or over."""
    earliest: Time | None = None
    """When it can be expected to be shown, as things are; absent where that is never (see waitsFor), or over."""


class SampleRatio(ApiModel):
    """Whether requests arrive as they were split."""

    log_e: Decimal | None = None
    """Natural logarithm of the e-value against the split that was asked for."""
    threshold: Decimal | None = None
    """Value of logE that raises the alarm."""
    alarm: bool = False
    """Whether the alarm was raised."""


class DataHealth(ApiModel):
    """Whether the experiment can see."""

    state: CamelCase
    """Good, ChampionDark, ChallengerDark, BothDark or Stale."""
    since: Time | None = None
    """Since when."""
    message: Text | None = None
    """Which series, and what to do."""


class Feasibility(ApiModel):
    """What can be expected of the experiment."""

    blocks_needed: Annotated[int, Field(ge=0)] | None = None
    """Expected number of blocks or sessions to a verdict."""
    expected_at: Time | None = None
    """When the verdict is expected."""


class ApprovalRequest(ApiModel):
    """What a person is asked to approve; frozen until it is decided or harm ends it."""

    digest: Digest
    """Digest of the evidence: copy it into ModelApproval.spec.evidenceDigest."""
    at: Time
    """When it was asked for."""


class ComparedVersion(ApiModel):
    """One of the two versions that are compared, fixed when the experiment starts."""

    version: VersionNumber | None = None
    """Number in the registry."""
    digest: Digest
    """Digest of the artifact: it decides where number and digest disagree."""


class FinalRuling(ApiModel):
    """The verdict that the FinancialModel records and carries out. It is never judged again."""

    verdict: Literal["Promote", "RollBack", "KeepChampion"]
    """What is to be done."""
    reason: CamelCase
    """Stable word for why."""
    message: Text
    """Why, in a sentence with its numbers."""
    at: Time
    """When it was decided."""
    summary: Mapping[str, Any] = Field(default_factory=dict[str, Any], max_length=64)
    """What the record keeps: tests with their evidence, and what of the error budget was used."""
    reasons: tuple[Reason, ...] = Field(default=(), max_length=64)
    """Each claim that was shown, or the one reason."""


class Folded(ApiModel):
    """All that was counted and folded so far: the experiment goes on from it to the same bits."""

    through: Time
    """End of the last block that was folded."""
    digest: Digest
    """SHA-256 over state and counters."""
    state: Annotated[str, Field(max_length=262_144)]
    """Terms, evidence and course, as JSON."""
    counters: Annotated[str, Field(max_length=262_144)] = ""
    """Raw value of each series at the end of the last block, as JSON."""


class ModelExperimentStatus(ApiModel):
    """Where the experiment stands."""

    observed_generation: Annotated[int, Field(ge=-1)] = -1
    """The metadata.generation that this status was computed for; -1 before the first time."""
    phase: CamelCase | None = None
    """Queued, Running, Holding, AwaitingApproval, Promoted, RolledBack or Kept. The conditions are the truth."""
    conditions: Annotated[Conditions, Field(max_length=32, json_schema_extra=CONDITIONS_SCHEMA)] = ()
    """Ready, Reconciling, Stalled, DataHealthy, Underpowered, Approved, InFreeze, Queued, NotYetActive and others."""
    step: DnsLabel | None = None
    """Present step."""
    weight: Percent | None = None
    """Share of live requests that the challenger answers now, in percent."""
    verdict: Literal["Promote", "RollBack", "Hold", "KeepChampion"] | None = None
    """Present or final verdict; RollBack, too, where a promotion was gone back on. The log keeps both."""
    reason: CamelCase | None = None
    """Stable word for why."""
    log_e: Decimal | None = None
    """Natural logarithm of the e-value of the test that decides: of a rollback the one that found harm, else the
    objective or non-inferiority that is furthest from shown. Compare it
    with status.deciding.threshold."""
    n: Annotated[int, Field(ge=0)] | None = None
    """Blocks or sessions folded by that test."""
    deciding: DecidingTest | None = None
    """Which test that is."""
    desired_traffic: Traffic | None = None
    """Weights that the experiment asks the FinancialModel for."""
    harm: Harm | None = None
    """Set when harm was found; keeps the challenger at weight 0."""
    segments: Annotated[tuple[Segment, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    """Stretches under equal conditions, newest first; at most 32."""
    tests: Annotated[tuple[TestStatus, ...], Field(max_length=64, json_schema_extra=list_map("name", "side"))] = ()
    """Each test with its evidence."""
    srm: SampleRatio | None = None
    """Whether requests arrive as they were split."""
    data_health: DataHealth | None = None
    """Whether the experiment can see; of one that is over, what it saw last."""
    feasibility: Feasibility | None = None
    """What can be expected of the experiment."""
    champion: ComparedVersion | None = None
    """The version that the challenger is compared with."""
    challenger: ComparedVersion | None = None
    """The version that wants to serve."""
    ruling: FinalRuling | None = None
    """The final verdict; absent while none is reached."""
    evidence: Folded | None = None
    """What was folded so far; absent before the experiment starts."""
    approval_request: ApprovalRequest | None = None
    """What a person is asked to approve."""
    evidence_digest: Digest | None = None
    """Digest of the evidence as it is now."""


class ModelExperiment(Resource):
    """A comparison of a challenger with the champion of a FinancialModel, on live traffic and on outcomes.

    It publishes the traffic that it wants; the FinancialModel follows one experiment at a time.
    """

    registration: ClassVar[Kind] = Kind(
        singular="modelexperiment",
        plural="modelexperiments",
        short="mx",
        columns=(
            Column("Model", ".spec.modelRef.name"),
            Column("Phase", ".status.phase", description="One word for where the experiment is"),
            Column("Step", ".status.step", description="Present step"),
            Column("Weight", ".status.weight", "integer", description="Challenger's share of live requests, percent"),
            Column("Verdict", ".status.verdict", description="Promote, RollBack, Hold or KeepChampion"),
            Column("LogE", ".status.logE", description="Evidence of the test that decides"),
            Column("N", ".status.n", "integer", description="Blocks or sessions folded by that test"),
            Column("Data", ".status.dataHealth.state", description="Whether the experiment can see"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Challenger", ".spec.challenger.version", wide=True),
            Column("Test", ".status.deciding.name", wide=True, description="The test that decides"),
            Column("Needs", ".status.deciding.threshold", wide=True, description="Value that LogE has to reach"),
            Column("Expected", ".status.feasibility.expectedAt", wide=True, description="When a verdict is expected"),
            Column("Reason", ".status.reason", wide=True),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = name_rules("ModelExperiment", 63)

    kind: Literal["ModelExperiment"] = "ModelExperiment"
    spec: ModelExperimentSpec
    """What is compared and how."""
    status: ModelExperimentStatus = ModelExperimentStatus()
    """Where the experiment stands."""
