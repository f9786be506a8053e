"""The rules on sessions: the operator's betting, and what the rivals would do with a daily paired loss.

Every rule sees the sessions one by one and acts at the first at which it is satisfied; all have the same sessions. The
rivals' arithmetic is that of their module in ``rivals``, on the same differences; none of them knows sessions, so each
gets the reading that favours it: complete pairs only, the mean of 20 sessions for thresholds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from scipy.stats import norm
from scipy.stats import t as student

from bench.decisions.outcome import KEPT, PROMOTED, ROLLED_BACK, Outcomes
from bench.decisions.rivals.kayenta import high
from bench.decisions.wealth import bounded_crossings, crossings
from fiduciary.decide.experiment.sessions import BURN_IN
from fiduciary.evidence.betting import CLIP

if TYPE_CHECKING:
    from bench.decisions.proportions import Floats
    from bench.decisions.sessions import Drawn

WINDOW, LEAST = 20, 20
FIRST_LEVEL = 0.05 * 6.0 / math.pi**2
"""α₁ of e-LOND (rule 18)."""


class SessionRule(Protocol):
    """One way to decide about a challenger from sessions."""

    @property
    def name(self) -> str: ...

    def run(self, drawn: Drawn) -> Outcomes: ...


def _outcomes(promoted_at: Floats, rolled_back_at: Floats, sessions: int) -> Outcomes:
    """Whichever came first, in sessions from 1; inf: never."""
    first = np.minimum(promoted_at, rolled_back_at)
    verdict = np.where(np.isinf(first), KEPT, np.where(promoted_at <= rolled_back_at, PROMOTED, ROLLED_BACK))
    return Outcomes(verdict.astype(np.int8), np.where(np.isinf(first), sessions, first), np.zeros(first.size))


def _first(hits: np.ndarray) -> Floats:
    """First True of each row, from 1; inf if none."""
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1.0, np.inf)


@dataclass(frozen=True, slots=True)
class Betting:
    """The operator's objective at ``level`` α_j: that of a model's first changed spec, unless said."""

    level: float = FIRST_LEVEL
    name: str = "fiduciary"

    def run(self, drawn: Drawn) -> Outcomes:
        threshold = math.log(drawn.tried / self.level)
        values, at = _folded(drawn)
        scale, rest = values[:, :BURN_IN].std(axis=1, ddof=1), values[:, BURN_IN:]
        if drawn.loss_bound is None:
            first, _ = crossings(rest, scale, threshold)
        else:
            first = bounded_crossings(rest, scale, drawn.loss_bound, threshold)
        known = np.isfinite(first)
        session = np.full(first.size, np.inf)
        rows = np.flatnonzero(known)
        session[rows] = at[rows, BURN_IN + first[rows].astype(int) - 1] + 1.0
        return _outcomes(session, np.full(first.size, np.inf), drawn.differences.shape[1])


def _folded(drawn: Drawn) -> tuple[Floats, np.ndarray]:
    """The sessions that count, moved together, as (values, their session): what is late is left out (rule 12).

    A missing prediction of the challenger scores -4 sd once the scale is known, before that it is left out (rule 13).
    """
    values = drawn.differences
    scale = np.array([row[~np.isnan(row)][:BURN_IN].std(ddof=1) for row in values])
    complete = ~np.isnan(values)
    known = np.cumsum(complete, axis=1) >= BURN_IN
    values = np.where(drawn.unanswered & known, -CLIP * scale[:, None], values)
    counts = ~np.isnan(values)
    order = np.argsort(~counts, axis=1, kind="stable")[:, : int(counts.sum(axis=1).min())]
    return np.take_along_axis(values, order, axis=1), order


def _running(drawn: Drawn) -> tuple[Floats, Floats, Floats]:
    """Number, mean and variance of the complete pairs so far."""
    known = ~np.isnan(drawn.differences)
    values = np.where(known, drawn.differences, 0.0)
    n = np.maximum(np.cumsum(known, axis=1), 1.0)
    mean = np.cumsum(values, axis=1) / n
    variance = (np.cumsum(values**2, axis=1) - n * mean**2) / np.maximum(n - 1.0, 1.0)
    return n, mean, np.maximum(variance, 1e-12)


@dataclass(frozen=True, slots=True)
class Peeked:
    """z-test at each session."""

    alpha: float = 0.05
    name: str = "z_peeked"

    def run(self, drawn: Drawn) -> Outcomes:
        n, mean, variance = _running(drawn)
        z = np.where(n >= LEAST, mean / np.sqrt(variance / n), 0.0)
        critical = norm.isf(self.alpha)
        return _outcomes(_first(z > critical), _first(z < -critical), drawn.differences.shape[1])


@dataclass(frozen=True, slots=True)
class Welch:
    """One t-test of the paired differences when the budget ends."""

    alpha: float = 0.05
    name: str = "welch_fixed"

    def run(self, drawn: Drawn) -> Outcomes:
        n, mean, variance = (part[:, -1] for part in _running(drawn))
        t = mean / np.sqrt(variance / n)
        critical, end = student.isf(self.alpha, n - 1.0), float(drawn.differences.shape[1])
        return _outcomes(np.where(t > critical, end, np.inf), np.where(t < -critical, end, np.inf), int(end))


@dataclass(frozen=True, slots=True)
class GrowthBook:
    """Two-sided asymptotic confidence sequence of the mean (tests.py ``sequential_interval_halfwidth``)."""

    alpha: float = 0.05
    planned: float = 5000.0
    name: str = "growthbook"

    def run(self, drawn: Drawn) -> Outcomes:
        n, mean, variance = _running(drawn)
        doubled = -2.0 * math.log(self.alpha)
        rho2 = (doubled + math.log(doubled + 1.0)) / self.planned
        shape = 2.0 * (n * rho2 + 1.0) / (n * n * rho2)
        half = np.sqrt(variance * shape * np.log(np.sqrt(n * rho2 + 1.0) / self.alpha))
        half = np.where(n >= LEAST, half, np.inf)
        return _outcomes(_first(mean - half > 0.0), _first(mean + half < 0.0), drawn.differences.shape[1])


def _window_means(drawn: Drawn) -> Floats:
    """Mean of the complete pairs among the last 20 sessions; NaN before there are 20 sessions, or without a pair."""
    known = ~np.isnan(drawn.differences)
    values = np.where(known, drawn.differences, 0.0)
    zero = np.zeros((values.shape[0], 1))
    sums = np.hstack([zero, np.cumsum(values, axis=1)])
    counts = np.hstack([zero, np.cumsum(known, axis=1)])
    with np.errstate(invalid="ignore", divide="ignore"):
        means = (sums[:, WINDOW:] - sums[:, :-WINDOW]) / (counts[:, WINDOW:] - counts[:, :-WINDOW])
    return np.hstack([np.full((values.shape[0], WINDOW - 1), np.nan), means])


@dataclass(frozen=True, slots=True)
class Flagger:
    """A MetricTemplate "mean loss difference of 20 sessions", min 0, interval one session; five steps, threshold 5."""

    threshold: int = 5
    steps: int = 5
    name: str = "flagger"

    def run(self, drawn: Drawn) -> Outcomes:
        passed = _window_means(drawn)[:, WINDOW - 1 :] >= 0.0
        wins, losses = np.cumsum(passed, axis=1), np.cumsum(~passed, axis=1)
        promoted, failed = _first(wins >= self.steps) + WINDOW - 1, _first(losses >= self.threshold) + WINDOW
        return _outcomes(promoted, failed, drawn.differences.shape[1])


@dataclass(frozen=True, slots=True)
class Argo:
    """The same number by a success- or failureCondition each 5 sessions; 40 sessions, failureLimit 3.

    Without a pair the number is NaN: success-only counts a failure, failure-only a success.
    """

    failure_only: bool = False
    limit: int = 3
    name: str = "argo_success"

    def run(self, drawn: Drawn) -> Outcomes:
        means = _window_means(drawn)[:, WINDOW - 1 : WINDOW + 40 : 5]
        with np.errstate(invalid="ignore"):
            failed = means < 0.0 if self.failure_only else ~(means >= 0.0)
        bad = np.cumsum(failed, axis=1) > self.limit
        rolled = np.where(bad.any(axis=1), WINDOW + 5.0 * bad.argmax(axis=1), np.inf)
        promoted = np.where(bad.any(axis=1), np.inf, WINDOW + 40.0)
        return _outcomes(promoted, rolled, drawn.differences.shape[1])


@dataclass(frozen=True, slots=True)
class Kayenta:
    """Mann–Whitney on 60 sessions' losses of both arms, which share the market's own noise (χ²₁ losses)."""

    sessions: int = 60
    name: str = "kayenta"

    def run(self, drawn: Drawn) -> Outcomes:
        part = drawn.differences[:, : self.sessions]
        rng = np.random.default_rng(part.shape[0])
        champion = rng.chisquare(1.0, part.shape) + 5.0
        worse = high(np.where(np.isnan(part), np.nan, champion), champion - part)
        end = np.full(part.shape[0], float(self.sessions))
        never = np.full(part.shape[0], np.inf)
        return _outcomes(np.where(worse, never, end), np.where(worse, end, never), drawn.differences.shape[1])


RULES: tuple[SessionRule, ...] = (
    Betting(),
    Flagger(),
    Argo(),
    Argo(failure_only=True, name="argo_failure"),
    Kayenta(),
    Peeked(),
    Welch(),
    GrowthBook(),
)
