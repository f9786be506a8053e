"""Splits that can be checked from their document alone, combinatorial paths, and statistics by published constants."""

from __future__ import annotations

import copy
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch", reason="runs in the trainer image")
from fiduciary_trainer import contract as contracts
from fiduciary_trainer import splits
from fiduciary_trainer.measure import Rows
from fiduciary_trainer.outcome import BadContract, DataRefused
from fiduciary_trainer.validation import (
    calibration,
    combinatorial,
    comparison,
    intervals,
    overfitting,
    splits_document,
    track_record,
)
from fiduciary_trainer.walkforward import Fold
from tests.trainer.judged import document, market, train, write
from tests.trainer.test_splits import calendar

if TYPE_CHECKING:
    from pathlib import Path


# --- combinatorial purged splits ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("folds", "tested", "expected"), [(6, 2, (15, 5)), (10, 8, (45, 36)), (5, 1, (5, 1))])
def test_numbers_of_splits_and_paths(folds: int, tested: int, expected: tuple[int, int]) -> None:
    """Facts C, oracle 7."""
    assert combinatorial.count(folds, tested) == expected


def test_too_many_splits_are_refused_before_any_is_trained() -> None:
    with pytest.raises(BadContract, match="184,756 splits"):
        combinatorial.count(20, 10)


@settings(max_examples=40, deadline=None)
@given(
    days=st.integers(1500, 2500),
    horizon=st.integers(1, 20),
    purge=st.integers(0, 20),
    embargo=st.integers(0, 90),
    folds=st.integers(3, 6),
    tested=st.integers(1, 2),
    entities=st.integers(1, 3),
)
def test_no_training_label_touches_a_test_on_either_side(
    days: int, horizon: int, purge: int, embargo: int, folds: int, tested: int, entities: int
) -> None:
    made = calendar(days, horizon=horizon, purge=purge, embargo=embargo, entities=entities)
    every = combinatorial.splits(made, folds, tested)
    assert len(every) == math.comb(folds, tested)
    for split in every:
        begun, known = made.dates[split.train], made.label_end[split.train]
        for fold in split.tested:
            own = split.test[split.fold == fold]
            first, last = made.dates[own].min(), made.label_end[own].max()
            assert not ((known > first) & (begun < last)).any()
            place = made.day[split.train]
            near = (place >= made.day[own].min() - embargo) & (place <= made.day[own].max() + embargo)
            assert not near.any(), "the embargo holds on both sides"
    paths = list(combinatorial.paths(every, folds, tested))
    assert len(paths) == combinatorial.count(folds, tested)[1]
    used = [pair for path in paths for pair in path]
    assert len(set(used)) == len(used) == len(every) * tested, "each split's forecast of a fold is in one path"
    said = splits_document.document(made, [], every, nested=False)
    assert splits_document.violations(said) == []


def test_too_few_sessions_for_the_embargo_are_refused() -> None:
    with pytest.raises(DataRefused, match="embargo 90"):
        combinatorial.splits(calendar(400, embargo=90), 6, 2)


def test_a_rolling_walk_forward_trains_on_its_window() -> None:
    made = calendar(3000, embargo=66)
    for train_rows, test_rows in splits.walk_forward(made, 6, window=500):
        assert len(train_rows) == 500
        assert made.day[test_rows].min() - made.day[train_rows].max() == 67


# --- the artifact of splits --------------------------------------------------------------------------------------


def _document(**more: Any) -> dict[str, Any]:
    made = calendar(2000, horizon=5, purge=1, embargo=70)
    folds = [Fold(number, *pair) for number, pair in enumerate(splits.walk_forward(made, 4))]
    return splits_document.document(made, folds, combinatorial.splits(made, 5, 2), nested=True, **more)


