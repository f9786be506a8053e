"""Argo Rollouts: a background AnalysisRun beside weight steps, conditions on the result, a failure limit.

Source: docs/features/analysis.md, "Background Analysis" (steps 20/40/60/80 with pauses of 10m, startingStep 2,
interval 5m, ``successCondition: result[0] >= …``, failureLimit 3), and at 9f8d111d (2026-08-17): analysis/analysis.go
``assessMetricStatus``/``assessMetricFailureInconclusiveOrError`` (failed > failureLimit fails the run at once; more
than consecutiveErrorLimit 4 errors in a row, retried every 10 s, ends it as Error, which aborts too),
utils/evaluate/evaluate.go ``EvaluateResult`` (a lone successCondition: not true is a failure; a lone failureCondition:
not true is a success). NaN (0/0 without traffic) compares false: success-only counts a failure, failure-only a success.
An absent series is an empty vector: result[0] is an evaluation error. The documented 95 % is replaced by the 99 % that
the other rules get, and irate by the window's counts, both in its favour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from bench.decisions.outcome import PROMOTED, ROLLED_BACK, Judged, Route
from bench.decisions.traffic import CHALLENGER

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats
    from bench.decisions.traffic import Seen, Tape, World


@dataclass(slots=True)
class State:
    failed: dict[str, Floats]
    window: dict[str, tuple[Floats, Floats]]
    absent: bool
    size: Floats


@dataclass(frozen=True, slots=True)
class Argo:
    """Settings as in a Rollout and its AnalysisTemplate; minutes and shares."""

    condition: Literal["success", "failure"] = "success"
    steps: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    pause: int = 10
    starting_step: int = 1
    interval: int = 5
    failure_limit: int = 3
    slo: float = 0.99
    name: str = "argo_success"

    def start(self, world: World, tape: Tape, budget: int) -> State:
        return State({}, {}, False, np.zeros(tape.replications))

    def route(self, state: State, minute: int) -> Route:
        return Route(self.steps[min(minute // self.pause, len(self.steps) - 1)])

    def judge(self, state: State, minute: int, seen: Seen) -> Judged:
        for name, counts in seen.arms[CHALLENGER].items():
            n, y = state.window.get(name, (0.0, 0.0))
            state.window[name] = (n + counts.trials, y + counts.bad)
        verdict = np.zeros(state.size.size, dtype=np.int8)
        begun = minute + 1 - self.starting_step * self.pause
        if begun >= self.interval and begun % self.interval == 0:
            if seen.dark[CHALLENGER]:
                verdict[:] = ROLLED_BACK  # five errors in the next 40 s: the run is Error, the rollout aborts
                return Judged(verdict)
            for name, (n, y) in state.window.items():
                with np.errstate(invalid="ignore", divide="ignore"):
                    result = 1.0 - y / n
                failed = ~(result >= self.slo) if self.condition == "success" else result < self.slo
                state.failed[name] = state.failed.get(name, 0.0) + failed
                verdict[state.failed[name] > self.failure_limit] = ROLLED_BACK
            state.window = {}
        if minute + 1 >= self.pause * len(self.steps):
            verdict[verdict == 0] = PROMOTED
        return Judged(verdict)
