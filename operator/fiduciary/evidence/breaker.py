"""Circuit breaker: absolute and immediate, but deaf to three unlucky requests (statistics.md rule 8)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_trials
from fiduciary.evidence.tails import log_binomial_tail

if TYPE_CHECKING:
    from fiduciary.evidence.blocks import Counts

LEVEL = 0.001


@dataclass(frozen=True, slots=True)
class Breaker:
    """What one evaluation says: the observed rate, the rate that is normal now, ln of the tail and its threshold."""

    rate: float
    normal: float
    log_tail: float
    log_level: float
    trips: bool


def circuit_breaker(
    challenger: Counts, champion: Counts, above: float, normal: float, evaluations: int
) -> Breaker | Refusal:
    """Trips when y/n > ``above`` and P(Bin(n, b) >= y) <= .001/evaluations, b the larger of both normal rates.

    H0: the challenger's requests are independent and bad with probability at most b. Union bound over all evaluations
    of an experiment; exact tail (Clopper & Pearson 1934). Bursts break independence: ``above`` is set for them.
    No trials: it does not trip, no data is rule 10's matter.

    Args:
        challenger: unsettled counts since the last edge.
        champion: of the same time: an outage that both share raises b and does not trip.
        above: declared rate in (0, 1) beyond which it may trip.
        normal: declared rate in (0, 1) that is normal.
        evaluations: scrapes in maxDuration, at least 1.
    """
    problem = check_trials("challenger", challenger.trials, challenger.bad) or check_trials(
        "champion", champion.trials, champion.bad
    )
    if problem is not None:
        return problem
    if not (0.0 < above < 1.0 and 0.0 < normal < 1.0 and 1 <= evaluations <= MAX_COUNT):
        return Refusal(
            Why.PARAMETER,
            f"above {above}, normal {normal}, evaluations {evaluations}; expected rates inside (0, 1) and 1 to 2^53",
        )
    log_level = math.log(LEVEL) - math.log(evaluations)
    seen = champion.bad / champion.trials if champion.trials else 0.0
    base = max(normal, seen)
    if challenger.trials == 0:
        return Breaker(0.0, base, 0.0, log_level, False)
    rate = challenger.bad / challenger.trials
    log_tail = 0.0 if base >= 1.0 else log_binomial_tail(challenger.trials, challenger.bad, base)
    return Breaker(rate, base, log_tail, log_level, rate > above and log_tail <= log_level)
