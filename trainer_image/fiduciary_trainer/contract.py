"""The job document: parsed and checked before any data is read.

The API server has checked what a schema can check. The trainer checks again, since any image and any writer may keep
the contract, and checks what only it knows: its architectures, their hyperparameters, its feature sets.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary_features import LABEL_KINDS, SETS, FeatureSpec, LabelKind, label_columns
from fiduciary_trainer import splits
from fiduciary_trainer.models.hyperparameters import EWMA_WINDOW, NETWORKS, SEQUENCES, Settings, parts, settings
from fiduciary_trainer.outcome import CONTRACT_VERSION, BadContract
from fiduciary_trainer.search import space
from fiduciary_trainer.validation import combinatorial

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from fiduciary_trainer.search.space import Search

ARCHITECTURES = ("EWMA", "HAR", "BaseRate", "Logistic", "Linear", *NETWORKS)
REFERENCES = ("EWMA", "HAR", "BaseRate")
LABELS_OF: Mapping[str, tuple[LabelKind, ...]] = {
    "EWMA": ("Volatility",),
    "HAR": ("Volatility",),
    "BaseRate": LABEL_KINDS,
    "Logistic": ("Direction",),
    "Linear": ("Volatility", "Return"),
    **dict.fromkeys(NETWORKS, LABEL_KINDS),
}
"""Labels that an architecture can predict."""

FORMATS = ("CSV", "Parquet")
SCHEMES = ("WalkForward", "CombinatorialPurged")
MAX_SEED = 2**31 - 1
MAX_NODES = 64


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
    ``search``, what the rows of all its trials are prepared for. ``nodes``: shares that each batch is cut into."""

    architecture: str
    settings: Settings
    seed: int
    validation: Validation
    search: Search | None = None
    nodes: int = 1

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


def load(path: Path) -> Contract:
    """Read and check the document at ``path``. Raises :class:`BadContract`."""
    try:
        document = json.loads(path.read_bytes())
    except OSError as error:
        raise BadContract(
            "NoContract", f"{path} cannot be read ({error.strerror}); expected the job document"
        ) from None
    except ValueError as error:
        raise BadContract("InvalidJson", f"{path} is not JSON: {error}; expected the job document") from None
    return parse(document)


def parse(document: Any) -> Contract:
    """Check a parsed document. Raises :class:`BadContract`: the field, what was seen, what is expected."""
    root = _Node("", document)
    version = root.get("contractVersion", int)
    if version != CONTRACT_VERSION:
        raise BadContract(
            "UnsupportedContractVersion",
            f"contractVersion is {version}, this trainer speaks {CONTRACT_VERSION}; "
            "use a trainer image of the operator's release",
        )
    as_of = root.get("asOf", str)
    training = _training(root.child("training"))
    data = _data(root.child("data"))
    if data.label not in LABELS_OF[training.architecture]:
        fits = [name for name in ARCHITECTURES if data.label in LABELS_OF[name]]
        raise BadContract(
            "LabelNotSupported",
            f"training.architecture {training.architecture} cannot predict the label {data.label}; "
            f"use one of {', '.join(fits)}",
        )
    checkpoint = root.optional_child("checkpoint")
    contract = Contract(
        document=document,
        training_key=root.get("trainingKey", str),
        as_of=as_of,
        cutoff=_cutoff(as_of),
        data=data,
        training=training,
        checkpoint=checkpoint
        and Checkpoint(checkpoint.get("uri", str), checkpoint.get("every", int, default=1, low=1, high=10_000)),
    )
    _check_embargo(contract)
    return contract


def _check_embargo(contract: Contract) -> None:
    """With a shorter one, the first test rows and the last training rows are computed from the same days."""
    embargo, needed = contract.training.validation.embargo, contract.lookback
    if embargo < needed:
        window = f", {contract.window} rows an input" if contract.windowed else ""
        raise BadContract(
            "EmbargoTooSmall",
            f"training.validation.embargo is {embargo} rows; the features look {contract.features.lookback} rows "
            f"back{window}, so at least {needed} are needed for test rows to share no input with training rows; "
            "raise it",
        )


