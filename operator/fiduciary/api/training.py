"""How a model is trained: architecture, validation, search, and the Job that does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from fiduciary.api.base import ATOMIC, ApiModel, Rule, Shape
from fiduciary.api.data import Calendar, LocalRef, StorageUri
from fiduciary.api.pods import PodTemplate, Resources
from fiduciary.api.quantities import Decimal, DnsLabel, NonNegativeDecimal, PositiveDuration, Probability

Architecture = Literal[
    "EWMA",
    "HAR",
    "BaseRate",
    "Logistic",
    "Linear",
    "MLP",
    "LSTM",
    "GRU",
    "TCN",
    "Transformer",
    "Ensemble",
]
REFERENCE_ARCHITECTURES: frozenset[str] = frozenset({"EWMA", "HAR", "BaseRate"})
NETWORK_ARCHITECTURES: frozenset[str] = frozenset({"MLP", "LSTM", "GRU", "TCN", "Transformer", "Ensemble"})
"""Trained by epochs."""


def _cron_field(value: str) -> str:
    item = rf"(\*|{value}(-{value})?)(/[1-9][0-9]?)?"
    return rf"{item}(,{item})*"


_MONTH = "0?[1-9]|1[0-2]|JAN|FEB|MAR|APR|MAY|JUN|JUL|AUG|SEP|OCT|NOV|DEC"
_WEEKDAY = "[0-7]|SUN|MON|TUE|WED|THU|FRI|SAT"
_CRON = " ".join(
    _cron_field(f"({value})")
    for value in ("[0-5]?[0-9]", "[01]?[0-9]|2[0-3]", "0?[1-9]|[12][0-9]|3[01]", _MONTH, _WEEKDAY)
)

_KEYS_ARE_NAMES = Rule(
    "self.all(k, size(k) <= 63 && k.matches('^[a-z][A-Za-z0-9]*$'))",
    "names must be lowerCamelCase and at most 63 characters long, for example learningRate",
)

Hyperparameter = int | Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.+-]+$")]
Hyperparameters = Annotated[Mapping[str, Hyperparameter], Field(max_length=64), _KEYS_ARE_NAMES]


QuantileLevel = Annotated[
    Probability, Rule("double(self) >= 0.001 && double(self) <= 0.999", "a level must be from 0.001 to 0.999")
]


class Dimension(ApiModel):
    """Values that the search may try for one hyperparameter: exactly one of int, decimal and choice."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.int) ? 1 : 0) + (has(self.decimal) ? 1 : 0) + (has(self.choice) ? 1 : 0) == 1",
            "set exactly one of int: [low, high], decimal: [low, high] and choice: [...]",
        ),
        Rule("!has(self.int) || self.int[0] < self.int[1]", "int must be [low, high] with low < high"),
        Rule(
            "!has(self.decimal) || double(self.decimal[0]) < double(self.decimal[1])",
            "decimal must be [low, high] with low < high",
        ),
        Rule(
            "!self.log || (has(self.int) && self.int[0] > 0) || (has(self.decimal) && double(self.decimal[0]) > 0.0)",
            "log needs int or decimal with a low end above 0",
        ),
    )

    int_: Annotated[tuple[int, ...], Field(min_length=2, max_length=2, json_schema_extra=ATOMIC)] | None = Field(
        default=None, alias="int"
    )
    """Integers from low to high, both included: [8, 64]."""
    decimal: Annotated[tuple[Decimal, ...], Field(min_length=2, max_length=2, json_schema_extra=ATOMIC)] | None = None
    """Decimals from low to high, in quotes: ["0.0001", "0.1"]."""
    choice: (
        Annotated[
            tuple[Annotated[str, Field(min_length=1, max_length=64)], ...],
            Field(min_length=2, max_length=32, json_schema_extra=ATOMIC),
        ]
        | None
    ) = None
    """Texts to choose from."""
    log: bool = False
    """Draw on a logarithmic scale. Default: false."""


