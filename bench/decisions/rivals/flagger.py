"""Flagger: thresholds on the canary's success rate and p99 latency, a count of failed checks.

Source: docs/gitbook/tutorials/istio-progressive-delivery.md (interval 1m, threshold 5, maxWeight 50, stepWeight 10,
request-success-rate min 99, request-duration max), docs/gitbook/usage/metrics.md, and pkg/controller/scheduler.go
``advanceCanary``/``runCanary`` with scheduler_metrics.go ``runBuiltinMetricChecks`` at 15bd6ad5 (2026-07-21):
the first tick only sets the first weight; each later tick asks for the last interval; a failed check adds one to
``failedChecks``, which never falls; the tick that finds ``failedChecks >= threshold`` rolls back; a passed check raises
the weight, at maxWeight it promotes. No values, NaN and query errors are failed checks (providers/prometheus.go).
p99 > limit is "more than 1 % above the limit", the limit being a bucket edge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bench.decisions.outcome import PROMOTED, ROLLED_BACK, Judged, Route
from bench.decisions.traffic import CHALLENGER

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats
    from bench.decisions.traffic import Seen, Tape, World


@dataclass(slots=True)
class State:
    weight: Floats
    failed: Floats
    window: dict[str, tuple[Floats, Floats]]
    absent: bool
    ticks: int


@dataclass(frozen=True, slots=True)
class Flagger:
    """Settings as in a Canary; ``interval`` in minutes, weights and ``slo`` (min. success) as shares."""

    interval: int = 1
    threshold: int = 5
    step_weight: float = 0.10
    max_weight: float = 0.50
    slo: float = 0.99
    name: str = "flagger"

    def start(self, world: World, tape: Tape, budget: int) -> State:
        zeros = np.zeros(tape.replications)
        return State(np.full_like(zeros, self.step_weight), zeros, {}, False, 0)

    def route(self, state: State, minute: int) -> Route:
        return Route(state.weight)

    def judge(self, state: State, minute: int, seen: Seen) -> Judged:
        for name, counts in seen.arms[CHALLENGER].items():
            n, y = state.window.get(name, (0.0, 0.0))
            state.window[name] = (n + counts.trials, y + counts.bad)
        state.absent |= seen.dark[CHALLENGER]
        verdict = np.zeros(state.weight.size, dtype=np.int8)
        if (minute + 1) % self.interval:
            return Judged(verdict)
        passed = np.full(state.weight.size, not state.absent)
        for n, y in state.window.values():
            with np.errstate(invalid="ignore", divide="ignore"):
                passed &= (1.0 - y / n) >= self.slo  # NaN without traffic: no values, a failed check
        # this tick begins with the check of what earlier ticks counted
        full = state.failed >= self.threshold
        verdict[full] = ROLLED_BACK
        verdict[~full & passed & (state.weight >= self.max_weight - 1e-9)] = PROMOTED
        state.failed = state.failed + (~full & ~passed)
        state.weight = np.where(passed, np.minimum(state.weight + self.step_weight, 1.0), state.weight)
        state.window, state.absent = {}, False
        return Judged(verdict)