def _data(node: _Node) -> Data:
    label, checks = node.child("label"), node.optional_child("checks")
    kind = label.choice("kind", LABEL_KINDS)
    column = label.get("column", str, default="close")
    if kind == "Volatility" and column != "close":
        raise BadContract(
            "LabelNotSupported",
            f"data.label.column is {column!r}; the Garman-Klass volatility is computed from open, high, low and close: "
            "leave column out or set it to close",
        )
    return Data(
        source=_source(node.child("source")),
        time=node.get("time", str),
        entity=node.get("entity", str, default=None),
        calendar=node.get("calendar", str, default=None),
        features=_features(node.child("features")),
        label=kind,
        column=column,
        horizon=label.get("horizon", int, default=1, low=1, high=260),
        checks=Checks(None, None, None)
        if checks is None
        else Checks(
            min_rows=checks.get("minRows", int, default=None, low=1),
            max_missing=checks.decimal("maxMissing", default=None, low=0, high=1),
            max_staleness=checks.duration("maxStaleness"),
        ),
    )


def _source(node: _Node) -> Dataset | Files | Feast:
    dataset, files, feast = (node.optional_child(name) for name in ("dataset", "files", "feast"))
    if sum(each is not None for each in (dataset, files, feast)) != 1:
        raise node.wrong("", "exactly one of dataset, files and feast")
    if dataset is not None:
        return Dataset(dataset.get("name", str))
    if feast is not None:
        return Feast(feast.get("featureService", str), feast.get("entityUri", str))
    assert files is not None
    return Files(files.get("uri", str), files.choice("format", FORMATS, default="Parquet"))


def _features(node: _Node) -> FeatureSpec:
    name, columns = node.get("set", str, default=None), node.get("columns", list, default=None)
    if (name is None) == (columns is None):
        raise node.wrong("", "exactly one of set and columns")
    if columns is not None:
        if not columns or not all(isinstance(column, str) for column in columns) or len(set(columns)) != len(columns):
            raise node.wrong("columns", "a list of different column names")
        return FeatureSpec.of_columns(columns)
    if name not in SETS:
        raise BadContract(
            "UnknownFeatureSet", f"data.features.set is {name!r}, this trainer has {', '.join(SETS)}; use one of them"
        )
    return FeatureSpec.of_set(name)


def _training(node: _Node) -> Training:
    architecture = node.get("architecture", str)
    if architecture not in ARCHITECTURES:
        raise BadContract(
            "UnknownArchitecture",
            f"training.architecture is {architecture!r}; this trainer has {', '.join(ARCHITECTURES)}",
        )
    hyperparameters = node.get("hyperparameters", dict, default={})
    wanted = node.optional_child("search")
    search = None if wanted is None else space.parse(wanted, architecture, hyperparameters)
    validation = node.child("validation")
    scheme = validation.choice("scheme", SCHEMES, default="WalkForward")
    folds = validation.get("folds", int, default=6, low=2, high=50)
    test_folds = None
    if scheme == "CombinatorialPurged":
        test_folds = validation.get("testFolds", int, low=1, high=folds - 1)
        combinatorial.count(folds, test_folds)
    return Training(
        architecture=architecture,
        settings=settings(architecture, hyperparameters) if search is None else search.widest,
        seed=node.get("seed", int, default=0, low=0, high=MAX_SEED),
        validation=Validation(
            folds=folds,
            purge=validation.get("purge", int, default=1, low=0, high=10_000),
            embargo=validation.get("embargo", int, default=66, low=0, high=10_000),
            cost_bps=validation.decimal("costBps", default=2.0, low=0, high=10_000),
            window=validation.get("window", int, default=None, low=splits.MIN_TRAIN_DAYS, high=100_000),
            test_folds=test_folds,
        ),
        search=search,
        nodes=_nodes(node, architecture, search),
    )


