"""GrowthBook's Safe Rollout: a monitored ramp with one-sided sequential tests on guardrails and a duration.

Source at 8f1db445 (2026-08-21): docs/features/safe-rollouts.mdx (ramp 1/5/10/25/50 %, each monitored step split evenly
between rollout and control; any guardrail that regresses significantly rolls back; "Ready to ship" when the duration
ends), docs/statistics/sequential.mdx and packages/stats/gbstats/frequentist/tests.py
``sequential_interval_halfwidth_one_sided``: asymptotic confidence sequence, Waudby-Smith et al. (2024) equation 134,
N the units of both arms, N* 5,000, α .05; packages/shared/src/constants.ts: SRM threshold .001 by a χ² test, after
which the ramp is held. Requests stand for units. Its warehouse is asked each minute here, which it never is: in its
favour. Early steps take a twentieth of the duration each.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import chi2

from bench.decisions.outcome import PROMOTED, ROLLED_BACK, Judged, Route
from bench.decisions.traffic import CHALLENGER, CHAMPION, GUARDRAILS

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats
    from bench.decisions.traffic import Seen, Tape, World

MISMATCH = float(chi2.isf(0.001, 1))
RAMP = (0.01, 0.05, 0.10, 0.25, 0.50)


@dataclass(slots=True)
class State:
    trials: dict[str, list[Floats]]
    bad: dict[str, list[Floats]]
    live: list[Floats]
    mismatch: Floats


def halfwidth(variance: Floats, n: Floats, alpha: float, planned: float) -> Floats:
    """One-sided half width of the asymptotic confidence sequence; ``variance``: squared standard error times n."""
    doubled = -2.0 * math.log(2.0 * alpha)
    rho2 = (doubled + math.log(doubled + 1.0)) / planned
    shape = 2.0 * (n * rho2 + 1.0) / (n * n * rho2)
    return np.sqrt(variance * shape * np.log1p(np.sqrt(n * rho2 + 1.0) / (2.0 * alpha)))


@dataclass(frozen=True, slots=True)
class GrowthBook:
    """``duration`` in minutes."""

    duration: int = 1440
    alpha: float = 0.05
    planned: float = 5000.0
    name: str = "growthbook"

    def start(self, world: World, tape: Tape, budget: int) -> State:
        zeros = np.zeros(tape.replications)
        pairs = [{name: [zeros, zeros] for name in GUARDRAILS} for _ in range(2)]
        return State(pairs[0], pairs[1], [zeros, zeros], zeros.astype(bool))

    def route(self, state: State, minute: int) -> Route:
        step = min(minute // max(1, self.duration // 20), len(RAMP) - 1)
        return Route(RAMP[step], control=RAMP[step])

    def judge(self, state: State, minute: int, seen: Seen) -> Judged:
        harm = np.zeros(seen.excess.size, dtype=bool)
        if not any(seen.dark):
            for arm in (CHAMPION, CHALLENGER):
                state.live[arm] = state.live[arm] + seen.live[arm]
                for name, counts in seen.arms[arm].items():
                    state.trials[name][arm] = state.trials[name][arm] + counts.trials
                    state.bad[name][arm] = state.bad[name][arm] + counts.bad
        for name in GUARDRAILS:
            (na, nb), (ya, yb) = state.trials[name], state.bad[name]
            with np.errstate(invalid="ignore", divide="ignore"):
                a, b, n = ya / na, yb / nb, na + nb
                squared = a * (1.0 - a) / (na - 1.0) + b * (1.0 - b) / (nb - 1.0)
                harm |= (squared > 0.0) & (b - a - halfwidth(squared * n, n, self.alpha, self.planned) > 0.0)
        one, other = state.live
        both = one + other
        with np.errstate(invalid="ignore", divide="ignore"):
            statistic = (one - other) ** 2 / both
        state.mismatch = state.mismatch | (statistic > MISMATCH)
        verdict = np.where(harm, ROLLED_BACK, 0).astype(np.int8)
        if minute + 1 >= self.duration:
            verdict[(verdict == 0) & ~state.mismatch & (not any(seen.dark))] = PROMOTED  # No Data: nothing is shipped
        return Judged(verdict)
