"""The numbers that gates read, against hand calculation, published formulae and simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fiduciary_trainer.measure import Rows, losses, measure, pnl
from fiduciary_trainer.measure.checks import duplicate_rows, prediction_sd_ratio, train_test_overlap
from fiduciary_trainer.measure.effective import effective_rows, uniqueness
from fiduciary_trainer.measure.hac import LAGS, SHORTEST, TooShort, long_run_variance, mean_se, skill_se
from fiduciary_trainer.measure.measurement import metric_names
from fiduciary_trainer.measure.ranks import average_ranks, rank_correlation


def days(count: int, start: str = "2010-01-04") -> np.ndarray:
    return (np.datetime64(start) + np.arange(count)).astype("datetime64[ns]")


def rows(y: Any, prediction: Any, *, folds: int = 1, horizon: int = 1, **more: Any) -> Rows:
    y = np.asarray(y, dtype=float)
    count = len(y)
    dates = more.pop("dates", days(count))
    return Rows(
        dates=dates,
        label_end=dates + np.timedelta64(horizon, "D"),
        entity=more.pop("entity", np.full(count, "SPX")),
        fold=more.pop("fold", np.arange(count) * folds // count),
        y=y,
        prediction=np.asarray(prediction, dtype=float),
        baselines={name: np.asarray(values, dtype=float) for name, values in more.pop("baselines", {}).items()},
        returns=np.asarray(more.pop("returns", np.zeros(count)), dtype=float),
    )


# Newey-West ---------------------------------------------------------------------------------------------------------


def test_long_run_variance_against_the_double_sum() -> None:
    """g0 + 2Σ(1-j/(L+1))g_j equals the quadratic form with Bartlett weights on all pairs."""
    x = np.random.default_rng(1).normal(size=100)
    centred = x - x.mean()
    gap = np.abs(np.subtract.outer(np.arange(100), np.arange(100)))
    weights = np.clip(1 - gap / (LAGS + 1), 0, None)
    assert long_run_variance(x) == pytest.approx(centred @ weights @ centred / 100, rel=1e-12)


def test_standard_error_covers_the_mean_of_a_dependent_series() -> None:
    """AR(1) with φ = .3: the mean's sd is sd(ε)/(1-φ)/√n; the naive formula is short of it by a quarter."""
    rng = np.random.default_rng(2)
    errors, means = [], []
    for _ in range(200):
        noise = rng.normal(size=2000)
        x = np.empty(2000)
        x[0] = noise[0]
        for t in range(1, 2000):
            x[t] = 0.3 * x[t - 1] + noise[t]
        errors.append(mean_se(x))
        means.append(x.mean())
    truth = 1 / 0.7 / np.sqrt(2000)
    assert np.mean(errors) == pytest.approx(truth, rel=0.05)
    assert np.std(means) == pytest.approx(truth, rel=0.15)


def test_too_few_days_have_no_standard_error() -> None:
    with pytest.raises(TooShort, match=str(SHORTEST)):
        mean_se(np.zeros(SHORTEST - 1))


def test_skill_error_by_the_delta_method_agrees_with_simulation() -> None:
    rng = np.random.default_rng(3)
    skills, errors = [], []
    for _ in range(400):
        shared = rng.normal(size=1500)
        loss, baseline = (shared + 0.2 * rng.normal(size=1500)) ** 2, (shared + 0.5 * rng.normal(size=1500)) ** 2
        skills.append(1 - loss.mean() / baseline.mean())
        errors.append(skill_se(loss, baseline))
    assert np.mean(errors) == pytest.approx(np.std(skills), rel=0.1)


def test_a_model_that_equals_its_baseline_has_skill_zero_without_error() -> None:
    rng = np.random.default_rng(4)
    y, p = rng.normal(size=300), rng.normal(size=300)
    result = measure(rows(y, p, folds=3, baselines={"ewma": p}), "Volatility", horizon=1, cost_bps=2)
    assert result.metrics["ewma_skill"].as_json() == {"e": 0.0, "se": 0.0, "f": [0.0, 0.0, 0.0], "n": 300}
    assert result.metrics["worst_fold_skill"].estimate == 0.0


