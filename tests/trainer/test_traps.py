"""The traps that this product's predecessor fell into, rebuilt, and refused with the right reason (requirements.md).

Each is a data set or a change of the trainer's own code; the whole trainer runs, and the operator's own gates judge.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

pytest.importorskip("fiduciary", reason="operator/ is not mounted beside the tests")
from fiduciary.decide import reasons
from fiduciary_features import Bars, FeatureSpec, Transform
from fiduciary_trainer import measuring, prepared, splits, training
from fiduciary_trainer.models import modules
from fiduciary_trainer.outcome import DataRefused
from tests.trainer import judged
from tests.trainer.judged import document, judge, market, refusals, train, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


LACKING = {reasons.NO_SKILL, reasons.WORST_FOLD}
"""What an honest model without skill is refused for."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "data" / "bars.csv"
    write(path, market())
    return path


def shifted(values: np.ndarray, by: int) -> np.ndarray:
    """The value ``by`` rows later; the last ones are repeated."""
    return np.concatenate([values[by:], np.repeat(values[-1:], by)])


# --- no trap: nothing honest is refused but for want of skill ----------------------------------------------------


@pytest.mark.parametrize(
    ("label", "architecture", "allowed"),
    [
        ("Volatility", "HAR", set[str]()),
        ("Volatility", "EWMA", set[str]()),
        ("Volatility", "Linear", LACKING),
        ("Volatility", "MLP", LACKING),
        ("Direction", "BaseRate", set[str]()),
        ("Direction", "LSTM", LACKING),
        ("Return", "Linear", LACKING),
    ],
)
def test_an_honest_model_is_refused_for_nothing_but_skill(
    tmp_path: Path, data: Path, label: str, architecture: str, allowed: set[str]
) -> None:
    done = train(tmp_path, document(data, architecture, label))
    assert set(refusals(done, architecture)) <= allowed


# --- 1: noise sold as data ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("label", "architecture"), [("Volatility", "Linear"), ("Direction", "LSTM")])
def test_noise_has_no_skill_and_another_digest_than_the_market(
    tmp_path: Path, data: Path, label: str, architecture: str
) -> None:
    rng = np.random.default_rng(42)
    noise = judged.bars(0.01 * rng.normal(size=1500), np.full(1500, 0.01), rng)
    honest = train(tmp_path, document(data, "HAR", "Volatility"))
    write(data, noise)
    done = train(tmp_path, document(data, architecture, label))
    assert reasons.NO_SKILL in refusals(done, architecture)
    assert done.result["dataDigest"] != honest.result["dataDigest"], "its name is the same, its content is not"
    assert done.result["dataDigest"] in (done.folder / "report" / "model-card.md").read_text()


# --- 2: the answer is always up ----------------------------------------------------------------------------------


def test_a_double_sigmoid_is_a_degenerate_predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy equals the base rate, F1 looks like .69: every forecast is above one half."""
    rising = market(seed=2)
    drift = np.exp(0.0006 * np.arange(1500))
    for name in ("open", "high", "low", "close"):
        rising[name] = rising[name] * drift
    path = tmp_path / "data" / "bars.csv"
    write(path, rising)
    once = modules.Members.forward
    monkeypatch.setattr(modules.Members, "forward", lambda self, x: torch.sigmoid(once(self, x)))
    done = train(tmp_path, document(path, "LSTM", "Direction"))
    assert done.result["checks"]["predicted_up_share"] == 1.0
    accuracy, up = done.result["metrics"]["accuracy"]["e"], _share_of_rises(done.folder)
    assert accuracy == pytest.approx(up, abs=1e-6)
    assert "always says the same" in refusals(done, "LSTM")[reasons.DEGENERATE_PREDICTOR]


def _share_of_rises(folder: Path) -> float:
    rows = (folder / "version" / "ledger.csv").read_text().splitlines()[1:]
    return float(np.mean([float(row.split(",")[5]) for row in rows]))


# --- 3: the future return is a feature ---------------------------------------------------------------------------


def _tip(columns: judged.Columns) -> np.ndarray:
    """The next session's return."""
    close = np.asarray(columns["close"], dtype=float)
    return shifted(close, 1) / close - 1.0


