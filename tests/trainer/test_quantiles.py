"""Quantiles: never crossed, never in the way of the point forecast, right where the truth is known."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest
import torch

from fiduciary_features import Bars, FeatureSpec, signature
from fiduciary_trainer import contract, export, pipeline, quantile_baselines
from fiduciary_trainer.checkpoint import Attempt
from fiduciary_trainer.comparison import replay
from fiduciary_trainer.data import Locations
from fiduciary_trainer.measure.losses import pinball
from fiduciary_trainer.models import modules, quantiles
from fiduciary_trainer.models.ridge import Coefficients
from fiduciary_trainer.outcome import Retryable
from fiduciary_trainer.prepared import Prepared, prepare
from fiduciary_trainer.training import pinball as pinball_of_tensors
from fiduciary_trainer.walkforward import fit_final, run_walk_forward
from tests.trainer.contracts import document
from tests.trainer.test_training import bars, silent

if TYPE_CHECKING:
    from pathlib import Path

LEVELS = ["0.05", "0.25", "0.5", "0.75", "0.95"]
TAUS = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
EPOCHS = int(quantiles.LINEAR["epochs"] or 0)
SMALL = {"epochs": 4, "patience": 4, "members": 2, "hidden": 4}


def job(architecture: str = "MLP", label: str = "Volatility", **changes: Any) -> contract.Contract:
    window = {} if architecture == "MLP" else {"window": 6}
    settings = {} if architecture == "Linear" else {**SMALL, **window}
    given = {"training__hyperparameters": settings, "data__features": {"set": "har-v1"}}
    base = {**given, "training__validation__folds": 2, "training__quantiles": LEVELS}
    return contract.parse(document(architecture, label, **{**base, **changes}))


# --- the networks ---------------------------------------------------------------------------------------------------


def test_the_two_pinball_losses_are_one() -> None:
    draw = np.random.default_rng(1)
    y, q = draw.normal(size=50), np.sort(draw.normal(size=(50, 5)), axis=1)
    given = [torch.from_numpy(each) for each in (q, y, TAUS)]
    assert float(pinball_of_tensors(*given)) == pytest.approx(float(pinball(y, q, TAUS).mean()))


def ascending(levels: int, scale: float, seed: int) -> quantiles.QuantileMembers:
    """Members with weights far from anything that training would find."""
    torch.manual_seed(seed)
    members = []
    for _ in range(3):
        core = modules.Perceptron(4, 8, levels)
        torch.nn.init.normal_(core.out.weight, std=scale)
        linear = modules.Affine(Coefficients(np.ones(4), 0.5), probability=False)
        members.append(quantiles.Ascending(linear, core, np.linspace(-1, 1, levels).tolist()))
    return quantiles.QuantileMembers(members, level=-4.7, spread=0.31)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 3000.0])
@pytest.mark.parametrize("levels", [1, 2, 15])
def test_quantiles_never_cross_in_torch_nor_in_onnx(levels: int, scale: float) -> None:
    """To the last bit, also where softplus underflows and neighbours coincide."""
    module = ascending(levels, scale, seed=levels)
    inputs = np.random.default_rng(2).normal(scale=3.0, size=(4000, 4)).astype(np.float32)
    point = modules.Affine(Coefficients(np.ones(4), 0.5), probability=False)
    model = export.to_onnx(point, (4,), module)
    served = export.Predictor(model).quantiles(inputs)
    for answer in (served, export.evaluate(module, inputs).reshape(len(inputs), levels)):
        assert answer.shape == (4000, levels)
        assert np.isfinite(answer).all()
        assert (np.diff(answer, axis=1) >= 0.0).all()
    if scale == 3000.0 and levels == 15:
        assert (np.diff(served, axis=1) == 0.0).any(), "the case that a mean could round the wrong way is among them"
    outputs = onnxruntime.InferenceSession(model).get_outputs()
    assert [(each.name, each.shape) for each in outputs] == [
        ("prediction", ["batch", 1]),
        ("quantiles", ["batch", levels]),
    ]


def test_a_network_starts_at_the_quantiles_of_the_linear_parts_errors() -> None:
    linear = modules.Affine(Coefficients(np.array([2.0, 0.0]), 1.0), probability=False)
    module = quantiles.Ascending(linear, modules.Perceptron(2, 3, 3), [-0.7, 0.1, 2.0])
    x = torch.tensor([[0.0, 0.0], [1.0, 5.0]])
    assert module(x).detach().numpy() == pytest.approx(np.array([[0.3, 1.1, 3.0], [2.3, 3.1, 5.0]]), abs=1e-5)


def spread_by_feature(rows: int = 3000) -> Bars:
    """A return whose standard deviation is known beforehand: 1 % or 4 %, by a column that says which."""
    draw = np.random.default_rng(3)
    state = (np.arange(rows) // 40) % 2
    sizes = np.where(state == 1, 0.04, 0.01)
    moves = draw.normal(size=rows) * np.concatenate([[0.01], sizes[:-1]])
    close = 100 * np.exp(np.cumsum(moves))
    time = np.datetime64("2000-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "D")
    return Bars(time, np.full(rows, ""), {"close": close, "state": state + 0.01 * draw.normal(size=rows)})


def test_a_spread_that_features_tell_is_found() -> None:
    """Against the truth, and against baselines that do not look at the feature."""
    made = job(
        label="Return",
        data__features={"columns": ["state"]},
        training__hyperparameters={"epochs": 60, "patience": 10, "members": 2, "hidden": 8, "learningRate": "0.01"},
        training__validation__folds=2,
    )
    walk = run_walk_forward(spread_by_feature(), made, silent)
    assert walk.quantiles is not None
    rows = walk.test_rows
    y, state = walk.y[rows], walk.X[rows, 0] > 0.5
    normal = np.array([-1.6449, -0.6745, 0.0, 0.6745, 1.6449])
    truth = np.where(state, 0.04, 0.01)[:, None] * normal
    values = walk.quantiles.values[rows]
    loss, best = pinball(y, values, TAUS).mean(), pinball(y, truth, TAUS).mean()
    assert loss < 1.03 * best
    plain = pinball(y, walk.quantiles.baselines["residual"][rows], TAUS).mean()
    filtered = pinball(y, walk.quantiles.baselines["filtered"][rows], TAUS).mean()
    assert best < loss < filtered < plain
    wide = values[:, -1] - values[:, 0]
    assert wide[state].mean() / wide[~state].mean() == pytest.approx(4.0, rel=0.25)
    for place, level in enumerate(TAUS):
        for inside in (state, ~state):
            assert np.mean(y[inside] <= values[inside, place]) == pytest.approx(level, abs=0.06)


@pytest.mark.parametrize(
    ("architecture", "label"),
    [("MLP", "Return"), ("TCN", "Volatility"), ("LSTM", "Volatility"), ("Linear", "Volatility")],
)
def test_the_point_forecast_keeps_its_bits(architecture: str, label: str) -> None:
    """Gates, experiments, drift and outcomes read it: quantiles may change nothing there."""
    frame, made = bars(), job(architecture, label)
    alone = made.without_quantiles()
    first, second = run_walk_forward(frame, made, silent), run_walk_forward(frame, alone, silent)
    assert first.prediction.tobytes() == second.prediction.tobytes()
    assert first.history == second.history
    assert second.quantiles is None
    final, plain = fit_final(frame, made, silent), fit_final(frame, alone, silent)
    shape = (3,) if final.input_kind == "row" else (6, 3)
    both = export.Predictor(export.to_onnx(final.module, shape, final.quantiles))
    one = export.Predictor(export.to_onnx(plain.module, shape))
    assert both(final.examples).tobytes() == one(plain.examples).tobytes()
    assert final.quantiles is not None
    probe = export.probe(export.to_onnx(final.module, shape, final.quantiles), final.module, final.examples,
                         quantiles=final.quantiles)  # fmt: skip
    assert probe.max_diff < 1e-5


@pytest.mark.parametrize("architecture", ["GRU", "Transformer", "Ensemble"])
def test_every_network_has_quantiles(architecture: str) -> None:
    walk = run_walk_forward(bars(), job(architecture), silent)
    assert walk.quantiles is not None
    values = walk.quantiles.values[walk.test_rows]
    assert np.isfinite(values).all()
    assert (np.diff(values, axis=1) >= 0).all()
    assert len(walk.chosen[0]["quantile_best_epochs"]) == (6 if architecture == "Ensemble" else 2)


def test_a_difference_of_the_second_output_is_seen() -> None:
    module, other = ascending(3, 1.0, seed=1), ascending(3, 1.0, seed=2)
    point = modules.Affine(Coefficients(np.ones(4), 0.5), probability=False)
    inputs = np.random.default_rng(2).normal(size=(64, 4)).astype(np.float32)
    assert export.probe(export.to_onnx(point, (4,), module), point, inputs, quantiles=module).max_diff < 1e-4
    assert export.probe(export.to_onnx(point, (4,), module), point, inputs, quantiles=other).max_diff > 0.1


def test_an_interruption_among_the_quantiles_changes_no_bit(tmp_path: Path) -> None:
    frame = bars()
    made = job(checkpoint={"uri": "pvc://c/x"})
    locations = Locations(checkpoints=tmp_path)
    whole = run_walk_forward(frame, made, silent)
    position = {"steps": 0}
    attempt = Attempt.begin(made, "sha256:1", locations)

    def stop_late(**told: Any) -> None:
        position["steps"] += 1
        if position["steps"] > 0 and told["metric"] and told["epoch"] > 24:  # 2 folds, 2 members, 4 epochs: point 16
            attempt.asked_to_stop = True

    with pytest.raises(Retryable):
        run_walk_forward(frame, made, stop_late, attempt)
    again = Attempt.begin(made, "sha256:1", locations)
    assert again.resumed
    resumed = run_walk_forward(frame, made, silent, again)
    assert whole.quantiles is not None
    assert resumed.quantiles is not None
    assert resumed.prediction.tobytes() == whole.prediction.tobytes()
    assert resumed.quantiles.values.tobytes() == whole.quantiles.values.tobytes()


def test_linear_quantiles_find_what_is_linear() -> None:
    """A spread that grows with a feature: the slope of each quantile is its own (Koenker & Bassett 1982)."""
    draw = np.random.default_rng(12)
    rows = 4000
    size = 0.01 + 0.03 * draw.random(rows)
    moves = np.concatenate([[0.01], size[:-1]]) * draw.normal(size=rows)
    time = np.datetime64("2000-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "D")
    frame = Bars(time, np.full(rows, ""), {"close": 100 * np.exp(np.cumsum(moves)), "size": size})
    walk = run_walk_forward(frame, job("Linear", "Return", data__features={"columns": ["size"]}), silent)
    assert walk.quantiles is not None
    at = walk.test_rows
    values, known = walk.quantiles.values[at], walk.X[at, 0]
    slopes = [float(np.polyfit(known, values[:, place], 1)[0]) for place in (0, 2, 4)]
    assert -2.0 < slopes[0] < -1.0, "-1.64 in truth; early stopping and weight decay shrink"
    assert abs(slopes[1]) < 0.25
    assert 1.0 < slopes[2] < 2.0
    loss = pinball(walk.y[at], values, TAUS).mean()
    assert loss < pinball(walk.y[at], walk.quantiles.baselines["filtered"][at], TAUS).mean()
    assert walk.chosen[0]["quantile_best_epochs"][0] > 0


def test_progress_of_a_linear_model_counts_the_epochs_of_its_quantiles() -> None:
    seen: list[tuple[int, int]] = []

    def note(**told: Any) -> None:
        seen.append((told["epoch"], told["epochs"]))

    made = job("Linear")
    run_walk_forward(bars(), made, note)
    assert seen[-1] == (2 + 2 * EPOCHS, 3 + 3 * EPOCHS)
    fit_final(bars(), made, note)
    assert seen[-1] == (3 + 3 * EPOCHS, 3 + 3 * EPOCHS)
    assert seen == sorted(seen)


def test_progress_counts_quantiles_and_never_falls() -> None:
    seen: list[float] = []
    made = job(training__hyperparameters={**SMALL, "patience": 2})

    def note(**told: Any) -> None:
        seen.append(told["percent"])

    run_walk_forward(bars(), made, note)
    walked = seen[-1]
    fit_final(bars(), made, note)
    assert seen == sorted(seen)
    assert walked == pytest.approx(100 * 4 / 6)
    assert seen[-1] == pytest.approx(100.0)


def test_two_workers_in_one_process_have_quantiles_too() -> None:
    walk = run_walk_forward(bars(), job(training__nodes=2), silent)
    alone = run_walk_forward(bars(), job(), silent)
    assert walk.quantiles is not None
    assert alone.quantiles is not None
    rows = walk.test_rows
    assert walk.quantiles.values[rows] == pytest.approx(alone.quantiles.values[rows], abs=0.05)


def test_an_experiments_replay_fits_the_point_alone() -> None:
    class Frozen:
        procedure = document("MLP", training__quantiles=LEVELS)

    assert replay._contract(Frozen(), "2016-01-04").training.quantiles == ()  # type: ignore[arg-type]


# --- the baselines --------------------------------------------------------------------------------------------------


def prepared(rows: int = 2000, horizon: int = 1) -> Prepared:
    """GARCH(1,1) returns: what filtered simulation is made for."""
    draw = np.random.default_rng(9)
    variance, moves = 1e-4, np.empty(rows)
    for row in range(rows):
        moves[row] = np.sqrt(variance) * draw.normal()
        variance = 2e-6 + 0.13 * moves[row] ** 2 + 0.85 * variance
    time = np.datetime64("2000-01-01", "ns") + np.arange(rows) * np.timedelta64(1, "D")
    frame = Bars(time, np.full(rows, ""), {"close": 100 * np.exp(np.cumsum(moves))})
    made = job(label="Return", data__features={"set": "close-v1"}, data__label__horizon=horizon)
    return prepare(frame, made)


def test_filtered_simulation_beats_residual_quantiles_where_spreads_cluster() -> None:
    made = prepared()
    train, test = np.arange(1200), np.arange(1210, len(made.y))
    found = quantile_baselines.fit_predict(made, "Return", TAUS.tolist(), train, test)
    losses = {name: pinball(made.y[test], values, TAUS).mean() for name, values in found.items()}
    assert losses["filtered"] < 0.99 * losses["residual"]
    assert all((np.diff(values, axis=1) >= 0).all() for values in found.values())
    assert np.mean(made.y[test] <= found["filtered"][:, 0]) == pytest.approx(0.05, abs=0.02)


@pytest.mark.parametrize("horizon", [1, 5])
def test_baselines_look_at_nothing_that_is_not_known(horizon: int) -> None:
    made = prepared(horizon=horizon)
    train, test = np.arange(1200), np.arange(1210, len(made.y))
    cut = 1500
    later = made.y.copy()
    later[made.label_end > made.dates[cut]] *= 50.0
    found, other = (
        quantile_baselines.fit_predict(replace(made, y=y), "Return", TAUS.tolist(), train, test)
        for y in (made.y, later)
    )
    same = test <= cut
    assert other["filtered"][same].tobytes() == found["filtered"][same].tobytes()
    assert not np.array_equal(other["filtered"][~same], found["filtered"][~same]), "and at what is known they do look"
    assert other["residual"].tobytes() == found["residual"].tobytes()


def test_each_instrument_has_its_own_size() -> None:
    draw = np.random.default_rng(10)
    days = 900
    sizes = {"A": 0.01, "B": 0.05}
    time = np.repeat(np.datetime64("2000-01-01", "ns") + np.arange(days) * np.timedelta64(1, "D"), 2)
    close = np.empty(2 * days)
    for place, size in enumerate(sizes.values()):
        close[place::2] = 100 * np.exp(np.cumsum(size * draw.normal(size=days)))
    frame = Bars(time, np.tile(np.array(["A", "B"]), days), {"close": close})
    made = prepare(frame, job(label="Return", data__features={"set": "close-v1"}, data__entity="symbol"))
    train, test = np.arange(1200), np.arange(1220, len(made.y))
    for name, values in quantile_baselines.fit_predict(made, "Return", [0.05, 0.95], train, test).items():
        for entity, size in sizes.items():
            width = (values[:, 1] - values[:, 0])[made.entity[test] == entity].mean()
            assert width == pytest.approx(3.29 * size, rel=0.2), name


# --- the whole ------------------------------------------------------------------------------------------------------


def test_a_version_with_quantiles(tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    made = contract.parse(
        document(
            "MLP",
            training__quantiles=LEVELS,
            training__hyperparameters={"epochs": 6, "members": 1, "hidden": 8},
            training__validation__folds=3,
        )
    )
    done = pipeline.train(made, Locations(), work / "state", work, lambda **_: None, threading.Event())
    assert done.result["checks"]["onnx_max_diff"] < 1e-5
    assert {"pinball", "residual_pinball_skill", "filtered_pinball_skill"} <= set(done.result["metrics"])
    signature = json.loads((done.folder / "version" / "signature.json").read_bytes())
    assert signature["quantiles"]["levels"] == TAUS.tolist()
    assert signature["output"]["shape"] == [-1, 1]
    outputs = onnxruntime.InferenceSession(done.folder / "version" / "model.onnx").get_outputs()
    assert [each.name for each in outputs] == ["prediction", "quantiles"]
    found = json.loads((done.folder / "validation" / "results.json").read_bytes())["quantiles"]
    for each in found["levels"]:
        assert each["observed"] == pytest.approx(each["level"], abs=0.05)
        assert each["kupiec"]["lr"] >= 0.0
    assert found["crossed"] == 0
    report = done.folder / "report"
    card = (report / "model-card.md").read_text()
    assert "## Quantiles" in card
    assert "Kupiec (1995)" in card
    assert "interval is meant to hold 90% of the outcomes and held" in card
    for name in ("quantile_coverage.png", "intervals.png"):
        assert (report / name).stat().st_size > 10_000
        assert name in card
    page = (report / "report.html").read_text()
    assert "filtered historical simulation" in page


def test_fits_of_a_search_have_no_quantiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials are compared by their point forecasts; only what is measured and what is served has quantiles."""
    made = job(
        training__hyperparameters={"epochs": 2, "members": 1},
        training__validation__embargo=25,
        training__search={"trials": 2, "parallelism": 1, "sampler": "Random", "pruner": "None",
                          "space": {"hidden": {"int": [2, 6]}}},
    )  # fmt: skip
    numbers: list[int] = []
    fit = quantiles.fit

    def counted(fitter: Any, number: int, train: Any) -> quantiles.FittedQuantiles:
        numbers.append(number)
        return fit(fitter, number, train)

    monkeypatch.setattr(quantiles, "fit", counted)
    frame = bars(1200)
    walk, final = run_walk_forward(frame, made, silent), fit_final(frame, made, silent)
    assert numbers == [0, 1, 2]
    assert walk.quantiles is not None
    assert final.quantiles is not None


def test_a_signature_without_quantiles_is_what_it_was() -> None:
    """Else the digests of all versions would move."""
    spec = FeatureSpec.of_set("har-v1")
    assert set(signature(spec, "Volatility", "close", 1, None)) == {"inputs", "raw", "output"}