# Losses -------------------------------------------------------------------------------------------------------------


def test_brier_and_calibration_of_the_published_example() -> None:
    """facts C, oracle 9: p=[.1,.1,.9,.9], y=[0,1,1,1] -> Brier .21, ECE .25."""
    p, y = np.array([0.1, 0.1, 0.9, 0.9]), np.array([0.0, 1.0, 1.0, 1.0])
    assert losses.squared_error(y, p).mean() == pytest.approx(0.21)
    assert losses.expected_calibration_error(y, p) == pytest.approx(0.25)


def test_a_probability_of_one_falls_into_the_last_bin() -> None:
    assert losses.expected_calibration_error(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0


def test_log_loss_of_a_coin_and_of_a_certain_error() -> None:
    assert losses.log_loss(np.array([1.0]), np.array([0.5]))[0] == pytest.approx(np.log(2))
    assert np.isfinite(losses.log_loss(np.array([1.0]), np.array([0.0]))[0])


def test_qlike_is_patton_s_on_variances() -> None:
    sigma, h = 0.013, 0.011
    ratio = sigma**2 / h**2
    assert losses.qlike(np.log([sigma]), np.log([h]))[0] == pytest.approx(ratio - np.log(ratio) - 1)


def test_balanced_accuracy_of_always_up_is_a_half() -> None:
    """Trap 2 of the requirements: accuracy 390/740 looks like skill, balanced accuracy does not."""
    y = np.array([1.0] * 390 + [0.0] * 350)
    np.random.default_rng(5).shuffle(y)
    result = measure(rows(y, np.full(740, 0.9), folds=2), "Direction", horizon=1, cost_bps=2)
    assert result.metrics["accuracy"].estimate == pytest.approx(0.527027, abs=1e-6)
    assert result.metrics["balanced_accuracy"].estimate == 0.5


def test_balanced_accuracy_error_agrees_with_simulation() -> None:
    rng = np.random.default_rng(6)
    values, errors = [], []
    for _ in range(300):
        y = (rng.random(1000) < 0.6).astype(float)
        p = np.where(rng.random(1000) < 0.3, 1 - y, y) * 0.8 + 0.1
        metric = measure(rows(y, p), "Direction", horizon=1, cost_bps=0).metrics["balanced_accuracy"]
        values.append(metric.estimate)
        errors.append(metric.se)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.1)


def test_average_ranks_share_ties() -> None:
    assert average_ranks(np.array([10.0, 20.0, 10.0, 30.0])).tolist() == [1.5, 3.0, 1.5, 4.0]
    assert rank_correlation(np.arange(5.0), np.arange(5.0) ** 3) == pytest.approx(1.0)
    assert np.isnan(rank_correlation(np.ones(5), np.arange(5.0)))


# Money --------------------------------------------------------------------------------------------------------------


def test_costs_are_paid_on_every_change_of_position() -> None:
    data = rows(np.zeros(4), np.zeros(4), returns=[0.01, -0.02, 0.03, 0.01])
    book = pnl.profit_and_loss(data, np.array([True, False, True, True]), cost_bps=10, horizon=1)
    assert book.turnover.tolist() == [1, 1, 1, 0]
    assert book.net == pytest.approx([0.01 - 0.001, -0.001, 0.03 - 0.001, 0.01])
    assert book.hold == pytest.approx([0.01 - 0.001, -0.02, 0.03, 0.01])


def test_a_forecast_over_several_sessions_is_held_in_sleeves() -> None:
    data = rows(np.zeros(4), np.zeros(4), returns=np.full(4, 0.01))
    book = pnl.profit_and_loss(data, np.array([True, False, False, False]), cost_bps=0, horizon=2)
    assert book.net == pytest.approx([0.005, 0.005, 0, 0])


def test_a_panel_is_equally_weighted_over_the_entities_of_the_day() -> None:
    dates = np.repeat(days(2), 2)
    data = rows(np.zeros(4), np.zeros(4), dates=dates, entity=np.array(["A", "B"] * 2), fold=np.zeros(4, int),
                returns=[0.02, 0.04, 0.0, 0.1])  # fmt: skip
    book = pnl.profit_and_loss(data, np.array([True, False, True, True]), cost_bps=0, horizon=1)
    assert book.net == pytest.approx([0.01, 0.05])
    assert book.hold == pytest.approx([0.03, 0.05])


