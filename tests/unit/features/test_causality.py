"""The promise of the feature code: no value depends on a later row, nor on one before its lookback, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fiduciary_features import FEATURES, SETS, Bars, FeatureSpec, MissingColumn, labels

EVERY = FeatureSpec.of_set("ohlcv-v1")


def random_bars(rows: int, seed: int, entities: int = 1, missing: float = 0.0) -> Bars:
    """Plausible daily bars; ``missing`` of all values are NaN."""
    draw = np.random.default_rng(seed)
    parts: list[dict[str, np.ndarray]] = []
    for _ in range(entities):
        close = 100 * np.exp(np.cumsum(draw.normal(0, 0.02, rows)))
        opened = close * np.exp(draw.normal(0, 0.01, rows))
        high = np.maximum(opened, close) * np.exp(np.abs(draw.normal(0, 0.01, rows)))
        low = np.minimum(opened, close) * np.exp(-np.abs(draw.normal(0, 0.01, rows)))
        volume = np.exp(draw.normal(12, 1, rows))
        part = {"open": opened, "high": high, "low": low, "close": close, "volume": volume}
        for values in part.values():
            values[draw.random(rows) < missing] = np.nan
        parts.append(part)
    time = np.repeat(np.datetime64("2001-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "D"), entities)
    entity = np.tile([f"E{number}" for number in range(entities)], rows)
    columns = {name: np.column_stack([part[name] for part in parts]).ravel() for name in parts[0]}
    return Bars(time, entity, columns)


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    return left.astype("<f8").tobytes() == right.astype("<f8").tobytes()


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 300),
    cut=st.integers(0, 299),
    seed=st.integers(0, 2**32 - 1),
    missing=st.sampled_from([0.0, 0.05, 0.4]),
)
def test_cutting_the_future_off_changes_no_bit(rows: int, cut: int, seed: int, missing: float) -> None:
    bars = random_bars(rows, seed, missing=missing)
    keep = np.arange(min(cut + 1, rows))
    whole, known = EVERY.compute(bars), EVERY.compute(bars.take(keep))
    assert same_bits(whole[keep], known)


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(66, 300), extra=st.integers(0, 150), seed=st.integers(0, 2**32 - 1))
def test_a_history_as_long_as_the_lookback_is_enough(rows: int, extra: int, seed: int) -> None:
    """The server keeps ``lookback`` rows; training saw thousands. Same numbers."""
    bars = random_bars(rows, seed, missing=0.02)
    last = np.arange(len(bars))[-min(EVERY.lookback + extra, rows) :]
    assert same_bits(EVERY.compute(bars)[-1], EVERY.compute(bars.take(last))[-1])


@pytest.mark.parametrize("name", FEATURES)
def test_each_feature_reads_no_further_back_than_it_says(name: str) -> None:
    spec = FeatureSpec.of_builtin("one", [name])
    bars = random_bars(200, 5)
    lookback = spec.lookback
    values = spec.compute(bars)
    assert np.isnan(values[: lookback - 1]).all(), "nothing is known before the lookback is filled"
    assert np.isfinite(values[lookback - 1 :]).all(), "and everything is afterwards"
    changed = bars.take(np.arange(200))
    for column in changed.columns.values():
        column[: 200 - lookback] **= 1.1
    assert same_bits(values[-1], spec.compute(changed)[-1])
    for column in changed.columns.values():
        column[200 - lookback] **= 1.1
    if lookback > 1:
        assert not same_bits(values[-1], spec.compute(changed)[-1]), "its first row does count"


def test_entities_are_never_mixed() -> None:
    """The predecessor put rows of two instruments into one sequence."""
    both = random_bars(150, 9, entities=2)
    first = both.take(both.entity == "E0")
    assert same_bits(EVERY.compute(both)[both.entity == "E0"], EVERY.compute(first))
    for kind in ("Volatility", "Return", "Direction"):
        together, alone = labels(both, kind, "close", 3), labels(first, kind, "close", 3)
        assert same_bits(together.y[both.entity == "E0"], alone.y)
        assert (together.end[both.entity == "E0"] == alone.end)[:-3].all()


def test_one_missing_value_does_not_blank_a_whole_window() -> None:
    bars = random_bars(200, 3)
    bars.columns["close"][120] = np.nan
    values = EVERY.compute(bars)
    slow = EVERY.names.index("rv_66")
    assert np.isnan(values[120, slow]), "today must be known"
    assert np.isfinite(values[121:, slow]).all()
    bars.columns["close"][101:119] = np.nan
    assert np.isnan(EVERY.compute(bars)[121, slow]), "less than three quarters of the window are known"


def test_zero_volume_and_flat_sessions_are_missing_not_infinite() -> None:
    bars = random_bars(100, 4)
    bars.columns["volume"][80] = 0.0
    for name in ("open", "high", "low", "close"):
        bars.columns[name][81] = 50.0
    values = EVERY.compute(bars)
    assert np.isnan(values[80, EVERY.names.index("volume_rel")])
    assert np.isnan(values[81, EVERY.names.index("rv_1")])
    assert not np.isinf(values).any()


def test_a_missing_column_is_named() -> None:
    bars = random_bars(10, 1)
    without = Bars(bars.time, bars.entity, {name: v for name, v in bars.columns.items() if name != "volume"})
    with pytest.raises(MissingColumn) as caught:
        EVERY.compute(without)
    assert caught.value.args == ("volume",)


def test_sets_never_change() -> None:
    """The name of a set is in training keys: another content needs another name."""
    assert SETS["har-v1"] == ("rv_1", "rv_5", "rv_22")
    assert SETS["ohlcv-v1"] == (
        *("rv_1", "rv_5", "rv_22", "rv_66", "ret_1", "ret_5", "ret_22", "abs_ret_1", "abs_ret_5", "abs_ret_22"),
        *("neg_ret_1", "gap", "range", "volume_rel"),
    )
    assert SETS["close-v1"] == SETS["ohlcv-v1"][4:11]
    assert FeatureSpec.of_set("close-v1").columns == ("close",)
    assert FeatureSpec.of_set("ohlcv-v1").lookback == 66
    assert FeatureSpec.of_set("har-v1").lookback == 22


def test_values_by_hand() -> None:
    time = np.datetime64("2020-01-01", "ns") + np.arange(3) * np.timedelta64(1, "D")
    bars = Bars(
        time,
        np.array(["", "", ""]),
        {
            "open": np.array([10.0, 10.5, 11.0]),
            "high": np.array([10.6, 11.2, 11.5]),
            "low": np.array([9.8, 10.4, 10.1]),
            "close": np.array([10.4, 11.0, 10.2]),
            "volume": np.array([1.0, 2.0, 3.0]),
        },
    )
    spec = FeatureSpec.of_builtin("some", ["rv_1", "ret_1", "abs_ret_1", "neg_ret_1", "gap", "range"])
    rv, ret, size, negative, gap, spread = spec.compute(bars)[2]
    variance = 0.5 * np.log(11.5 / 10.1) ** 2 - (2 * np.log(2) - 1) * np.log(10.2 / 11.0) ** 2
    assert rv == pytest.approx(np.log(np.sqrt(variance)))
    assert ret == pytest.approx(np.log(10.2 / 11.0))
    assert size == pytest.approx(-ret)
    assert negative == pytest.approx(ret)
    assert gap == pytest.approx(0.0)
    assert spread == pytest.approx(np.log(11.5 / 10.1))
