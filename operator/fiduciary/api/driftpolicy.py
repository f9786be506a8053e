"""DriftPolicy: what is watched while a model serves, and what happens when it drifts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ATOMIC, SET, ApiModel, CamelCase, Rule, ShortText, Text, Time, list_map
from fiduciary.api.conditions import CONDITIONS_SCHEMA, Conditions
from fiduciary.api.data import Calendar
from fiduciary.api.meta import Column, Kind, ModelRef, Resource, name_rules
from fiduciary.api.quantities import Decimal, Digest, DnsLabel, Duration, Fraction, NonNegativeDecimal, PositiveDuration
from fiduciary.api.schedule import FrozenDays

DriftAction = Literal["Alert", "Retrain", "RollBack"]


class Window(ApiModel):
    """A stretch of data that is judged at a time: rows per entity, or a length of time. Aligned, not overlapping."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.rows) != has(self.length)", "set exactly one of rows and length"),
        Rule("!has(self.minCount) || has(self.length)", "minCount belongs to length; rows say how many there are"),
        Rule("!has(self.calendar) || has(self.rows)", "calendar belongs to rows"),
    )

    rows: Annotated[int, Field(ge=5, le=10_000, json_schema_extra={"format": "int32"})] | None = None
    """Rows per entity. At least 5 times the memory of a feature, else the feature is Unknown."""
    calendar: Calendar | None = None
    """Exchange whose sessions are the rows. Default: the calendar of the model's data."""
    length: PositiveDuration | None = None
    """Length of time, for data within the day."""
    min_count: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Fewest rows in a window of length; fewer are Unknown, never a pass."""


class FalseAlarms(ApiModel):
    """How often the policy may be wrong."""

    ert_windows: Annotated[int, Field(ge=50, le=1_000_000)] = 2160
    """Expected number of windows between two false alarms, over all monitors together. Default: 2160."""


class HistogramSource(ApiModel):
    """Counts of a histogram, compared with the reference that the version carries."""

    metric: Literal["feature", "prediction", "joint"]
    """feature: each input of the model. prediction: its output. joint: distance of the inputs together from their
    centre (Mahalanobis), which sees a correlation that broke while each input looks as before."""


class MissingRate(ApiModel):
    """Rows in which a feature has no value, or one that lies far outside of what training saw."""

    above: Fraction = "0.02"
    """Alarm where a feature is missing in more than this share of a window's rows, and chance does not explain it.
    Default: "0.02"."""


class RealisedLoss(ApiModel):
    """Loss of the predictions whose outcomes are known."""

    against: Literal["PreviousVersion", "Reference"] = "PreviousVersion"
    """What the loss is compared with. PreviousVersion: the previous champion's on the same rows. Reference: the loss of
    the version's walk-forward. Default: PreviousVersion."""


class RealisedCalibration(ApiModel):
    """Predicted probabilities beside what happened; label Direction only."""


class Outcomes(ApiModel):
    """How predictions meet their outcomes, for monitors of what was realised."""

    pairing: Literal["EntityTime", "RequestId"] = "EntityTime"
    """What joins a prediction with its outcome. EntityTime: entity and time of the row. RequestId: the request's id.
    Default: EntityTime."""
    grace: Duration = "1d"
    """A session is closed this long after its label's end; outcomes that come later are counted, never used. Default:
    1d."""


class Monitor(ApiModel):
    """Something that is watched: exactly one of histogram, missing, query, realisedLoss and calibration."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.histogram) ? 1 : 0) + (has(self.missing) ? 1 : 0) + (has(self.query) ? 1 : 0) + "
            "(has(self.realisedLoss) ? 1 : 0) + (has(self.calibration) ? 1 : 0) == 1",
            "set exactly one of histogram, missing, query, realisedLoss and calibration",
        ),
        Rule(
            "has(self.histogram) == has(self.statistic)",
            "statistic belongs to histogram, which needs it: PSI, JS, KS or Wasserstein",
        ),
        Rule(
            "!has(self.minEffect) || has(self.histogram) || has(self.realisedLoss) || has(self.calibration)",
            "minEffect belongs to histogram, realisedLoss and calibration",
        ),
        Rule(
            "has(self.query) ? has(self.above) != has(self.below) : !has(self.above) && !has(self.below)",
            "a query needs exactly one of above and below; other monitors have neither",
        ),
        Rule(
            "!self.actions.exists(a, a == 'RollBack') || (!has(self.histogram) && !has(self.calibration) && "
            "(!has(self.realisedLoss) || self.realisedLoss.against == 'PreviousVersion'))",
            "RollBack belongs to missing, query and realisedLoss against PreviousVersion: where the inputs or the "
            "market drifted, the version before has drifted as well",
        ),
    )

    name: DnsLabel
    """Name of the monitor."""
    histogram: HistogramSource | None = None
    """Counts of a histogram, compared with the reference that the version carries."""
    missing: MissingRate | None = None
    """Rows in which a feature has no value, or one that lies far outside of what training saw."""
    query: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """PromQL that yields one number per window. It is confined to this namespace."""
    realised_loss: RealisedLoss | None = None
    """Loss of the predictions whose outcomes are known."""
    calibration: RealisedCalibration | None = None
    """Predicted probabilities beside what happened, compared with those of the walk-forward."""
    statistic: Literal["PSI", "JS", "KS", "Wasserstein"] | None = None
    """Distance of the histograms: PSI (population stability index), JS (Jensen-Shannon), KS (Kolmogorov-Smirnov) or
    Wasserstein. Histogram only."""
    min_effect: NonNegativeDecimal | None = None
    """Size that matters: a smaller one never alarms, however certain. histogram: the distance. realisedLoss: mean loss
    above that of the walk-forward, or of the previous version. calibration: root mean square of event rate less
    probability, so that "0.05" is five points. Default: "0"."""
    above: Decimal | None = None
    """Alarm above this value; query only."""
    below: Decimal | None = None
    """Alarm below this value; query only."""
    for_windows: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})] = 1
    """Windows in a row before the alarm. Default: 1."""
    actions: Annotated[tuple[DriftAction, ...], Field(min_length=1, max_length=3, json_schema_extra=SET)]
    """What an alarm does: Alert, Retrain, RollBack."""

    @property
    def realised(self) -> bool:
        """Whether it is judged from outcomes."""
        return self.realised_loss is not None or self.calibration is not None

    @property
    def beside_previous(self) -> bool:
        """Whether it needs the previous version's predictions."""
        return self.realised_loss is not None and self.realised_loss.against == "PreviousVersion"


