"""Labels, and the moment at which each is known."""

from __future__ import annotations

import numpy as np
import pytest

from fiduciary_features import Bars, labels


def bars(close: list[float], **more: list[float]) -> Bars:
    time = np.datetime64("2020-01-01", "ns") + np.arange(len(close)) * np.timedelta64(1, "D")
    columns = {name: np.array(values, dtype=float) for name, values in {"close": close, **more}.items()}
    return Bars(time, np.full(len(close), ""), columns)


def test_direction_is_up_only_when_the_price_is_higher() -> None:
    found = labels(bars([10, 11, 11, 9]), "Direction", "close", 1)
    assert found.y[:3].tolist() == [1.0, 0.0, 0.0]
    assert np.isnan(found.y[3]), "the last outcome is not known yet"


def test_return_is_a_log_return_and_pnl_is_of_the_next_session() -> None:
    found = labels(bars([10, 11, 12, 9]), "Return", "close", 2)
    assert found.y[:2] == pytest.approx([np.log(12 / 10), np.log(9 / 11)])
    assert np.isnan(found.y[2:]).all()
    assert found.next_return[:3] == pytest.approx([0.1, 12 / 11 - 1, -0.25])
    assert np.isnan(found.next_return[3])


def test_volatility_is_the_log_of_the_root_of_the_mean_variance_ahead() -> None:
    series = bars(
        [10.4, 11.0, 10.2, 10.3],
        open=[10.0, 10.5, 11.0, 10.2],
        high=[10.6, 11.2, 11.5, 10.9],
        low=[9.8, 10.4, 10.1, 10.0],
    )
    o, h, low, c = (series.columns[name] for name in ("open", "high", "low", "close"))
    variance = 0.5 * np.log(h / low) ** 2 - (2 * np.log(2) - 1) * np.log(c / o) ** 2
    one, two = (labels(series, "Volatility", "close", horizon) for horizon in (1, 2))
    assert one.y[:3] == pytest.approx(0.5 * np.log(variance[1:]))
    assert two.y[:2] == pytest.approx(0.5 * np.log([variance[1:3].mean(), variance[2:4].mean()]))


def test_the_end_is_the_last_row_that_the_label_reads() -> None:
    series = bars([10, 11, 12, 9])
    found = labels(series, "Return", "close", 2)
    assert (found.end[:2] == series.time[2:]).all()
    assert np.isnat(found.end[2:]).all()


@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("kind", ["Direction", "Return"])
def test_a_missing_price_makes_no_label(kind: str, horizon: int) -> None:
    close = [10.0, 11, np.nan, 9, 10, 11, 12]
    found = labels(bars(close), kind, "close", horizon)  # type: ignore[arg-type]
    for row in range(len(close) - horizon):
        known = np.isfinite(close[row]) and np.isfinite(close[row + horizon])
        assert bool(np.isfinite(found.y[row])) == known


def test_a_series_shorter_than_the_horizon_has_no_label() -> None:
    found = labels(bars([10, 11]), "Return", "close", 5)
    assert np.isnan(found.y).all()
    assert np.isnat(found.end).all()
