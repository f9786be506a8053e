"""What a job document says, once it is read: the whole training as frozen values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from fiduciary_features import SETS, FeatureSpec, LabelKind, label_columns
from fiduciary_trainer.models.hyperparameters import EWMA_WINDOW, SEQUENCES, Settings, parts
from fiduciary_trainer.validation import combinatorial

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    import numpy as np

    from fiduciary_trainer.search.space import Search


@dataclass(frozen=True)
class Dataset:
    """A dataset inside a library of the image, e.g. ``arch/sp500``."""

    name: str


@dataclass(frozen=True)
class Files:
    """Files under ``s3://``, ``pvc://`` or ``file://``; ``format`` is CSV or Parquet."""

    uri: str
    format: str


@dataclass(frozen=True)
class Feast:
    """A feature service, joined point in time to the entity frame at ``entity_uri``."""

    feature_service: str
    entity_uri: str


@dataclass(frozen=True)
class Checks:
    """What the data must be like; None: not checked.

    Attributes:
        min_rows: over all entities.
        max_missing: largest share of missing values of a column.
        max_staleness: largest age of the newest row at asOf.
    """

    min_rows: int | None
    max_missing: float | None
    max_staleness: timedelta | None


@dataclass(frozen=True)
class Data:
    """``data`` of the document."""

    source: Dataset | Files | Feast
    time: str
    entity: str | None
    calendar: str | None
    features: FeatureSpec
    label: LabelKind
    column: str
    horizon: int
    checks: Checks

    @property
    def columns(self) -> tuple[str, ...]:
        """Value columns that the document names, whatever the architecture reads of them: sorted, each once."""
        return tuple(sorted({*self.features.columns, *label_columns(self.label, self.column), self.column}))


@dataclass(frozen=True)
class Validation:
    """``training.validation``; ``purge`` and ``embargo`` in rows of one entity, ``cost_bps`` in basis points.

    Attributes:
        window: sessions that a fold of the walk-forward trains on at most; None: all before it.
        test_folds: folds that are tested at a time by CombinatorialPurged, which comes on top; None: it is not run.
    """

    folds: int
    purge: int
    embargo: int
    cost_bps: float
    window: int | None = None
    test_folds: int | None = None


@dataclass(frozen=True)
class Training:
    """``training``; ``settings`` are the user's hyperparameters and the architecture's defaults for the others; with a
    ``search``, what the rows of all its trials are prepared for. ``nodes``: shares that each batch is cut into.
    ``quantiles``: levels that are forecast beside the point, ascending; empty: none."""

    architecture: str
    settings: Settings
    seed: int
    validation: Validation
    search: Search | None = None
    nodes: int = 1
    quantiles: tuple[float, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Architectures of the networks that are averaged."""
        return parts(self.settings, self.architecture)


@dataclass(frozen=True)
class Checkpoint:
    """Where state is kept between attempts, and after how many epochs it is written."""

    uri: str
    every: int


@dataclass(frozen=True)
class Contract:
    """The whole document; ``document`` is the parsed JSON itself, for what this code does not interpret.

    Attributes:
        cutoff: the first instant that is too late: rows at or after it are not read.
    """

    document: Mapping[str, Any]
    training_key: str
    as_of: str
    cutoff: np.datetime64
    data: Data
    training: Training
    checkpoint: Checkpoint | None

    @property
    def features(self) -> FeatureSpec:
        """What the architecture reads: a reference model its own terms, the others the features of the document."""
        terms = {"EWMA": ("rv_1",), "HAR": SETS["har-v1"]}.get(self.training.architecture)
        if terms is not None:
            return FeatureSpec.of_builtin(f"reference-{self.training.architecture.lower()}", terms)
        if self.training.architecture == "BaseRate":
            own = self.data.column != "close"  # it reads nothing of it, but a model has at least one input
            return (
                FeatureSpec.of_columns((self.data.column,)) if own else FeatureSpec.of_builtin("base-rate", ("ret_1",))
            )
        return self.data.features

    @property
    def window(self) -> int:
        """Rows of one input; 1 where the architecture reads a single row."""
        if self.training.architecture == "EWMA":
            return EWMA_WINDOW
        return int(self.training.settings.get("window") or 1) if self.windowed else 1

    @property
    def windowed(self) -> bool:
        """Whether inputs are ``[batch, window, F]`` rather than ``[batch, F]``."""
        return self.training.architecture == "EWMA" or any(part in SEQUENCES for part in self.training.parts)

    def configured(self, settings: Settings) -> Contract:
        """The same job with other settings of its architecture."""
        return replace(self, training=replace(self.training, settings=settings))

    def without_quantiles(self) -> Contract:
        """The same job for the point forecast alone, which quantiles do not change."""
        return replace(self, training=replace(self.training, quantiles=()))

    @property
    def fits(self) -> int:
        """How often the procedure is carried out: folds, the final model, splits of CombinatorialPurged."""
        validation = self.training.validation
        extra = 0
        if validation.test_folds is not None:
            extra, _ = combinatorial.count(validation.folds, validation.test_folds)
        return validation.folds + 1 + extra

    @property
    def lookback(self) -> int:
        """Rows of data that one prediction depends on, its own included."""
        return self.features.lookback + self.window - 1