def test_the_splits_of_a_training_are_clean_and_complete() -> None:
    said = _document()
    assert splits_document.violations(said) == []
    assert [each["scheme"] for each in said["splits"]].count("CombinatorialPurged") == 10
    assert {inner["scheme"] for inner in said["splits"][0]["inner"]} == {"EarlyStopping", "Penalty"}
    final = said["splits"][-1]
    assert (final["scheme"], final["trainRows"], final["test"]) == ("Final", 2000, [])
    assert final["inner"][0]["test"][-1]["last"] == final["train"][-1]["last"], "early stopping watches the newest rows"


def test_every_split_names_what_was_split_inside_its_training_rows() -> None:
    for split in _document(searched=True)["splits"]:
        assert {inner["scheme"] for inner in split["inner"]} == {"EarlyStopping", "Penalty", "Search"}, split["name"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda said: said["splits"][0]["train"][-1].update(labelsKnownBy="2003-12-31"), "labels touch"),
        (
            lambda said: said["splits"][0]["train"][-1].update(last=said["splits"][0]["test"][0]["first"] - 10),
            "embargo",
        ),
        (lambda said: said["splits"][2]["inner"][0]["train"][-1].update(labelsKnownBy="2020-01-01"), "EarlyStopping"),
    ],
    ids=["a label that ends in the test", "a gap that is too small", "an inner split"],
)
def test_a_leak_in_the_splits_is_seen_in_the_document_alone(change: Any, says: str) -> None:
    said = copy.deepcopy(_document())
    change(said)
    found = splits_document.violations(said)
    assert found
    assert says in found[0]


# --- overfitting -------------------------------------------------------------------------------------------------


def test_a_trial_that_always_wins_is_not_overfitted() -> None:
    rng = np.random.default_rng(1)
    noise = rng.normal(size=(640, 10))
    noise[:, 3] += 2.0
    found = overfitting.cscv(noise)
    assert (found.probability, found.choices, found.trials) == (0.0, 12_870, 10)


def test_trials_that_win_by_turns_are_overfitted() -> None:
    """Facts C, oracle 8: two antisymmetric strategies, S = 2."""
    half = np.concatenate([np.ones(50), -np.ones(50)]) + 0.1 * np.random.default_rng(2).normal(size=100)
    assert overfitting.cscv(np.column_stack([half, -half]), blocks=2).probability == 1.0


def test_noise_is_overfitted_half_of_the_time() -> None:
    """Facts C, oracle 8: the null is one half, not one."""
    values = [
        overfitting.cscv(np.random.default_rng(seed).normal(size=(500, 20)), blocks=8).probability for seed in range(20)
    ]
    assert np.mean(values) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("given", [(np.zeros((100, 1)), 4), (np.zeros((100, 3)), 5), (np.zeros((7, 3)), 4)])
def test_overfitting_needs_trials_blocks_and_days(given: tuple[np.ndarray, int]) -> None:
    with pytest.raises(ValueError, match="at least 2"):
        overfitting.cscv(given[0], blocks=given[1])


# --- track record: constants of the papers, facts C ---------------------------------------------------------------

HEDGE = {"skew": -2.448, "kurtosis": 10.164}


def test_probabilistic_sharpe_of_2012() -> None:
    ratio = 1.585 / math.sqrt(12)
    assert track_record.probabilistic(ratio, 0.0, 24, **HEDGE) == pytest.approx(0.91323430688486018, abs=1e-12)
    assert track_record.probabilistic(ratio, 0.0, 24, 0.0, 3.0) == pytest.approx(0.98159, abs=5e-6)


def test_expected_maximum_and_deflated_sharpe_of_2014() -> None:
    assert track_record.expected_maximum(100) == pytest.approx(2.5306028932016846, abs=1e-12)
    assert track_record.expected_maximum(10) == pytest.approx(1.57460, abs=5e-6)
    benchmark = math.sqrt(0.5 / 250) * track_record.expected_maximum(100)
    assert benchmark == pytest.approx(0.11317, abs=5e-6)
    found = track_record.probabilistic(2.5 / math.sqrt(250), benchmark, 1250, -3.0, 10.0)
    assert found == pytest.approx(0.90039683444939034, abs=1e-10)


