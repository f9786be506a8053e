"""Bootstrap intervals of numbers that are no means of daily values: drawdown, calibration error, Sharpe ratio."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fiduciary_trainer.measure import pnl
from fiduciary_trainer.measure.losses import expected_calibration_error
from fiduciary_trainer.measure.measurement import is_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from fiduciary_trainer.job import Contract
    from fiduciary_trainer.measure.rows import Rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REPLICATIONS = 1_000
BLOCK = 20
LEVEL = 0.95


def stationary(days: int, rng: np.random.Generator, block: int = BLOCK) -> Ints:
    """Days of one resample: blocks of geometric length with mean ``block``, wrapped around the end.

    Source: Politis & Romano (1994), J. American Statistical Association 89.
    """
    begins = rng.random(days) < 1.0 / block
    begins[0] = True
    starts = rng.integers(0, days, days)
    place = np.arange(days)
    origin = np.maximum.accumulate(np.where(begins, place, 0))
    return (starts[origin] + place - origin) % days


def interval(days: int, statistic: Callable[[Ints], float], seed: int) -> dict[str, Any]:
    """Percentile interval of a statistic of resampled days.

    Args:
        days: how many there are.
        statistic: of the positions of a resample.
        seed: of the draws.
    """
    if days < 3 * BLOCK:
        return {"unavailable": f"{days} days; a bootstrap in blocks of {BLOCK} needs at least {3 * BLOCK}"}
    rng = np.random.default_rng(seed)
    values = np.array([statistic(stationary(days, rng)) for _ in range(REPLICATIONS)])
    low, high = np.quantile(values[np.isfinite(values)], [(1.0 - LEVEL) / 2.0, (1.0 + LEVEL) / 2.0])
    return {"low": float(low), "high": float(high), "level": LEVEL, "replications": REPLICATIONS, "block": BLOCK}


def intervals(rows: Rows, contract: Contract) -> dict[str, Any]:
    """By metric of the label kind. A resampled drawdown answers what another order of such days would have cost."""
    label, seed = contract.data.label, contract.training.seed
    found: dict[str, Any] = {}
    if label == "Direction":
        order = np.argsort(rows.day_index, kind="stable")
        bounds = np.searchsorted(rows.day_index[order], np.arange(len(rows.days) + 1))
        alone = rows.entities == 1

        def ece(days: Ints) -> float:
            chosen = days if alone else np.concatenate([order[bounds[day] : bounds[day + 1]] for day in days])
            return expected_calibration_error(rows.y[chosen], rows.prediction[chosen])

        found["ece"] = interval(len(rows.days), ece, seed)
    if label != "Volatility" and bool(np.all(np.isfinite(rows.returns))):
        book = pnl.profit_and_loss(
            rows, is_up(rows, label), contract.training.validation.cost_bps, contract.data.horizon
        )
        found["max_drawdown"] = interval(
            len(book.net), lambda days: float(pnl.drawdown(book.net[days]).max()), seed + 1
        )
        found["sharpe"] = interval(len(book.net), lambda days: pnl.sharpe(book.net[days]), seed + 2)
    return found