class AlertAction(ApiModel):
    """Where alerts go."""

    alertmanager: DnsLabel = "alertmanager"
    """Alertmanager: an entry of the operator's settings, never an address. Default: alertmanager."""
    severity: Literal["info", "warning", "critical"] = "warning"
    """Label severity of the alert. Default: warning."""
    sink: DnsLabel | None = None
    """Receiver of CloudEvents: an entry of the operator's settings, never an address. Absent: none."""


class RetrainAction(ApiModel):
    """When a retrain is asked for."""

    cooldown: Duration = "24h"
    """Shortest time between an action of this policy, whether a retrain or a rollback, and its next retrain.
    Default: 24h."""
    max_per_week: Annotated[int, Field(ge=1, le=100, json_schema_extra={"format": "int32"})] = 2
    """Most retrains in seven days. Default: 2."""
    min_new_rows: Annotated[int, Field(ge=0, le=1_000_000_000)] = 250
    """Fewest new rows per entity since the last training: the same rows train the same model. Default: 250."""


class RollBackAction(ApiModel):
    """When a rollback is asked for."""

    only_within: Duration = "7d"
    """Only this long after a promotion: later, the previous version has drifted as well. Default: 7d."""
    max_per_day: Annotated[int, Field(ge=1, le=10, json_schema_extra={"format": "int32"})] = 1
    """Most rollbacks in 24 hours. Default: 1."""


class DriftActions(ApiModel):
    """Limits and details of the actions."""

    alert: AlertAction = AlertAction()
    """Where alerts go."""
    retrain: RetrainAction = RetrainAction()
    """When a retrain is asked for."""
    roll_back: RollBackAction = RollBackAction()
    """When a rollback is asked for."""


