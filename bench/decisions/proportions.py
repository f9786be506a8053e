"""Array forms of ``fiduciary.evidence``: proportions, rates, harm, noninferiority. One element a replication.

tests/decisions/test_arrays.py proves them equal to the operator's own on random streams.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fiduciary.evidence.harm import ALTERNATIVES, FAST_HALF_LIFE, ONSET_POWER, SLOW_HALF_LIFE, onset_weight
from fiduciary.evidence.rates import CHALLENGER_PRIOR

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.float64]
_LEAST = 1e-9


@dataclass(frozen=True, slots=True)
class Counts:
    """Trials and bad ones of one arm in one block, as floats: whole numbers up to 2⁵³."""

    trials: Floats
    bad: Floats

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.trials + other.trials, self.bad + other.bad)


@dataclass(frozen=True, slots=True)
class Block:
    """Both arms between two edges; base blocks ``first`` … ``last`` are the same in all replications."""

    first: int
    last: int
    champion: Counts
    challenger: Counts


def log_ratio(block: Block, bet: tuple[Floats, Floats], null: tuple[Floats, Floats]) -> Floats:
    """ln of the likelihood ratio of two pairs of rates, shape (replications) or (bets, replications)."""
    parts = []
    for arm, p, q in ((block.champion, bet[0], null[0]), (block.challenger, bet[1], null[1])):
        parts.append(arm.bad * np.log(p / q) + (arm.trials - arm.bad) * np.log((1.0 - p) / (1.0 - q)))
    return parts[0] + parts[1]


def log_factor_equality(block: Block, champion: Floats, challenger: Floats) -> Floats:
    """As the operator's function of the same name."""
    na, nb = block.champion.trials, block.challenger.trials
    both = na + nb
    share = nb / np.where(both > 0.0, both, 1.0)
    pooled = champion + share * (challenger - champion)
    ratio = log_ratio(block, (champion, challenger), (pooled, pooled))
    return np.where((na > 0.0) & (nb > 0.0), ratio, 0.0)


def log_factor_harm(block: Block, champion: Floats, challenger: Floats) -> Floats:
    """As the operator's function of the same name."""
    return np.where(challenger > champion, log_factor_equality(block, champion, challenger), 0.0)


def log_factor_noninferiority(block: Block, champion: Floats, challenger: Floats, margin: Floats) -> Floats:
    """As the operator's function of the same name."""
    na, nb = block.champion.trials, block.challenger.trials
    bets = (na > 0.0) & (nb > 0.0) & (challenger < champion + margin) & (champion + margin < 1.0)
    # where no bet is made, any harmless numbers will do
    a, b = np.where(bets, champion, 0.25), np.where(bets, challenger, 0.25)
    d = np.where(bets, margin, 0.5)
    null = nearest(np.where(bets, na, 1.0), np.where(bets, nb, 1.0), a, b, d)
    return np.where(bets, log_ratio(block, (a, b), (null, null + d)), 0.0)


def nearest(na: Floats, nb: Floats, champion: Floats, challenger: Floats, margin: Floats) -> Floats:
    """The minimiser q of nₐ KL(pₐ‖q) + n_b KL(p_b‖q + d): safeguarded Newton steps on its derivative."""
    low, high = np.maximum(0.0, challenger - margin), champion.copy()
    shifted = champion + margin
    one, two = na / (champion * (1.0 - champion)), nb / (shifted * (1.0 - shifted))
    q = (one * champion + two * (challenger - margin)) / (one + two)  # the minimiser of the parabolas at (pₐ, pₐ + d)
    q = np.where((q > low) & (q < high), q, 0.5 * (low + high))
    for _ in range(100):
        s = q + margin
        one, two = q * (1.0 - q), s * (1.0 - s)
        slope = na * (q - champion) / one + nb * (s - challenger) / two
        below = slope < 0.0
        low, high = np.where(below, q, low), np.where(below, high, q)
        bend = na * (champion / q**2 + (1.0 - champion) / (1.0 - q) ** 2)
        bend += nb * (challenger / s**2 + (1.0 - challenger) / (1.0 - s) ** 2)
        step = q - slope / bend
        following = np.where((step >= low) & (step <= high), step, 0.5 * (low + high))
        moved = np.abs(following - q)
        q = following
        if np.all(moved <= 1e-13 * q):  # Newton: what is left is the square of it
            break
    return q


