"""Sample ratio mismatch: does each arm get the share of requests that the route says? (statistics.md rule 9)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fiduciary.evidence.refusal import MAX_COUNT, Refusal, Why, check_count, check_next
from fiduciary.evidence.tails import deviance, stirling_rest

CONCENTRATION = 1000.0


def log_bayes_factor(shares: tuple[float, ...], counts: tuple[float, ...], prior: tuple[float, ...]) -> float:
    """ln of ``Γ(Σα)/Γ(Σα+N) Π Γ(αᵢ+nᵢ)/Γ(αᵢ) / Π ρᵢ^nᵢ``: Dirichlet(α)-multinomial against the fixed shares ρ.

    H0: each request is drawn independently with probabilities ρ. Source: Lindon & Malek (2022), NeurIPS, equation 9.
    Invalid for sticky routers: they draw users, not requests.

    Args:
        shares: ρ, one per arm, positive, sum 1.
        counts: n, requests per arm.
        prior: α, positive.
    """
    posterior = tuple(alpha + count for alpha, count in zip(prior, counts, strict=True))
    return _log_marginal(posterior, shares) - _log_marginal(prior, shares)


def _log_marginal(alphas: tuple[float, ...], shares: tuple[float, ...]) -> float:
    """ln of Π Γ(αᵢ)/Γ(A) / Π ρᵢ^αᵢ: Stirling's large parts leave A times the divergence of α/A from ρ."""
    total = math.fsum(alphas)
    terms = [0.5 * math.log(total) - stirling_rest(total)]
    for alpha, share in zip(alphas, shares, strict=True):
        expected = total * share
        terms += [alpha * deviance(expected, alpha, expected - alpha), stirling_rest(alpha), -0.5 * math.log(alpha)]
    return math.fsum(terms)


@dataclass(frozen=True, slots=True)
class Segment:
    """Requests per arm while the weights stood still.

    Pods are scraped one after the other, so the counts of two arms do not end at the same moment: while traffic grows,
    the arm that is scraped later seems to get more than its share. Nobody knows on which side of an edge the requests
    between the two samples around it lie, so only what holds wherever they lie is evidence.

    Attributes:
        over: requests of each arm that are counted and may lie outside.
        under: those that may lie inside and are not counted.
    """

    shares: tuple[float, ...]
    counts: tuple[int, ...]
    over: tuple[int, ...] = ()
    under: tuple[int, ...] = ()

    def log_bayes_factor(self) -> float:
        """:func:`log_bayes_factor` with α = 1000 ρ, the least over all that may have been."""
        return log_bayes_factor(self.shares, self._least(), tuple(CONCENTRATION * share for share in self.shares))

    def _least(self) -> tuple[float, ...]:
        """The possible counts nearest to the shares: the factor falls towards them in each count."""
        if not any(self.over) and not any(self.under):
            return self.counts
        low = [max(0, count - over) for count, over in zip(self.counts, self.over, strict=True)]
        high = [count + under for count, under in zip(self.counts, self.under, strict=True)]
        share = self.shares[1]
        if low[1] > share * (low[1] + high[0]):
            return high[0], low[1]
        if high[1] < share * (high[1] + low[0]):
            return low[0], high[1]
        return tuple(sum(high) * share for share in self.shares)


