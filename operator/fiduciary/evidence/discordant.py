"""Paired discordant e-process: both arms score the same independent instances, only disagreements count.

Source: beta mixture of Bernoulli likelihoods, truncated to the alternative: Ville (1939); Robbins (1970), Annals of
Mathematical Statistics 41(5), section 4; the one-sided truncation: Howard et al. (2021), Annals of Statistics 49(2),
appendix A.4.
"""

from __future__ import annotations

from dataclasses import dataclass

from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_count
from fiduciary.evidence.tails import log_upper_beta_ratio

PRIOR = 20.0


@dataclass(frozen=True, slots=True)
class Discordant:
    """Wins and losses of the challenger among instances on which exactly one arm is right.

    H0: P(win | discordant, past) <= ½. ``E = 2ⁿ B(a+w, a+l) [1 - I_½(a+w, a+l)] / (B(a, a)/2)``, a = 20. Valid
    under any dependence that keeps the conditional probability at most ½. Invalid for overlapping label horizons
    (size .34–.81, statistics.md 3.1): sessions use betting.
    """

    wins: int
    losses: int

    def fold(self, wins: int, losses: int) -> Discordant | Refusal:
        """With more of both. Associative and commutative: only the sums count."""
        problem = check_count("wins", wins) or check_count("losses", losses)
        if problem is None and self.wins + self.losses + wins + losses > MAX_COUNT:
            problem = Refusal(Why.TOO_LARGE, "more than 2^53 discordant instances")
        return problem or Discordant(self.wins + wins, self.losses + losses)

    @property
    def log_e(self) -> float:
        """ln E; 0 before the first instance."""
        return log_upper_beta_ratio(PRIOR + self.wins, PRIOR + self.losses, 0.5) - log_upper_beta_ratio(
            PRIOR, PRIOR, 0.5
        )
