"""Evidence of harm that also finds harm which begins late (statistics.md rule 5).

A mixture of three e-processes against H0: in each block the challenger's rate is at most the champion's:
½ a plug-in process with a half-life of 165 blocks; ¼ weighted Shiryaev–Roberts, averaged over alternatives of 1.5, 2,
3, 5 and 10 × the champion's rate; ¼ the same over a plug-in of the challenger with a half-life of 10 blocks (the
champion's rate stays the slow one: an estimate from ten blocks of few errors would bet on noise). A weighted
Shiryaev–Roberts process ``Σ_k w_k Π_{i>=k} f_i + (weight not yet spent)`` is a mixture over the block at which harm
begins, so quiet days cost it a logarithm and no more.

Source: Turner, Ly & Grünwald (2024) for the factors; Shin, Ramdas & Rinaldo (2024), "E-detectors", NEJSDS 2(2),
section 2.2, with weights that sum to at most one, which makes it an e-process and not only a detector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.evidence.logspace import log_sum_exp
from fiduciary.evidence.proportions import log_factor_harm
from fiduciary.evidence.rates import Beliefs
from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_dispersion, check_trials

if TYPE_CHECKING:
    from fiduciary.evidence.blocks import Block, Counts

SLOW_HALF_LIFE = 165.0
FAST_HALF_LIFE = 10.0
ALTERNATIVES = (1.5, 2.0, 3.0, 5.0, 10.0)
_NORMALISER = 1.0 / 2.109742801236892  # 1/Σ_{m>=2} 1/(m ln² m)
_SUMMED = 10_000
ONSET_POWER = 1.25
"""The parts that restart divide by φ^1.25: they pick the worst episode of many, where a rate that bursts looks most
like harm. Any power >= 1 is valid; with φ alone the mixture's size is .12–.19 in a service with bursts, whether φ̂ is
from one day or from seven; with this power and seven days it is .04–.06 (bench/onset_power.py, docs/statistics.md)."""


def onset_weight(first: int, last: int, planned: int) -> float:
    """Σ_{k=first}^{last} w_k with w_k = ½/T (k < T) + ½ c/((k+2) ln²(k+2)): the prior that harm begins there.

    Over all k it sums to 1. In a gap of more than 10,000 blocks the second part of the later ones is replaced by its
    integral, which is smaller: weight is then given away, never invented.

    Args:
        first, last: numbers of base blocks from 0.
        planned: T, base blocks in maxDuration.
    """
    even = 0.5 * max(0, min(last, planned - 1) - first + 1) / planned
    summed = min(last, first + _SUMMED)
    tail = math.fsum(1.0 / (m * math.log(m) ** 2) for m in range(first + 2, summed + 3))
    if last > summed:
        tail += 1.0 / math.log(summed + 3) - 1.0 / math.log(last + 3)
    return even + 0.5 * _NORMALISER * tail


@dataclass(frozen=True, slots=True)
class Harm:
    """State of the mixture: O(1) numbers, whatever the number of blocks.

    ``log_fixed`` and ``log_fast`` are the logarithms of the Shiryaev–Roberts sums, empty before the first block.
    Valid under any dependence between blocks; invalid as :mod:`fiduciary.evidence.proportions` says.
    """

    planned: int
    last: int
    slow: Beliefs
    fast: Beliefs
    spent: float
    log_plugin: float
    log_fixed: tuple[float, ...]
    log_fast: tuple[float, ...]

    @classmethod
    def start(cls, history: Counts, planned: int) -> Harm | Refusal:
        """Nothing folded yet.

        Args:
            history: the champion's requests before the experiment, for its plug-in.
            planned: base blocks in maxDuration, at least 1.
        """
        if not 1 <= planned <= MAX_COUNT:
            return Refusal(Why.PARAMETER, f"planned blocks are {planned}; expected 1 to 2^53")
        problem = check_trials("history", history.trials, history.bad)
        beliefs = Beliefs.of_history(history)
        return problem or cls(planned, -1, beliefs, beliefs, 0.0, 0.0, (), ())

    def fold(self, block: Block, dispersion: float) -> Harm | Refusal:
        """With the block after the last one folded: each factor to the power 1/φ (1/φ^1.25), φ >= 1 known before.

        Not associative: two base blocks and their merger are different bets. Both are valid.
        """
        problem = block.check(self.last) or check_dispersion(dispersion)
        if problem is not None:
            return problem
        champion, blunt = self.slow.champion(), dispersion**ONSET_POWER
        plugin = log_factor_harm(block, champion, self.slow.challenger()) / dispersion
        fixed = [log_factor_harm(block, champion, min(0.5 + 0.5 * champion, r * champion)) for r in ALTERNATIVES]
        fast = log_factor_harm(block, champion, self.fast.challenger_near(champion)) / blunt
        weight = onset_weight(block.first, block.last, self.planned)
        return Harm(
            self.planned,
            block.last,
            self.slow.after(block, SLOW_HALF_LIFE),
            self.fast.after(block, FAST_HALF_LIFE),
            self.spent + weight,
            self.log_plugin + plugin,
            _shiryaev_roberts(self.log_fixed, weight, [factor / blunt for factor in fixed]),
            _shiryaev_roberts(self.log_fast, weight, [fast]),
        )

    @property
    def log_e(self) -> float:
        """ln of the mixture; harm is shown at >= ln 1/α (its share of α, see :mod:`fiduciary.evidence.combine`)."""
        unspent = math.log(max(1.0 - self.spent, 1e-300))
        mean_fixed = log_sum_exp(self.log_fixed) - math.log(len(ALTERNATIVES))
        return log_sum_exp(
            [
                math.log(0.5) + self.log_plugin,
                math.log(0.25) + log_sum_exp([mean_fixed, unspent]),
                math.log(0.25) + log_sum_exp([*self.log_fast, unspent]),
            ]
        )


def _shiryaev_roberts(log_sums: tuple[float, ...], weight: float, factors: list[float]) -> tuple[float, ...]:
    """R_t = (R_{t-1} + w_t) f_t for each alternative."""
    before = log_sums or (-math.inf,) * len(factors)
    start = math.log(weight)
    return tuple(log_sum_exp([log, start]) + factor for log, factor in zip(before, factors, strict=True))
