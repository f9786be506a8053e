"""``validation/``: every split, and what they say beyond the gates' numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fiduciary_trainer.measure import pnl
from fiduciary_trainer.measure.hac import TooShort, skill, skill_se
from fiduciary_trainer.measure.losses import squared_error
from fiduciary_trainer.measure.measurement import is_up
from fiduciary_trainer.outcome import encode, significant
from fiduciary_trainer.search import summary
from fiduciary_trainer.validation import (
    calibration,
    comparison,
    intervals,
    quantiles,
    scatter,
    splits_document,
    track_record,
)

if TYPE_CHECKING:
    from pathlib import Path

    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.measure import Rows
    from fiduciary_trainer.search.run import Searched
    from fiduciary_trainer.validation.scatter import Scatter
    from fiduciary_trainer.walkforward import WalkForward

DIGITS = 9


def write(
    folder: Path,
    walk: WalkForward,
    rows: Rows,
    contract: Contract,
    scattered: Scatter | None,
    searched: Searched | None = None,
) -> dict[str, Any]:
    """Write ``splits.json`` and ``results.json``; returns the latter.

    Args:
        folder: is created.
        walk, rows: of the walk-forward.
        contract: the job.
        scattered: combinatorial purged cross-validation, if it was run.
        searched: the search, if there was one.
    """
    assert walk.calendar is not None
    folder.mkdir(parents=True)
    networks = bool(contract.training.settings.get("epochs"))
    combined = () if scattered is None else scattered.splits
    every = splits_document.document(
        walk.calendar, walk.folds, combined, nested=networks, searched=searched is not None
    )
    (folder / "splits.json").write_bytes(encode(every))
    found = results(walk, rows, contract, scattered, searched)
    (folder / "results.json").write_bytes(encode(significant(found, DIGITS)))
    return found


def results(
    walk: WalkForward, rows: Rows, contract: Contract, scattered: Scatter | None, searched: Searched | None = None
) -> dict[str, Any]:
    """What :func:`write` writes; a part that cannot be computed is ``{"unavailable": reason}``."""
    label = contract.data.label
    found: dict[str, Any] = {
        "comparison": comparison.compare(rows, contract.training.seed),
        "intervals": intervals.intervals(rows, contract),
        "importance": _importance(walk, rows),
        "r2OutOfSample": _r2(walk, rows),
        "byYear": by_year(rows),
        "combinatorial": {"unavailable": "training.validation.scheme is WalkForward"}
        if scattered is None
        else scatter.summary(scattered, contract),
        "overfitting": {"unavailable": "one configuration was trained; training.search compares several"}
        if searched is None
        else summary.overfitting(searched),
    }
    if searched is not None:
        found["search"] = summary.of_search(searched, contract.training.validation.folds)
    if rows.quantiles is not None:
        found["quantiles"] = quantiles.summary(rows, rows.quantiles, contract.data.horizon)
    if label == "Direction":
        found["calibration"] = calibration.summary(rows)
    if label != "Volatility":
        found["trackRecord"] = _track_record(rows, contract)
    return found


def _track_record(rows: Rows, contract: Contract) -> dict[str, Any]:
    bad = int(np.sum(~np.isfinite(rows.returns)))
    if bad:
        return {"unavailable": f"the return of the session after the decision is missing for {bad} rows"}
    up = is_up(rows, contract.data.label)
    book = pnl.profit_and_loss(rows, up, contract.training.validation.cost_bps, contract.data.horizon)
    if np.ptp(book.net) == 0.0:
        return {"unavailable": "the net return is the same on every day"}
    return track_record.record(book.net, book.hold)


def _r2(walk: WalkForward, rows: Rows) -> dict[str, Any]:
    """Campbell & Thompson (2008): one minus squared error over that of the mean of each fold's training labels."""
    mean = np.full(len(walk.y), np.nan)
    for fold in walk.folds:
        mean[fold.test_rows] = walk.y[fold.train_rows].mean()
    loss = rows.daily(squared_error(rows.y, rows.prediction))
    rival = rows.daily(squared_error(rows.y, mean[walk.test_rows]))
    if rival.mean() == 0.0:
        return {"unavailable": "the training mean makes no error"}
    try:
        return {"e": skill(loss, rival), "se": skill_se(loss, rival), "n": len(loss)}
    except TooShort as short:
        return {"e": skill(loss, rival), "se": None, "n": len(loss), "unavailable": str(short)}


def by_year(rows: Rows) -> dict[str, dict[str, float]]:
    """Skill against each tuned baseline by calendar year of the decision."""
    daily = comparison.losses(rows)
    years = rows.days.astype("datetime64[Y]").astype(int) + 1970
    table: dict[str, dict[str, float]] = {}
    for year in np.unique(years):
        inside = years == year
        table[str(year)] = {"days": float(inside.sum())} | {
            name: skill(daily["model"][inside], values[inside])
            for name, values in daily.items()
            if name != "model" and values[inside].mean() > 0.0
        }
    return table


def _importance(walk: WalkForward, rows: Rows) -> dict[str, Any]:
    """Mean over folds and repeats of the squared error that shuffling a feature adds, as a share of the model's own,
    with the spread over folds."""
    own = float(np.mean(squared_error(rows.y, rows.prediction)))
    by_fold = np.stack([each.mean(axis=0) for each in walk.importance]) / own
    spread = by_fold.std(axis=0, ddof=1) if len(by_fold) > 1 else np.zeros(by_fold.shape[1])
    return {
        name: {"share": float(mean), "sd": float(sd)}
        for name, mean, sd in zip(walk.feature_names, by_fold.mean(axis=0), spread, strict=True)
    }
