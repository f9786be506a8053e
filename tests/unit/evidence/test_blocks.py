"""E-processes on blocks of requests: mean at most one on exactly enumerated trees, replay, refusals, shape."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from fiduciary.evidence import harm, proportions
from fiduciary.evidence.blocks import Block, Counts
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.harm import Harm
from fiduciary.evidence.noninferiority import Equality, NonInferiority
from fiduciary.evidence.rates import Beliefs
from fiduciary.evidence.refusal import Refusal, Why

if TYPE_CHECKING:
    from collections.abc import Callable

HISTORY = Counts(40, 12)
ARMS = ((4, 4), (6, 2))  # (champion, challenger) trials of two blocks


def block(index: int, champion: tuple[int, int], challenger: tuple[int, int], last: int | None = None) -> Block:
    return Block(index, index if last is None else last, Counts(*champion), Counts(*challenger))


def started(state: Any) -> Any:
    assert not isinstance(state, Refusal), state
    return state


def mean_over_two_blocks(start: Any, rates: tuple[tuple[float, float], ...], phi: float) -> float:
    """E[exp(log_e)] after two blocks with true rates per block, all outcomes enumerated."""

    def walk(state: Any, index: int) -> float:
        if index == len(ARMS):
            return math.exp(state.log_e)
        (na, nb), (pa, pb) = ARMS[index], rates[index]
        total = 0.0
        for ya, yb in itertools.product(range(na + 1), range(nb + 1)):
            weight = float(stats.binom.pmf(ya, na, pa) * stats.binom.pmf(yb, nb, pb))
            if weight > 0.0:
                total += weight * walk(started(state.fold(block(index, (na, ya), (nb, yb)), phi)), index + 1)
        return total

    return walk(start, 0)


NULL_HARM = [((0.3, 0.3), (0.3, 0.3)), ((0.05, 0.05), (0.6, 0.6)), ((0.5, 0.2), (0.1, 0.1)), ((0.9, 0.9), (0.2, 0.19))]
NULL_MARGIN = [((0.2, 0.4), (0.3, 0.5)), ((0.01, 0.21), (0.7, 0.9)), ((0.3, 0.8), (0.1, 0.3))]


@pytest.mark.parametrize("rates", NULL_HARM)
@pytest.mark.parametrize("phi", [1.0, 3.0])
def test_harm_has_mean_at_most_one_when_the_challenger_is_no_worse(rates: Any, phi: float) -> None:
    assert mean_over_two_blocks(started(Harm.start(HISTORY, 2)), rates, phi) <= 1.0 + 1e-12


@pytest.mark.parametrize("rates", NULL_MARGIN)
@pytest.mark.parametrize("phi", [1.0, 3.0])
def test_noninferiority_has_mean_at_most_one_at_and_beyond_the_margin(rates: Any, phi: float) -> None:
    assert mean_over_two_blocks(started(NonInferiority.start(HISTORY, 0.2)), rates, phi) <= 1.0 + 1e-12


BETTER = {0.0: [((0.3, 0.3), (0.5, 0.5)), ((0.1, 0.4), (0.2, 0.2))], -0.1: [((0.4, 0.3), (0.6, 0.5))]}


@pytest.mark.parametrize(("margin", "rates"), [(m, rates) for m, many in BETTER.items() for rates in many])
def test_a_margin_that_is_used_up_asks_for_more_and_keeps_its_mean(margin: float, rates: Any) -> None:
    assert mean_over_two_blocks(started(NonInferiority.start(HISTORY, margin)), rates, 1.0) <= 1.0 + 1e-12


def test_a_margin_that_is_used_up_is_shown_by_a_better_challenger_only() -> None:
    better = equal = started(NonInferiority.start(Counts(10_000, 500), -0.01))
    for k in range(60):
        better = started(better.fold(block(k, (500, 25), (500, 5)), 1.0))
        equal = started(equal.fold(block(k, (500, 25), (500, 25)), 1.0))
    assert better.log_e > math.log(20.0) > equal.log_e


def test_a_skipped_block_moves_nothing_but_its_number() -> None:
    state = started(NonInferiority.start(HISTORY, 0.1))
    assert started(state.skip(0, 4)) == replace(state, last=4)
    assert isinstance(state.skip(1, 4), Refusal)


@pytest.mark.parametrize("rates", [((0.3, 0.3), (0.3, 0.3)), ((0.05, 0.05), (0.8, 0.8))])
def test_equality_has_mean_at_most_one_when_rates_are_equal(rates: Any) -> None:
    assert mean_over_two_blocks(started(Equality.start(HISTORY)), rates, 1.0) <= 1.0 + 1e-12


def test_a_test_that_bet_after_seeing_the_block_would_be_caught_by_the_enumeration() -> None:
    total = 0.0
    for ya, yb in itertools.product(range(5), range(5)):
        seen = proportions.log_factor_harm(
            block(0, (4, ya), (4, yb)), min(max(ya / 4, 0.01), 0.99), min(max(yb / 4, 0.01), 0.99)
        )
        total += float(stats.binom.pmf(ya, 4, 0.3) * stats.binom.pmf(yb, 4, 0.3)) * math.exp(seen)
    assert total > 1.05


@pytest.mark.parametrize(("na", "nb"), [(100, 100), (950, 50), (1, 10**9)])
@pytest.mark.parametrize(("pa", "pb", "d"), [(0.005, 0.004, 0.005), (0.2, 0.1, 0.001), (0.9, 0.5, 0.05)])
def test_the_null_is_the_nearest_one(na: int, nb: int, pa: float, pb: float, d: float) -> None:
    def divergence(q: float) -> float:
        def kl(p: float, r: float) -> float:
            return p * math.log(p / r) + (1 - p) * math.log((1 - p) / (1 - r))

        return (na * kl(pa, q) + nb * kl(pb, q + d)) / (na + nb)

    found = optimize.minimize_scalar(
        divergence, bounds=(max(1e-12, pb - d), pa), method="bounded", options={"xatol": 1e-13}
    )
    ours = proportions._nearest(na, nb, pa, pb, d)  # pyright: ignore[reportPrivateUsage]
    assert divergence(ours) <= found.fun + 1e-15
    assert ours == pytest.approx(found.x, abs=2e-7)


@pytest.mark.parametrize(
    "factor",
    [
        proportions.log_factor_equality,
        proportions.log_factor_harm,
        lambda b, p, q: proportions.log_factor_noninferiority(b, p, q, 0.01),
    ],
)
def test_an_arm_without_trials_moves_nothing(factor: Callable[[Block, float, float], float]) -> None:
    assert factor(block(0, (0, 0), (100, 3)), 0.02, 0.021) == 0.0
    assert factor(block(0, (100, 3), (0, 0)), 0.02, 0.021) == 0.0


def test_onset_weights_sum_to_one_and_merge() -> None:
    # tail of Σ 1/(m ln² m) by Euler–Maclaurin: 1/ln M + f(M)/2
    m = 20_002
    rest = 1.0 / math.log(m) + 0.5 / (m * math.log(m) ** 2)
    single = math.fsum(harm.onset_weight(k, k, 100) for k in range(20_000))
    assert single + 0.5 * rest / 2.109742801236892 == pytest.approx(1.0, abs=1e-9)
    assert harm.onset_weight(0, 19_999, 100) == pytest.approx(single, rel=1e-6)
    assert harm.onset_weight(3, 9, 5) == pytest.approx(math.fsum(harm.onset_weight(k, k, 5) for k in range(3, 10)))
    assert harm.onset_weight(3, 20_003, 5) <= math.fsum(harm.onset_weight(k, k, 5) for k in range(3, 20_004))


def poisson_stream(seed: int, n: int, pa: float, pb: float, late: int = 0) -> list[Block]:
    rng = np.random.default_rng(seed)
    blocks: list[Block] = []
    for k in range(n):
        na, nb = (int(x) for x in rng.poisson(150, 2))
        blocks.append(block(k, (na, int(rng.binomial(na, pa))), (nb, int(rng.binomial(nb, pb if k >= late else pa)))))
    return blocks


def minutes_to_harm(seed: int, phi: float, pb: float, late: int = 0) -> int:
    state = started(Harm.start(Counts(100_000, 500), 43_200))
    for b in poisson_stream(seed, late + 200, 0.005, pb, late):
        state = started(state.fold(b, phi))
        if state.log_e >= math.log(20.0):
            return b.last - late + 1
    return 200


def test_five_percent_errors_are_found_in_two_minutes_as_rule_3_says() -> None:
    assert np.median([minutes_to_harm(seed, 1.0, 0.05) for seed in range(25)]) <= 3


def test_harm_after_a_day_is_found_within_minutes_as_rule_5_says() -> None:
    assert np.median([minutes_to_harm(seed, 1.5, 0.05, 1440) for seed in range(3)]) <= 12


def test_size_of_harm_in_a_small_simulation() -> None:
    # 150 runs of 300 minutes at equality; Ville: P(ever) <= .05. P(Bin(150, .05) >= 22) < 1e-6.
    crossed = 0
    for seed in range(150):
        state = started(Harm.start(Counts(20_000, 100), 300))
        for b in poisson_stream(10_000 + seed, 300, 0.005, 0.005):
            state = started(state.fold(b, 1.0))
            if state.log_e >= math.log(20.0):
                crossed += 1
                break
    assert crossed < 22


def test_noninferiority_of_equal_arms_is_shown_and_at_the_margin_it_is_not() -> None:
    equal = at_margin = started(NonInferiority.start(Counts(100_000, 500), 0.005))
    for same, worse in zip(poisson_stream(1, 120, 0.005, 0.005), poisson_stream(2, 120, 0.005, 0.01), strict=True):
        equal, at_margin = started(equal.fold(same, 1.0)), started(at_margin.fold(worse, 1.0))
    assert equal.log_e > math.log(20.0)
    assert at_margin.log_e < math.log(20.0)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=12), st.floats(1, 30))
@settings(max_examples=40, deadline=None)
def test_replay_through_json_equals_the_stream_bit_for_bit(outcomes: list[tuple[int, int]], phi: float) -> None:
    for start in (Harm.start(HISTORY, 9), NonInferiority.start(HISTORY, 0.1), Equality.start(HISTORY)):
        stream = replay = started(start)
        for k, (ya, yb) in enumerate(outcomes):
            b = block(k, (50, ya), (60, yb))
            stream = started(stream.fold(b, phi))
            stored = started(decode(type(stream), json.loads(json.dumps(encode(replay)))))
            replay = started(stored.fold(b, phi))
        assert stream == replay
        assert stream.log_e.hex() == replay.log_e.hex()


COUNTS = st.integers(-2, 2**54) | st.sampled_from([0, 1, 10**15, 2**53])


@given(COUNTS, COUNTS, COUNTS, COUNTS, st.integers(-2, 3), st.integers(-2, 10**6), st.floats())
@settings(max_examples=150, deadline=None)
def test_total(na: int, ya: int, nb: int, yb: int, first: int, last: int, phi: float) -> None:
    b = Block(first, last, Counts(na, ya), Counts(nb, yb))
    for start in (Harm.start(HISTORY, 9), NonInferiority.start(HISTORY, 0.1), Equality.start(HISTORY)):
        answer = started(start).fold(b, phi)
        if isinstance(answer, Refusal):
            assert answer.message
        else:
            assert math.isfinite(answer.log_e)


def test_impossible_blocks_are_refused_by_kind() -> None:
    state = started(Harm.start(HISTORY, 9))
    whys = [
        state.fold(block(0, (-1, 0), (1, 0)), 1.0),
        state.fold(block(0, (1, 2), (1, 0)), 1.0),
        state.fold(block(1, (1, 0), (1, 0)), 1.0),
        state.fold(block(0, (2**54, 0), (1, 0)), 1.0),
        state.fold(block(0, (1, 0), (1, 0)), 0.9),
    ]
    assert [refusal.why for refusal in whys] == [
        Why.NEGATIVE,
        Why.BAD_ABOVE_TRIALS,
        Why.OUT_OF_ORDER,
        Why.TOO_LARGE,
        Why.PARAMETER,
    ]


def test_more_bad_ones_of_the_challenger_are_more_harm() -> None:
    start = started(Harm.start(Counts(1000, 20), 100))
    first = started(start.fold(block(0, (100, 2), (100, 6)), 1.0))
    values = [started(first.fold(block(1, (100, 2), (100, y)), 1.0)).log_e for y in range(20)]
    assert values[2:] == sorted(values[2:])


def test_dispersion_blunts() -> None:
    start = started(Harm.start(Counts(1000, 20), 100))
    sharp, blunt = (started(start.fold(block(0, (100, 2), (100, 30)), phi)) for phi in (1.0, 4.0))
    assert sharp.log_e > blunt.log_e > 0.0


def test_beliefs_fade_by_half_in_a_half_life_and_a_merged_block_fades_by_its_length() -> None:
    beliefs = Beliefs(100.0, 10.0, 100.0, 10.0)
    empty = block(0, (0, 0), (0, 0), last=9)
    assert beliefs.after(empty, 10.0).champion_trials == pytest.approx(50.0)
    assert beliefs.after(empty, None) == beliefs
