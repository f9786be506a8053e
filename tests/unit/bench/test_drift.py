"""bench-drift in small: its arrays are the operator's detector, and its figures have exact acceptance bounds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from bench.drift import honest, versus
from bench.drift.detectors import calibrated as on_arrays
from bench.drift.detectors import cusum_alarms, normal_scores, psi, scored
from bench.drift.market import Days, alarms, quarter
from bench.drift.missing import missing_alarms
from bench.drift.played import counts_of, delays, detected, played, run_times
from bench.drift.rivals import adwin, by_counts, by_rows
from bench.drift.streams import DRIFTS, STREAMS, correlated_scores
from fiduciary.decide.drift.calibrate import Calibrated, calibrated
from fiduciary.decide.drift.fold import scored as folded
from fiduciary.decide.drift.fold import taken
from fiduciary.decide.drift.reference import Histogram, Reference
from fiduciary.decide.drift.state import Stream
from fiduciary.evidence.conformal import uniform
from fiduciary.evidence.reliability import reliability
from tests.unit.decide.drift.watch import UID, VERSION, policy, reference


def test_the_arrays_are_the_operators_detector_window_by_window() -> None:
    rng = np.random.default_rng(8)
    blocks, windows = rng.multinomial(21, [0.1] * 10, 100), rng.multinomial(21, [0.08] * 5 + [0.12] * 5, 130)
    base = reference()
    its = Histogram("f", tuple(float(k) for k in range(9)), tuple(tuple(map(int, b)) for b in blocks), (0,) * 100, 1)
    made: Reference = replace(base, dates=21, features=(its,), prediction=its)
    found = calibrated(policy().spec, UID, VERSION, "Volatility", made)
    assert isinstance(found, Calibrated)
    gauge = found.gauges[0]
    calibration = gauge.calibration
    assert calibration is not None
    one, other = scored(blocks[None], windows[None])
    rounded = np.vectorize(lambda value: float(f"{value:.6g}"))
    positions = np.array([[uniform(calibration.seed, draw) for draw in range(230)]])
    arrays = on_arrays(rounded(one), found.run_time)
    assert arrays.correlation[0] == pytest.approx(calibration.correlation, abs=1e-12)
    assert arrays.height[0] == pytest.approx(calibration.height, abs=1e-12)
    z = normal_scores(arrays, rounded(other), positions[:, 100:])
    flags = cusum_alarms(z, arrays.height)[0]
    stream = Stream("inputs", "f")
    for window in range(130):
        stream = taken(gauge, stream, window, tuple(map(int, windows[window])))
        assert stream.detector.score == pytest.approx(z[0, window], abs=1e-9)
        alarmed = stream.detector.cusum > calibration.height
        assert alarmed == flags[window]
        if alarmed:
            stream = replace(stream, detector=stream.detector.reset(), alarm=None)
    assert flags.any()


def test_false_alarms_of_the_operators_own_fold_are_within_their_exact_bounds() -> None:
    # 60 references of 100 independent blocks, 600 windows each, ERT 200. The promise is an average over references:
    # per reference alarms are Poisson, and their mean varies with a cv of about .5 (spread of bench-drift), so the sum
    # of 60 has mean 180/r and sd √(180/r + 60 (3 · .5/r)²). r from .85 to 1.4, five sd: 60 to 300 alarms.
    total = 0
    for seed in range(60):
        rng = np.random.default_rng([9, seed])
        blocks = rng.multinomial(21, [0.1] * 10, 100)
        its = Histogram(
            "f", tuple(float(k) for k in range(9)), tuple(tuple(map(int, b)) for b in blocks), (0,) * 100, 1
        )
        made = replace(reference(), dates=21, features=(its,), prediction=its)
        found = calibrated(policy().spec, f"uid-{seed}", VERSION, "Volatility", made)
        assert isinstance(found, Calibrated)
        gauge, stream = found.gauges[0], Stream("inputs", "f")
        for window, counts in enumerate(rng.multinomial(21, [0.1] * 10, 600)):
            stream = taken(gauge, stream, window, tuple(map(int, counts)))
            if stream.alarm is not None:
                total += 1
                stream = replace(stream, detector=stream.detector.reset(), alarm=None)
    assert 60 <= total <= 300


@pytest.mark.parametrize(("rho", "low", "high"), [(0.0, 0.85, 1.5), (0.2, 0.75, 1.4), (0.3, 0.65, 1.2)])
def test_run_times_to_the_first_alarm_are_those_that_are_published(rho: float, low: float, high: float) -> None:
    # mean of 800 run times; its standard error is below 1.5/√800 = .053: five of them either side of .9 … 1.3
    scores = correlated_scores(np.random.default_rng([10, round(10 * rho)]), 800, 200 + 800, rho)
    its, own = detected(scores[:, :200], scores[:, 200:], 100.0, 11)
    assert its.judged.mean() > 0.6
    assert low < run_times(own, 100.0).first < high


def test_the_usual_rules_cry_wolf_on_streams_without_drift() -> None:
    found = played(STREAMS["ar90"], STREAMS["ar90"], seed=1, paths=10, blocks=60, windows=60, rows=126, run_time=200.0)
    between = {name: run_times(flags, 1.0).between for name, flags in found.alarms.items()}
    assert between["fiduciary"] > 50.0
    assert max(between[name] for name in ("psi_10", "psi_25", "chi2_p05", "ks_p05", "wasserstein_10")) < 5.0


@pytest.mark.parametrize("name", DRIFTS)
def test_each_drift_is_found_within_some_windows(name: str) -> None:
    before, after = DRIFTS[name]
    found = played(
        before, after, seed=2, paths=12, blocks=100, windows=40, rows=63, run_time=200.0, mean="loss" in name
    )
    median, never = delays(found.alarms["fiduciary"])
    assert median <= 8
    assert never == 0.0


def test_a_rise_of_missing_rows_is_found_in_the_first_window_and_chance_is_not() -> None:
    risen = missing_alarms(0.1, usual=0.005, rows=63, windows=5, paths=200, run_time=200.0, seed=1)
    assert delays(risen)[0] == 1.0
    quiet = missing_alarms(0.005, usual=0.005, rows=63, windows=500, paths=100, run_time=200.0, seed=2)
    # P(Bin(63, .005) >= 3) = .0042 <= 1/200: at most 250 of 50,000 are expected; 330 is five sd above
    assert quiet.sum() <= 330


def test_worse_than_the_previous_version_is_seen_and_false_alarms_keep_their_distance() -> None:
    rows = versus.delays(6, 4200.0, 1)
    found = [row["median sessions"] for row in rows]
    assert found == sorted(found, reverse=True)
    assert found[2] < 160
    assert versus.false_alarms(12, 50.0, 2) > 0.8  # >= 1 in expectation; about 60 alarms, sd .13


def test_the_usual_rules_are_what_their_sources_say() -> None:
    rng = np.random.default_rng(3)
    known, windows = rng.normal(size=3000), rng.normal(0.3, 1.0, size=(5, 80))
    rows = by_rows(known, windows)
    for window, ks, far in zip(windows, rows["ks_p05"], rows["wasserstein_10"], strict=True):
        assert ks == (stats.ks_2samp(known, window, method="asymp").pvalue < 0.05)
        distance = stats.wasserstein_distance(known, window) / known.std()
        assert abs(distance - 0.1) < 0.01 or far == (distance >= 0.1)
    edges = np.quantile(known, np.linspace(0, 1, 11)[1:-1])
    total, counts = counts_of(known[None], edges)[0], counts_of(windows, edges)
    for row, flag in zip(counts, by_counts(total, counts)["chi2_p05"], strict=True):
        assert flag == (stats.chi2_contingency([row, total], correction=False).pvalue < 0.05)
    assert psi(total, counts).shape == (5,)
    assert adwin(known, windows) is None or len(adwin(known, windows) or ()) == 5


def test_the_market_part_names_quarters() -> None:
    from datetime import date, timedelta

    assert quarter(date(2008, 10, 1)) == "2008-4"
    rng = np.random.default_rng(4)
    first = date(1999, 1, 4)
    every = [first + timedelta(days=k) for k in range(7300)]
    weekdays = [day for day in every if day.weekday() < 5]
    old = sum(day <= date(2006, 12, 31) for day in weekdays)
    values = rng.normal(size=len(weekdays))
    values[old + 600 :] *= 2.5
    quarters, (found,) = alarms(Days(weekdays, {"ret_1": values}))
    assert quarters[0] == "2007-1"
    assert len(quarters) == 48
    assert found.blocks == old // 21
    assert found.quarters["fiduciary"]
    assert min(found.quarters["fiduciary"]) >= quarter(weekdays[old + 600])
    assert set(found.quarters["psi_10"]) > set(found.quarters["fiduciary"])


def test_scores_of_losses_fold_like_scores_of_histograms() -> None:
    loss = {"monitors": [{"name": "loss", "realisedLoss": {"against": "Reference"}, "actions": ["Alert"]}]}
    found = calibrated(policy(loss).spec, UID, VERSION, "Volatility", reference())
    assert isinstance(found, Calibrated)
    stream = folded(found.gauges[0], Stream("loss", ""), 0, 9.0, 9.0)
    assert stream.effect == 9.0
    assert stream.counts == ()
    assert stream.detector.cusum > 1.0


def test_the_bench_of_probabilities_scores_as_the_operator_does() -> None:
    (found,) = honest.scores(np.random.default_rng(7), 1, 63, 0.1)
    rng = np.random.default_rng(7)
    likely = rng.uniform(0.35, 0.65, size=(1, 63))[0]
    bins = np.zeros((10, 3))
    for p, y in zip(likely, rng.random((1, 63))[0] < likely - 0.1, strict=True):
        bins[min(int(p * 10), 9)] += (1.0, p, y)
    assert found == pytest.approx(reliability(bins.ravel().tolist()))


def test_dishonest_probabilities_are_found_the_sooner_the_more_forecasts_a_window_holds() -> None:
    small, middle, large = honest.table_of(20, 60, 60, 200.0, 1)
    assert [float(str(row["20 points"]).split()[0]) for row in (middle, large)] <= [6.0, 3.0]
    assert float(str(small["20 points"]).split()[0]) > float(str(large["20 points"]).split()[0])