def test_drawdown_counts_a_loss_on_the_first_day() -> None:
    assert pnl.drawdown(np.array([-0.1, 0.05, 0.2, -0.5])) == pytest.approx([0.1, 0.055, 0, 0.5])


def test_sharpe_and_its_error_for_independent_normal_returns() -> None:
    """Lo (2002): variance (1 + SR²/2)/n for independent normal returns."""
    rng = np.random.default_rng(7)
    ratios, errors = [], []
    for _ in range(300):
        net = rng.normal(0.05, 1.0, size=1000)
        ratios.append(pnl.sharpe(net))
        errors.append(mean_se(pnl.sharpe_influence(net)))
    assert np.mean(errors) == pytest.approx(np.sqrt((1 + 0.05**2 / 2) / 1000), rel=0.05)
    assert np.std(ratios) == pytest.approx(np.mean(errors), rel=0.1)


def test_moments_are_not_excess() -> None:
    skew, kurtosis = pnl.moments(np.random.default_rng(8).normal(size=200_000))
    assert skew == pytest.approx(0, abs=0.03)
    assert kurtosis == pytest.approx(3, abs=0.05)


def test_a_rule_that_never_trades_has_no_sharpe_but_a_reason() -> None:
    y = np.tile([0.0, 1.0], 100)
    result = measure(
        rows(y, np.full(200, 0.4), folds=2, returns=np.full(200, 0.01)), "Direction", horizon=1, cost_bps=2
    )
    assert result.metrics["sharpe"].as_json() == {"e": None}
    assert "same on every day" in result.unavailable["sharpe"]
    assert result.metrics["pnl"].estimate == 0.0


# Effective rows -----------------------------------------------------------------------------------------------------


def test_one_session_labels_are_all_unique() -> None:
    calendar = days(50)
    assert uniqueness(calendar, calendar + np.timedelta64(1, "D")).sum() == pytest.approx(50)


def test_overlapping_labels_count_once_per_horizon() -> None:
    calendar = days(1000)
    total = uniqueness(calendar, calendar + np.timedelta64(20, "D")).sum()
    assert total == pytest.approx(1000 / 20, rel=0.1)


def test_effective_rows_fall_with_serial_dependence_and_never_exceed_the_days() -> None:
    rng = np.random.default_rng(9)
    noise = rng.normal(size=3000)
    smooth = np.convolve(noise, np.ones(5) / 5, mode="same")
    assert effective_rows(rows(noise, np.zeros(3000))) == pytest.approx(3000, rel=0.35)
    assert effective_rows(rows(noise, np.zeros(3000))) <= 3000
    assert effective_rows(rows(smooth, np.zeros(3000))) < 1000


# Checks -------------------------------------------------------------------------------------------------------------


def test_a_constant_that_is_refitted_per_fold_has_no_spread() -> None:
    fold = np.repeat([0, 1, 2], 50)
    assert prediction_sd_ratio(rows(np.random.default_rng(1).normal(size=150), fold * 0.1, fold=fold)) == 0.0


def test_overlap_counts_training_labels_that_reach_into_the_test() -> None:
    dates = days(10)
    ends = dates + np.timedelta64(2, "D")
    train, test = np.arange(5), np.arange(5, 10)
    assert train_test_overlap(dates, ends, [(train, test)]) == 1  # row 4 ends at 6 > 5; row 3 ends at 5: known
    assert train_test_overlap(dates, ends, [(train[:4], test)]) == 0


def test_duplicates_are_by_entity_and_date() -> None:
    dates = days(2)[[0, 0, 1, 1]]
    assert duplicate_rows(dates, np.array(["A", "B", "A", "A"])) == 1


# The whole ----------------------------------------------------------------------------------------------------------


