"""How an experiment is run: traffic, evidence, what has to be shown and what must not get worse.

These parts are shared by ModelExperiment and by the template in a FinancialModel's ``spec.promotion.experiment``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ATOMIC, ApiModel, Rule, Shape, list_map
from fiduciary.api.data import Calendar
from fiduciary.api.quantities import (
    Decimal,
    DnsLabel,
    Duration,
    Fraction,
    NonNegativeDecimal,
    Percent,
    PositiveDecimal,
    PositiveDuration,
    Probability,
    cel_seconds,
)
from fiduciary.api.schedule import FrozenDays, MarketWindow

ExperimentMode = Literal["Enforce", "Advise", "DryRun"]


class Step(ApiModel):
    """One level of exposure of the challenger."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("self.weight > 0 || self.mirror > 0", "a step needs a weight or a mirror above 0"),
    )

    name: DnsLabel
    """Name of the step, for example canary."""
    weight: Percent = 0
    """Share of live requests that the challenger answers, in percent. Default: 0."""
    mirror: Percent = 0
    """Share of live requests that are copied to the challenger; nobody sees its answers. Percent. Default: 0."""
    min_blocks: Annotated[int, Field(ge=1, le=100_000, json_schema_extra={"format": "int32"})] = 30
    """Blocks without harm before the next step. Default: 30."""


class Sticky(ApiModel):
    """Clients that stay with one arm."""

    header: Annotated[
        str,
        Field(max_length=64),
        Shape(
            "fiduciary-bucket",
            "be fiduciary-bucket, with a value of 0..63 that the client sends; no gateway computes a hash of cookies "
            "or other headers",
        ),
    ]
    """Must be fiduciary-bucket. The client sends a number from 0 to 63, for example a hash of its account."""


_DEFAULT_STEPS = (
    Step(name="shadow", mirror=100, min_blocks=30),
    Step(name="canary", weight=5, mirror=100, min_blocks=30),
    Step(name="half", weight=50, mirror=100, min_blocks=60),
)


class TrafficPlan(ApiModel):
    """How the challenger is exposed, step by step."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.sticky)",
            "no backend of this release keeps clients with one arm, and nobody would count requests that went to the "
            "other one: leave sticky out, and each request is drawn by itself",
            field_path=".sticky",
        ),
    )

    steps: Annotated[
        tuple[Step, ...],
        Field(min_length=1, max_length=16, json_schema_extra=list_map("name")),
        Rule("self.map(s, s.weight).isSorted()", "weights must not fall from one step to the next"),
    ] = _DEFAULT_STEPS
    """Steps in order. A step begins when the challenger's capacity is ready and ends after minBlocks without harm.
    Default: shadow (mirror 100), canary (weight 5), half (weight 50)."""
    sticky: Sticky | None = None
    """Clients stay with one arm. Refused at admission in this release, with any backend. Absent: each request is drawn
    by itself."""


class Alpha(ApiModel):
    """Error probabilities, each valid however often the experiment is looked at."""

    promote: Probability = "0.05"
    """Probability of promoting a challenger that is not better. Default: "0.05"."""
    rollback: Probability = "0.05"
    """Probability of rolling back a challenger that does no harm. Default: "0.05"."""
    srm: Probability = "0.001"
    """Probability of a false alarm on the split of requests (sample ratio mismatch). Default: "0.001"."""


class EvidencePlan(ApiModel):
    """What is counted, and how it is tested."""

    block: PositiveDuration = "1m"
    """Length of a block of requests: aligned to the clock, closed after two scrape intervals. Default: 1m."""
    alpha: Alpha = Alpha()
    """Error probabilities."""
    dispersion: Annotated[PositiveDecimal, Rule("double(self) >= 1.0", 'must be at least "1"')] = "2"
    """How much more the counts of the champion vary than independent requests would, used until enough of its blocks
    exist to estimate it. At least "1". Default: "2"."""
    requests: Literal["Auto", "Gateway", "Runtime"] = "Auto"
    """Whose counters are read: Gateway (the proxies of the one that the operator's settings name: Contour), Runtime
    (the model server), or Auto: the gateway's where it is known. Default: Auto."""
    outcomes: Literal["Auto", "Live", "Prequential"] = "Auto"
    """Live: predictions joined with outcomes as they come. Prequential: the trainer replays both procedures
    walk-forward over the same past days. Auto: Prequential where both procedures are known. Default: Auto."""
    pairing: Literal["EntityTime", "RequestId"] = "EntityTime"
    """How predictions of both arms are paired. EntityTime: by entity and label time. RequestId: by the request's id.
    Default: EntityTime."""
    grace: Duration = "1d"
    """A session closes this long after its label's end; later outcomes are counted, never used. Default: 1d."""


class Objective(ApiModel):
    """Something that the challenger has to be better at."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.metric == 'PaperPnL') == has(self.lossBound)",
            "lossBound belongs to metric PaperPnL, which needs it: the largest loss of one session",
        ),
    )

    name: DnsLabel
    """Name of the objective."""
    metric: Literal["PairedLoss", "PaperPnL"]
    """PairedLoss: by label kind the squared error of log volatility, the Brier score, or the panel rank IC. PaperPnL:
    profit of trading on paper."""
    margin: Decimal = "0"
    """By how much the challenger has to be better, in units of the metric. Default: "0"."""
    loss_bound: PositiveDecimal | None = None
    """Largest loss of one session, in units of the metric; PaperPnL only."""


class Margin(ApiModel):
    """How much worse is still acceptable."""

    absolute: Fraction
    """Largest acceptable difference of the rates, for example "0.005" for half a percent of requests."""


_LATENCY_NEEDS_THRESHOLD = Rule(
    "(self.metric == 'LatencyAbove') == has(self.threshold)",
    "threshold belongs to metric LatencyAbove, which needs it, for example 250ms",
)


class Guardrail(ApiModel):
    """Something that must not get worse: shown for a promotion, and harm rolls back."""

    rules: ClassVar[tuple[Rule, ...]] = (_LATENCY_NEEDS_THRESHOLD,)

    name: DnsLabel
    """Name of the guardrail."""
    metric: Literal["ErrorRate", "ClientErrorRate", "LatencyAbove"]
    """ErrorRate: share of requests that fail (5xx or no answer). ClientErrorRate: share of 4xx. LatencyAbove: share of
    requests slower than threshold."""
    threshold: PositiveDuration | None = None
    """Latency that counts as slow; LatencyAbove only."""
    margin: Margin
    """How much worse is still acceptable."""


class CircuitBreaker(ApiModel):
    """An absolute limit that acts at once; those on pod restarts, kills for memory and zero ready pods always run."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _LATENCY_NEEDS_THRESHOLD,
        Rule(
            "self.metric == 'PaperDrawdown' ? !has(self.normal) : has(self.normal)",
            "normal (the rate on a usual day) is needed for ErrorRate and LatencyAbove and does not apply to "
            "PaperDrawdown",
        ),
        Rule(
            "self.metric == 'PaperDrawdown' || double(self.above) < 1.0",
            'above is a rate for ErrorRate and LatencyAbove: it must be below "1", which no rate is above',
        ),
        Rule("!has(self.normal) || double(self.normal) < double(self.above)", "normal must be smaller than above"),
        Rule(
            "!has(self.normal) || double(self.normal) > 0.0",
            'normal must be above "0": where not one bad request is normal, a single one would be beyond luck',
        ),
    )

    metric: Literal["ErrorRate", "LatencyAbove", "PaperDrawdown"]
    """ErrorRate and LatencyAbove: shares of requests. PaperDrawdown: loss from the peak of trading on paper."""
    threshold: PositiveDuration | None = None
    """Latency that counts as slow; LatencyAbove only."""
    above: NonNegativeDecimal
    """Trips above this rate (below "1"), or above this amount for PaperDrawdown."""
    normal: Fraction | None = None
    """Rate on a usual day, above "0": three unlucky requests do not trip a breaker. Not for PaperDrawdown."""