class Guards(ApiModel):
    """What holds actions back. Monitors go on."""

    dry_run: bool = False
    """Report only, ask for nothing. Default: false."""
    freeze: Annotated[tuple[FrozenDays, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    """Days without retrain, first and last included, for example 2026-12-24/2027-01-02."""


class DriftPolicySpec(ApiModel):
    """What is watched and what happens."""

    model_ref: ModelRef
    """The FinancialModel that is watched."""
    window: Window
    """A stretch of data that is judged at a time."""
    false_alarms: FalseAlarms = FalseAlarms()
    """How often the policy may be wrong."""
    outcomes: Outcomes = Outcomes()
    """How predictions meet their outcomes."""
    monitors: Annotated[tuple[Monitor, ...], Field(min_length=1, max_length=32, json_schema_extra=list_map("name"))]
    """What is watched."""
    actions: DriftActions = DriftActions()
    """Limits and details of the actions."""
    guards: Guards = Guards()
    """What holds actions back."""


class MonitorStatus(ApiModel):
    """What a monitor saw last."""

    name: DnsLabel
    """Name of the monitor."""
    state: Literal["Stable", "Drifting", "Drifted", "Unknown"]
    """Stable, Drifting (evidence grows), Drifted (alarm) or Unknown (too few rows, no data, no reference)."""
    score: Decimal | None = None
    """Evidence of drift after the last window: the sum that the threshold is for (histogram, realisedLoss,
    calibration), the value (query), the largest share (missing)."""
    threshold: Decimal | None = None
    """Score that raises the alarm."""
    distance: Decimal | None = None
    """Size of what is seen since the evidence began to grow, less what sampling alone shows; of the worst feature.
    Compared with minEffect, where its unit is told."""
    estimate: Decimal | None = None
    """Of realisedLoss: the mean loss of the newest window of rows, whose outcomes are not known yet, as the
    walk-forward's forecasts of this kind lost. An estimate: it assumes that forecasts are worth what they were worth in
    training, and no alarm rests on it."""
    drifted: Annotated[tuple[ShortText, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    """Features that drifted, worst first; at most 32."""
    last_window: Time | None = None
    """End of the last window that was judged."""
    message: Text | None = None
    """What was seen, what was expected, what happens next."""


class Detector(ApiModel):
    """The detector's reference."""

    reference_blocks: Annotated[int, Field(ge=0)] = 0
    """Blocks of the reference; below 50 the scores are descriptive only."""
    threshold: Decimal | None = None
    """Threshold of the CUSUM that keeps falseAlarms."""
    digest: Digest | None = None
    """Digest of the reference and of the detector's state."""


class RequestedAction(ApiModel):
    """What the policy asks the FinancialModel for."""

    kind: Literal["Retrain", "RollBack"]
    """What is asked for."""
    reason: Text
    """Why, with the numbers."""
    digest: Digest
    """Digest of the evidence."""
    at: Time
    """When it was asked for."""
    evidence: Mapping[str, Any] = Field(default_factory=dict[str, Any], max_length=64)
    """What the record of it keeps: windows, scores, thresholds and digests when it was asked for. At most 3 KiB."""


class TakenAction(ApiModel):
    """An action that was taken."""

    kind: DriftAction
    """What was done."""
    monitor: ShortText
    """Monitors that alarmed."""
    at: Time
    """When."""
    message: Text | None = None
    """Why, with the numbers."""


class FoldedWindows(ApiModel):
    """All that was counted and folded so far: the detectors go on from it to the same bits."""

    digest: Digest
    """SHA-256 of the text in state."""
    state: Annotated[str, Field(max_length=262_144)]
    """Detectors, alarms and raw counts at the end of the last window, as JSON."""


class DriftPolicyStatus(ApiModel):
    """What was seen and done."""

    observed_generation: Annotated[int, Field(ge=-1)] = -1
    """The metadata.generation that this status was computed for; -1 before the first time."""
    phase: CamelCase | None = None
    """Stable, Drifting, Drifted, Unknown or Suspended. The conditions are the truth."""
    conditions: Annotated[Conditions, Field(max_length=32, json_schema_extra=CONDITIONS_SCHEMA)] = ()
    """Ready, Reconciling, Stalled, Drifted, DataHealthy, ActionHeld, Suspended, NotYetActive and others."""
    worst: ShortText | None = None
    """Monitor that is nearest to, or furthest beyond, its threshold."""
    score: ShortText | None = None
    """Its score and its threshold, for example 4.1/9.3."""
    next_action: ShortText | None = None
    """What is asked for, or would be, and what holds it."""
    monitors: Annotated[tuple[MonitorStatus, ...], Field(max_length=32, json_schema_extra=list_map("name"))] = ()
    """What each monitor saw last."""
    detector: Detector | None = None
    """The detector's reference."""
    evidence: FoldedWindows | None = None
    """What was folded so far; absent before the first window."""
    last_window: Time | None = None
    """End of the last window that was judged."""
    next_window: Time | None = None
    """End of the window that is judged next."""
    requested_action: RequestedAction | None = None
    """What the policy asks the FinancialModel for."""
    actions: Annotated[tuple[TakenAction, ...], Field(max_length=20, json_schema_extra=ATOMIC)] = ()
    """Actions taken, newest first; at most 20."""


class DriftPolicy(Resource):
    """A watch over a serving model: its inputs, its predictions and its realised loss.

    An alarm alerts, asks the FinancialModel for a retrain, or for a rollback, within the limits given.
    """

    registration: ClassVar[Kind] = Kind(
        singular="driftpolicy",
        plural="driftpolicies",
        short="dp",
        max_name=40,
        columns=(
            Column("Model", ".spec.modelRef.name"),
            Column("State", ".status.phase", description="One word for the state"),
            Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', description="Why it is (not) judged"),
            Column("Worst", ".status.worst", description="Monitor that is nearest to its threshold"),
            Column("Score", ".status.score", description="Its score and the threshold of the alarm"),
            Column("Window", ".status.lastWindow", "date", description="Age of the last window that was judged"),
            Column("Next", ".status.nextAction", description="Action that is asked for, or what holds it"),
            Column("Age", ".metadata.creationTimestamp", "date"),
            Column("Message", '.status.conditions[?(@.type=="Ready")].message', wide=True),
        ),
    )
    rules: ClassVar[tuple[Rule, ...]] = name_rules("DriftPolicy", 40)

    kind: Literal["DriftPolicy"] = "DriftPolicy"
    spec: DriftPolicySpec
    """What is watched and what happens."""
    status: DriftPolicyStatus = DriftPolicyStatus()
    """What was seen and done."""
