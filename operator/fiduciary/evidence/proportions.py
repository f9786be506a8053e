"""The block factor of two proportions: likelihood ratio of a bet against the nearest rates of the null hypothesis.

Source: Turner, Ly & Grünwald (2024), JSPI 230, 106116, equations 5–8; margins: Turner & Grünwald (2023), Statistics &
Probability Letters 198, 109835, theorem 1. Unit: one block of requests per arm. Rates may differ from block to block
and weights may change: the factor has mean at most 1 for each true pair of rates of the null hypothesis.
Invalid where requests inside a block and arm depend on each other, unless the logarithm is divided by a dispersion
(statistics.md rule 3), or where a bet was chosen after its block was seen.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fiduciary.evidence.blocks import Block


def log_factor_equality(block: Block, champion: float, challenger: float) -> float:
    """ln of the factor against H0: both rates are equal.

    ``E = pₐ^yₐ (1-pₐ)^(nₐ-yₐ) p_b^y_b (1-p_b)^(n_b-y_b) / [q^y (1-q)^(n-y)]`` with q = (nₐpₐ + n_b p_b)/(nₐ + n_b).

    Args:
        block: checked counts (:meth:`Block.check`).
        champion: pₐ, the rate bet on for the champion, in (0, 1), known before the block.
        challenger: p_b, the same for the challenger.
    """
    na, nb = block.champion.trials, block.challenger.trials
    if na == 0 or nb == 0:
        return 0.0
    share = nb / (na + nb)
    pooled = champion + share * (challenger - champion)
    return _log_ratio(block, (champion, challenger), (pooled, pooled))


def log_factor_harm(block: Block, champion: float, challenger: float) -> float:
    """ln of the factor against H0: the challenger's rate is at most the champion's; 0 (no bet) if p_b <= pₐ.

    Args: as :func:`log_factor_equality`, whose null rate is also the nearest of this larger hypothesis.
    """
    return log_factor_equality(block, champion, challenger) if challenger > champion else 0.0


def log_factor_noninferiority(block: Block, champion: float, challenger: float, margin: float) -> float:
    """ln of the factor against H0: the challenger's rate is at least the champion's plus ``margin``.

    The null rates are (q, q + d) with q the minimiser of nₐ KL(pₐ‖q) + n_b KL(p_b‖q + d), found by bisection of its
    derivative ``nₐ[(1-pₐ)/(1-q) - pₐ/q] + n_b[(1-p_b)/(1-q-d) - p_b/(q+d)]``. 0 (no bet) if p_b >= pₐ + d, if the
    minimiser leaves the unit square, or if an arm has no trials.

    Args: as :func:`log_factor_equality`; ``margin``: -1 < d < 1, a difference of rates.
    """
    na, nb = block.champion.trials, block.challenger.trials
    if na == 0 or nb == 0 or challenger >= champion + margin or champion + margin >= 1.0:
        return 0.0
    null = _nearest(na, nb, champion, challenger, margin)
    return _log_ratio(block, (champion, challenger), (null, null + margin))


def _nearest(na: int, nb: int, champion: float, challenger: float, margin: float) -> float:
    low, high = max(0.0, challenger - margin), champion
    for _ in range(200):
        q = 0.5 * (low + high)
        if q in (low, high):
            break
        shifted = q + margin
        slope = na * (q - champion) / (q * (1.0 - q)) + nb * (shifted - challenger) / (shifted * (1.0 - shifted))
        if slope < 0.0:
            low = q
        else:
            high = q
    return high


def _log_ratio(block: Block, bet: tuple[float, float], null: tuple[float, float]) -> float:
    total = 0.0
    for arm, p, q in ((block.champion, bet[0], null[0]), (block.challenger, bet[1], null[1])):
        good = arm.trials - arm.bad
        total += arm.bad * _log_quotient(p, q) + good * _log_quotient(1.0 - p, 1.0 - q)
    return total


def _log_quotient(p: float, q: float) -> float:
    return math.log1p((p - q) / q) if abs(p - q) < 0.5 * q else math.log(p) - math.log(q)