class Stopping(ApiModel):
    """How long the experiment runs at least and at most."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            f"{cel_seconds('self.minDuration')} <= {cel_seconds('self.maxDuration')}",
            "minDuration must not be longer than maxDuration",
        ),
    )

    min_duration: Duration = "1h"
    """No promotion before. Default: 1h."""
    max_duration: PositiveDuration = "30d"
    """The champion is kept if nothing was shown until then. Default: 30d."""


class NoData(ApiModel):
    """What happens when metrics are missing."""

    max_hold: Duration = "2h"
    """How long the experiment waits for metrics of both arms before the champion is kept. Default: 2h."""


class ExperimentCalendar(ApiModel):
    """When no promotion may happen. Rolling back is always possible."""

    exchange: Calendar
    """Exchange whose sessions count, for example XNYS."""
    no_promote: Annotated[tuple[MarketWindow, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    """Stretches of each session, for example open-15m/open+30m and close-30m/close."""
    freeze: Annotated[tuple[FrozenDays, ...], Field(max_length=32, json_schema_extra=ATOMIC)] = ()
    """Days without promotion, first and last included, for example 2026-12-24/2027-01-02."""


class ExperimentTemplate(ApiModel):
    """How an experiment is run."""

    traffic: TrafficPlan = TrafficPlan()
    """How the challenger is exposed, step by step."""
    evidence: EvidencePlan = EvidencePlan()
    """What is counted, and how it is tested."""
    objectives: Annotated[tuple[Objective, ...], Field(max_length=8, json_schema_extra=list_map("name"))] = (
        Objective(name="loss", metric="PairedLoss"),
    )
    """What the challenger has to be better at; all must be shown. Default: the paired loss of the label kind."""
    guardrails: Annotated[
        tuple[Guardrail, ...], Field(min_length=1, max_length=16, json_schema_extra=list_map("name"))
    ] = (Guardrail(name="errors", metric="ErrorRate", margin=Margin(absolute="0.005")),)
    """What must not get worse; all must be shown, and harm in any rolls back. Default: the error rate, margin
    "0.005"."""
    circuit_breakers: Annotated[tuple[CircuitBreaker, ...], Field(max_length=16, json_schema_extra=ATOMIC)] = ()
    """Absolute limits that act at once, besides those on pods, which always run."""
    stopping: Stopping = Stopping()
    """How long the experiment runs at least and at most."""
    no_data: NoData = NoData()
    """What happens when metrics are missing."""
    calendar: ExperimentCalendar | None = None
    """When no promotion may happen."""
    approvals: Annotated[int, Field(ge=0, le=10, json_schema_extra={"format": "int32"})] = 0
    """Approvals by different people that a promotion needs; the larger of this and the model's counts. Default: 0."""
    mode: ExperimentMode = "Enforce"
    """Enforce: the verdict is carried out. Advise: nothing is promoted, harm still rolls back. DryRun: no route is
    written at all. Default: Enforce."""
