"""Dispersion, combination, spending, breaker, discordant pairs and sample ratio."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from fiduciary.evidence import feasibility
from fiduciary.evidence.asympcs import tuning
from fiduciary.evidence.blocks import Counts
from fiduciary.evidence.breaker import Breaker, circuit_breaker
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.combine import Combined, weighted_average
from fiduciary.evidence.discordant import Discordant
from fiduciary.evidence.dispersion import Dispersion
from fiduciary.evidence.harm import Harm
from fiduciary.evidence.histograms import psi_null_quantile
from fiduciary.evidence.refusal import Refusal, Why
from fiduciary.evidence.samples import SampleRatio, Segment, Sticky, log_bayes_factor, shortfall
from fiduciary.evidence.spending import Margins, e_lond_level, log_threshold

ANY = st.integers(-3, 2**54) | st.sampled_from([0, 1, 10**15, 2**53])


def ok(value: Any) -> Any:
    assert not isinstance(value, Refusal), value
    return value


def counted(blocks: list[Counts]) -> Dispersion:
    state = Dispersion.start()
    for k, counts in enumerate(blocks):
        state = ok(state.fold(k, k, counts))
    return state


def test_dispersion_is_pearsons_over_its_lower_quantile() -> None:
    rng = np.random.default_rng(3)
    blocks = [Counts(int(n), int(rng.binomial(n, 0.1))) for n in rng.integers(20, 200, 600)]
    state = counted(blocks)
    for scatter in state.scatters:
        groups = [blocks[i : i + scatter.scale] for i in range(0, 600, scatter.scale)]
        table = np.array([(sum(c.bad for c in g), sum(c.trials - c.bad for c in g)) for g in groups])
        pearson = stats.chi2_contingency(table, correction=False).statistic
        expected = max(1.0, pearson / stats.chi2.ppf(0.1, len(groups) - 1))
        assert ok(scatter.upper_bound()) == pytest.approx(expected, rel=1e-9)
    assert ok(state.estimate(100)) == max(ok(s.upper_bound()) for s in state.scatters)


def test_slow_bursts_show_in_the_long_blocks() -> None:
    rng = np.random.default_rng(4)
    log_rate, blocks = 0.0, []
    for _ in range(1440):
        log_rate = 0.97 * log_rate + math.sqrt(1 - 0.97**2) * 0.8 * rng.normal()
        blocks.append(Counts(150, int(rng.binomial(150, min(0.5, 0.005 * math.exp(log_rate))))))
    minutes, _, hours = (ok(s.upper_bound()) for s in counted(blocks).scatters)
    assert hours > 2.0 * minutes


@pytest.mark.parametrize(("block", "expected"), [(10, 360), (60, 60), (600, 6), (3600, 1), (7200, 1)])
def test_the_longest_blocks_are_an_hour_whatever_the_base_block(block: int, expected: int) -> None:
    """Rule 3: sizes of .29 where an hour's bursts are looked at in minutes; sixty hours of them are no more bursts."""
    assert Dispersion.start(block=block).scatters[-1].scale == expected


def test_a_day_of_long_blocks_bounds_the_scatter_of_even_requests_by_twice_itself() -> None:
    """Two blocks of ten hours did by 63 times: nothing was ever shown to an experiment with hourly blocks."""
    rng = np.random.default_rng(6)
    state = Dispersion.start(block=3600)
    for k in range(24):
        state = ok(state.fold(k, k, Counts(10_000, int(rng.binomial(10_000, 0.01)))))
    assert ok(state.estimate(24)) < 2.5


def test_a_champion_without_errors_has_no_visible_dispersion_and_few_blocks_have_none_yet() -> None:
    silent = counted([Counts(100, 0)] * 200).estimate(100)
    assert isinstance(silent, Refusal)
    assert silent.why is Why.NO_VARIANCE
    few = counted([Counts(100, 1)] * 50).estimate(100)
    assert isinstance(few, Refusal)
    assert few.why is Why.TOO_FEW


