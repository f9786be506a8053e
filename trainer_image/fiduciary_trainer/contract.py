"""The job document: parsed and checked before any data is read.

The API server has checked what a schema can check. The trainer checks again, since any image and any writer may keep
the contract, and checks what only it knows: its architectures, their hyperparameters, its feature sets.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary_features import LABEL_KINDS, SETS, FeatureSpec, LabelKind
from fiduciary_trainer import splits
from fiduciary_trainer.fields import Node, decimal
from fiduciary_trainer.job import Checkpoint, Checks, Contract, Data, Dataset, Feast, Files, Training, Validation
from fiduciary_trainer.models.hyperparameters import NETWORKS, settings
from fiduciary_trainer.outcome import CONTRACT_VERSION, BadContract
from fiduciary_trainer.search import space
from fiduciary_trainer.validation import combinatorial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from fiduciary_trainer.search.space import Search

ARCHITECTURES = ("EWMA", "HAR", "BaseRate", "Logistic", "Linear", *NETWORKS)
LABELS_OF: Mapping[str, tuple[LabelKind, ...]] = {
    "EWMA": ("Volatility",),
    "HAR": ("Volatility",),
    "BaseRate": LABEL_KINDS,
    "Logistic": ("Direction",),
    "Linear": ("Volatility", "Return"),
    **dict.fromkeys(NETWORKS, LABEL_KINDS),
}
"""Labels that an architecture can predict."""

QUANTILES = ("Linear", *NETWORKS)
"""Architectures that can be trained with pinball loss."""

FORMATS = ("CSV", "Parquet")
SCHEMES = ("WalkForward", "CombinatorialPurged")
MAX_SEED = 2**31 - 1
MAX_NODES = 64
LOWEST_LEVEL, MAX_LEVELS = 0.001, 15


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
    root = Node("", document)
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
    if training.quantiles and data.label == "Direction":
        raise BadContract(
            "QuantilesNotSupported",
            f"training.quantiles is {_levels(training.quantiles)} and data.label.kind Direction: an outcome of 0 or 1 "
            "has no quantiles, its probability says all; remove quantiles, or use the label Volatility or Return",
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


def _data(node: Node) -> Data:
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


def _source(node: Node) -> Dataset | Files | Feast:
    dataset, files, feast = (node.optional_child(name) for name in ("dataset", "files", "feast"))
    if sum(each is not None for each in (dataset, files, feast)) != 1:
        raise node.wrong("", "exactly one of dataset, files and feast")
    if dataset is not None:
        return Dataset(dataset.get("name", str))
    if feast is not None:
        return Feast(feast.get("featureService", str), feast.get("entityUri", str))
    assert files is not None
    return Files(files.get("uri", str), files.choice("format", FORMATS, default="Parquet"))


def _features(node: Node) -> FeatureSpec:
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


def _training(node: Node) -> Training:
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
        quantiles=_quantiles(node, architecture),
    )


def _nodes(node: Node, architecture: str, search: Search | None) -> int:
    nodes: int = node.get("nodes", int, default=1, low=1, high=MAX_NODES)
    if nodes > 1 and architecture not in NETWORKS:
        raise node.wrong("nodes", f"1: {architecture} is solved in one go, there are no batches to share")
    if nodes > 1 and search is not None:
        raise node.wrong("nodes", "1 with a search, whose trials are shared out by search.parallelism")
    return nodes


def _quantiles(node: Node, architecture: str) -> tuple[float, ...]:
    given = node.get("quantiles", list, default=None)
    if given is None:
        return ()
    levels = [decimal(each) for each in given]
    known = [level for level in levels if level is not None and LOWEST_LEVEL <= level <= 1.0 - LOWEST_LEVEL]
    if not 1 <= len(known) == len(levels) <= MAX_LEVELS or sorted(set(known)) != known:
        raise node.wrong(
            "quantiles",
            f"1 to {MAX_LEVELS} ascending decimal numbers in quotes from {LOWEST_LEVEL:g} to {1.0 - LOWEST_LEVEL:g}",
        )
    if architecture not in QUANTILES:
        raise BadContract(
            "QuantilesNotSupported",
            f"training.quantiles is {_levels(known)} and training.architecture {architecture}, which forecasts one "
            f"number; quantiles are trained by {', '.join(QUANTILES)}: use one of them, or remove quantiles",
        )
    return tuple(known)


def _levels(levels: Sequence[float]) -> str:
    return ", ".join(f"{level:g}" for level in levels)


def _cutoff(as_of: str) -> np.datetime64:
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", as_of):
        try:
            return np.datetime64(as_of, "ns") + np.timedelta64(1, "D")
        except ValueError:
            pass
    raise BadContract("InvalidValue", f"asOf is {as_of!r}; expected a date written as YYYY-MM-DD")