@pytest.mark.parametrize(("periods", "years"), [(250, 2.7311878), (252, 2.7309843), (12, 3.23980)])
def test_minimum_track_record_length_of_2012(periods: int, years: float) -> None:
    root = math.sqrt(periods)
    assert track_record.shortest_record(2 / root, 1 / root, 0.0, 3.0) / periods == pytest.approx(years, abs=1e-5)


def test_a_ratio_below_its_benchmark_never_has_a_record() -> None:
    assert track_record.shortest_record(0.01, 0.02, 0.0, 3.0) == math.inf


@pytest.mark.parametrize(("benchmark", "rho", "probability"), [(0.0, 0.0, 0.987), (0.1, 0.0, 0.939), (0.0, 0.2, 0.966)])
def test_probabilistic_sharpe_of_2025(benchmark: float, rho: float, probability: float) -> None:
    """Oracle 6: a ratio of .036/.079 over 24 months."""
    found = track_record.probabilistic_of_2025(0.036 / 0.079, benchmark, 24, **HEDGE, rho=rho)
    assert found == pytest.approx(probability, abs=5e-4)


@pytest.mark.parametrize(("rho", "months"), [(0.0, 13.029), (0.2, 19.543)])
def test_shortest_record_of_2025(rho: float, months: float) -> None:
    assert track_record.shortest_record_of_2025(0.036 / 0.079, 0.0, **HEDGE, rho=rho) == pytest.approx(months, abs=1e-3)


def test_a_record_states_both_conventions_and_every_n() -> None:
    rng = np.random.default_rng(4)
    hold = 0.01 * rng.normal(0.03, 1.0, 2000)
    said = track_record.record(hold + 0.0004, hold)
    assert said["2012"]["probabilistic"] == pytest.approx(said["2025"]["probabilistic"], abs=0.02)
    values = list(said["deflated"].values())
    assert values == sorted(values, reverse=True)
    assert values[0] == pytest.approx(said["2012"]["probabilistic"])


# --- comparison, calibration, intervals ---------------------------------------------------------------------------


def _rows(days: int = 1200, better: float = 0.3) -> Rows:
    rng = np.random.default_rng(6)
    time = np.datetime64("2005-01-03", "ns") + np.arange(days + 1) * np.timedelta64(1, "D")
    truth = rng.normal(size=days)
    y = truth + 0.5 * rng.normal(size=days)
    return Rows(
        dates=time[:-1], label_end=time[1:], entity=np.full(days, ""), fold=np.arange(days) * 6 // days, y=y,
        prediction=truth + better * rng.normal(size=days),
        baselines={"twin": truth + 0.3 * rng.normal(size=days), "worse": truth + 1.0 * rng.normal(size=days)},
        returns=0.01 * rng.normal(size=days),
    )  # fmt: skip


def test_the_confidence_set_holds_what_cannot_be_told_apart() -> None:
    said = comparison.compare(_rows(), seed=7)
    assert said["confidenceSet"]["included"] == ["model", "twin"]
    assert said["dieboldMariano"]["worse"]["p"] < 1e-6
    assert abs(said["dieboldMariano"]["twin"]["t"]) < 2.5
    assert comparison.compare(_rows(), seed=7) == said, "the bootstrap is seeded"


def test_forecasts_that_are_one_share_their_place() -> None:
    rows = _rows()
    rows.baselines["copy"] = rows.prediction.copy()  # type: ignore[index]
    said = comparison.compare(rows, seed=7)["confidenceSet"]
    assert said["p"]["copy"] == said["p"]["model"]
    assert comparison.compare(rows, seed=7)["dieboldMariano"]["copy"]["t"] is None


