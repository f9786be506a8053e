"""Count, mean and centred sum of squares of a stream: what the tests on continuous block statistics keep."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_count, check_measure


@dataclass(frozen=True, slots=True)
class Moments:
    """``squares`` is Σ (x - mean)². Merging is associative up to rounding, not bit for bit.

    Source: Welford (1962), Technometrics 4(3); merging: Chan, Golub & LeVeque (1983), American Statistician 37(3).
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @classmethod
    def of_sums(cls, count: int, total: float, total_of_squares: float) -> Moments | Refusal:
        """From (n, Σx, Σx²) as counters give them; the three must belong together (Cauchy–Schwarz)."""
        problem = check_count("n", count) or check_measure("sum", total) or check_measure("sumsq", total_of_squares)
        if problem is not None:
            return problem
        if count == 0:
            if total == 0.0 and total_of_squares == 0.0:
                return cls()
            return Refusal(Why.NO_TRIALS, f"no observations but a sum of {total} and squares of {total_of_squares}")
        mean = total / count
        squares = total_of_squares - total * mean
        if squares < -1e-9 * abs(total_of_squares):
            return Refusal(Why.MALFORMED, f"sumsq {total_of_squares} is below sum²/n {total * mean}: not one sample")
        return cls(count, mean, max(0.0, squares))

    def add(self, value: float) -> Moments | Refusal:
        """With one more observation."""
        problem = check_measure("value", value)
        return problem or self.merge(Moments(1, value, 0.0))

    def merge(self, other: Moments) -> Moments | Refusal:
        """Of both samples together."""
        count = self.count + other.count
        if count > MAX_COUNT:
            return Refusal(Why.TOO_LARGE, "more than 2^53 observations")
        if count == 0:
            return self
        step = other.mean - self.mean
        share = other.count / count
        return Moments(count, self.mean + step * share, self.squares + other.squares + step * step * self.count * share)

    def sd(self) -> float | Refusal:
        """√(Σ(x - mean)²/(n - 1)), positive; a refusal below two observations or where all are equal."""
        if self.count < 2:
            return Refusal(Why.TOO_FEW, f"{self.count} observations; a standard deviation needs two")
        sd = math.sqrt(self.squares / (self.count - 1))
        return sd if sd > 0.0 else Refusal(Why.NO_VARIANCE, f"all {self.count} observations are equal")