def _hit(columns: judged.Columns) -> np.ndarray:
    """A column that tells the next direction with 90 % accuracy, as the predecessor's 33rd feature did."""
    rng = np.random.default_rng(3)
    up = _tip(columns) > 0
    return np.where(rng.random(len(up)) < 0.098, ~up, up) + 0.01 * rng.normal(size=len(up))


def _centred(columns: judged.Columns) -> np.ndarray:
    """Mean return of the five sessions around the row: a rolling window with ``center=True``."""
    returns = np.diff(np.log(np.asarray(columns["close"], dtype=float)), prepend=np.log(100.0))
    return np.convolve(returns, np.ones(5) / 5, mode="same")


def _rank(columns: judged.Columns) -> np.ndarray:
    """The index of a file that somebody had sorted by outcome before numbering its rows."""
    return np.argsort(np.argsort(_tip(columns))).astype(float)


def _weekly(columns: judged.Columns) -> np.ndarray:
    """The week's return, known on its last day, filled backwards into the days before."""
    close = np.log(np.asarray(columns["close"], dtype=float))
    ends = np.arange(4, len(close), 5)
    known = np.full(len(close), np.nan)
    known[ends] = close[ends] - close[ends - 4]
    for row in range(len(close) - 2, -1, -1):
        known[row] = known[row] if np.isfinite(known[row]) else known[row + 1]
    return np.nan_to_num(known)


LEAKS: list[tuple[str, Callable[[judged.Columns], np.ndarray]]] = [
    ("next_return", _tip),
    ("ninety_percent", _hit),
    ("centred_mean", _centred),
    ("row_number", _rank),
    ("week_filled_backwards", _weekly),
]


@pytest.mark.parametrize(("label", "architecture"), [("Direction", "Logistic"), ("Return", "Linear")])
@pytest.mark.parametrize(("name", "leak"), LEAKS, ids=[name for name, _ in LEAKS])
def test_a_column_that_knows_the_future_is_named(
    tmp_path: Path, name: str, leak: Callable[[judged.Columns], np.ndarray], label: str, architecture: str
) -> None:
    columns = market()
    columns["past"] = np.abs(np.diff(np.log(np.asarray(columns["close"], dtype=float)), prepend=np.log(100.0)))
    columns[name] = leak(columns)
    path = tmp_path / "data" / "bars.csv"
    write(path, columns)
    done = train(tmp_path, document(path, architecture, label, features={"columns": ["past", name]}))
    failed = refusals(done, architecture)
    assert f"feature '{name}'" in failed[reasons.LEAKAGE]
    assert done.result["checks"]["leakage_feature"] == name


# --- 4: rows that were filled backwards, instruments that were interleaved ---------------------------------------


def test_filling_backwards_in_the_trainer_reads_the_future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown features of a row are taken from the first later row that has them."""
    columns = market()
    columns["volume"] = np.asarray(columns["volume"], dtype=float)
    columns["volume"][[300, 301, 700, 1100]] = np.nan
    path = tmp_path / "data" / "bars.csv"
    write(path, columns)
    honest = FeatureSpec.of_series

    def filled(self: FeatureSpec, series: Any) -> np.ndarray:
        known = honest(self, series)
        for row in range(len(known) - 2, -1, -1):
            gap = ~np.isfinite(known[row])
            known[row, gap] = known[row + 1, gap]
        return known

    assert set(refusals(train(tmp_path, document(path, "Linear", "Volatility")), "Linear")) <= LACKING
    monkeypatch.setattr(FeatureSpec, "of_series", filled)
    done = train(tmp_path, document(path, "Linear", "Volatility"))
    assert "future_cut_max_diff" in refusals(done, "Linear")[reasons.LEAKAGE]


def test_a_feature_from_a_window_around_its_row_reads_the_future(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FeatureSpec.of_series

    def centred(self: FeatureSpec, series: Any) -> np.ndarray:
        known = honest(self, series)
        known[1:-1, 0] = (known[:-2, 0] + known[1:-1, 0] + known[2:, 0]) / 3.0
        return known

    monkeypatch.setattr(FeatureSpec, "of_series", centred)
    failed = refusals(train(tmp_path, document(data, "Linear", "Volatility")), "Linear")
    assert reasons.LEAKAGE in failed


def test_instruments_mixed_in_the_trainer_are_not_what_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features over rows of two instruments as if they were one series; serving sees one instrument at a time."""
    path = tmp_path / "data" / "bars.csv"
    job = _panel(path)
    assert set(refusals(train(tmp_path, job), "Linear")) <= LACKING
    whole = lambda self: iter([np.arange(len(self.time))])  # noqa: E731
    monkeypatch.setattr(Bars, "each_entity", whole)
    assert reasons.EXPORT_DIFFERS in refusals(train(tmp_path, job), "Linear")


