"""Histogram distances, CUSUM thresholds and the conformal detector."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from fiduciary.evidence import cusum, histograms
from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.conformal import Calibration, ConformalCusum, normal_score, uniform
from fiduciary.evidence.packed import unpacked
from fiduciary.evidence.refusal import Refusal, Why

REFERENCE, CURRENT = [100, 200, 300, 250, 150], [10, 30, 60, 80, 70]
EDGES = [-1.0, 0.0, 0.5, 2.0]


def ok(value: Any) -> Any:
    assert not isinstance(value, Refusal), value
    return value


def test_distances_against_scipy() -> None:
    r, c = np.array(REFERENCE), np.array(CURRENT)
    p, q = r / r.sum(), c / c.sum()
    assert ok(histograms.jensen_shannon(REFERENCE, CURRENT)) == pytest.approx(distance.jensenshannon(p, q, base=2))
    upper = [*EDGES, EDGES[-1]]
    assert ok(histograms.wasserstein(EDGES, REFERENCE, CURRENT, 2.0)) == pytest.approx(
        stats.wasserstein_distance(upper, upper, p, q) / 2.0
    )
    raw = stats.ks_2samp(np.repeat(range(5), REFERENCE), np.repeat(range(5), CURRENT)).statistic
    assert ok(histograms.kolmogorov_smirnov(REFERENCE, CURRENT)) == pytest.approx(raw)
    ps, qs = (r + 0.5) / (r.sum() + 2.5), (c + 0.5) / (c.sum() + 2.5)
    assert ok(histograms.psi(REFERENCE, CURRENT)) == pytest.approx(stats.entropy(ps, qs) + stats.entropy(qs, ps))


def test_psi_of_independent_rows_passes_its_null_quantile_as_often_as_said() -> None:
    # drift A5: n = 100, B = 10, a huge reference: 1 % threshold .2169
    reference = [10**7] * 10
    level = ok(histograms.psi_null_quantile(0.99, 10**8, 100, 10))
    assert level == pytest.approx(0.2167, abs=3e-4)
    rng = np.random.default_rng(31)
    draws = rng.multinomial(100, [0.1] * 10, 3000)
    rate = np.mean([ok(histograms.psi(reference, [int(x) for x in row])) > level for row in draws])
    assert 0.002 < rate < 0.02
    over = np.mean([ok(histograms.psi(reference, [int(x) for x in row])) > 0.1 for row in draws])
    assert over == pytest.approx(0.334, abs=0.05)


BINS = st.lists(st.integers(-1, 2**54) | st.sampled_from([0, 0, 1, 10**15]), min_size=0, max_size=6)


@given(BINS, BINS, st.lists(st.floats(), max_size=5), st.floats())
def test_distances_are_total_symmetric_and_zero_for_equals(
    r: list[int], c: list[int], e: list[float], sd: float
) -> None:
    for name in (histograms.psi, histograms.jensen_shannon, histograms.kolmogorov_smirnov):
        value, back = name(r, c), name(c, r)
        if isinstance(value, Refusal):
            assert isinstance(back, Refusal)
        else:
            assert value >= 0.0
            assert value == pytest.approx(ok(back))
            assert ok(name(r, r)) == pytest.approx(0.0, abs=1e-7)
    answer = histograms.wasserstein(e, r, c, sd)
    assert isinstance(answer, Refusal) or (math.isfinite(answer) and answer >= 0.0)


@pytest.mark.parametrize(
    ("height", "none", "one"), [(4.0, 338.0, 8.34), (5.0, 938.0, 10.34)], ids=["textbook h=4", "textbook h=5"]
)
def test_siegmund_of_the_textbooks(height: float, none: float, one: float) -> None:
    # two-sided 168 and 465 in textbooks (Montgomery), half of the one-sided
    assert cusum.expected_run_time(height, 0.0) == pytest.approx(none, abs=0.6)
    assert cusum.expected_run_time(height, 1.0) == pytest.approx(one, abs=0.006)


@pytest.mark.parametrize(
    ("run_time", "height"),
    [(200, 3.494), (500, 4.381), (1000, 5.063), (2016, 5.758), (5000, 6.662), (8640, 7.207), (20 * 25_920, 11.30)],
)
def test_closed_form_thresholds_and_the_table_agree_without_correlation(run_time: float, height: float) -> None:
    assert ok(cusum.threshold_closed_form(run_time)) == pytest.approx(height, abs=6e-4 if run_time < 9000 else 5e-3)
    assert ok(cusum.threshold(run_time, 0.0)) == pytest.approx(height, abs=0.04)


@pytest.mark.parametrize(
    ("rho", "heights"),
    [
        (0.0, (3.50, 5.07, 5.83, 7.23)),
        (0.1, (3.93, 5.83, 6.77, 8.45)),
        (0.2, (4.45, 6.76, 7.91, 9.97)),
        (0.3, (5.05, 7.88, 9.29, 11.87)),
    ],
)
def test_table_agrees_with_the_independent_one_of_drift_g5(rho: float, heights: tuple[float, ...]) -> None:
    for run_time, height in zip((200, 1000, 2160, 8640), heights, strict=True):
        assert ok(cusum.threshold(run_time, rho)) == pytest.approx(height, abs=0.06)


def test_thresholds_rise_with_run_time_and_correlation_across_the_end_of_the_table() -> None:
    times = [50, 70, 300, 4000, 8639, 8640, 8641, 10_000, 10**6]
    for rho in (0.0, 0.07, 0.29, 0.3):
        heights = [ok(cusum.threshold(t, rho)) for t in times]
        assert heights == sorted(heights)
    assert ok(cusum.threshold(1000, -0.5)) == ok(cusum.threshold(1000, 0.0))
    assert ok(cusum.threshold(1000, 0.12)) < ok(cusum.threshold(1000, 0.13))
    assert isinstance(cusum.threshold(1000, 0.31), Refusal)
    assert isinstance(cusum.threshold(10, 0.0), Refusal)


@given(st.floats(), st.floats(), st.lists(st.floats(), max_size=60))
def test_cusum_is_total(a: float, b: float, scores: list[float]) -> None:
    assert isinstance(cusum.threshold(a, b), float | Refusal)
    assert isinstance(cusum.threshold_closed_form(a), float | Refusal)
    assert isinstance(cusum.correlation_estimate(scores), float | Refusal)


def test_correlation_is_shrunk_to_a_tenth() -> None:
    rng = np.random.default_rng(33)
    z = [float(x) for x in rng.normal(size=100)]
    centred = np.array(z) - np.mean(z)
    raw = (centred[:-1] * centred[1:]).sum() / (centred**2).sum() + 0.01
    assert ok(cusum.correlation_estimate(z)) == pytest.approx((100 * raw + 3.0) / 130)
    few = cusum.correlation_estimate(z[:49])
    assert isinstance(few, Refusal)
    assert few.why is Why.TOO_FEW


def test_ranks_of_exchangeable_scores_are_uniform_ties_included() -> None:
    draws = [normal_score([0.0, 0.0, 1.0], 0.0, uniform(1, k)) for k in range(4000)]
    places = stats.norm.cdf(draws)
    assert places.min() > 0.0
    assert places.max() < 0.75
    assert stats.kstest(places / 0.75, "uniform").pvalue > 1e-6
    positions = [uniform(7, k) for k in range(4000)]
    assert stats.kstest(positions, "uniform").pvalue > 1e-6
    assert abs(np.corrcoef(positions[1:], positions[:-1])[0, 1]) < 0.08


def calibration(seed: int, rng: np.random.Generator, run_time: float = 200.0) -> Calibration:
    return ok(Calibration.of([float(x) for x in rng.lognormal(size=100)], run_time, seed))


def test_a_shift_is_found_in_a_few_windows_and_a_replay_draws_alike() -> None:
    rng = np.random.default_rng(34)
    delays = []
    for seed in range(20):
        its = calibration(seed, rng)
        stream: Any = ConformalCusum()
        replay: Any = stream
        for window in range(40):
            score = float(rng.lognormal(2.5))
            stream = ok(stream.fold(its, window, score))
            replay = ok(ok(decode(ConformalCusum, json.loads(json.dumps(encode(replay))))).fold(its, window, score))
            if stream.cusum > its.height:
                break
        assert stream.cusum > its.height
        assert stream == replay
        assert stream.reset().cusum == 0.0
        delays.append(stream.last + 1)
    assert np.median(delays) <= 5


def test_run_time_without_drift_is_near_the_configured_one() -> None:
    rng = np.random.default_rng(35)
    windows = alarms = 0
    for seed in range(25):
        its, state = calibration(seed, rng, 60.0), ConformalCusum()
        for window in range(240):
            state = ok(state.fold(its, window, float(rng.lognormal())))
            windows += 1
            if state.cusum > its.height:
                alarms += 1
                state = state.reset()
    # expected 100 alarms less the conservative shrinkage of rho to .1 (ratio 1.0-1.36); wide: 5 standard errors
    assert 40 <= alarms <= 150
    assert windows == 6000


def test_the_sample_stands_still_after_some_windows_and_two_parts_rank_as_one() -> None:
    rng = np.random.default_rng(36)
    its, state = calibration(1, rng), ConformalCusum()
    for window in range(120):
        score = float(rng.lognormal())
        whole = sorted([*its.ordered, *unpacked(state.later)])
        expected = normal_score(whole, score, uniform(its.seed, 100 + window))
        state = ok(state.fold(its, window, score))
        assert state.score == expected
    assert len(unpacked(state.later)) == 100
    assert state.draws == 120


def test_too_few_reference_blocks_are_descriptive_only() -> None:
    refused = Calibration.of([1.0] * 49, 200.0, 1)
    assert isinstance(refused, Refusal)
    assert "descriptive" in refused.message


@given(st.lists(st.floats(), min_size=50, max_size=60), st.floats(), st.integers(-1, 2**65), st.floats())
@settings(max_examples=60, deadline=None)
def test_detector_is_total(reference: list[float], run_time: float, seed: int, score: float) -> None:
    assert isinstance(Calibration.of(reference, run_time, seed), Calibration | Refusal)
    plain = ok(Calibration.of([math.sin(7.0 * i * i) for i in range(60)], 200.0, 1))
    answer = ConformalCusum().fold(plain, 0, score)
    if isinstance(answer, ConformalCusum):
        assert math.isfinite(answer.cusum)


def test_the_correlation_of_a_reference_hangs_on_no_seed() -> None:
    """Drawn places among ranks moved it by .006: one policy of eight was Unknown where its twins judged."""
    scores = [math.sin(k / 3.0) + k % 7 / 5.0 for k in range(80)]
    found = [Calibration.of(scores, 200.0, seed) for seed in (0, 1, 2**63)]
    assert len({str(each.correlation) if isinstance(each, Calibration) else str(each) for each in found}) == 1