class Search(ApiModel):
    """A search for hyperparameters, nested inside each set of training rows: no test row has a say in what is tested on
    it. Its trials count as one configuration tried, since nobody sees how they do on test rows."""

    trials: Annotated[int, Field(ge=1, le=1000, json_schema_extra={"format": "int32"})] = 20
    """Configurations that each search tries; a grid may have fewer. 1 to 1000. Default: 20."""
    parallelism: Annotated[int, Field(ge=1, le=64, json_schema_extra={"format": "int32"})] = 1
    """Trials at the same time, each in a pod of its own; more than 1 needs training.checkpoint, where pods find each
    other's trials. A trial knows the results of those before the ones that run beside it. 1 to 64. Default: 1."""
    sampler: Literal["TPE", "Random", "Grid"] = "TPE"
    """How configurations are drawn: TPE (the first ten at random), Random, or Grid (as many evenly spaced values of
    each range as trials has room for). Default: TPE."""
    pruner: Literal["Median", "None"] = "Median"
    """Median: a trial whose loss so far is above the median of those that came to their end, at least five, is given
    up. None: every trial comes to its end. Default: Median."""
    space: Annotated[Mapping[str, Dimension], Field(min_length=1, max_length=16), _KEYS_ARE_NAMES]
    """Hyperparameters that are searched, with the values that each may take; none that training.hyperparameters
    sets."""


class Validation(ApiModel):
    """How the model is measured out of sample."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.scheme == 'CombinatorialPurged' ? has(self.testFolds) : !has(self.testFolds)",
            "testFolds belongs to scheme CombinatorialPurged, which needs it",
        ),
        Rule("!has(self.testFolds) || self.testFolds < self.folds", "testFolds must be smaller than folds"),
    )

    scheme: Literal["WalkForward", "CombinatorialPurged"] = "WalkForward"
    """WalkForward: train on the past, test on the next fold. CombinatorialPurged: in addition all combinations of
    test folds, for dispersion and the probability of backtest overfitting; gates read walk-forward either way.
    Default: WalkForward."""
    folds: Annotated[int, Field(ge=2, le=50, json_schema_extra={"format": "int32"})] = 6
    """Number of folds, 2 to 50. Default: 6."""
    test_folds: Annotated[int, Field(ge=1, le=10, json_schema_extra={"format": "int32"})] | None = None
    """Folds that are tested at a time; CombinatorialPurged only."""
    purge: Annotated[int, Field(ge=0, le=10_000, json_schema_extra={"format": "int32"})] = 1
    """Rows dropped from the end of a training fold, beyond those whose labels overlap the test fold. Default: 1."""
    embargo: Annotated[int, Field(ge=0, le=10_000, json_schema_extra={"format": "int32"})] = 66
    """Rows left out between test and training data, at least the longest memory of the features, so that a test row
    shares no input with a training row. Default: 66."""
    window: Annotated[int, Field(ge=100, le=100_000, json_schema_extra={"format": "int32"})] | None = None
    """Sessions that a fold of the walk-forward trains on at most, the latest before it (rolling). Absent: all before it
    (expanding)."""
    cost_bps: NonNegativeDecimal = "2"
    """Cost of a trade in basis points of its value, for profit, Sharpe ratio and drawdown. Default: "2"."""


class ExternalTraining(ApiModel):
    """Versions that are trained elsewhere."""

    alias: Annotated[
        str,
        Field(min_length=1, max_length=64),
        Shape(r"[a-z][a-z0-9_-]*", "be an alias: lower-case letters, digits, '_' and '-'"),
        Rule(
            "!(self in ['champion', 'challenger', 'latest'])", "champion, challenger and latest are set by the operator"
        ),
    ]
    """Alias in the registry: whoever sets it on a version proposes that version as a challenger."""


class Schedule(ApiModel):
    """When to train again."""

    cron: Annotated[
        str,
        Field(min_length=1, max_length=120),
        Shape(
            _CRON,
            "have five fields: minute, hour, day of month, month, day of week; "
            'for example "0 22 * * 1-5" for 22:00 on weekdays',
        ),
    ]
    """Minute, hour, day of month, month, day of week, for example "0 22 * * 1-5"."""
    time_zone: Annotated[
        str,
        Field(min_length=1, max_length=64),
        Shape(
            r"(UTC|[A-Z][A-Za-z_]+(/[A-Z][A-Za-z0-9_+-]+){1,2})",
            "be UTC or a name of the IANA time zone database such as America/New_York",
        ),
    ] = "UTC"
    """Time zone of the cron expression, for example America/New_York. Default: UTC."""
    calendar: Calendar | None = None
    """Exchange: ticks on days without a session there are left out. Default: spec.data.calendar."""


class Retry(ApiModel):
    """What happens when a training fails. Refused data and a bad contract are never retried."""

    limit: Annotated[int, Field(ge=0, le=20, json_schema_extra={"format": "int32"})] = 2
    """How often a failed training is started again; it resumes from its checkpoint. 0 to 20. Default: 2."""


class Checkpoint(ApiModel):
    """Where a training keeps its state, so that a retry goes on instead of beginning again."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.secretRef) || self.uri.startsWith('s3:')",
            "secretRef belongs to s3://: a claim needs no credentials",
        ),
    )

    uri: Annotated[
        StorageUri,
        Rule(
            "!self.startsWith('file:')",
            "must be s3://bucket/path or pvc://claim/path: what is written to the file system of a pod ends with it",
        ),
    ]
    """s3://bucket/path or pvc://claim/path. The training key is added, so that no training resumes another's state."""
    every: Annotated[int, Field(ge=1, le=10_000, json_schema_extra={"format": "int32"})] = 1
    """Epochs between two checkpoints. Default: 1."""
    secret_ref: LocalRef | None = None
    """Secret with the credentials of an s3:// address, mounted into the training Job only. Its owner allows that with
    the label fiduciary.dev/consumable: "true". Absent: those of the data source's Secret, if it has one."""


