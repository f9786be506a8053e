"""Kayenta's judge: a Mann–Whitney test a metric on per-minute values, scores against pass and marginal.

Source: docs/canary-config.md, and at a69573be (2025-04-08): kayenta-judge NetflixACAJudge.scala (confidence .98 and
tolerance .25 are hard-coded), MannWhitneyClassifier.scala (High: the interval's lower end is above a quarter of the
absolute Hodges–Lehmann estimate, and the ratio of means is at least 1), kayenta-mannwhitney MannWhitney.scala (the
interval inverts the normal approximation with continuity and tie corrections), WeightedSumScorer.scala (share of
passed metrics; half or more without data is a score of 0), NaN values are removed. Thresholds: pass 95, marginal 75;
two metrics in one group, so that one High fails. A real-time analysis of ``lifetime`` minutes at half the traffic,
judged every ``interval`` minutes on all data so far: below marginal fails at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import norm

from bench.decisions.outcome import PROMOTED, ROLLED_BACK, Judged, Route
from bench.decisions.traffic import CHALLENGER, CHAMPION, GUARDRAILS

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats
    from bench.decisions.traffic import Seen, Tape, World

CONFIDENCE, TOLERANCE = 0.98, 0.25
_BATCH = 2**22


@dataclass(slots=True)
class State:
    """Values by metric and arm; shape (minutes so far, replications) each, NaN where there was none."""

    values: dict[str, list[Floats]]
    size: Floats


def high(control: Floats, experiment: Floats) -> np.ndarray:
    """Whether the metric is classified High, and NaN-only rows; shape (replications, minutes) each."""
    answer = np.zeros(control.shape[0], dtype=bool)
    rows = max(1, _BATCH // max(1, control.shape[1] * experiment.shape[1]))
    for start in range(0, control.shape[0], rows):
        part = slice(start, start + rows)
        answer[part] = _high(control[part], experiment[part])
    return answer


def interval(control: Floats, experiment: Floats) -> tuple[Floats, Floats]:
    """Lower end of the interval of the shift, and the Hodges–Lehmann estimate, a row each; NaN values are left out.

    The root of the decreasing step function (U(μ) - mn/2 ∓ ½)/σ = z is an order statistic of all differences.
    """
    m, n = (np.sum(~np.isnan(part), axis=1).astype(float) for part in (experiment, control))
    differences = (experiment[:, :, None] - control[:, None, :]).reshape(control.shape[0], -1)
    descending = -np.sort(-differences, axis=1)  # NaN last
    ties = _ties(experiment) + _ties(control)
    both = np.maximum(m + n, 2.0)
    sigma = np.sqrt(np.maximum(m * n / 12.0 * (both + 1.0 - ties / (both * (both - 1.0))), 0.0))
    threshold = 0.5 * m * n + 0.5 + norm.isf((1.0 - CONFIDENCE) / 2.0) * sigma
    last = np.maximum(m * n, 1.0)
    rank = np.clip(np.floor(threshold) + 1.0, 1.0, last)
    middle = np.stack([np.floor((last - 1.0) / 2.0), np.ceil((last - 1.0) / 2.0)]).astype(int)
    row = np.arange(control.shape[0])
    return descending[row, rank.astype(int) - 1], 0.5 * (descending[row, middle[0]] + descending[row, middle[1]])


def _ties(values: Floats) -> Floats:
    """Σ (t³ - t) over groups of equal values in each row; NaN equals nothing."""
    same = (values[:, :, None] == values[:, None, :]).sum(axis=2)
    return np.where(same > 0, same**2.0 - 1.0, 0.0).sum(axis=1)


def _high(control: Floats, experiment: Floats) -> np.ndarray:
    lower, estimate = interval(control, experiment)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = _mean(experiment) / _mean(control)
        return (lower > TOLERANCE * np.abs(estimate)) & ~(ratio < 1.0)


def _mean(values: Floats) -> Floats:
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(axis=1) / known.sum(axis=1)


@dataclass(frozen=True, slots=True)
class Kayenta:
    """``lifetime`` and ``interval`` in minutes."""

    lifetime: int = 60
    interval: int = 60
    weight: float = 0.5
    name: str = "kayenta"

    def start(self, world: World, tape: Tape, budget: int) -> State:
        return State({name: [[], []] for name in GUARDRAILS}, np.zeros(tape.replications))

    def route(self, state: State, minute: int) -> Route:
        return Route(self.weight)

    def judge(self, state: State, minute: int, seen: Seen) -> Judged:
        for name, arms in state.values.items():
            for arm in (CHAMPION, CHALLENGER):
                counts = seen.arms[arm][name]
                empty = (counts.trials == 0.0) | seen.dark[arm]
                arms[arm].append(np.where(empty, np.nan, counts.bad / np.where(empty, 1.0, counts.trials)))
        verdict = np.zeros(state.size.size, dtype=np.int8)
        if (minute + 1) % self.interval == 0 or minute + 1 == self.lifetime:
            failed = np.zeros(verdict.size, dtype=bool)
            missing = np.zeros(verdict.size)
            for arms in state.values.values():
                control, experiment = np.stack(arms[CHAMPION], axis=1), np.stack(arms[CHALLENGER], axis=1)
                nothing = np.isnan(control).all(axis=1) | np.isnan(experiment).all(axis=1)
                missing += nothing
                failed |= ~nothing & high(control, experiment)
            failed |= missing >= 0.5 * len(GUARDRAILS)
            verdict[failed] = ROLLED_BACK
            if minute + 1 == self.lifetime:
                verdict[~failed] = PROMOTED
        return Judged(verdict)
