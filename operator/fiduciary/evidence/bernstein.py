"""Empirical Bernstein e-process: a mean above a null value, for observations with a known lower bound only."""

from __future__ import annotations

from dataclasses import dataclass, replace

from fiduciary.evidence.mixtures import best_rho, log_e_gamma_exponential
from fiduciary.evidence.refusal import (
    MAX_COUNT,
    Refusal,
    Why,
    check_count,
    check_measure,
    check_next,
    check_positive,
)


@dataclass(frozen=True, slots=True)
class Bernstein:
    """State of the e-process against H0: E[x | past] <= ``null`` for observations x >= ``floor``.

    S = Σ (x - null), V = Σ (x - g)², g the mean to the last block capped at floor + c: a block's (n, Σx, Σx²) is all
    that is needed, ``V += Σx² - 2 g Σx + n g²``. E is the gamma-exponential mixture of (S, V).

    Source: Howard, Ramdas, McAuliffe & Sekhon (2021), Annals of Statistics 49(2), theorem 4; for differences of
    forecast scores without stationarity: Choe & Ramdas (2024), Operations Research 72(4), theorem 2.
    Invalid if an observation falls below ``floor`` (its rare loss is then unseen) or if observations of one block
    depend on each other; fold one number per session. Rule 14: kept for PnL with a declared loss bound.
    """

    null: float
    floor: float
    scale: float
    rho: float
    last: int
    count: int
    total: float
    s: float
    v: float

    @classmethod
    def start(cls, null: float, floor: float, scale: float, v_opt: float) -> Bernstein | Refusal:
        """Nothing folded yet.

        Args:
            null: mean under H0.
            floor: no observation is smaller.
            scale: c > 0, in the unit of x: how far above the floor the predictable guess may be.
            v_opt: intrinsic time at which it should be sharpest, about n × variance.
        """
        problem = check_measure("null", null) or check_measure("floor", floor) or check_positive("scale", scale)
        if problem is None and floor >= null:
            problem = Refusal(Why.PARAMETER, f"floor {floor} is not below the null mean {null}: H0 would be impossible")
        rho = best_rho(v_opt, 0.1)
        if isinstance(rho, Refusal):
            return problem or rho
        if problem is None and not 1e-4 <= rho / (scale * scale) <= 1e12:
            problem = Refusal(Why.PARAMETER, f"v_opt {v_opt} and scale {scale} are of different units")
        return problem or cls(null, floor, scale, rho, -1, 0, 0.0, 0.0, 0.0)

    def fold(self, first: int, last: int, count: int, total: float, total_of_squares: float) -> Bernstein | Refusal:
        """With the next block's (n, Σx, Σx²). Not associative: the guess g moves between blocks."""
        problem = (
            check_next(self.last, first, last)
            or check_count("n", count)
            or check_measure("sum", total)
            or check_measure("sumsq", total_of_squares)
        )
        if problem is None and count + self.count > MAX_COUNT:
            problem = Refusal(Why.TOO_LARGE, "more than 2^53 observations")
        if problem is None and count == 0 and (total != 0.0 or total_of_squares != 0.0):
            problem = Refusal(Why.NO_TRIALS, f"no observations but a sum of {total}")
        if problem is None and count and total / count < self.floor:
            problem = Refusal(Why.PARAMETER, f"a mean of {total / count} is below the floor {self.floor} declared")
        if problem is not None:
            return problem
        guess = min(self.total / self.count if self.count else self.null, self.floor + self.scale)
        # Σ(x - g)² >= n (mean - g)²: what rounding took below that is put back
        least = count * (total / count - guess) ** 2 if count else 0.0
        spread = max(total_of_squares - 2.0 * guess * total + count * guess * guess, least)
        folded = replace(
            self,
            last=last,
            count=self.count + count,
            total=self.total + total,
            s=self.s + (total - count * self.null),
            v=self.v + spread,
        )
        problem = check_measure("sum so far", folded.s) or check_measure("variance so far", folded.v)
        return problem or folded

    @property
    def log_e(self) -> float:
        """ln E; 0 before the first observation."""
        return log_e_gamma_exponential(self.s, self.v, self.rho, self.scale)
