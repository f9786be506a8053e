"""Folding blocks of requests: a closed block in, new evidence out. No rule of the experiment is in here.

Everything that a factor uses (rates, dispersion) was known before the block that it judges.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from fiduciary.decide import identity
from fiduciary.evidence.blocks import Block, Counts
from fiduciary.evidence.codec import encode
from fiduciary.evidence.refusal import Refusal, Why, check_count, check_next
from fiduciary.evidence.samples import SampleRatio, shortfall

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from fiduciary.decide.experiment.state import Evidence, GuardrailEvidence, Terms
    from fiduciary.decide.experiment.world import ArmCounts, ClosedBlock
    from fiduciary.evidence.dispersion import Dispersion
    from fiduciary.evidence.noninferiority import NonInferiority


def fold_block(terms: Terms, evidence: Evidence, block: ClosedBlock) -> Evidence | Refusal:
    """With the next block: harm always; non-inferiority and sample ratio only where the weights stood still.

    A refusal folds nothing of it.
    """
    problem = check_next(evidence.last, block.first, block.last) or check_count("misrouted", block.misrouted)
    if problem is not None:
        return problem
    counts = {test.name: test for test in block.tests}
    guardrails: list[GuardrailEvidence] = []
    for guardrail in evidence.guardrails:
        if guardrail.name not in counts:
            return Refusal(Why.MALFORMED, f"block {block.first}..{block.last} has no counts of {guardrail.name}")
        folded = _guardrail(terms, guardrail, block, counts[guardrail.name])
        if isinstance(folded, Refusal):
            return folded
        guardrails.append(folded)
    ratio = _ratio(terms, evidence.ratio, block)
    if isinstance(ratio, Refusal):
        return ratio
    alarm = ratio is not None and ratio.log_e >= -math.log(terms.ratio)
    rises = alarm and not evidence.ratio_alarm
    return replace(
        evidence,
        last=block.last,
        guardrails=tuple(guardrails),
        ratio=ratio,
        ratio_alarm=evidence.ratio_alarm or alarm,
        shortfall=ratio is not None and _receives_less(ratio) if rises else evidence.shortfall,
        misrouted=evidence.misrouted + block.misrouted,
        requests=evidence.requests + sum(block.requests),
        chain=chained(evidence.chain, block),
    )


def arms(terms: Terms, block: ClosedBlock, test: ArmCounts) -> tuple[Counts, Counts]:
    """(champion, challenger) requests that the harm test compares: live ones and mirrored copies together.

    While the cluster had taken the challenger's pods, what was sent to it says nothing of the version. Who is absent
    does not hang on what it answers, so that the other blocks are what they were.

    Sticky routes draw clients, not requests, so that live arms are different people: there only copies of the same
    requests are compared (statistics.md rule 9). At weight 100 there is one arm: all that it answers is its own.
    """
    if block.absent:
        return _sum(test.champion, test.champion_mirror), Counts(0, 0)
    if not terms.sticky or block.weight >= 100:
        return _sum(test.champion, test.champion_mirror), _sum(test.challenger, test.challenger_mirror)
    return (test.champion if block.weight == 0 else test.champion_mirror), test.challenger_mirror


def for_promotion(terms: Terms, block: ClosedBlock, test: ArmCounts) -> tuple[Counts, Counts] | None:
    """(champion, challenger) requests that count for non-inferiority: live ones at the final weight; None: none do."""
    if block.merged or block.absent or block.weight != terms.final_weight:
        return None
    return arms(terms, block, test) if terms.sticky else (test.champion, test.challenger)


def dispersions(terms: Terms, evidence: GuardrailEvidence) -> tuple[float, float]:
    """(φ of harm, φ of non-inferiority), known before the next block (rule 3)."""
    champion = dispersion(terms, evidence.champion)
    return champion, max(champion, dispersion(terms, evidence.challenger))


def watch_dispersion(evidence: GuardrailEvidence, phi: float) -> float:
    """φ after a promotion, where nobody serves beside the new champion at the same time (watch.py).

    What a busy machine does to both arms is then seen in one of them only. Before there is a day of blocks the declared
    φ may be too small for it, so what the old champion's requests were seen to scatter counts where it is more. They
    end with the promotion: what the new champion does moves nothing here. ``phi``: of harm, the champion's alone.
    """
    return max(phi, evidence.champion.provisional())


def dispersion(terms: Terms, counts: Dispersion) -> float:
    """The estimate of one arm once it has a day of blocks; until then what the spec declares."""
    estimate = counts.estimate(terms.least_blocks)
    return terms.dispersion if isinstance(estimate, Refusal) else estimate


def chained(chain: str, item: DataclassInstance) -> str:
    """The hash over everything folded so far and ``item``: a replay of the export must meet it."""
    return identity.digest([chain, encode(item)])


def _guardrail(
    terms: Terms, state: GuardrailEvidence, block: ClosedBlock, test: ArmCounts
) -> GuardrailEvidence | Refusal:
    champion, challenger = arms(terms, block, test)
    counted = for_promotion(terms, block, test)
    phi_harm, phi_both = dispersions(terms, state)
    harm = state.harm.fold(Block(block.first, block.last, champion, challenger), phi_harm)
    one = state.champion.fold(block.first, block.last, champion)
    other = state.challenger.fold(block.first, block.last, challenger)
    shown = _noninferiority(state.noninferiority, block, counted, phi_both)
    alone = watch_dispersion(state, phi_harm)
    watch = None if state.watch is None else state.watch.fold(block.first, block.last, challenger, alone)
    if isinstance(harm, Refusal):
        return harm
    if isinstance(one, Refusal):
        return one
    if isinstance(other, Refusal):
        return other
    if isinstance(shown, Refusal):
        return shown
    if isinstance(watch, Refusal):
        return watch
    final = counted or (Counts(0, 0), Counts(0, 0))
    # With all requests on one arm there is nothing beside it: what status compares was counted at the same time.
    beside = (champion, challenger) if block.weight < 100 and not block.absent else (Counts(0, 0), Counts(0, 0))
    return replace(
        state,
        harm=harm,
        champion=one,
        challenger=other,
        noninferiority=shown,
        watch=watch,
        seen_champion=_sum(state.seen_champion, beside[0]),
        seen_challenger=_sum(state.seen_challenger, beside[1]),
        final_champion=_sum(state.final_champion, final[0]),
        final_challenger=_sum(state.final_challenger, final[1]),
        final_blocks=state.final_blocks + (counted is not None),
    )


def _noninferiority(
    state: NonInferiority | None, block: ClosedBlock, counted: tuple[Counts, Counts] | None, phi: float
) -> NonInferiority | Refusal | None:
    if state is None:
        return None
    if counted is None:
        return state.skip(block.first, block.last)
    return state.fold(Block(block.first, block.last, *counted), phi)


def _ratio(terms: Terms, state: SampleRatio | None, block: ClosedBlock) -> SampleRatio | Refusal | None:
    """A merged gap may have been routed by other weights; sticky routes and single arms draw nothing.

    Where a pod ended, one arm lacks requests that the router drew: that is no mismatch.
    """
    if terms.sticky or block.merged or block.absent or block.around.lost or not 0 < block.weight < 100:
        return None if state is None else state.skip(block.first, block.last)
    share = block.weight / 100.0
    shares = (1.0 - share, share)
    if state is None:
        state_now = SampleRatio.start(shares, block.first - 1)
    else:
        state_now = state if state.segment.shares == shares else state.reweigh(shares)
    return (
        state_now
        if isinstance(state_now, Refusal)
        else state_now.fold(block.first, block.last, block.requests, block.around.opened, block.around.closed)
    )


def _receives_less(ratio: SampleRatio) -> bool:
    champion, challenger = ratio.segment.counts
    return shortfall(ratio.segment.shares[1], challenger, champion)


def _sum(one: Counts, other: Counts) -> Counts:
    return Counts(one.trials + other.trials, one.bad + other.bad)
