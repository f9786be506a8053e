"""The e-detector on paired losses: its recursion, its run time without change, and how soon it sees one."""

from __future__ import annotations

import json
import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fiduciary.evidence.betting import BETS
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.edetector import BURN_IN, EDetector
from fiduciary.evidence.refusal import Refusal


def folded(values: list[float]) -> EDetector:
    state = EDetector()
    for session, value in enumerate(values):
        after = state.fold(session, value)
        assert isinstance(after, EDetector), after
        state = after
    return state


def test_it_is_the_sum_of_the_bets_begun_at_each_session() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_t(4, size=60).tolist()
    state = folded(values)
    z = []
    for k in range(BURN_IN, 60):
        scale = math.sqrt(np.mean(np.square(values[:k])))
        z.append(max(-4.0, min(4.0, values[k] / scale)))
    phi = 2.0  # the prior's, before a block of 63 sessions is complete
    sums = [
        sum(math.prod((1 + bet * one) ** (1 / phi) for one in z[start:]) for start in range(len(z))) for bet in BETS
    ]
    assert state.log_e is not None
    assert math.isclose(state.log_e, math.log(np.mean(sums)), rel_tol=1e-9)
    assert state.folded == 40


def test_nothing_is_judged_before_the_scale_is_known() -> None:
    assert folded([1.0] * BURN_IN).log_e is None
    assert folded([1.0] * (BURN_IN + 1)).log_e is not None


def test_without_change_the_run_time_is_no_shorter_than_the_threshold() -> None:
    # H0 at its boundary, heavy tails. P(M passes A within n) <= n/A for any e-detector (Doob): of 120 streams of 200
    # sessions at A = 1,000 at most 24 are expected to; more than 38 has probability below .001 (binomial, .2)
    rng, alarms = np.random.default_rng(2), 0
    for _ in range(120):
        state = EDetector()
        for session, value in enumerate(rng.standard_t(4, size=200).tolist()):
            after = state.fold(session, value)
            assert isinstance(after, EDetector)
            state = after
            if state.log_e is not None and state.log_e >= math.log(1000.0):
                alarms += 1
                break
    assert alarms <= 38


def test_a_version_that_is_worse_by_a_standard_deviation_is_seen_within_a_quarter_or_two() -> None:
    rng = np.random.default_rng(3)
    delays = []
    for _ in range(20):
        state = folded(rng.normal(size=100).tolist())
        for session in range(100, 500):
            after = state.fold(session, 1.0 + float(rng.normal()))
            assert isinstance(after, EDetector)
            state = after
            if (state.log_e or 0.0) >= math.log(200 * 21):
                delays.append(session - 99)
                break
    assert len(delays) == 20
    assert 50 < np.median(delays) < 130


def test_a_reset_keeps_scale_and_order() -> None:
    state = folded(np.random.default_rng(4).normal(size=80).tolist()).reset()
    assert state.log_e is None
    assert isinstance(state.fold(80, 1.0), EDetector)
    assert isinstance(state.fold(81, 1.0), Refusal)
    assert decode(EDetector, json.loads(json.dumps(encode(state)))) == state


@given(st.lists(st.floats(), max_size=40), st.integers(-2, 2))
@settings(max_examples=60, deadline=None)
def test_it_is_total(values: list[float], first: int) -> None:
    state = EDetector()
    for session, value in enumerate(values):
        after = state.fold(first + session, value)
        if isinstance(after, EDetector):
            state = after
        assert state.log_e is None or math.isfinite(state.log_e)
    assert decode(EDetector, json.loads(json.dumps(encode(state)))) == state