def test_dispersion_of_counts_near_the_limit_does_not_cancel() -> None:
    big = 10**12
    state = counted([Counts(big, big // 2 + (500_000 if k % 2 else -500_000)) for k in range(100)])
    assert ok(state.scatters[0].upper_bound()) == pytest.approx(100 / stats.chi2.ppf(0.1, 99), rel=1e-6)


@given(ANY, ANY, st.integers(-2, 2), st.integers(-2, 100))
def test_dispersion_is_total(trials: int, bad: int, first: int, last: int) -> None:
    answer = Dispersion.start().fold(first, last, Counts(trials, bad))
    if isinstance(answer, Dispersion):
        assert isinstance(answer.estimate(0), float | Refusal)
        assert decode(Dispersion, json.loads(json.dumps(encode(answer)))) == answer


def test_average_of_e_processes_and_its_largest() -> None:
    combined = ok(weighted_average({"errors": math.log(70.0), "latency": 0.0, "lost": -5.0}))
    assert combined.log_e == pytest.approx(math.log((70.0 + 1.0 + math.exp(-5.0)) / 3.0))
    assert combined.largest == "errors"
    assert combined.rejects(0.05)
    assert not combined.rejects(0.04)
    assert not combined.rejects(0.0)
    assert ok(weighted_average({"a": 2.0, "b": 9.0}, {"a": 1.0, "b": 0.0})).log_e == pytest.approx(2.0)


@given(st.dictionaries(st.sampled_from("abcd"), st.floats()), st.dictionaries(st.sampled_from("abcd"), st.floats()))
def test_average_is_total_and_never_weaker_than_bonferroni(values: Any, weights: Any) -> None:
    for answer in (weighted_average(values), weighted_average(values, weights)):
        assert isinstance(answer, Refusal) or (isinstance(answer, Combined) and not math.isnan(answer.log_e))
    plain = weighted_average(values)
    if isinstance(plain, Combined):
        assert plain.log_e >= max(values.values()) - math.log(len(values)) - 1e-9


def test_weights_whose_sum_overflows_are_refused() -> None:
    huge = weighted_average({"a": 0.0, "b": 0.0}, {"a": 8.988465674311579e307, "b": 8.98846567431158e307})
    assert isinstance(huge, Refusal)


def test_e_lond_spends_at_most_alpha_and_rewards_discoveries() -> None:
    assert ok(e_lond_level(0.05, 1, 0)) == pytest.approx(0.05 * 6 / math.pi**2)
    # rule 15: N = 2, j = 1 -> threshold ln 66 = 4.19
    assert ok(log_threshold(ok(e_lond_level(0.05, 1, 0)), 2)) == pytest.approx(math.log(66), abs=0.01)
    assert math.fsum(ok(e_lond_level(0.05, j, 0)) for j in range(1, 20_000)) == pytest.approx(0.05, rel=1e-4)
    assert ok(e_lond_level(0.05, 5, 2)) == pytest.approx(3 * ok(e_lond_level(0.05, 5, 0)))
    for bad in (e_lond_level(0.05, 0, 0), e_lond_level(0.05, 2, 2), e_lond_level(1.5, 1, 0), log_threshold(0.05, 0)):
        assert isinstance(bad, Refusal)


@pytest.mark.parametrize("huge", [2**60, 10**400])
def test_numbers_that_no_float_holds_are_refused(huge: int) -> None:
    answers = [
        e_lond_level(0.05, huge, 0),
        log_threshold(0.05, huge),
        Harm.start(Counts(10, 1), huge),
        tuning(0.05, huge),
        circuit_breaker(Counts(3, 1), Counts(3, 1), 0.25, 0.01, huge),
        circuit_breaker(Counts(huge, 1), Counts(3, 1), 0.25, 0.01, 10),
        psi_null_quantile(0.99, huge, 100, 10),
        Dispersion.start().fold(0, huge, Counts(1, 1)),
    ]
    assert [type(answer) for answer in answers] == [Refusal] * len(answers)


def test_margins_are_measured_from_the_anchor() -> None:
    margins = ok(Margins.of_anchor(0.02))
    assert ok(margins.left(0.01)) == pytest.approx(0.005)
    assert ok(margins.left(0.002)) == pytest.approx(0.002)
    assert ok(ok(Margins.of_anchor(0.0)).left(0.01)) == pytest.approx(0.001)
    worse = ok(margins.promoted(0.003))
    assert ok(worse.left(0.01)) == pytest.approx(0.002)
    assert ok(ok(worse.promoted(-0.01)).left(0.01)) == pytest.approx(0.005)
    assert ok(ok(worse.promoted(0.004)).left(0.01)) == pytest.approx(-0.002)  # the next one has to be better
    assert isinstance(margins.promoted(math.nan), Refusal)
    assert isinstance(margins.left(1.1), Refusal)
    assert isinstance(Margins.of_anchor(-0.1), Refusal)


def test_three_unlucky_requests_do_not_trip_the_breaker_and_a_broken_model_does() -> None:
    unlucky = ok(circuit_breaker(Counts(3, 3), Counts(300, 1), 0.25, 0.01, 100_000))
    assert not unlucky.trips
    broken = ok(circuit_breaker(Counts(30, 15), Counts(300, 1), 0.25, 0.01, 100_000))
    assert broken.trips
    assert broken.log_tail == pytest.approx(stats.binom.logsf(14, 30, 0.01), rel=1e-9)
    shared = ok(circuit_breaker(Counts(30, 15), Counts(300, 150), 0.25, 0.01, 100_000))
    assert not shared.trips


@given(ANY, ANY, ANY, ANY, st.floats(), st.floats(), st.integers(-1, 10**9))
def test_breaker_is_total(n: int, y: int, m: int, z: int, above: float, normal: float, looks: int) -> None:
    for a, b, k in ((above, normal, looks), (0.25, 0.01, 1000)):
        answer = circuit_breaker(Counts(n, y), Counts(m, z), a, b, k)
        if isinstance(answer, Breaker):
            assert not math.isnan(answer.log_tail)
            assert answer.log_tail <= 0.0


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (3, 9), (60, 40), (700, 300)])
def test_discordant_is_the_formula_of_the_rules(wins: int, losses: int) -> None:
    a, n = 20, wins + losses
    with mpmath.workdps(60):
        tail = 1 - mpmath.betainc(a + wins, a + losses, 0, 0.5, regularized=True)
        expected = mpmath.mpf(2) ** n * mpmath.beta(a + wins, a + losses) * tail / (mpmath.beta(a, a) / 2)
        log_expected = float(mpmath.log(expected))
    assert Discordant(wins, losses).log_e == pytest.approx(log_expected, rel=1e-11, abs=1e-11)


def test_discordant_has_mean_at_most_one_over_all_short_histories() -> None:
    for p in (0.5, 0.3):
        mean = sum(float(stats.binom.pmf(w, 12, p)) * math.exp(Discordant(w, 12 - w).log_e) for w in range(13))
        assert mean <= 1.0 + 1e-12


@given(ANY, ANY, ANY, ANY)
def test_discordant_is_total_and_associative(a: int, b: int, c: int, d: int) -> None:
    step = Discordant(0, 0).fold(a, b)
    if isinstance(step, Refusal):
        return
    both = step.fold(c, d)
    if isinstance(both, Discordant):
        assert math.isfinite(both.log_e)
        assert both == ok(Discordant(0, 0).fold(a + c, b + d))


@pytest.mark.parametrize(
    ("counts", "published"),
    [
        ((2, 2, 1), -1.1711190),  # five one-hot rows
        ((20, 17, 9), -2.9505608),  # rows that are sums over time, one after the other
        ((38, 38, 17), -3.6819009),
        ((42, 44, 21), -3.8606584),
        ((60, 63, 32), -4.1838140),
    ],
)
def test_optimizely_ssrm_test_sequential_posteriors(counts: tuple[int, ...], published: float) -> None:
    # log marginal of M1 less that of M0 in optimizely/ssrm's test_sequential_posteriors: Dirichlet(1, 1, 1)
    assert log_bayes_factor((0.4, 0.4, 0.2), counts, (1.0, 1.0, 1.0)) == pytest.approx(published, abs=6e-8)


@pytest.mark.parametrize("counts", [(3, 4, 9), (0, 0, 1), (400, 380, 230)])
@pytest.mark.parametrize("prior", [(1.0, 1.0, 1.0), (400.0, 400.0, 200.0), (0.5, 20.0, 3.0)])
def test_log_bayes_factor_is_its_formula(counts: tuple[int, ...], prior: tuple[float, ...]) -> None:
    shares = (0.4, 0.4, 0.2)
    expected = math.lgamma(sum(prior)) - math.lgamma(sum(prior) + sum(counts))
    for a, k, share in zip(prior, counts, shares, strict=True):
        expected += math.lgamma(a + k) - math.lgamma(a) - k * math.log(share)
    assert log_bayes_factor(shares, counts, prior) == pytest.approx(expected, abs=1e-9)


def test_sample_ratio_has_mean_one_under_its_null() -> None:
    state = ok(SampleRatio.start((0.25, 0.75)))
    total = 0.0
    for y, z in itertools.product(range(7), range(5)):
        first = ok(ok(state.fold(0, 0, (y, 6 - y))).reweigh((0.5, 0.5)))
        second = ok(first.fold(1, 1, (z, 4 - z)))
        total += float(stats.binom.pmf(y, 6, 0.25) * stats.binom.pmf(z, 4, 0.5)) * math.exp(second.log_e)
    assert total == pytest.approx(1.0, abs=1e-12)


def test_a_biased_router_is_found_in_minutes_and_an_exact_one_never() -> None:
    biased = exact = ok(SampleRatio.start((0.75, 0.25)))
    for k in range(10):
        biased, exact = ok(biased.fold(k, k, (250, 50))), ok(exact.fold(k, k, (225, 75)))
    assert biased.log_e > math.log(1000.0)
    assert exact.log_e < 0.0
    assert shortfall(0.25, 50, 250)
    assert not shortfall(0.25, 76, 225)


EDGE = st.tuples(*[st.integers(0, 200)] * 3)  # requests to the sample before an edge, to the edge, to the one after it


@given(st.integers(5, 95), st.lists(st.tuples(EDGE, EDGE, st.booleans()), min_size=2, max_size=6))
@settings(max_examples=300)
def test_requests_around_an_edge_count_against_an_alarm_wherever_they_lie(
    percent: int, edges: list[tuple[tuple[int, int, int], tuple[int, int, int], bool]]
) -> None:
    before, truth, after, passed = [[0, 0]], [[0, 0]], [[0, 0]], [0, 0]
    for *arms, _ in edges:
        before.append([start + arm[0] for start, arm in zip(passed, arms, strict=True)])
        truth.append([start + arm[1] for start, arm in zip(before[-1], arms, strict=True)])
        passed = [start + arm[2] for start, arm in zip(truth[-1], arms, strict=True)]
        after.append(passed)

    def between(one: list[int], other: list[int]) -> tuple[int, int]:
        return other[0] - one[0], other[1] - one[1]

    shares = (1 - percent / 100, percent / 100)
    state, routed = ok(SampleRatio.start(shares)), [0, 0]
    for k, (*_, skipped) in enumerate(edges):
        if skipped:
            state = ok(state.skip(k, k))
            continue
        opened, closed = between(before[k], after[k]), between(before[k + 1], after[k + 1])
        state = ok(state.fold(k, k, between(before[k], before[k + 1]), opened, closed))
        routed = [sum(pair) for pair in zip(routed, between(truth[k], truth[k + 1]), strict=True)]
        assert state.log_e <= Segment(shares, (routed[0], routed[1])).log_bayes_factor() + 1e-3
        assert decode(SampleRatio, json.loads(json.dumps(encode(state)))) == state


def test_bounds_belong_to_two_arms_at_both_edges() -> None:
    three = ok(SampleRatio.start((0.5, 0.25, 0.25)))
    assert isinstance(three.fold(0, 0, (1, 1, 1), (1, 1, 1), (1, 1, 1)), Refusal)
    assert isinstance(ok(SampleRatio.start((0.5, 0.5))).fold(0, 0, (1, 1), (1, 1), ()), Refusal)


def test_sample_ratio_keeps_its_digits_at_1e15() -> None:
    n = 10**15
    with mpmath.workdps(60):
        c, k = mpmath.mpf(1000), (n // 2 + 10**8, n // 2 - 10**8)
        log = mpmath.loggamma(c) - mpmath.loggamma(c + n) + n * mpmath.log(2)
        log += sum(mpmath.loggamma(c / 2 + x) - mpmath.loggamma(c / 2) for x in k)
    assert Segment((0.5, 0.5), k).log_bayes_factor() == pytest.approx(float(log), rel=1e-9)


@given(st.lists(ANY, min_size=1, max_size=3), st.lists(st.floats(), min_size=1, max_size=3))
@settings(max_examples=100)
def test_sample_ratio_is_total(counts: list[int], shares: list[float]) -> None:
    start = SampleRatio.start(tuple(shares))
    assert isinstance(start, SampleRatio | Refusal)
    answer = ok(SampleRatio.start((0.9, 0.1))).fold(0, 0, tuple(counts))
    if isinstance(answer, SampleRatio):
        assert math.isfinite(answer.log_e)
        assert decode(SampleRatio, json.loads(json.dumps(encode(answer)))) == answer
        assert ok(answer.skip(1, 5)).log_e == answer.log_e


def test_sticky_tolerates_nothing() -> None:
    state = ok(Sticky(0, 0).fold(1000, 0))
    assert not state.alarm
    assert ok(state.fold(1000, 1)).alarm
    assert isinstance(state.fold(1, 2), Refusal)
    assert isinstance(state.fold(-1, 0), Refusal)


@pytest.mark.parametrize(("bound", "days"), [(5.0, 72), (10.0, 141), (20.0, 232)])
def test_forecast_of_the_bernstein_process_is_near_what_was_simulated(bound: float, days: int) -> None:
    # statistics.md 3.2: an edge of .5 sd a day with a declared loss of 5, 10 and 20 sd takes a median of these days
    found = ok(feasibility.bounded_mean(0.5, 1.0, bound, math.log(20.0)))
    assert days <= found.blocks <= 1.5 * days


def test_forecast_of_the_bernstein_process_is_never_without_an_edge_and_total() -> None:
    assert ok(feasibility.bounded_mean(0.5, 1.0, 40.0, math.log(20.0))).blocks > 250  # "never" within a year
    assert ok(feasibility.bounded_mean(0.0, 1.0, 5.0, 3.0)).blocks is None
    assert ok(feasibility.bounded_mean(1e-90, 1.0, 5.0, 3.0)).blocks is None
    assert isinstance(feasibility.bounded_mean(0.5, 0.0, 5.0, 3.0), Refusal)
    assert isinstance(feasibility.bounded_mean(math.nan, 1.0, 5.0, 3.0), Refusal)


def test_no_margin_left_is_never_shown_by_equal_arms() -> None:
    assert ok(feasibility.noninferiority((150, 150), 0.01, 0.0, 1.0, 0.05)).blocks is None
    assert ok(feasibility.noninferiority((150, 150), 0.01, -0.001, 1.0, 0.05)).blocks is None