@dataclass(slots=True)
class Beliefs:
    """Array form of ``fiduciary.evidence.rates.Beliefs``."""

    champion_trials: Floats
    champion_bad: Floats
    challenger_trials: Floats
    challenger_bad: Floats

    @classmethod
    def of_history(cls, history: Counts) -> Beliefs:
        empty = np.zeros_like(history.trials)
        return cls(history.trials.copy(), history.bad.copy(), empty, empty.copy())

    def champion(self) -> Floats:
        return np.clip((self.champion_bad + 0.5) / (self.champion_trials + 1.0), _LEAST, 1.0 - _LEAST)

    def challenger_near(self, rate: Floats) -> Floats:
        bad = self.challenger_bad + CHALLENGER_PRIOR * rate
        return np.clip(bad / (self.challenger_trials + CHALLENGER_PRIOR), _LEAST, 1.0 - _LEAST)

    def after(self, block: Block, half_life: float | None) -> Beliefs:
        keep = 1.0 if half_life is None else 0.5 ** ((block.last - block.first + 1) / half_life)
        return Beliefs(
            keep * self.champion_trials + block.champion.trials,
            keep * self.champion_bad + block.champion.bad,
            keep * self.challenger_trials + block.challenger.trials,
            keep * self.challenger_bad + block.challenger.bad,
        )


@dataclass(slots=True)
class Harm:
    """Array form of ``fiduciary.evidence.harm.Harm``, with sums as they are and not their logarithms.

    That is a third faster, and enough: whoever nears the largest float was rolled back long before (it becomes inf).
    ``sums``: shape (6, replications), the Shiryaev–Roberts sums of the five alternatives and of the fast plug-in.
    """

    planned: int
    slow: Beliefs
    fast: Beliefs
    spent: float
    log_plugin: Floats
    sums: Floats

    @classmethod
    def start(cls, history: Counts, planned: int) -> Harm:
        beliefs = Beliefs.of_history(history)
        nothing = np.zeros((len(ALTERNATIVES) + 1, history.trials.size))
        return cls(planned, beliefs, beliefs, 0.0, np.zeros_like(history.trials), nothing)

    def fold(self, block: Block, dispersion: Floats) -> Harm:
        champion = self.slow.champion()
        bets = np.stack(
            [
                self.slow.challenger_near(champion),
                *(np.minimum(0.5 + 0.5 * champion, r * champion) for r in ALTERNATIVES),
                self.fast.challenger_near(champion),
            ]
        )
        factors = log_factor_harm(block, champion, bets)
        weight = onset_weight(block.first, block.last, self.planned)
        with np.errstate(over="ignore"):
            sums = (self.sums + weight) * np.exp(factors[1:] / dispersion**ONSET_POWER)
        return Harm(
            self.planned,
            self.slow.after(block, SLOW_HALF_LIFE),
            self.fast.after(block, FAST_HALF_LIFE),
            self.spent + weight,
            self.log_plugin + factors[0] / dispersion,
            sums,
        )

    def log_e(self) -> Floats:
        unspent = max(1.0 - self.spent, 1e-300)
        with np.errstate(over="ignore"):
            late = 0.25 * (self.sums[:-1].mean(axis=0) + unspent) + 0.25 * (self.sums[-1] + unspent)
            return np.log(0.5 * np.exp(self.log_plugin) + late)


def log_sum_exp(terms: Sequence[Floats]) -> Floats:
    top = np.maximum(terms[0], -1e300)  # all are -inf before the first block
    for term in terms[1:]:
        top = np.maximum(top, term)
    total = np.exp(terms[0] - top)
    for term in terms[1:]:
        total += np.exp(term - top)
    with np.errstate(divide="ignore"):
        return top + np.log(total)


@dataclass(slots=True)
class NonInferiority:
    """Array form of ``fiduciary.evidence.noninferiority.NonInferiority``; the margin may differ a replication."""

    margin: Floats
    beliefs: Beliefs
    log_e: Floats

    @classmethod
    def start(cls, history: Counts, margin: Floats) -> NonInferiority:
        return cls(margin, Beliefs.of_history(history), np.zeros_like(history.trials))

    def fold(self, block: Block, dispersion: Floats) -> NonInferiority:
        champion = self.beliefs.champion()
        challenger = self.beliefs.challenger_near(champion)
        factor = log_factor_noninferiority(block, champion, challenger, self.margin)
        return replace(self, beliefs=self.beliefs.after(block, None), log_e=self.log_e + factor / dispersion)