def _nodes(node: _Node, architecture: str, search: Search | None) -> int:
    nodes: int = node.get("nodes", int, default=1, low=1, high=MAX_NODES)
    if nodes > 1 and architecture not in NETWORKS:
        raise node.wrong("nodes", f"1: {architecture} is solved in one go, there are no batches to share")
    if nodes > 1 and search is not None:
        raise node.wrong("nodes", "1 with a search, whose trials are shared out by search.parallelism")
    return nodes


def _cutoff(as_of: str) -> np.datetime64:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", as_of):
        try:
            return np.datetime64(as_of, "ns") + np.timedelta64(1, "D")
        except ValueError:
            pass
    raise BadContract("InvalidValue", f"asOf is {as_of!r}; expected a date written as YYYY-MM-DD")


_UNITS = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_NO_DEFAULT: Any = object()


class _Node:
    """An object of the document and where it is, so that every refusal can name the field."""

    def __init__(self, path: str, value: Any) -> None:
        self.path = path
        if not isinstance(value, dict):
            raise BadContract("InvalidValue", f"{path or 'the document'} is {_shown(value)}; expected an object")
        self.value: dict[str, Any] = value

    def wrong(self, key: str, expected: str) -> BadContract:
        path = ".".join(part for part in (self.path, key) if part)
        seen = _shown(self.value.get(key) if key else self.value)
        return BadContract("InvalidValue", f"{path} is {seen}; expected {expected}")

    def child(self, key: str) -> _Node:
        return _Node(f"{self.path}.{key}".lstrip("."), self.value.get(key))

    def optional_child(self, key: str) -> _Node | None:
        return None if self.value.get(key) is None else self.child(key)

    def get(
        self, key: str, kind: type, *, default: Any = _NO_DEFAULT, low: int | None = None, high: int | None = None
    ) -> Any:
        value: Any = self.value.get(key)
        if value is None and default is not _NO_DEFAULT:
            return default
        names = {str: "a text", int: "an integer", list: "a list", dict: "an object"}
        if not isinstance(value, kind) or isinstance(value, bool) or value == "":
            raise self.wrong(key, names[kind])
        if kind is int:
            self._within(key, value, low, high)
        return value

    def choice(self, key: str, options: tuple[Any, ...], *, default: Any = _NO_DEFAULT) -> Any:
        value = self.get(key, str, default=default)
        if value not in options:
            raise self.wrong(key, f"one of {', '.join(options)}")
        return value

    def decimal(self, key: str, *, default: Any, low: float, high: float) -> Any:
        value = self.value.get(key)
        if value is None:
            return default
        number = decimal(value)
        if number is None:
            raise self.wrong(key, "a decimal number in quotes")
        self._within(key, number, low, high)
        return number

    def duration(self, key: str) -> timedelta | None:
        value = self.get(key, str, default=None)
        if value is None:
            return None
        match = re.fullmatch("".join(rf"(?:(\d{{1,9}}){unit})?" for unit in _UNITS), value)
        if match is None:
            raise self.wrong(key, "a duration such as 5d or 36h")
        parts = zip(match.groups(), _UNITS.values(), strict=True)
        return timedelta(milliseconds=sum(int(number) * scale for number, scale in parts if number))

    def _within(self, key: str, value: float, low: float | None, high: float | None) -> None:
        if (low is not None and value < low) or (high is not None and value > high):
            raise self.wrong(key, f"a number from {low} to {high}" if high is not None else f"at least {low}")


def decimal(value: Any) -> float | None:
    """A decimal text (or an integer) as a number; None if it is none or not finite."""
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return float(number) if number.is_finite() else None


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return "missing" if value is None else text if len(text) <= 80 else f"{text[:77]}..."