def volatility(count: int = 600, **more: Any) -> Rows:
    rng = np.random.default_rng(10)
    y = rng.normal(size=count)
    baselines = {name: 0.2 * y + 0.1 * rng.normal(size=count) for name in ("ewma", "har", "ols", "persistence")}
    return rows(y, 0.5 * y, folds=6, baselines=more.pop("baselines", baselines), **more)


@pytest.mark.parametrize("kind", ["Volatility", "Direction", "Return"])
def test_every_metric_of_the_label_kind_is_there_or_has_a_reason(kind: Any) -> None:
    data = volatility(baselines={})
    if kind == "Direction":
        data = rows(data.y > 0, np.clip(data.prediction + 0.5, 0, 1), folds=6)
    result = measure(data, kind, horizon=1, cost_bps=2)
    assert set(result.metrics) == set(metric_names(kind))
    for name, metric in result.metrics.items():
        assert metric.estimate is not None or result.unavailable[name]
    assert result.unavailable["rank_ic"] == "1 entities; ranking a date needs at least 5" if kind == "Return" else True


def test_skill_is_measured_against_each_baseline_with_folds_and_error() -> None:
    result = measure(volatility(), "Volatility", horizon=1, cost_bps=2)
    metric = result.metrics["ewma_skill"]
    assert metric.n == 600
    assert metric.se is not None
    assert metric.folds is not None
    assert len(metric.folds) == 6
    assert result.metrics["worst_fold_skill"].estimate == min(value for value in metric.folds if value is not None)


def test_a_baseline_with_gaps_is_unavailable_and_never_measured_on_fewer_rows() -> None:
    base = volatility()
    broken = dict(base.baselines) | {"har": np.where(np.arange(600) == 7, np.nan, base.y)}
    result = measure(volatility(baselines=broken), "Volatility", horizon=1, cost_bps=2)
    assert result.metrics["har_skill"].estimate is None
    assert "1 of 600 rows" in result.unavailable["har_skill"]


def test_a_prediction_that_is_not_finite_makes_everything_unavailable() -> None:
    data = rows([0.0, 1.0, 2.0], [0.0, np.nan, 1.0])
    result = measure(data, "Volatility", horizon=1, cost_bps=2)
    assert all(metric.estimate is None for metric in result.metrics.values())
    assert set(result.unavailable) == set(metric_names("Volatility"))


def test_a_short_walk_forward_has_estimates_but_no_errors() -> None:
    result = measure(volatility(40), "Volatility", horizon=1, cost_bps=2)
    assert result.metrics["mse"].estimate is not None
    assert result.metrics["mse"].se is None
    assert "at least" in result.unavailable["mse.se"]


def test_a_panel_is_one_row_per_date() -> None:
    """Ten identical entities are no more evidence than one."""
    single = volatility()
    names = np.tile([f"S{i}" for i in range(10)], 600)
    panel = Rows(
        dates=np.repeat(single.dates, 10), label_end=np.repeat(single.label_end, 10), entity=names,
        fold=np.repeat(single.fold, 10), y=np.repeat(single.y, 10), prediction=np.repeat(single.prediction, 10),
        baselines={name: np.repeat(values, 10) for name, values in single.baselines.items()},
        returns=np.repeat(single.returns, 10),
    )  # fmt: skip
    one = measure(single, "Volatility", horizon=1, cost_bps=2)
    ten = measure(panel, "Volatility", horizon=1, cost_bps=2)
    assert ten.metrics["ewma_skill"].se == pytest.approx(one.metrics["ewma_skill"].se)
    assert ten.metrics["effective_rows"].estimate == pytest.approx(one.metrics["effective_rows"].estimate)


def test_rank_ic_of_a_panel_whose_order_is_known() -> None:
    rng = np.random.default_rng(11)
    entity = np.tile([f"S{i}" for i in range(8)], 200)
    y = rng.normal(size=1600)
    data = rows(y, y, dates=np.repeat(days(200), 8), entity=entity, fold=np.repeat(np.arange(200) // 100, 8),
                returns=y / 100)  # fmt: skip
    assert measure(data, "Return", horizon=1, cost_bps=0).metrics["rank_ic"].estimate == pytest.approx(1.0)
