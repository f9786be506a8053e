"""Folding one block: which requests feed which test, divided by which dispersion."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fiduciary.decide.experiment.begin import begin
from fiduciary.decide.experiment.fold import dispersions, fold_block
from fiduciary.decide.experiment.world import Anchor, ArmCounts, Around, ClosedBlock, History, Spending
from fiduciary.evidence.blocks import Block, Counts
from fiduciary.evidence.dispersion import Dispersion
from fiduciary.evidence.refusal import Refusal
from tests.unit.decide.experiment.trials import SPEC, T0, Trial, past

if TYPE_CHECKING:
    from fiduciary.decide.experiment.state import State

EASY = Spending(anchors=(Anchor("errors", 0.02),))


def ok(value: Any) -> Any:
    assert not isinstance(value, Refusal), value
    return value


def bursty(blocks: int, first: int, every: int = 10, bad: int = 60) -> Dispersion:
    """Bad requests in one block of ``every``: far more scatter than independent requests have."""
    state: Any = Dispersion.start(first - 1)
    for k in range(blocks):
        state = ok(state.fold(first + k, first + k, Counts(150, bad if k % every == 0 else 0)))
    return state


def started(spec: dict[str, Any] | None = None, history: History | None = None) -> State:
    trial = Trial(spec=spec or {}, spending=EASY, history=(history or past(0.02, 60),))
    return ok(begin(trial.world(), int(T0.timestamp())))


def block(last: int = 0, weight: int = 50, **parts: Any) -> ClosedBlock:
    tests = (ArmCounts("errors", Counts(150, 3), Counts(150, 1), Counts(10, 1), Counts(20, 2)),)
    return ClosedBlock(0, last, weight, 100, (200, 100), tests, **parts)


def folded(state: State, of: ClosedBlock) -> Any:
    return ok(fold_block(state.terms, state.evidence, of))


def test_at_the_final_weight_everything_moves() -> None:
    after = folded(started(), block()).guardrails[0]
    assert (after.final_champion, after.final_challenger) == (Counts(150, 3), Counts(150, 1))  # live ones only
    assert (after.seen_champion, after.seen_challenger) == (Counts(160, 4), Counts(170, 3))  # and copies
    assert folded(started(), block()).ratio.segment.counts == (200, 100)


def test_no_sample_ratio_rests_on_what_the_samples_leave_open() -> None:
    uneven = replace(block(), requests=(200_000, 100_000))
    assert folded(started(), uneven).ratio_alarm
    open_edges = Around((60_000, 0), (0, 60_000))
    assert not folded(started(), replace(uneven, around=open_edges)).ratio_alarm
    assert folded(started(), replace(uneven, around=Around((20_000, 0), (0, 20_000)))).ratio_alarm
    ended = replace(uneven, around=Around((0, 0), (0, 0), lost=True))
    assert folded(started(), ended).ratio is None
    assert folded(started(), ended).guardrails == folded(started(), uneven).guardrails


@pytest.mark.parametrize("gap", [block(last=4), block(mixed=True)])
def test_a_gap_and_a_block_of_mixed_weights_count_for_harm_only(gap: ClosedBlock) -> None:
    state = started()
    settled = replace(state, evidence=folded(state, block()))
    moved = replace(gap, first=1, last=gap.last + 1)
    before, after = settled.evidence, folded(settled, moved)
    one, other = before.guardrails[0], after.guardrails[0]
    assert other.noninferiority.log_e == one.noninferiority.log_e
    assert other.noninferiority.beliefs == one.noninferiority.beliefs
    assert other.noninferiority.last == moved.last
    assert (other.final_champion, other.final_challenger) == (one.final_champion, one.final_challenger)
    assert after.ratio.log_e == before.ratio.log_e
    assert after.ratio.segment == before.ratio.segment
    assert other.harm.log_plugin != one.harm.log_plugin or other.harm.slow != one.harm.slow
    assert other.seen_challenger.trials == one.seen_challenger.trials + 170


def test_a_new_weight_is_a_new_segment() -> None:
    state = started()
    first = folded(state, block(weight=10))
    second = ok(fold_block(state.terms, first, replace(block(), first=1, last=1)))
    assert second.ratio.segment.counts == (200, 100)
    assert second.ratio.settled == first.ratio.log_e
    assert second.guardrails[0].final_champion == Counts(150, 3)  # 10 % is not the final weight


def test_harm_is_divided_by_the_champion_s_dispersion_and_non_inferiority_by_the_larger() -> None:
    calm, wild = past(0.02, 1500), bursty(1500, -1500)
    state = started(history=calm)
    guardrail = replace(state.evidence.guardrails[0], challenger=bursty(1500, -1500))
    state = replace(state, evidence=replace(state.evidence, guardrails=(guardrail,)))
    harm, both = dispersions(state.terms, guardrail)
    assert harm < 1.2
    assert both > 10.0
    after = folded(state, block()).guardrails[0]
    whole = Block(0, 0, Counts(160, 4), Counts(170, 3))
    assert after.harm == ok(guardrail.harm.fold(whole, harm))
    live = Block(0, 0, Counts(150, 3), Counts(150, 1))
    assert after.noninferiority == ok(guardrail.noninferiority.fold(live, both))
    # a champion with bursts blunts both
    other = started(history=History("errors", Counts(225_000, 9000), wild)).evidence.guardrails[0]
    assert dispersions(state.terms, other)[0] > 10.0


def test_the_declared_dispersion_stands_in_until_a_day_was_seen() -> None:
    spec = {"evidence": {"dispersion": "3"}}
    assert dispersions(started(spec).terms, started(spec).evidence.guardrails[0]) == (3.0, 3.0)
    known = started(spec, past(0.02, 1500))
    champion, both = dispersions(known.terms, known.evidence.guardrails[0])
    assert champion < 1.2
    assert both == 3.0  # the challenger's is not known yet


def test_a_block_knows_its_dispersion_before_it_is_seen() -> None:
    """The estimate that divides a block must not contain it: else the bet would know its outcome."""
    state = started(history=History("errors", Counts(0, 0), bursty(1440, -1440)))
    guardrail = state.evidence.guardrails[0]
    phi = dispersions(state.terms, guardrail)[0]
    burst = ClosedBlock(0, 0, 50, 0, (150, 150), (ArmCounts("errors", Counts(150, 150), Counts(150, 0)),))
    after = folded(state, burst).guardrails[0]
    assert after.harm == ok(guardrail.harm.fold(Block(0, 0, Counts(150, 150), Counts(150, 0)), phi))
    assert dispersions(state.terms, after)[0] > phi


def test_sticky_routes_feed_copies_of_the_same_requests() -> None:
    sticky = started({"traffic": {**SPEC["traffic"], "sticky": {"header": "fiduciary-bucket"}}})
    after = folded(sticky, block())
    assert (after.guardrails[0].seen_champion, after.guardrails[0].seen_challenger) == (Counts(10, 1), Counts(20, 2))
    assert after.guardrails[0].final_champion == Counts(10, 1)
    assert after.ratio is None
    # Nobody is left to compare with: all live requests are the new champion's, whatever their bucket.
    alone = folded(sticky, block(weight=100)).guardrails[0]
    assert alone.challenger.scatters[0].trials == 170
    assert alone.seen_challenger == Counts(0, 0), "nothing was beside them"
    shadow = folded(sticky, block(weight=0)).guardrails[0]
    assert shadow.seen_champion == Counts(150, 3)  # all live requests are the champion's, and all are copied