@dataclass(frozen=True, slots=True)
class SampleRatio:
    """E-process over segments: a new weight starts a new segment, Bayes factors of segments multiply.

    Alarm at log e >= ln 1/α (α = .001: 6.9). ``settled`` is the sum over closed segments. ``edge``: requests of each
    arm around the last edge, while the next block goes on from it.
    """

    last: int
    segment: Segment
    settled: float
    edge: tuple[int, ...] = ()

    @classmethod
    def start(cls, shares: tuple[float, ...], last: int = -1) -> SampleRatio | Refusal:
        """Nothing counted yet. ``shares``: of each arm, positive, sum 1, as the route says."""
        return _check_shares(shares) or cls(last, Segment(shares, (0,) * len(shares)), 0.0)

    def fold(
        self,
        first: int,
        last: int,
        counts: tuple[int, ...],
        opened: tuple[int, ...] = (),
        closed: tuple[int, ...] = (),
    ) -> SampleRatio | Refusal:
        """With the exposures of one settled block. Merged gaps are not folded here: call :meth:`skip`.

        Associative within a segment: only sums count.

        Args:
            counts: requests per arm.
            opened: of each of two arms, requests between the samples around the first edge; empty: the samples of all
                arms are of one moment.
            closed: the same around the last edge.
        """
        arms = len(self.segment.shares)
        if len(counts) != arms:
            return Refusal(Why.PARAMETER, f"{len(counts)} counts for {arms} arms")
        if (opened or closed) and not len(opened) == len(closed) == arms == 2:
            return Refusal(Why.PARAMETER, f"{len(opened)} and {len(closed)} bounds for {arms} arms; both need two")
        problem = check_next(self.last, first, last)
        for index, count in enumerate((*counts, *opened, *closed)):
            problem = problem or check_count(f"arm {index % arms}", count)
        sums = tuple(a + b for a, b in zip(self.segment.counts, counts, strict=True))
        if problem is None and sum(sums) > MAX_COUNT:
            problem = Refusal(Why.TOO_LARGE, "more than 2^53 requests in a segment")
        return problem or replace(self, last=last, segment=self._bounded(sums, opened, closed), edge=closed)

    def _bounded(self, sums: tuple[int, ...], opened: tuple[int, ...], closed: tuple[int, ...]) -> Segment:
        """What lies around an edge inside the segment is in it, wherever it lies."""
        over, under = self.segment.over, self.segment.under
        if self.edge:
            under = tuple(kept - passed for kept, passed in zip(under, self.edge, strict=True))
        else:
            over = tuple(kept + new for kept, new in zip(over or (0,) * len(opened), opened, strict=True))
        under = tuple(kept + new for kept, new in zip(under or (0,) * len(closed), closed, strict=True))
        return replace(self.segment, counts=sums, over=over, under=under)

    def skip(self, first: int, last: int) -> SampleRatio | Refusal:
        """After a gap: its requests may have been routed by other weights and count for nothing."""
        return check_next(self.last, first, last) or replace(self, last=last, edge=())

    def reweigh(self, shares: tuple[float, ...]) -> SampleRatio | Refusal:
        """New weights on the route: the segment is settled, a new one begins. An arm of weight 0 is left out."""
        return _check_shares(shares) or SampleRatio(self.last, Segment(shares, (0,) * len(shares)), self.log_e)

    @property
    def log_e(self) -> float:
        """ln of the product of the Bayes factors of all segments."""
        return self.settled + self.segment.log_bayes_factor()


def _check_shares(shares: tuple[float, ...]) -> Refusal | None:
    if len(shares) >= 2 and all(0.0 < share < 1.0 for share in shares) and abs(math.fsum(shares) - 1.0) <= 1e-9:
        return None
    return Refusal(Why.PARAMETER, f"shares are {shares}; expected at least two inside (0, 1) that sum to 1")


def shortfall(expected: float, challenger: int, champion: int) -> bool:
    """Whether the challenger got less than its share: then a mismatch is harm, something eats its requests."""
    return challenger < expected * (challenger + champion)


@dataclass(frozen=True, slots=True)
class Sticky:
    """Sticky routing: requests whose arm is not the one that their hash says. Tolerance 0, no test is needed."""

    requests: int
    misrouted: int

    def fold(self, requests: int, misrouted: int) -> Sticky | Refusal:
        """With the counts of one more block; associative."""
        problem = check_count("requests", requests) or check_count("misrouted", misrouted)
        if problem is None and misrouted > requests:
            return Refusal(
                Why.BAD_ABOVE_TRIALS, f"{misrouted} of {requests} requests are misrouted; at most all can be"
            )
        return problem or Sticky(self.requests + requests, self.misrouted + misrouted)

    @property
    def alarm(self) -> bool:
        """True after the first misrouted request."""
        return self.misrouted > 0
