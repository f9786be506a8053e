"""Probability of backtest overfitting by combinatorially symmetric cross-validation.

Source: Bailey, Borwein, López de Prado & Zhu (2017), "The probability of backtest overfitting", J. Computational
Finance 20(4): cut the days into S blocks; for each choice of half of them take the trial that is best there, and see
where it ranks on the other half. PBO is the share of choices in which it falls below the median: .5 for noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
BLOCKS = 16
"""12,870 choices."""


@dataclass(frozen=True)
class Overfitting:
    """Result of CSCV.

    Attributes:
        probability: share of choices whose best trial is at or below the median out of sample.
        degradation: slope of the out-of-sample on the in-sample statistic of the chosen trials (1: none is lost).
        loss: share of choices whose best trial has a negative statistic out of sample.
        choices, trials, days: behind it.
    """

    probability: float
    degradation: float | None
    loss: float
    choices: int
    trials: int
    days: int


def cscv(performance: Floats, blocks: int = BLOCKS, statistic: Literal["mean", "sharpe"] = "sharpe") -> Overfitting:
    """PBO of a set of trials.

    Args:
        performance: ``(days, trials)``, more is better: daily net returns, or minus the loss.
        blocks: S, even. Days that do not fill the last block evenly are left out at the beginning.
        statistic: by which trials are ranked: the mean, or mean over standard deviation.

    Raises:
        ValueError: fewer than two trials, an odd S, or fewer than two days a block.
    """
    days, trials = performance.shape
    if trials < 2:
        raise ValueError(f"{trials} trial; the probability of backtest overfitting compares at least 2")
    if blocks % 2 or blocks < 2 or days < 2 * blocks:
        raise ValueError(f"{blocks} blocks of {days} days; expected an even number and at least 2 days a block")
    length = days // blocks
    parts = performance[days - length * blocks :].reshape(blocks, length, trials)
    sums, squares = parts.sum(axis=1), (parts**2).sum(axis=1)
    chosen = np.zeros((0, blocks), dtype=bool)
    halves = list(combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(halves), blocks), dtype=bool)
    for row, half in enumerate(halves):
        chosen[row, list(half)] = True
    half_days = length * blocks // 2

    def of(mask: NDArray[np.bool_]) -> Floats:
        mean = mask.astype(np.float64) @ sums / half_days
        if statistic == "mean":
            return mean
        variance = np.maximum(mask.astype(np.float64) @ squares / half_days - mean**2, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(variance > 0.0, mean / np.sqrt(variance), 0.0)

    inside, outside = of(chosen), of(~chosen)
    best = np.argmax(inside, axis=1)
    rows = np.arange(len(halves))
    seen, real = inside[rows, best], outside[rows, best]
    # Relative rank in (0, 1): ties share the middle.
    below = (outside < real[:, None]).sum(axis=1)
    equal = (outside == real[:, None]).sum(axis=1)
    rank = (below + 0.5 * (equal + 1)) / (trials + 1)
    varies = float(np.ptp(seen)) > 0.0
    return Overfitting(
        probability=float(np.mean(rank <= 0.5)),
        degradation=float(np.polyfit(seen, real, 1)[0]) if varies else None,
        loss=float(np.mean(real < 0.0)),
        choices=len(halves),
        trials=trials,
        days=length * blocks,
    )
