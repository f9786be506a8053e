"""Which forecasts the data can tell apart: pairwise (Diebold & Mariano) and all at once (model confidence set)."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.measure.hac import TooShort, mean_se
from fiduciary_trainer.measure.losses import squared_error

if TYPE_CHECKING:
    from fiduciary_trainer.measure.rows import Rows

Floats = NDArray[np.float64]

SIZE = 0.05
REPLICATIONS = 1_000
BLOCK = 20
"""Mean block length of the stationary bootstrap, in sessions: as many as the Newey-West errors have lags."""


def losses(rows: Rows) -> dict[str, Floats]:
    """Daily squared error of the model and of each baseline."""
    found = {"model": rows.daily(squared_error(rows.y, rows.prediction))}
    for name, prediction in rows.baselines.items():
        if np.all(np.isfinite(prediction)):
            found[name] = rows.daily(squared_error(rows.y, prediction))
    return found


def diebold_mariano(loss: Floats, rival: Floats) -> dict[str, float | None]:
    """Mean daily difference ``rival - loss``, its Newey-West error over 20 lags, t and the two-sided p.

    Source: Diebold & Mariano (1995), J. Business & Economic Statistics 13(3).

    Raises:
        TooShort: too few days for the error.
    """
    difference = rival - loss
    error = mean_se(difference)
    mean = float(difference.mean())
    if error == 0.0:
        return {"difference": mean, "se": 0.0, "t": None, "p": None}
    t = mean / error
    return {"difference": mean, "se": error, "t": t, "p": 2.0 * (1.0 - NormalDist().cdf(abs(t)))}


def compare(rows: Rows, seed: int) -> dict[str, Any]:
    """Both comparisons.

    Returns:
        ``dieboldMariano`` by baseline; ``confidenceSet`` with the p-value of each forecast: those of at least
        :data:`SIZE` cannot be told from the best (Hansen, Lunde & Nason 2011, Econometrica 79(2)). Forecasts that err
        equally every day are one forecast and share a name.
    """
    daily = losses(rows)
    pairs: dict[str, Any] = {}
    for name, rival in daily.items():
        if name == "model":
            continue
        try:
            pairs[name] = diebold_mariano(daily["model"], rival)
        except TooShort as short:
            pairs[name] = {"unavailable": str(short)}
    return {"dieboldMariano": pairs, "confidenceSet": _confidence_set(daily, seed)}


def _confidence_set(daily: dict[str, Floats], seed: int) -> dict[str, Any]:
    from arch.bootstrap import MCS  # two seconds of import (statsmodels), which only this needs

    distinct: dict[str, Floats] = {}
    same: dict[str, list[str]] = {}
    for name, values in daily.items():
        twin = next((each for each, known in distinct.items() if np.array_equal(known, values)), None)
        if twin is None:
            distinct[name] = values
            same[name] = [name]
        else:
            same[twin].append(name)
    if len(distinct) < 2:
        return {"unavailable": "every forecast errs equally on every day"}
    days = len(next(iter(distinct.values())))
    if days < 3 * BLOCK:
        return {"unavailable": f"{days} days; a bootstrap in blocks of {BLOCK} needs at least {3 * BLOCK}"}
    made = MCS(
        np.column_stack(list(distinct.values())), size=SIZE, reps=REPLICATIONS, block_size=BLOCK, method="R", seed=seed
    )
    made.compute()
    names = list(distinct)
    values: dict[str, float] = {}
    # Not iterrows: where several are eliminated at once, arch's index holds an array.
    for places, p in zip(made.pvalues.index, made.pvalues["Pvalue"], strict=True):
        if not math.isfinite(float(p)):
            return {"unavailable": "losses differ by the same amount every day, so their differences have no variance"}
        for place in np.atleast_1d(places):
            values.update(dict.fromkeys(same[names[int(place)]], float(p)))
    return {
        "size": SIZE,
        "replications": REPLICATIONS,
        "block": BLOCK,
        "p": values,
        "included": sorted(name for name, p in values.items() if p >= SIZE),
    }
