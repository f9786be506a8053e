"""Models and baselines: known answers, tuned inside the training rows, exact where they should be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fiduciary_trainer import baselines, contract, data
from fiduciary_trainer.models import modules, ridge, sequences
from fiduciary_trainer.models.ridge import Coefficients
from fiduciary_trainer.prepared import prepare
from fiduciary_trainer.walkforward import FinalModel, WalkForward, fit_final, run_walk_forward
from tests.trainer.contracts import document


def silent(**_: Any) -> None:
    """A progress that nobody watches."""


def run(architecture: str, label: str = "Volatility", **changes: Any) -> tuple[WalkForward, FinalModel]:
    job = contract.parse(document(architecture, label, **changes))
    bars = data.load(job).bars
    return run_walk_forward(bars, job, silent), fit_final(bars, job, silent)


def skill(walk: WalkForward, baseline: str) -> float:
    rows = walk.test_rows
    own = np.mean((walk.prediction[rows] - walk.y[rows]) ** 2)
    return float(1 - own / np.mean((walk.baselines[baseline][rows] - walk.y[rows]) ** 2))


# --- closed forms --------------------------------------------------------------------------------------------------


def test_ridge_is_least_squares_without_penalty_and_shrinks_with_it() -> None:
    draw = np.random.default_rng(1)
    x = draw.normal(size=(400, 5))
    y = x @ [1.0, -2.0, 0.0, 0.5, 3.0] + 4.0 + 0.1 * draw.normal(size=400)
    free = ridge.ridge(x, y, 0.0)
    design = np.column_stack([x, np.ones(400)])
    assert np.append(free.weights, free.bias) == pytest.approx(np.linalg.lstsq(design, y, rcond=None)[0])
    held = ridge.ridge(x, y, 10.0)
    assert np.linalg.norm(held.weights) < 0.2 * np.linalg.norm(free.weights)
    assert held.score(x).mean() == pytest.approx(y.mean()), "the level is not penalised"


def test_logistic_is_at_the_minimum() -> None:
    draw = np.random.default_rng(2)
    x = draw.normal(size=(3000, 3))
    y = (draw.random(3000) < ridge.sigmoid(x @ [1.0, -0.5, 0.0] + 0.3)).astype(float)
    found = ridge.logistic(x, y, 1e-4)
    assert found.weights == pytest.approx([1.0, -0.5, 0.0], abs=0.12)
    p = ridge.sigmoid(found.score(x))
    assert x.T @ (p - y) / len(y) + 1e-4 * found.weights == pytest.approx(0.0, abs=1e-6)
    assert (p - y).mean() == pytest.approx(0.0, abs=1e-6)


def test_logistic_survives_separable_classes_and_one_class() -> None:
    x = np.linspace(-1, 1, 200)[:, None]
    assert np.isfinite(ridge.logistic(x, (x[:, 0] > 0).astype(float), 1e-4).weights).all()
    assert ridge.sigmoid(ridge.logistic(x, np.ones(200), 1e-4).score(x)).min() > 0.999


def test_the_penalty_grows_with_noise() -> None:
    draw = np.random.default_rng(3)
    x = draw.normal(size=(300, 20))
    splits = [(np.arange(100), np.arange(100, 200)), (np.arange(200), np.arange(200, 300))]
    signal = x @ draw.normal(size=20)
    clear = ridge.choose(ridge.ridge, ridge.squared_error, x, signal, splits)
    noisy = ridge.choose(ridge.ridge, ridge.squared_error, x, draw.normal(size=300), splits)
    assert clear == min(ridge.PENALTIES)
    assert noisy == max(ridge.PENALTIES)


def test_ewma_by_recursion() -> None:
    draw = np.random.default_rng(4)
    series = draw.normal(size=300)
    past = np.full((300, 66), np.nan)
    for back in range(66):
        past[back:, back] = series[: 300 - back]
    smooth = series[0]
    for value in series[1:]:
        smooth = 0.2 * value + 0.8 * smooth
    assert baselines.ewma(past, 0.2)[-1] == pytest.approx(smooth, abs=1e-5)
    assert baselines.ewma(past, 0.2)[0] == pytest.approx(series[0]), "what is not there has no weight"


def test_tuning_finds_the_constant_that_made_the_data() -> None:
    draw = np.random.default_rng(5)
    past = np.full((6000, 66), np.nan)
    level, series, expected = 0.0, np.zeros(6000), np.zeros(6000)
    for row in range(6000):
        expected[row] = level
        series[row] = level + draw.normal()
        level += 0.15 * (series[row] - level)
    for back in range(66):
        past[back:, back] = series[: 6000 - back]
    assert baselines.tuned_constant(past[66:-1], series[67:]) == pytest.approx(0.15, abs=0.02)


def test_persistence_of_direction_is_how_often_it_went_on() -> None:
    last = np.array([1.0, 1.0, 1.0, 0.0, 0.0])
    y = np.array([1.0, 1.0, 0.0, 0.0, 1.0])
    assert baselines._after_same(last, y, np.array([1.0, 0.0])) == pytest.approx([2 / 3, 1 / 2])


def test_missing_input_stays_visible_in_every_module() -> None:
    """A model that answers although its input is missing hides an outage."""
    weights = Coefficients(np.array([0.5, 0.0]), 0.1)
    made: list[tuple[torch.nn.Module, tuple[int, ...]]] = [
        (modules.Constant(0.53), (1, 2)),
        (modules.Affine(weights, probability=True), (1, 2)),
        (modules.Smoothed(np.full(3, 1 / 3)), (1, 3, 2)),
        (modules.Skipped(modules.Affine(weights, probability=False), sequences.Recurrent("LSTM", 2, 4)), (1, 3, 2)),
    ]
    for module, shape in made:
        assert module(torch.zeros(shape)).shape == (1, 1)
        assert torch.isnan(module(torch.full(shape, torch.nan))).all()


# --- the S&P 500 ---------------------------------------------------------------------------------------------------


def test_har_equals_a_tuned_ewma() -> None:
    """facts F: tuned EWMA and HAR are equal on these data; persistence loses by 40 %."""
    walk, final = run("HAR")
    assert skill(walk, "har") == pytest.approx(0.0, abs=1e-6), "the baseline and the model are the same regression"
    assert skill(walk, "ewma") == pytest.approx(0.0, abs=0.01)
    assert skill(walk, "ols") == pytest.approx(0.0, abs=0.005)
    assert skill(walk, "persistence") > 0.25
    assert final.input_kind == "row"


def test_linear_beats_a_tuned_ewma() -> None:
    walk, final = run("Linear")
    assert 0.06 < skill(walk, "ewma") < 0.10
    assert skill(walk, "har") > 0.06
    assert skill(walk, "ols") > -0.005
    assert np.mean((walk.prediction - walk.y)[walk.test_rows] ** 2) == pytest.approx(0.158, abs=0.003)
    assert set(final.chosen) == {"penalty"}


def test_ewma_model_is_its_baseline() -> None:
    walk, final = run("EWMA")
    rows = walk.test_rows
    assert walk.prediction[rows] == pytest.approx(walk.baselines["ewma"][rows], abs=1e-5)
    assert (final.input_kind, final.window) == ("window", 66)
    assert 0.1 <= final.chosen["constant"] <= 0.25


@pytest.mark.parametrize("architecture", ["BaseRate", "Logistic", "MLP"])
def test_direction_shows_no_skill(architecture: str) -> None:
    walk, _ = run(architecture, "Direction")
    assert -0.01 < skill(walk, "base_rate") < 0.003


def test_a_direction_that_can_be_predicted_is() -> None:
    """The refusal above is the data's fault, not the model's: with a drift that changes weekly, skill appears."""
    job = contract.parse(document("Logistic", "Direction"))
    bars = data.load(job).bars
    steps = np.random.default_rng(6).normal(0, 0.01, len(bars)) + 0.006 * np.sign(np.sin(np.arange(len(bars)) / 5))
    close = 100 * np.exp(np.cumsum(steps))
    bars.columns.update(  # type: ignore[attr-defined]
        {"open": close, "high": close * 1.01, "low": close * 0.99, "close": close}
    )
    assert skill(run_walk_forward(bars, job, silent), "base_rate") > 0.05


def test_what_is_exported_is_what_was_measured() -> None:
    """Raw features through the transform into the module, in float32, as serving will do it."""
    walk, final = run("Linear")
    inputs = final.transform.apply(walk.X).astype(np.float32)
    assert np.array_equal(inputs[-len(final.examples) :], final.examples)
    with torch.inference_mode():
        answer = final.module(torch.from_numpy(inputs)).numpy()
    assert answer.shape == (len(walk.y), 1)
    newest = walk.folds[-1].test_rows
    assert np.corrcoef(answer[newest, 0], walk.prediction[newest])[0, 1] > 0.99, "refitted on a few more rows"


def test_the_rows_add_up() -> None:
    walk, _ = run("Linear")
    counts = walk.counts
    dropped = sum(value for name, value in counts.items() if name.startswith("dropped"))
    assert counts["rows_used"] + dropped == counts["rows_read"] == 4780
    assert counts["dropped_lookback"] == 65
    assert counts["dropped_no_label"] == 1
    assert np.isnan(np.delete(walk.prediction, walk.test_rows)).all(), "nothing is predicted on training rows"
    for values in walk.baselines.values():
        assert np.isfinite(values[walk.test_rows]).all()
    assert walk.label_end.max() <= np.datetime64("2017-12-29")


def test_windows_hold_one_instrument_in_order() -> None:
    job = contract.parse(
        document(
            "LSTM",
            "Return",
            data__source={"dataset": {"name": "skfolio/factors_dataset"}},
            data__entity="symbol",
            data__features={"columns": ["close"]},
            training__hyperparameters={"window": 5},
        )
    )
    bars = data.load(job).bars
    prepared = prepare(bars, job)
    rows = prepared.windows
    assert (bars.entity[rows] == bars.entity[rows[:, -1]][:, None]).all()
    assert (np.diff(bars.time[rows].astype(np.int64), axis=1) > 0).all()
    assert (bars.time[rows[:, -1]] == prepared.dates).all()
