"""How a model's results scatter over the paths of combinatorial purged cross-validation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_features import Transform
from fiduciary_trainer import baselines, procedure
from fiduciary_trainer.measure import pnl
from fiduciary_trainer.measure.hac import skill
from fiduciary_trainer.measure.losses import squared_error
from fiduciary_trainer.measure.measurement import SKILLS, is_up
from fiduciary_trainer.measure.rows import Rows
from fiduciary_trainer.validation import combinatorial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.models.fitting import Fitter
    from fiduciary_trainer.procedure import Selection

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Scatter:
    """Every path's rows.

    Attributes:
        splits: what was fitted.
        paths: rows of each path, all of the same days.
    """

    splits: Sequence[combinatorial.Split]
    paths: Sequence[Rows]


def run(fitter: Fitter, contract: Contract, first_number: int, selection: Selection | None = None) -> Scatter:
    """Fit every split and put the paths together.

    Args:
        fitter: of the walk-forward, with its rows and calendar.
        contract: with scheme CombinatorialPurged.
        first_number: tells these fits apart from those of the walk-forward and the final one.
        selection: what a search has found for each split; None: the job's search, if it has one, is carried out first.
    """
    prepared, validation = fitter.prepared, contract.training.validation
    assert validation.test_folds is not None
    folds, tested = validation.folds, validation.test_folds
    made = combinatorial.splits(fitter.calendar, folds, tested)
    names = SKILLS[contract.data.label]
    columns: list[dict[str, Floats]] = []
    trains = [(first_number + number, split.train) for number, split in enumerate(made)]
    chosen = procedure.selected(fitter, trains) if selection is None else selection
    for split, (own, fitted) in zip(made, procedure.fit_each(fitter, trains, chosen), strict=True):
        transform = Transform.fit(prepared.x[split.train], contract.features.names)
        known = baselines.fit_predict(prepared, contract.data.label, transform, split.train, split.test)
        columns.append({"model": own.predict(fitted, split.test), **{name: known[name] for name in names}})
    whole: list[Rows] = []
    for path in combinatorial.paths(made, folds, tested):
        values = {name: np.full(len(prepared.y), np.nan) for name in ("model", *names)}
        fold_of = np.zeros(len(prepared.y), dtype=np.int64)
        for split, fold in path:
            inside = made[split].fold == fold
            at = made[split].test[inside]
            fold_of[at] = fold
            for name, column in values.items():
                column[at] = columns[split][name][inside]
        whole.append(
            Rows(
                dates=prepared.dates,
                label_end=prepared.label_end,
                entity=prepared.entity,
                fold=fold_of,
                y=prepared.y,
                prediction=values.pop("model"),
                baselines=values,
                returns=prepared.returns,
            )
        )
    return Scatter(made, whole)


def summary(scatter: Scatter, contract: Contract) -> dict[str, Any]:
    """Mean, standard deviation, smallest and largest over the paths of the first skill and, where there is money, of
    the Sharpe ratio and the drawdown."""
    label, cost = contract.data.label, contract.training.validation.cost_bps
    first = SKILLS[label][0]
    values: dict[str, list[float]] = {f"{first}_skill": []}
    for rows in scatter.paths:
        loss = rows.daily(squared_error(rows.y, rows.prediction))
        rival = rows.daily(squared_error(rows.y, rows.baselines[first]))
        values[f"{first}_skill"].append(skill(loss, rival))
        if label != "Volatility" and bool(np.all(np.isfinite(rows.returns))):
            book = pnl.profit_and_loss(rows, is_up(rows, label), cost, contract.data.horizon)
            values.setdefault("sharpe", []).append(pnl.sharpe(book.net))
            values.setdefault("max_drawdown", []).append(float(pnl.drawdown(book.net).max()))
    return {
        "splits": len(scatter.splits),
        "paths": len(scatter.paths),
        "metrics": {
            name: {
                "mean": float(np.mean(each)),
                "sd": float(np.std(each, ddof=1)) if len(each) > 1 else None,
                "min": min(each),
                "max": max(each),
                "values": each,
            }
            for name, each in values.items()
        },
        "note": "paths share training rows and are not independent; their spread is no standard error",
    }
