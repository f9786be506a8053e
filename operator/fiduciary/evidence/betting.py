"""Mixture betting on clipped session differences: superiority of a model on paired losses (statistics.md rule 14)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fiduciary.evidence.logspace import log_sum_exp
from fiduciary.evidence.moments import Moments
from fiduciary.evidence.refusal import Refusal, Why, check_measure, check_next, check_positive

CLIP = 4.0
BETS = tuple(0.004 * (0.2 / 0.004) ** (i / 9) for i in range(10))
BLOCK = 63
PRIOR_RATIO, PRIOR_BLOCKS = 2.0, 8


def scale_of(burn_in: Moments, least: int = 250) -> float | Refusal:
    """The sd that standardises all later sessions, frozen from prequential sessions that are not folded.

    Args: burn_in: of the session differences before the first folded one, at least ``least``.
    """
    if burn_in.count < least:
        return Refusal(Why.TOO_FEW, f"{burn_in.count} sessions; the scale is frozen from at least {least}")
    return burn_in.sd()


@dataclass(frozen=True, slots=True)
class Betting:
    """State of the e-process against H0: E[clip(d/sd, ±4) | past] <= ``null`` with d the session's difference.

    d is oriented so that positive is better for the challenger. ``E = mean over 10 log-spaced λ in .004–.2 of
    exp Σ ln(1 + λ (z_t - null))/φ_t``. φ_t = max(1, (8·2 + Σ B²/(63 s²))/(8 + m - 1)) is known before session t: B are
    the centred sums of the m complete blocks of 63 sessions, s² the variance of their z.

    Source: Waudby-Smith & Ramdas (2024), JRSS B 86(1), equation 24 (betting) and section 4.4 (mixtures); the power
    1/φ <= 1 keeps the mean at most 1 (Jensen). Unit: one session; h > 1: sessions h - 1 apart are left out, or h
    interleaved streams are averaged. Invalid as a claim about the future: it is about the average so far, and a
    challenger that is better only in long regimes was better so far (size .156 at ±.2 sd, rule 14).
    """

    scale: float
    null: float
    last: int
    clipped: int
    log_wealth: tuple[float, ...]
    settled: Moments
    open: Moments
    blocks: Moments

    @classmethod
    def start(cls, scale: float, null: float = 0.0) -> Betting | Refusal:
        """Nothing folded yet.

        Args:
            scale: from :func:`scale_of`, in the unit of d.
            null: mean of z under H0, in sd, inside (-.2, .2); non-inferiority by .1 sd is null = -.1.
        """
        if not -0.2 < null < 0.2:
            return Refusal(Why.PARAMETER, f"null is {null} sd; expected -0.2 < null < 0.2")
        problem = check_positive("scale", scale)
        empty = Moments()
        return problem or cls(scale, null, -1, 0, (0.0,) * len(BETS), empty, empty, empty)

    @property
    def dispersion(self) -> float:
        """φ of the next session."""
        m = self.blocks.count
        sd = self.settled.sd()
        ratio = 0.0 if m < 2 or isinstance(sd, Refusal) else self.blocks.squares / (BLOCK * sd * sd)
        return max(1.0, (PRIOR_BLOCKS * PRIOR_RATIO + ratio) / (PRIOR_BLOCKS + max(0, m - 1)))

    def fold(self, session: int, difference: float) -> Betting | Refusal:
        """With the next folded session. A session that is not folded has no number: number those that are.

        Args:
            session: number from 0 of the folded session.
            difference: d, mean over entities; a missing challenger is imputed before (rule 13: -4 sd an entity).
        """
        problem = check_next(self.last, session, session) or check_measure("difference", difference)
        if problem is not None:
            return problem
        raw = difference / self.scale
        z = min(max(raw, -CLIP), CLIP)
        phi = self.dispersion
        wealth = tuple(
            log + math.log1p(bet * (z - self.null)) / phi for log, bet in zip(self.log_wealth, BETS, strict=True)
        )
        inside = self.open.add(z)
        if isinstance(inside, Refusal):
            return inside
        folded = replace(
            self,
            last=session,
            clipped=self.clipped + (raw != z),
            log_wealth=wealth,
            open=inside,
        )
        return folded.closed() if inside.count == BLOCK else folded

    def closed(self) -> Betting | Refusal:
        """The open block of 63 sessions becomes one of the complete ones."""
        settled, blocks = self.settled.merge(self.open), self.blocks.add(BLOCK * self.open.mean)
        if isinstance(settled, Refusal):
            return settled
        if isinstance(blocks, Refusal):
            return blocks
        return replace(self, open=Moments(), settled=settled, blocks=blocks)

    @property
    def log_e(self) -> float:
        """ln of the mixture over the ten bets."""
        return log_sum_exp(self.log_wealth) - math.log(len(BETS))

    def regimes(self) -> float:
        """Block-sum variance over what independent sessions would show; well above 1: better only in some regimes."""
        sd = self.settled.sd()
        if self.blocks.count < 2 or isinstance(sd, Refusal):
            return 1.0
        return self.blocks.squares / (self.blocks.count - 1) / (BLOCK * sd * sd)
