"""E-detector on paired losses: has a version become worse than another one on the same sessions?

A sum of betting processes, one begun at each session. Its expected run time between false alarms is at least the
threshold, whatever the distribution, in finite samples, and without a reference to calibrate on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from fiduciary.evidence.betting import BETS, CLIP, Betting
from fiduciary.evidence.logspace import log_sum_exp
from fiduciary.evidence.moments import Moments
from fiduciary.evidence.refusal import Refusal, check_measure, check_next

BURN_IN = 20
"""Sessions that give the first scale and are not folded."""


@dataclass(frozen=True, slots=True)
class EDetector:
    """State of the mixture Shiryaev–Roberts e-detector against H0: E[clip(d/s, ±4) | past] <= 0 at each session.

    ``M_t = mean over bets λ of R_t(λ)``, ``R_t = (R_{t-1} + 1) (1 + λ z_t)^{1/φ_t}``; alarm at M >= A has an expected
    run time of at least A sessions (Shin, Ramdas & Rinaldo 2024, New England J. Stat. Data Sci. 2(2), theorem 2.4 and
    section 3; the power 1/φ <= 1 keeps each factor's mean at most 1). z = d/s clipped at ±4, s the root mean square of
    the earlier d, so that it is known before the session. φ as in :class:`fiduciary.evidence.betting.Betting`.

    d is oriented so that positive is **worse** now. Unit: one session.
    """

    burn_in: Moments = field(default_factory=Moments)
    betting: Betting | None = None  # keeps φ: its wealth is not used
    last: int = -1
    log_sums: tuple[float, ...] = ()  # ln R per bet
    folded: int = 0

    def fold(self, session: int, difference: float) -> EDetector | Refusal:
        """With the next session's mean difference of losses. Sessions that are not folded have no number."""
        problem = check_next(self.last, session, session) or check_measure("difference", difference)
        if problem is not None:
            return problem
        seen = self.burn_in.add(difference)
        if isinstance(seen, Refusal):
            return seen
        if self.burn_in.count < BURN_IN or self.betting is None:
            begun = Betting.start(1.0) if seen.count >= BURN_IN else None
            if isinstance(begun, Refusal):
                return begun
            return replace(self, burn_in=seen, last=session, betting=begun)
        scale = math.sqrt(self.burn_in.squares / self.burn_in.count + self.burn_in.mean**2)
        z = min(max(difference / scale, -CLIP), CLIP) if scale > 0.0 else 0.0
        phi = self.betting.dispersion
        betting = self.betting.fold(self.folded, z)
        if isinstance(betting, Refusal):
            return betting
        before = self.log_sums or (None,) * len(BETS)
        sums = tuple(
            (0.0 if log is None else log_sum_exp((log, 0.0))) + math.log1p(bet * z) / phi
            for log, bet in zip(before, BETS, strict=True)
        )
        return EDetector(seen, betting, session, sums, self.folded + 1)

    @property
    def log_e(self) -> float | None:
        """ln M; None before the first folded session."""
        return log_sum_exp(self.log_sums) - math.log(len(BETS)) if self.log_sums else None

    def reset(self) -> EDetector:
        """After an alarm was acted on: the sum starts again, scale and φ stay."""
        return replace(self, log_sums=())
