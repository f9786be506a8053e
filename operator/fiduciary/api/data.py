"""What a model learns from: source, point in time, features, label, and the checks that the data must pass."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from fiduciary.api.base import ATOMIC, ApiModel, DateText, Rule, Shape
from fiduciary.api.meta import LocalRef
from fiduciary.api.quantities import ColumnName, Duration, Fraction

LabelKind = Literal["Direction", "Return", "Volatility"]


def _stays_below(uri: str) -> str:
    # Also here, not only in the CRD: the path is joined to a mount of the training pod.
    if ".." in uri:
        raise ValueError(f"{uri!r} must not contain '..'")
    return uri


StorageUri = Annotated[
    str,
    Field(min_length=1, max_length=1024),
    Shape(
        r"(s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\s]+|pvc://[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[^\s]+|file:///[^\s]+)",
        "be s3://bucket/path, pvc://claim/path or file:///path, without spaces",
    ),
    AfterValidator(_stays_below),
    Rule("!self.contains('..')", "must not contain '..'"),
]

Calendar = Annotated[
    str,
    Field(min_length=2, max_length=32),
    Shape(r"[A-Za-z0-9][A-Za-z0-9_/]*", "be an exchange code such as XNYS, XLON or 24/7"),
]


class FilesSource(ApiModel):
    """Files in object storage, on a claim, or inside the trainer image."""

    uri: StorageUri
    """Where the files are: s3://bucket/path, pvc://claim/path (a PersistentVolumeClaim of this namespace with the
    label fiduciary.dev/consumable: "true") or file:///path (inside the trainer image). The last part may be a pattern
    such as *.parquet."""
    format: Literal["Parquet", "CSV"] = "Parquet"
    """Format of the files: Parquet or CSV. Default: Parquet."""
    secret_ref: LocalRef | None = None
    """Secret with the credentials of the storage, mounted into the training Job only. Its owner allows that with the
    label fiduciary.dev/consumable: "true"."""


class DatasetSource(ApiModel):
    """A dataset that ships inside a library of the trainer image."""

    name: Annotated[
        str,
        Field(min_length=1, max_length=128),
        Shape(r"[a-z0-9_.-]+/[a-z0-9_.-]+", "be <library>/<dataset>, for example arch/sp500"),
    ]
    """Library and dataset, for example arch/sp500."""


class FeastSource(ApiModel):
    """A feature service of Feast, joined point in time to an entity frame."""

    feature_service: Annotated[str, Field(min_length=1, max_length=128)]
    """Name of the feature service, for example spx_v3."""
    entity_uri: StorageUri
    """Entity frame that the features are joined to, as CSV (.csv, .csv.gz) or else Parquet: join keys, the time column,
    and whatever else the model reads that no feature view has."""
    config_secret_ref: LocalRef
    """Secret with feature_store.yaml, and AWS_ACCESS_KEY_ID and the like where registry, sources or entity frame are on
    s3://. Needs the label fiduciary.dev/consumable: "true"."""


class DataSource(ApiModel):
    """Where rows come from: exactly one of files, dataset and feast."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(has(self.files) ? 1 : 0) + (has(self.dataset) ? 1 : 0) + (has(self.feast) ? 1 : 0) == 1",
            "set exactly one of files, dataset and feast",
        ),
    )

    files: FilesSource | None = None
    """Files in object storage, on a claim, or inside the trainer image."""
    dataset: DatasetSource | None = None
    """A dataset that ships inside a library of the trainer image."""
    feast: FeastSource | None = None
    """A feature service of Feast."""


class Features(ApiModel):
    """Inputs of the model. Transforms are fitted on training rows only and travel with the version."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.set) != has(self.columns)",
            "set exactly one of set (a named feature set) and columns (an explicit list)",
        ),
    )

    set: Annotated[str, Field(min_length=1, max_length=64), Shape(r"[a-z0-9][a-z0-9.-]*", "be the name of a set")] | (
        None
    ) = None
    """Named feature set of the trainer, for example ohlcv-v1. Its features are causal: each reads past rows only."""
    columns: Annotated[tuple[ColumnName, ...], Field(min_length=1, max_length=512, json_schema_extra=ATOMIC)] | None = (
        None
    )
    """Columns of the data that are used as features as they are. The row at time t may hold only what was known
    at t."""


class Label(ApiModel):
    """What is predicted."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.kind != 'Volatility' || self.column == 'close'",
            "the Garman-Klass volatility is computed from the columns open, high, low and close: leave column out, or "
            "set it to close",
            field_path=".column",
        ),
    )

    kind: LabelKind
    """Direction: whether the price rises. Return: log return. Volatility: log Garman-Klass volatility, of which high,
    low, open and close are read."""
    column: ColumnName = "close"
    """Price column that the label is computed from. Default: close."""
    horizon: Annotated[int, Field(ge=1, le=260, json_schema_extra={"format": "int32"})] = 1
    """How far ahead is predicted, in rows per entity (sessions, for daily data). 1 to 260. Default: 1."""


class DataChecks(ApiModel):
    """What the data must be like. Data that fails is refused: the Job ends with exit code 42 and is not retried."""

    min_rows: Annotated[int, Field(ge=100, le=1_000_000_000)] = 1000
    """Fewest rows, over all entities. Default: 1000."""
    max_missing: Fraction = "0.02"
    """Largest share of missing values in any column that is used, from "0" to "1". Default: "0.02"."""
    max_staleness: Duration = "5d"
    """Largest age of the newest row, measured from asOf. Default: 5d."""


class DataSpec(ApiModel):
    """The data that the model is trained on."""

    source: DataSource
    """Where rows come from: exactly one of files, dataset and feast."""
    time: ColumnName
    """Column with the time of a row."""
    entity: ColumnName | None = None
    """Column that tells entities apart, for panel data (several instruments). Absent: one instrument."""
    as_of: Annotated[
        str,
        DateText,
        Field(max_length=10),
        Shape(
            r"Rolling|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
            "be a date written as YYYY-MM-DD, or Rolling",
        ),
    ]
    """Point in time: no row after this date is read. A date (YYYY-MM-DD), or Rolling, which becomes the date on which
    a training is triggered. A retrain with a fixed date finds nothing new, and says so in a condition."""
    calendar: Calendar | None = None
    """Exchange whose sessions the rows follow, for example XNYS. Absent: every day that has a row."""
    features: Features
    """Inputs of the model: a named set or a list of columns."""
    label: Label
    """What is predicted."""
    checks: DataChecks = DataChecks()
    """What the data must be like; anything else is refused before training. Not part of the training key."""