class TrainingSpec(ApiModel):
    """How the model is trained."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.engine == 'External' || has(self.architecture)",
            "architecture is needed unless engine is External",
            field_path=".architecture",
        ),
        Rule(
            "(self.engine == 'External') == has(self.external)",
            "external belongs to engine External, which needs it",
        ),
        Rule(
            "self.nodes == 1 || (has(self.architecture) && self.architecture in "
            "['MLP', 'LSTM', 'GRU', 'TCN', 'Transformer', 'Ensemble'])",
            "more than one node needs an architecture that is trained in batches, which the nodes share: MLP, LSTM, "
            "GRU, TCN, Transformer or Ensemble",
            field_path=".nodes",
        ),
        Rule(
            "self.nodes == 1 || !has(self.search)",
            "more than one node and a search exclude each other: its trials are shared out by search.parallelism, "
            "which gains more",
            field_path=".nodes",
        ),
        Rule(
            "!has(self.quantiles) || (has(self.architecture) && self.architecture in "
            "['Linear', 'MLP', 'LSTM', 'GRU', 'TCN', 'Transformer', 'Ensemble'])",
            "quantiles need an architecture that can be trained with pinball loss: Linear, MLP, LSTM, GRU, TCN, "
            "Transformer or Ensemble; the others forecast one number",
            field_path=".quantiles",
        ),
        Rule(
            "!has(self.search) || self.search.parallelism == 1 || has(self.checkpoint)",
            "search.parallelism above 1 needs checkpoint: pods find each other's trials there",
        ),
        Rule(
            "!has(self.search) || !has(self.hyperparameters) || "
            "self.search.space.all(name, !(name in self.hyperparameters))",
            "a hyperparameter is set in hyperparameters or searched in search.space, not both",
        ),
        Rule(
            "self.engine != 'External' || !has(self.schedule)",
            "a schedule does not apply to engine External: whoever trains the versions decides when",
        ),
    )

    engine: Literal["Job", "JobSet", "TrainJob", "External"] = "Job"
    """What runs the training: a Job, a JobSet, or a TrainJob of Kubeflow Trainer v2 (its controller has to be in the
    cluster; with a JobSet, activeDeadline counts anew after each restart), or External: versions are trained elsewhere
    and proposed by an alias in the registry. Default: Job."""
    external: ExternalTraining | None = None
    """How versions are proposed; engine External only."""
    image: (
        Annotated[
            str,
            Field(min_length=1, max_length=512),
            Shape(
                r"[a-z0-9][a-z0-9._:-]*(/[a-z0-9._-]+)*(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?",
                "be a container image such as registry.example.com/trainer@sha256:<64 hexadecimal digits>",
            ),
        ]
        | None
    ) = None
    """Image that keeps the trainer contract, best named by its digest. It is part of the training key only when it is
    set here. Default: the trainer of this operator's release."""
    architecture: Architecture | None = None
    """What is trained. EWMA, HAR and BaseRate are reference models: they may be a first champion, and everything else
    is measured against them. Logistic, Linear, MLP, LSTM, GRU, TCN, Transformer and Ensemble have to beat them."""
    hyperparameters: Hyperparameters = Field(default_factory=dict[str, Hyperparameter])
    """Settings of the architecture: integers, or texts; decimals in quotes. Example: {window: 20, hidden: 32,
    epochs: 30, learningRate: "0.001"}."""
    quantiles: (
        Annotated[
            tuple[QuantileLevel, ...],
            Field(min_length=1, max_length=15, json_schema_extra=ATOMIC),
            Rule(
                "self.map(x, double(x)).isSorted() && self.all(x, self.exists_one(y, double(y) == double(x)))",
                'levels must ascend, each once: ["0.05", "0.5", "0.95"]',
            ),
        ]
        | None
    ) = None
    """Levels of quantiles that are forecast beside the point forecast, ascending: ["0.05", "0.95"] is an interval that
    holds 90 % of the outcomes. The point forecast, which gates and experiments read, is the same with and without
    them. Linear and networks, labels Volatility and Return. Each from 0.001 to 0.999, at most 15. Absent: none."""
    validation: Validation = Validation()
    """How the model is measured out of sample."""
    search: Search | None = None
    """A search for hyperparameters. Absent: those given are used as they are."""
    seed: Annotated[int, Field(ge=0, le=2_147_483_647, json_schema_extra={"format": "int32"})] = 7
    """Seed of every random draw. Another seed is another configuration, and counts as one more try. Default: 7."""
    resources: Resources = Field(default_factory=Resources)  # a default instance would be copied for each object
    """CPU and memory of the training, for example {requests: {cpu: "1", memory: 1Gi}}."""
    pod_template: PodTemplate = Field(default_factory=PodTemplate)
    """Scheduling and labels of the training pods."""
    nodes: Annotated[int, Field(ge=1, le=64, json_schema_extra={"format": "int32"})] = 1
    """Pods that train one network together, each on its share of every batch; all must run at the same time, and each
    gets spec.training.resources. It pays for networks of which one step takes far longer than a message between the
    pods (see docs/training.md); for several small fits it costs time. Another number sums in another order, and so is
    another training. Default: 1."""
    queue_name: DnsLabel | None = None
    """Kueue queue that admits the Job. The operator sets the label and never touches Job.spec.suspend."""
    schedule: Schedule | None = None
    """When to train again. Absent: only when the spec changes or somebody asks for it."""
    retry: Retry = Retry()
    """What happens when a training fails."""
    active_deadline: PositiveDuration = "6h"
    """Longest time that one training may run, over all its retries. Default: 6h."""
    checkpoint: Checkpoint | None = None
    """Where a training keeps its state. Absent: a retry begins again."""