def _panel(path: Path) -> dict[str, Any]:
    """Two instruments of different price, rows of one day side by side."""
    one, two = market(1), market(2)
    order = np.repeat(np.arange(1500), 2)
    second = np.arange(3000) % 2 == 1
    columns: dict[str, Any] = {
        name: np.where(second, (1.0 if name == "volume" else 7.0) * np.asarray(two[name])[order], one[name][order])
        for name in one
    }
    columns["symbol"] = np.where(second, "BBB", "AAA")
    write(path, columns, judged.dates(1500)[order])
    return document(path, "Linear", "Volatility", entity="symbol")


@pytest.mark.parametrize(
    ("times", "reason", "hint"),
    [("days", "DuplicateRows", "data.entity"), ("minutes", "MixedSeries", "2 instruments seem to take turns")],
)
def test_two_instruments_in_one_sequence_are_refused(tmp_path: Path, times: str, reason: str, hint: str) -> None:
    path = tmp_path / "data" / "bars.csv"
    job = _panel(path)
    job["data"]["entity"] = None
    if times == "minutes":
        lines = path.read_text().splitlines()
        apart = [line.replace(",", f" 16:{index % 2:02d}:00,", 1) for index, line in enumerate(lines[1:])]
        path.write_text("\n".join([lines[0], *apart]) + "\n")
    with pytest.raises(DataRefused) as refused:
        train(tmp_path, job)
    assert refused.value.reason == reason
    assert hint in refused.value.message


