"""Evidence that a challenger is not worse than a margin, and evidence against equality: plain plug-in e-processes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fiduciary.evidence.proportions import log_factor_equality, log_factor_noninferiority
from fiduciary.evidence.rates import Beliefs
from fiduciary.evidence.refusal import Refusal, Why, check_dispersion, check_next, check_trials

if TYPE_CHECKING:
    from fiduciary.evidence.blocks import Block, Counts


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """State of the e-process against H0: challenger's rate >= champion's rate + ``margin`` in each block.

    ``E = Π E_k^{1/φ_k}``; the rates bet on are those of all earlier blocks (:class:`Beliefs`, without forgetting).
    Reject at log e >= ln 1/α. Only blocks at the final weight belong here (statistics.md rule 6); φ is the larger of
    both arms' (rule 3). Source and what makes it invalid: :mod:`fiduciary.evidence.proportions`.
    """

    margin: float
    last: int
    beliefs: Beliefs
    log_e: float

    @classmethod
    def start(cls, history: Counts, margin: float, last: int = -1) -> NonInferiority | Refusal:
        """Nothing folded yet.

        Args:
            history: the champion's requests before, for its plug-in.
            margin: difference of rates that still counts as not worse, -1 < margin < 1; not positive: the challenger
                has to be better by that much.
            last: number of the block before the first one to fold.
        """
        if not -1.0 < margin < 1.0:
            return Refusal(Why.PARAMETER, f"margin is {margin}; expected -1 < margin < 1, a difference of rates")
        problem = check_trials("history", history.trials, history.bad)
        return problem or cls(margin, last, Beliefs.of_history(history), 0.0)

    def fold(self, block: Block, dispersion: float) -> NonInferiority | Refusal:
        """With the block after the last one folded; ``dispersion`` φ >= 1 was known before it."""
        problem = block.check(self.last) or check_dispersion(dispersion)
        if problem is not None:
            return problem
        bets = self.beliefs.champion(), self.beliefs.challenger()
        factor = log_factor_noninferiority(block, *bets, self.margin)
        return replace(
            self,
            last=block.last,
            beliefs=self.beliefs.after(block, None),
            log_e=self.log_e + factor / dispersion,
        )

    def skip(self, first: int, last: int) -> NonInferiority | Refusal:
        """After a block that is not folded: another weight than the final one, or a merged gap."""
        return check_next(self.last, first, last) or replace(self, last=last)


@dataclass(frozen=True, slots=True)
class Equality:
    """State of the two-sided e-process against H0: both rates are equal in each block. Otherwise as above."""

    last: int
    beliefs: Beliefs
    log_e: float

    @classmethod
    def start(cls, history: Counts, last: int = -1) -> Equality | Refusal:
        """Nothing folded yet; arguments as :meth:`NonInferiority.start`."""
        problem = check_trials("history", history.trials, history.bad)
        return problem or cls(last, Beliefs.of_history(history), 0.0)

    def fold(self, block: Block, dispersion: float) -> Equality | Refusal:
        """With the block after the last one folded; ``dispersion`` φ >= 1 was known before it."""
        problem = block.check(self.last) or check_dispersion(dispersion)
        if problem is not None:
            return problem
        factor = log_factor_equality(block, self.beliefs.champion(), self.beliefs.challenger())
        return Equality(block.last, self.beliefs.after(block, None), self.log_e + factor / dispersion)
