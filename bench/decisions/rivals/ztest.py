"""What many teams script: a z-test on all requests so far, looked at each minute; and Welch's t-test once, at the end.

Source: the pooled two-proportion z-test (Fleiss, Levin & Paik 2003, Statistical Methods for Rates and Proportions,
section 3.2), non-inferiority with unpooled variance (Blackwelder 1982, Controlled Clinical Trials 3), Welch (1947),
Biometrika 34, on minute rates. One-sided α .05. Both walk through the operator's live steps (5 %, then 50 %).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from bench.decisions.outcome import PROMOTED, ROLLED_BACK, Judged, Route
from bench.decisions.traffic import CHALLENGER, CHAMPION, GUARDRAILS

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats
    from bench.decisions.traffic import Seen, Tape, World

MARGINS = (0.00125, 0.001)
"""Those that the operator takes: a quarter of the champion's rate, at least .001."""
CANARY_WEIGHT, FINAL_WEIGHT, CANARY_MINUTES = 0.05, 0.5, 60


@dataclass(slots=True)
class Sums:
    """Of one guardrail, by arm: requests and bad ones so far."""

    trials: list[Floats]
    bad: list[Floats]


def _ramp(minute: int) -> Route:
    return Route(CANARY_WEIGHT if minute < CANARY_MINUTES else FINAL_WEIGHT)


@dataclass(frozen=True, slots=True)
class Peeked:
    """The z-test, each minute."""

    alpha: float = 0.05
    margins: tuple[float, float] = MARGINS
    least: int = 60
    name: str = "z_peeked"

    def start(self, world: World, tape: Tape, budget: int) -> dict[str, Sums]:
        zeros = np.zeros(tape.replications)
        return {name: Sums([zeros, zeros], [zeros, zeros]) for name in GUARDRAILS}

    def route(self, state: dict[str, Sums], minute: int) -> Route:
        return _ramp(minute)

    def judge(self, state: dict[str, Sums], minute: int, seen: Seen) -> Judged:
        critical = norm.isf(self.alpha)
        harm = np.zeros(seen.excess.size, dtype=bool)
        fine = np.full(seen.excess.size, minute + 1 >= self.least)
        for (name, sums), margin in zip(state.items(), self.margins, strict=True):
            if not any(seen.dark):
                for arm in (CHAMPION, CHALLENGER):
                    sums.trials[arm] = sums.trials[arm] + seen.arms[arm][name].trials
                    sums.bad[arm] = sums.bad[arm] + seen.arms[arm][name].bad
            (na, nb), (ya, yb) = sums.trials, sums.bad
            with np.errstate(invalid="ignore", divide="ignore"):
                a, b, pooled = ya / na, yb / nb, (ya + yb) / (na + nb)
                harm |= (b - a) / np.sqrt(pooled * (1.0 - pooled) * (1.0 / na + 1.0 / nb)) > critical
                unpooled = np.sqrt(a * (1.0 - a) / na + b * (1.0 - b) / nb)
                fine &= (b - a - margin) / unpooled < -critical
        verdict = np.where(harm, ROLLED_BACK, np.where(fine, PROMOTED, 0)).astype(np.int8)
        return Judged(verdict)


@dataclass(slots=True)
class Rates:
    """Of one guardrail, by arm: minutes with requests, sums of their rates and of the squares."""

    count: list[Floats]
    total: list[Floats]
    squares: list[Floats]


@dataclass(frozen=True, slots=True)
class Welch:
    """Welch's t-test on minute rates, once after ``horizon`` minutes."""

    horizon: int = 1440
    alpha: float = 0.05
    margins: tuple[float, float] = MARGINS
    name: str = "welch_fixed"

    def start(self, world: World, tape: Tape, budget: int) -> dict[str, Rates]:
        zeros = np.zeros(tape.replications)
        return {name: Rates([zeros] * 2, [zeros] * 2, [zeros] * 2) for name in GUARDRAILS}

    def route(self, state: dict[str, Rates], minute: int) -> Route:
        return _ramp(minute)

    def judge(self, state: dict[str, Rates], minute: int, seen: Seen) -> Judged:
        if not any(seen.dark):
            for name, rates in state.items():
                for arm in (CHAMPION, CHALLENGER):
                    counts = seen.arms[arm][name]
                    full = counts.trials > 0.0
                    rate = counts.bad / np.where(full, counts.trials, 1.0)
                    rates.count[arm] = rates.count[arm] + full
                    rates.total[arm] = rates.total[arm] + rate
                    rates.squares[arm] = rates.squares[arm] + rate * rate
        verdict = np.zeros(seen.excess.size, dtype=np.int8)
        if minute + 1 == self.horizon:
            fine = np.ones(verdict.size, dtype=bool)
            for rates, margin in zip(state.values(), self.margins, strict=True):
                with np.errstate(invalid="ignore", divide="ignore"):
                    n, total = np.array(rates.count), np.array(rates.total)
                    mean = total / n
                    error = (np.array(rates.squares) / n - mean**2) / (n - 1.0)
                    both = error.sum(axis=0)
                    degrees = both**2 / (error**2 / (n - 1.0)).sum(axis=0)
                    difference, critical = mean[1] - mean[0], student.isf(self.alpha, degrees)
                    verdict[difference / np.sqrt(both) > critical] = ROLLED_BACK
                    fine &= (difference - margin) / np.sqrt(both) < -critical
            verdict[(verdict == 0) & fine] = PROMOTED
        return Judged(verdict)
