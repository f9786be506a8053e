"""The world of outcomes: one number a session, the champion's loss less the challenger's, in units of its sd.

Each recipe draws shape (replications, sessions). Positive means that the challenger was better. NaN: there is no such
number, because labels came too late or one arm gave no prediction; which of the two says ``unanswered``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from bench.decisions.proportions import Floats


@dataclass(frozen=True, slots=True)
class Drawn:
    """``differences`` with NaN where there is none; ``unanswered``: where the challenger gave no prediction."""

    differences: Floats
    unanswered: NDArray[np.bool_]
    loss_bound: float | None = None
    tried: int = 1


@dataclass(frozen=True, slots=True)
class SessionWorld:
    """``draw`` gives what would be seen with complete data.

    ``late``: share of sessions whose labels miss the grace period; ``late_if_large``: only those whose difference is
    large in size, which is what a market's worst days do; ``hides``: the challenger gives no prediction where it would
    lose by more than this many sd.
    """

    draw: Callable[[np.random.Generator, int, int], Floats]
    late: float = 0.0
    late_if_large: bool = False
    hides: float = math.inf
    loss_bound: float | None = None
    """Declared largest loss in sd, where the number is a profit and not a paired loss."""
    tried: int = 1
    """Configurations whose results on these sessions were seen before this one was chosen."""

    def play(self, rng: np.random.Generator, replications: int, sessions: int) -> Drawn:
        values = self.draw(rng, replications, sessions)
        unanswered = values < -self.hides
        late = rng.random(values.shape) < self.late
        if self.late_if_large:
            late &= np.abs(values) > 1.0
        return Drawn(np.where(unanswered | late, np.nan, values), unanswered & ~late, self.loss_bound, self.tried)


def student(mean: float = 0.0, degrees: float = 3.0) -> Callable[[np.random.Generator, int, int], Floats]:
    """Independent t with sd 1."""
    scale = math.sqrt((degrees - 2.0) / degrees)
    return lambda rng, r, n: scale * rng.standard_t(degrees, (r, n)) + mean


def autoregressive(correlation: float, mean: float = 0.0) -> Callable[[np.random.Generator, int, int], Floats]:
    """AR(1) with sd 1."""

    def draw(rng: np.random.Generator, r: int, n: int) -> Floats:
        noise = rng.standard_normal((r, n))
        noise[:, 1:] *= math.sqrt(1.0 - correlation**2)
        for k in range(1, n):
            noise[:, k] += correlation * noise[:, k - 1]
        return noise + mean

    return draw


def garch(mean: float = 0.0) -> Callable[[np.random.Generator, int, int], Floats]:
    """GARCH(1,1) with t₅ innovations, unconditional sd 1 (.02, .08, .90)."""

    def draw(rng: np.random.Generator, r: int, n: int) -> Floats:
        values = rng.standard_t(5.0, (r, n)) * math.sqrt(0.6)
        variance = np.ones(r)
        for k in range(n):
            values[:, k] *= np.sqrt(variance)
            variance = 0.02 + 0.08 * values[:, k] ** 2 + 0.90 * variance
        return values + mean

    return draw


def regimes(size: float, length: int = 125) -> Callable[[np.random.Generator, int, int], Floats]:
    """Better by ``size`` sd in some stretches, worse by it in others, as a coin says; on average no better."""

    def draw(rng: np.random.Generator, r: int, n: int) -> Floats:
        signs = np.repeat(rng.choice([-1.0, 1.0], (r, n // length + 1)), length, axis=1)[:, :n]
        return rng.standard_normal((r, n)) + size * signs

    return draw


def short_volatility(tail: float = 1.5) -> Callable[[np.random.Generator, int, int], Floats]:
    """Profit of selling insurance at its fair price: a premium less a lognormal loss, true mean 0, unit sd.

    ``tail``: sd of the loss's logarithm; at 1.5 the sample skewness is about -30.
    """
    mean, variance = math.exp(0.5 * tail**2), math.exp(tail**2) * (math.exp(tail**2) - 1.0)
    return lambda rng, r, n: (mean - rng.lognormal(0.0, tail, (r, n))) / math.sqrt(variance)
