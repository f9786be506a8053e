"""Replay equals stream: whatever the batches, and wherever the operator was restarted, the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from fiduciary.decide.experiment.begin import begin
from fiduciary.decide.experiment.fold import fold_block
from fiduciary.decide.experiment.sessions import fold_session
from fiduciary.decide.experiment.state import State
from fiduciary.decide.experiment.world import Anchor, ArmCounts, ClosedBlock, Spending
from fiduciary.decide.modelexperiment import decide
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.refusal import Refusal
from tests.unit.decide.experiment.trials import T0, Trial, past, sessions

EASY = Spending(anchors=(Anchor("errors", 0.02),))


def ok(value: Any) -> Any:
    assert not isinstance(value, Refusal), value
    return value


def started(purpose: str = "Improve") -> State:
    trial = Trial(spec={"purpose": purpose}, spending=EASY, history=(past(0.005, 60),))
    return ok(begin(trial.world(), int(T0.timestamp())))


@st.composite
def blocks(draw: st.DrawFn) -> tuple[ClosedBlock, ...]:
    """A stream with gaps and changing weights."""
    stream: list[ClosedBlock] = []
    first = 0
    for _ in range(draw(st.integers(1, 12))):
        last = first + draw(st.sampled_from([0, 0, 0, 3]))
        weight = draw(st.sampled_from([0, 10, 50]))
        na, nb, copies = (draw(st.integers(0, 60)) for _ in range(3))
        counts = ArmCounts(
            "errors",
            Counts(na, draw(st.integers(0, na))),
            Counts(nb, draw(st.integers(0, nb))),
            challenger_mirror=Counts(copies, draw(st.integers(0, copies))),
        )
        stream.append(ClosedBlock(first, last, weight, 100, (na, nb), (counts,), mixed=draw(st.booleans())))
        first = last + 1
    return tuple(stream)


@given(blocks(), st.data())
@settings(max_examples=60, deadline=None)
def test_a_restart_at_any_block_gives_the_same_bits(stream: tuple[ClosedBlock, ...], data: Any) -> None:
    straight = restarted = started()
    cut = data.draw(st.integers(0, len(stream)))
    for k, block in enumerate(stream):
        straight = replace(straight, evidence=ok(fold_block(straight.terms, straight.evidence, block)))
        if k == cut:
            restarted = ok(decode(State, json.loads(json.dumps(encode(restarted)))))
        restarted = replace(restarted, evidence=ok(fold_block(restarted.terms, restarted.evidence, block)))
    assert json.dumps(encode(straight)) == json.dumps(encode(restarted))
    assert ok(decode(State, json.loads(json.dumps(encode(straight))))) == straight


@given(blocks(), st.data())
@settings(max_examples=40, deadline=None)
def test_blocks_that_come_together_are_folded_as_if_they_came_one_by_one(
    stream: tuple[ClosedBlock, ...], data: Any
) -> None:
    trial = Trial(spec={"purpose": "Improve"}, spending=EASY, history=(past(0.005, 60),))
    rows = sessions(0.1, 300)
    together = replace(trial.world(), state=started(), blocks=stream, sessions=rows)
    once = decide(together, T0)
    cut = data.draw(st.integers(0, len(stream)))
    first = decide(replace(together, blocks=stream[:cut], sessions=rows[:100]), T0)
    # what was folded is offered again, as after a crash between reading and writing
    second = decide(replace(together, state=first.state), T0)
    assert once.state is not None
    assert second.state is not None
    assert second.state.evidence == once.state.evidence


def test_the_chain_of_hashes_knows_every_block_and_row() -> None:
    state = started()
    block = ClosedBlock(0, 0, 50, 0, (10, 10), (ArmCounts("errors", Counts(10, 0), Counts(10, 0)),))
    folded = ok(fold_block(state.terms, state.evidence, block))
    other = ok(fold_block(state.terms, state.evidence, replace(block, requests=(10, 11))))
    assert len({state.evidence.chain, folded.chain, other.chain}) == 3
    row = sessions(0.1, 1)[0]
    one = ok(fold_session(state.terms, folded, row))
    two = ok(fold_session(state.terms, folded, replace(row, digest="sha256:another")))
    assert one.sessions.chain != two.sessions.chain
    assert one.chain == folded.chain


def test_a_state_of_another_shape_is_refused_and_not_guessed() -> None:
    stored = encode(started())
    assert isinstance(decode(State, {**stored, "more": 1}), Refusal)
    assert isinstance(decode(State, {**stored, "terms": None}), Refusal)


def test_the_state_stays_small_however_long_it_runs() -> None:
    state = started()
    for k in range(300):
        counts = ArmCounts("errors", Counts(150, k % 2), Counts(150, k % 3 == 0))
        block = ClosedBlock(k, k, 50, 0, (150, 150), (counts,))
        state = replace(state, evidence=ok(fold_block(state.terms, state.evidence, block)))
    assert len(json.dumps(encode(state))) < 8000