@pytest.mark.parametrize("filled", ["backwards", "copied later"])
def test_bars_that_repeat_are_filled_gaps_or_copies(tmp_path: Path, filled: str) -> None:
    columns = market()
    gaps = np.arange(100, 1400, 25)
    for name in columns:
        if filled == "backwards":
            columns[name][gaps] = columns[name][gaps + 1]
        else:  # rows of the training years come again in the test years
            columns[name][gaps[len(gaps) // 2 :]] = columns[name][gaps[: len(gaps) // 2]]
    path = tmp_path / "data" / "bars.csv"
    write(path, columns)
    with pytest.raises(DataRefused) as refused:
        train(tmp_path, document(path, "Linear", "Volatility", checks={"maxMissing": "0.01"}))
    assert refused.value.reason == "RepeatedRows"


# --- 6: the scaler is missing when serving -----------------------------------------------------------------------


def test_a_transform_that_is_fitted_and_not_written_is_another_model(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Transform.to_json
    monkeypatch.setattr(Transform, "to_json", lambda self: honest(Transform.identity(self.names)))
    failed = refusals(train(tmp_path, document(data, "Linear", "Volatility")), "Linear")
    assert "its transform" in failed[reasons.EXPORT_DIFFERS]


def test_a_lookback_that_is_too_short_for_serving_is_another_model(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server would hold fewer rows than the features read, and the last feature would be of another window."""
    from fiduciary_trainer import artifacts

    honest = artifacts.signature

    def short(*given: Any) -> dict[str, Any]:
        said = honest(*given)
        said["raw"]["rows"] = 30
        return said

    monkeypatch.setattr(artifacts, "signature", short)
    done = train(tmp_path, document(data, "Linear", "Volatility"))
    assert "onnx_max_diff is unavailable" in refusals(done, "Linear")[reasons.UNAVAILABLE]


# --- 8: the last weights are kept, not the best; exceptions are swallowed (test_traps_endings.py) -----------------


def test_the_last_weights_instead_of_the_best_are_refused(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best epoch is recorded, its weights are not: one line in a training loop."""
    job = document(data, "MLP", "Volatility", hyperparameters={
        "epochs": 30, "patience": 30, "members": 1, "hidden": 16, "learningRate": "0.03"})  # fmt: skip
    kept = train(tmp_path, job)
    assert kept.result["checks"]["kept_loss_excess"] < 1e-5
    assert reasons.WEIGHTS_NOT_BEST not in refusals(kept, "MLP")
    honest = training._after

    def last(*given: Any) -> Any:
        running = honest(*given)
        return training.Running(**{**vars(running), "best": running.state})

    monkeypatch.setattr(training, "_after", last)
    failed = refusals(train(tmp_path, job), "MLP")
    assert "other weights than the best were kept" in failed[reasons.WEIGHTS_NOT_BEST]


# --- more: labels, splits, feeds, panels -------------------------------------------------------------------------


def test_a_label_one_row_early_is_found(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The label says that it ends tomorrow and is today's value, which the features hold."""
    honest = prepared.labels

    def early(*given: Any) -> Any:
        outcome = honest(*given)
        outcome.y[1:] = outcome.y[:-1].copy()
        return outcome

    monkeypatch.setattr(prepared, "labels", early)
    failed = refusals(train(tmp_path, document(data, "Linear", "Volatility")), "Linear")
    assert "leakage_max_score" in failed[reasons.LEAKAGE]


def test_a_label_that_ends_later_than_it_says_is_found(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label of the day after tomorrow with tomorrow's end would pass every purge."""
    honest = measuring.labels

    def late(bars: Bars, kind: Any, column: str, horizon: int) -> Any:
        outcome = honest(bars, kind, column, horizon)
        outcome.y[:-1] = outcome.y[1:].copy()
        outcome.y[-1] = np.nan
        return outcome

    monkeypatch.setattr(prepared, "labels", late)
    monkeypatch.setattr(measuring, "labels", late)
    failed = refusals(train(tmp_path, document(data, "Linear", "Volatility")), "Linear")
    assert "future_cut_max_diff" in failed[reasons.LEAKAGE]


def test_training_rows_inside_the_test_are_counted(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = splits.walk_forward

    def overlapping(*given: Any) -> Any:
        return [(np.concatenate([train, test[:50]]), test) for train, test in honest(*given)]

    monkeypatch.setattr(splits, "walk_forward", overlapping)
    failed = refusals(train(tmp_path, document(data, "Linear", "Volatility")), "Linear")
    assert "train_test_overlap" in failed[reasons.LEAKAGE]


def test_duplicate_rows_are_refused_before_they_can_be_split(tmp_path: Path, data: Path) -> None:
    lines = data.read_text().splitlines()
    data.write_text("\n".join([*lines[:800], lines[799], *lines[800:]]) + "\n")
    with pytest.raises(DataRefused) as refused:
        train(tmp_path, document(data, "Linear", "Volatility"))
    assert refused.value.reason == "DuplicateRows"


def test_a_feed_that_died_before_as_of_is_refused(tmp_path: Path) -> None:
    """In production the column would be a constant."""
    columns = market()
    rng = np.random.default_rng(9)
    columns["sentiment"] = np.cumsum(rng.normal(size=1500))
    columns["sentiment"][-15:] = columns["sentiment"][-15]
    columns["rate"] = np.repeat(rng.normal(size=15), 100)  # a rate that is set now and then may stand still
    path = tmp_path / "data" / "bars.csv"
    write(path, columns)
    with pytest.raises(DataRefused) as refused:
        train(tmp_path, document(path, "Linear", "Return", features={"columns": ["sentiment", "rate"]}))
    assert refused.value.reason == "DeadColumn"
    assert "'sentiment'" in refused.value.message
    train(tmp_path, document(path, "Linear", "Return", features={"columns": ["rate"]}))


def test_a_feature_that_never_moved_in_training_moves_nothing_later() -> None:
    """It was constant while the model learned, so what its moves mean is unknown: its scale is 0."""
    rows = np.column_stack([np.linspace(-1, 1, 50), np.full(50, 3.0)])
    transform = Transform.fit(rows, ("moves", "stands"))
    assert transform.apply(np.array([[0.5, 99.0]]))[0, 1] == 0.0


def test_a_panel_without_a_word_on_the_delisted_warns_of_survivorship(tmp_path: Path) -> None:
    done = train(tmp_path, _panel(tmp_path / "data" / "bars.csv"))
    card = (done.folder / "report" / "model-card.md").read_text()
    assert "survivorship" in card


def test_every_gate_gave_its_verdict(tmp_path: Path, data: Path) -> None:
    names = {each.gate for each in judge(train(tmp_path, document(data, "MLP", "Direction")), "MLP").results}
    assert names == {"leakage", "effective_rows", "degenerate", "skill", "worst_fold", "kept_weights", "export"}
