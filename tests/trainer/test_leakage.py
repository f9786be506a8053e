"""Planted leaks are found, honest persistence is not mistaken for one."""

from __future__ import annotations

import numpy as np
import pytest

from fiduciary_trainer import leakage

COUNT = 3000


def market(seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Days, daily log volatility (AR(1) of .97 and noise of a daily estimate) and returns with that volatility."""
    rng = np.random.default_rng(seed)
    level = np.empty(COUNT)
    level[0] = 0.0
    for t in range(1, COUNT):
        level[t] = 0.97 * level[t - 1] + 0.15 * rng.normal()
    returns = np.exp(level) * 0.01 * rng.standard_t(5, size=COUNT)
    measured = level + 0.35 * (np.abs(rng.normal(size=COUNT)) - 0.8) + 0.1 * np.log1p(np.abs(returns) * 100)
    days = (np.datetime64("2000-01-03") + np.arange(COUNT)).astype("datetime64[ns]")
    return days, measured, returns


def mean_of_last(x: np.ndarray, length: int) -> np.ndarray:
    total = np.concatenate([[0.0], np.cumsum(x)])
    result = np.full(len(x), np.nan)
    result[length - 1 :] = (total[length:] - total[:-length]) / length
    return result


def scan(y: np.ndarray, features: dict[str, np.ndarray], horizon: int = 1) -> dict[str, float]:
    days = market()[0]
    ends = days + np.timedelta64(horizon, "D")
    names = tuple(features)
    result = leakage.scan(days, ends, np.full(COUNT, "SPX"), np.column_stack(list(features.values())), names, y)
    assert result.scores is not None
    return dict(zip(names, result.scores.tolist(), strict=True))


def shifted(x: np.ndarray, by: int) -> np.ndarray:
    result = np.full(len(x), np.nan)
    result[:-by] = x[by:]
    return result


def test_persistence_is_not_a_leak() -> None:
    _, measured, returns = market()
    label = shifted(measured, 1)
    scores = scan(label, {
        "day": measured, "week": mean_of_last(measured, 5), "month": mean_of_last(measured, 22),
        "return": returns, "size": np.abs(returns),
    })  # fmt: skip
    assert np.corrcoef(measured[:-1], measured[1:])[0, 1] > 0.7
    assert max(scores.values()) < leakage.LIMIT / 2


def test_the_larger_of_two_scans_counts() -> None:
    """A future return hardly shows in a volatility; the scan of returns finds it, and nothing honest there."""
    _, measured, returns = market()
    days = market()[0]
    ends = days + np.timedelta64(1, "D")
    features = np.column_stack([measured, shifted(returns, 1)])
    entity, names = np.full(COUNT, "SPX"), ("honest", "future_return")
    by_label = leakage.scan(days, ends, entity, features, names, shifted(measured, 1))
    by_return = leakage.scan(days, ends, entity, features, names, shifted(returns, 1))
    assert by_label.worst is not None
    assert by_label.worst[1] < leakage.LIMIT
    worst = by_label.joined(by_return).worst
    assert worst is not None
    assert worst[0] == "future_return"
    assert worst[1] > 0.9
    nothing = leakage.Scan(names, None, "too few rows")
    assert by_label.joined(nothing) is by_label
    assert nothing.joined(by_label) is by_label


def test_a_column_of_the_future_return_is_a_leak_for_direction() -> None:
    """Trap 3 of the requirements: the 33rd feature, 90.2 % accuracy."""
    rng = np.random.default_rng(2)
    _, _, returns = market()
    future = shifted(returns, 1)
    label = np.where(np.isfinite(future), (future > 0).astype(float), np.nan)
    noisy = np.where(rng.random(COUNT) < 0.098, 1 - label, label)
    scores = scan(label, {"past": returns, "future": future, "derived": noisy})
    assert scores["future"] > 0.95
    assert scores["derived"] > 0.7
    assert scores["past"] < 0.1


def test_a_label_that_is_one_row_early_is_a_leak() -> None:
    """The label says that it ends tomorrow but is today's value: today's own feature is the answer."""
    _, measured, _ = market()
    scores = scan(measured, {"day": measured, "week": mean_of_last(measured, 5)})
    assert scores["day"] > 0.9


def test_slow_unrelated_features_do_not_explain_overlapping_labels() -> None:
    """Random walks and 20-day labels: in-sample fits look good, out-of-sample ones do not (facts C, oracle 10)."""
    _, _, returns = market()
    rng = np.random.default_rng(3)
    label = shifted(20 * mean_of_last(returns, 20), 20)
    walks = {f"walk{i}": np.cumsum(rng.normal(size=COUNT)) for i in range(10)}
    assert max(scan(label, walks, horizon=20).values()) < leakage.LIMIT / 2


def test_where_values_are_missing_counts_as_knowledge() -> None:
    """A column that is missing exactly where the outcome is bad is a leak too."""
    _, _, returns = market()
    future = shifted(returns, 1)
    label = np.where(np.isfinite(future), (future > 0).astype(float), np.nan)
    column = np.where(label > 0, np.nan, 1.0)
    assert scan(label, {"gaps": column})["gaps"] > 0.95


def test_known_past_uses_no_label_that_ends_after_the_decision() -> None:
    days = market()[0][:100]
    y = np.arange(100.0)
    past = leakage.known_past(days, days + np.timedelta64(3, "D"), np.full(100, "A"), y)
    assert np.isnan(past[23, 0])
    assert past[24].tolist() == [21.0, 19.0, 10.5]


def test_entities_do_not_lend_each_other_their_past() -> None:
    days = np.repeat(market()[0][:60], 2)
    entity = np.tile(["A", "B"], 60)
    y = np.where(entity == "A", 1.0, 5.0)
    past = leakage.known_past(days, days + np.timedelta64(1, "D"), entity, y)
    assert set(past[np.isfinite(past[:, 0]) & (entity == "B")].ravel()) == {5.0}


def test_too_few_rows_are_unavailable_with_a_reason() -> None:
    days = market()[0][:100]
    result = leakage.scan(days, days, np.full(100, "A"), np.ones((100, 1)), ("x",), np.ones(100))
    assert result.worst is None
    assert "250 needed" in result.reason


# Cut-off ------------------------------------------------------------------------------------------------------------


def recompute(feature):
    days, measured, _ = market()
    entity = np.full(COUNT, "SPX")

    def up_to(cut: np.datetime64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        keep = days <= cut
        return days[keep], entity[keep], feature(measured[keep])[:, None]

    return leakage.future_cut_max_diff(
        days, entity, feature(measured)[:, None], up_to, leakage.cut_dates(days)
    )  # fmt: skip


def test_causal_features_are_equal_bit_for_bit() -> None:
    assert recompute(lambda x: mean_of_last(x, 22)) == 0.0


@pytest.mark.parametrize(
    "feature",
    [
        lambda x: (x - x.mean()) / x.std(),
        lambda x: np.convolve(x, np.ones(5) / 5, mode="same"),
        lambda x: np.append(x[1:], np.nan),
        lambda x: np.where(np.arange(len(x)) < 5, x[-1], x),
    ],
    ids=["scaled over everything", "centred window", "tomorrow", "back-filled"],
)
def test_features_that_see_the_future_differ(feature) -> None:
    assert recompute(feature) > 0.0


def test_rows_that_vanish_are_a_difference() -> None:
    days, measured, _ = market()
    entity = np.full(COUNT, "SPX")
    found = leakage.future_cut_max_diff(
        days, entity, measured[:, None],
        lambda cut: (days[days < cut], entity[days < cut], measured[days < cut][:, None]), leakage.cut_dates(days),
    )  # fmt: skip
    assert found == 1.0