def test_too_few_days_are_unavailable_with_a_reason() -> None:
    said = comparison.compare(_rows(50), seed=7)
    assert "50 days" in said["confidenceSet"]["unavailable"]
    assert "50 days" in said["dieboldMariano"]["worse"]["unavailable"]
    assert "50 days" in intervals.interval(50, lambda days: 0.0, 1)["unavailable"]


def test_recalibration_is_fitted_on_earlier_folds_only() -> None:
    rng = np.random.default_rng(8)
    days = 2400
    rows = _rows(days)
    odds = rng.normal(size=days)
    y = (rng.random(days) < 1 / (1 + np.exp(-odds))).astype(float)
    bold = Rows(**{**vars(rows), "y": y, "prediction": 1 / (1 + np.exp(-3.0 * odds))})
    said = calibration.summary(bold)
    assert said["after"]["ece"] < 0.5 * said["before"]["ece"]
    first = calibration.recalibrated(bold)
    assert np.isnan(first[bold.fold == 0]).all()
    y[bold.fold == 5] = 1 - y[bold.fold == 5]
    again = calibration.recalibrated(Rows(**{**vars(bold), "y": y}))
    assert np.array_equal(first, again, equal_nan=True), "a fold's own outcomes do not move its scale"


def test_resampled_days_come_in_blocks_and_cover_the_mean() -> None:
    rng = np.random.default_rng(9)
    days = intervals.stationary(5000, rng)
    assert np.mean(np.diff(days) == 1) == pytest.approx(1 - 1 / intervals.BLOCK, abs=0.01)
    values = rng.normal(1.0, 1.0, 1000)
    found = intervals.interval(1000, lambda chosen: float(values[chosen].mean()), 3)
    assert found["low"] < values.mean() < found["high"]
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 / math.sqrt(1000), rel=0.4)


# --- through the whole trainer ------------------------------------------------------------------------------------


def test_a_training_logs_its_splits_and_its_validation(tmp_path: Path) -> None:
    path = tmp_path / "data" / "bars.csv"
    write(path, market())
    job = document(path, "Logistic", "Direction")
    job["training"]["validation"] |= {"scheme": "CombinatorialPurged", "testFolds": 2, "folds": 4, "window": 400}
    done = train(tmp_path, job)
    said = json.loads((done.folder / "validation" / "splits.json").read_bytes())
    assert splits_document.violations(said) == []
    assert [each["scheme"] for each in said["splits"]] == ["WalkForward"] * 4 + ["CombinatorialPurged"] * 6 + ["Final"]
    assert {each["trainRows"] for each in said["splits"][1:4]} == {400}
    found = json.loads((done.folder / "validation" / "results.json").read_bytes())
    assert found["combinatorial"]["paths"] == 3
    assert len(found["combinatorial"]["metrics"]["base_rate_skill"]["values"]) == 3
    assert set(found["importance"]) == set(contracts.parse(job).features.names)
    assert found["trackRecord"]["periods"] == done.result["metrics"]["sharpe"]["n"]
    assert found["trackRecord"]["sharpe"] == pytest.approx(done.result["metrics"]["sharpe"]["e"], rel=1e-6)
    assert "training.search" in found["overfitting"]["unavailable"]
    assert set(found["intervals"]) == {"ece", "max_drawdown", "sharpe"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"scheme": "CombinatorialPurged"}, "InvalidValue"),
        ({"scheme": "KFold"}, "InvalidValue"),
        ({"scheme": "CombinatorialPurged", "folds": 24, "testFolds": 8}, "TooManySplits"),
        ({"window": 20}, "InvalidValue"),
    ],
)
def test_a_scheme_that_cannot_be_carried_out_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    job = document(tmp_path / "bars.csv", "Linear", "Volatility")
    job["training"]["validation"] |= change
    with pytest.raises(BadContract) as refused:
        contracts.parse(job)
    assert refused.value.reason == reason
