"""From a walk-forward to the numbers of the result: metrics, checks, and the fold table."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary_features import label_columns, labels
from fiduciary_trainer import leakage
from fiduciary_trainer.ledger import iso
from fiduciary_trainer.measure import Measurement, Rows, measure
from fiduciary_trainer.measure.checks import duplicate_rows, prediction_sd_ratio, train_test_overlap
from fiduciary_trainer.measure.measurement import is_up

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from fiduciary_features import Bars
    from fiduciary_trainer.export import Probe
    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.walkforward import FinalModel, WalkForward


@dataclass(frozen=True)
class Checked:
    """Checks by name; what could not be computed is None there and has its reason in ``unavailable``."""

    values: Mapping[str, Any]
    unavailable: Mapping[str, str]
    leakage_scores: Mapping[str, float]


def out_of_sample(walk: WalkForward) -> Rows:
    """The test rows of a walk-forward, in order of (date, entity)."""
    fold = np.full(len(walk.y), -1, dtype=np.int64)
    for each in walk.folds:
        fold[each.test_rows] = each.index
    chosen = walk.test_rows
    return Rows(
        dates=walk.dates[chosen],
        label_end=walk.label_end[chosen],
        entity=walk.entity[chosen],
        fold=fold[chosen],
        y=walk.y[chosen],
        prediction=walk.prediction[chosen],
        baselines={name: values[chosen] for name, values in walk.baselines.items()},
        returns=walk.returns[chosen],
        quantiles=None if walk.quantiles is None else walk.quantiles.take(chosen),
    )


def measurement_of(rows: Rows, contract: Contract) -> Measurement:
    """All metrics of the label kind."""
    return measure(
        rows,
        contract.data.label,
        horizon=contract.data.horizon,
        cost_bps=contract.training.validation.cost_bps,
    )


def checks_of(walk: WalkForward, rows: Rows, measured: Measurement, bars: Bars, contract: Contract) -> Checked:
    """Row checks, the spread of the predictions, and both looks for leakage."""
    values: dict[str, Any] = {
        "effective_rows": measured.metrics["effective_rows"].estimate,
        "train_rows_min": min(len(fold.train_rows) for fold in walk.folds),
        "train_test_overlap": train_test_overlap(
            walk.dates, walk.label_end, [(fold.train_rows, fold.test_rows) for fold in walk.folds]
        ),
        "duplicate_rows": duplicate_rows(walk.dates, walk.entity),
    }
    unavailable: dict[str, str] = {}
    if values["effective_rows"] is None:
        unavailable["effective_rows"] = measured.unavailable["effective_rows"]

    if np.all(np.isfinite(rows.prediction)):
        values["prediction_sd_ratio"] = prediction_sd_ratio(rows)
        if values["prediction_sd_ratio"] is None:
            unavailable["prediction_sd_ratio"] = "the outcome does not vary within folds"
        if contract.data.label != "Volatility":
            values["predicted_up_share"] = float(np.mean(is_up(rows, contract.data.label)))
    else:
        values["prediction_sd_ratio"] = None
        unavailable["prediction_sd_ratio"] = "not all out-of-sample predictions are finite"

    scan, returns = (
        leakage.scan(walk.dates, walk.label_end, walk.entity, walk.X, walk.feature_names, target)
        for target in (walk.y, walk.returns)
    )
    scan = scan.joined(returns)
    values["leakage_max_score"], values["leakage_feature"] = None, None
    if scan.worst is None:
        unavailable["leakage_max_score"] = scan.reason
    else:
        values["leakage_feature"], values["leakage_max_score"] = scan.worst
    scores = {} if scan.scores is None else dict(zip(scan.names, scan.scores.tolist(), strict=True))

    values["future_cut_max_diff"] = future_cut(bars, contract)
    return Checked(values, unavailable, scores)


def future_cut(bars: Bars, contract: Contract) -> float:
    """Largest difference between features and labels from all rows and from rows that end at several dates."""
    features, data = contract.features, contract.data
    known = labels(bars, data.label, data.column, data.horizon)
    read = {*features.columns, *label_columns(data.label, data.column)}
    gaps = np.any([~np.isfinite(bars.column(name)) for name in sorted(read)], axis=0)
    cuts = leakage.cut_dates(bars.time, lookback=contract.lookback, gaps=gaps)

    def features_until(cut: np.datetime64) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        part = bars.take(bars.time <= cut)
        return part.time, part.entity, features.compute(part)

    def labels_until(cut: np.datetime64) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        part = bars.take(bars.time <= cut)
        again = labels(part, data.label, data.column, data.horizon)
        ended = ~np.isnat(again.end)
        return again.end[ended], part.entity[ended], again.y[ended, None]

    ended = ~np.isnat(known.end)
    return max(
        leakage.future_cut_max_diff(bars.time, bars.entity, features.compute(bars), features_until, cuts),
        leakage.future_cut_max_diff(known.end[ended], bars.entity[ended], known.y[ended, None], labels_until, cuts),
    )


def with_kept_weights(checked: Checked, walk: WalkForward, model: FinalModel) -> Checked:
    """The checks with the loss that the kept weights are above the best ones, for models that have epochs."""
    known = [value for value in (walk.kept_excess, model.kept_excess) if value is not None]
    if not known:
        return checked
    return Checked({**checked.values, "kept_loss_excess": max(known)}, checked.unavailable, checked.leakage_scores)


def with_probe(checked: Checked, probe: Probe) -> Checked:
    """The checks with the comparison of the written version and torch added."""
    if math.isfinite(probe.max_diff):
        return Checked({**checked.values, "onnx_max_diff": probe.max_diff}, checked.unavailable, checked.leakage_scores)
    reason = "the written version and torch disagree on which predictions are finite"
    return Checked(
        {**checked.values, "onnx_max_diff": None},
        {**checked.unavailable, "onnx_max_diff": reason},
        checked.leakage_scores,
    )


def fold_table(walk: WalkForward, measured: Measurement) -> list[dict[str, Any]]:
    """Each fold's rows, dates and numbers: enough to check that no training label reaches into a test."""
    table: list[dict[str, Any]] = []
    for position, fold in enumerate(walk.folds):
        train, test = fold.train_rows, fold.test_rows
        table.append(
            {
                "fold": fold.index,
                "trainRows": len(train),
                "trainFrom": iso(walk.dates[train].min()),
                "trainThrough": iso(walk.dates[train].max()),
                "trainLabelsKnownBy": iso(walk.label_end[train].max()),
                "testRows": len(test),
                "testFrom": iso(walk.dates[test].min()),
                "testThrough": iso(walk.dates[test].max()),
                "testLabelsKnownBy": iso(walk.label_end[test].max()),
                "metrics": {
                    name: metric.folds[position]
                    for name, metric in measured.metrics.items()
                    if metric.folds is not None and position < len(metric.folds)
                },
                "chosen": dict(walk.chosen[position]) if position < len(walk.chosen) else {},
                "seconds": round(walk.fold_seconds[position], 3),
            }
        )
    return table
