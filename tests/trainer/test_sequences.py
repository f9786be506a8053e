"""GRU, TCN, Transformer and Ensemble: causal, exportable, deterministic, and zero until they have learned something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from fiduciary_trainer import contract, export
from fiduciary_trainer.models import modules, sequences
from fiduciary_trainer.models.ridge import Coefficients
from fiduciary_trainer.outcome import BadContract
from fiduciary_trainer.walkforward import FinalModel, fit_final, run_walk_forward
from tests.trainer.contracts import document
from tests.trainer.test_training import bars, same, silent

if TYPE_CHECKING:
    from collections.abc import Callable

WINDOW, WIDTH = 7, 3
CORES: dict[str, Callable[[], torch.nn.Module]] = {
    "LSTM": lambda: sequences.Recurrent("LSTM", WIDTH, 4),
    "GRU": lambda: sequences.Recurrent("GRU", WIDTH, 4),
    "TCN": lambda: sequences.TemporalConvolution(WIDTH, 4, WINDOW),
    "Transformer": lambda: sequences.Encoder(WIDTH, 4, WINDOW, heads=2, layers=2),
    "MLP": lambda: sequences.Newest(modules.Perceptron(WIDTH, 4)),
}


def awake(core: torch.nn.Module) -> torch.nn.Module:
    """With a last layer that says something."""
    for name, parameter in core.named_parameters():
        if "out." in name:
            torch.nn.init.normal_(parameter)
    return core.eval()


@pytest.mark.parametrize("name", CORES)
def test_a_network_is_silent_until_it_is_trained(name: str) -> None:
    assert torch.equal(CORES[name]()(torch.randn(5, WINDOW, WIDTH)), torch.zeros(5, 1))


@pytest.mark.parametrize("name", ["LSTM", "GRU", "TCN", "Transformer"])
def test_a_network_reads_its_whole_window_and_a_gap_stays_visible(name: str) -> None:
    torch.manual_seed(3)
    core = awake(CORES[name]())
    x = torch.randn(1, WINDOW, WIDTH, requires_grad=True)
    core(x).sum().backward()
    assert (x.grad[0].abs().sum(dim=1) > 0).all(), "every row, the oldest too"
    gap = x.detach().clone()
    gap[0, 0, 1] = torch.nan
    assert torch.isnan(core(gap)).all()


@pytest.mark.parametrize(("window", "depth"), [(2, 1), (3, 1), (4, 2), (7, 2), (8, 3), (20, 4), (66, 6)])
def test_convolutions_are_as_deep_as_the_window_needs(window: int, depth: int) -> None:
    core = sequences.TemporalConvolution(1, 2, window)
    assert len(core.layers) == depth
    assert 1 + 2 * (2**depth - 1) >= window


@pytest.mark.parametrize("name", CORES)
def test_what_is_exported_computes_the_same_for_any_batch(name: str) -> None:
    torch.manual_seed(4)
    linear = modules.Affine(Coefficients(np.array([0.1, -0.2, 0.3]), 0.05), probability=False)
    module = modules.Members([modules.Skipped(linear, awake(CORES[name]()))], probability=True, level=0.0, spread=1.0)
    onnx = export.to_onnx(module, (WINDOW, WIDTH))
    inputs = np.random.default_rng(5).normal(size=(40, WINDOW, WIDTH)).astype(np.float32)
    assert export.probe(onnx, module, inputs).max_diff < 1e-6
    assert onnx == export.to_onnx(module, (WINDOW, WIDTH)), "the same bytes again"


def job(architecture: str, label: str = "Direction", **settings: Any) -> contract.Contract:
    window = {} if architecture == "MLP" else {"window": 5}
    small = {"epochs": 2, "patience": 2, "members": 1, "hidden": 4, **window, **settings}
    return contract.parse(
        document(architecture, label, training__hyperparameters=small, data__features={"set": "har-v1"},
                 training__validation__folds=2)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "label"), [("GRU", "Volatility"), ("TCN", "Return"), ("Transformer", "Direction")]
)
def test_two_runs_give_the_same_bits(architecture: str, label: str) -> None:
    made, frame = job(architecture, label), bars()
    assert same(run_walk_forward(frame, made, silent), run_walk_forward(frame, made, silent))


def test_an_ensemble_averages_its_parts() -> None:
    """The same seeds: its members are those that its architectures alone would be."""
    frame = bars()
    made = job("Ensemble", architectures="MLP+GRU")
    together = fit_final(frame, made, silent)
    assert len(together.module.members) == 2
    assert [type(member.network).__name__ for member in together.module.members] == ["Newest", "Recurrent"]
    inputs = torch.from_numpy(together.examples)
    each = torch.stack([torch.sigmoid(member(inputs)) for member in together.module.members])
    assert torch.allclose(together.module(inputs), each.mean(dim=0), atol=1e-7)
    assert together.input_kind == "window"


def test_an_ensemble_of_rows_reads_rows() -> None:
    made = job("Ensemble", architectures="MLP", members=2)
    assert not made.windowed
    assert made.window == 1
    final: FinalModel = fit_final(bars(), made, silent)
    assert final.input_kind == "row"
    assert final.examples.ndim == 2


def test_balanced_classes_move_the_forecast_to_one_half() -> None:
    """With three rises in four, forecasts that count both classes the same lie around one half, and are no longer
    frequencies: that is what is asked for."""
    frame = bars()
    rng = np.random.default_rng(1)
    steps = np.where(rng.random(len(frame)) < 0.75, 0.01, -0.01)
    close = 100 * np.exp(np.cumsum(steps))
    for name in ("open", "high", "low", "close"):
        frame.columns[name][:] = close * {"high": 1.002, "low": 0.998}.get(name, 1.0)
    means = {}
    for weighting in ("none", "balanced"):
        made = job("MLP", classWeights=weighting, epochs=60, patience=60, learningRate="0.05")
        means[weighting] = float(np.nanmean(run_walk_forward(frame, made, silent).prediction))
    assert means["none"] == pytest.approx(0.75, abs=0.06)
    assert means["balanced"] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    ("architecture", "settings", "words"),
    [
        ("Transformer", {"hidden": 6, "heads": 4}, ["multiple of heads"]),
        ("Ensemble", {"architectures": "MLP+MLP"}, ["architectures", "joined by +"]),
        ("Ensemble", {"architectures": "MLP+XGBoost"}, ["XGBoost", "Transformer"]),
        ("GRU", {"classWeights": "heavy"}, ["classWeights", "none or balanced"]),
    ],
)
def test_settings_that_make_no_network_are_refused(
    architecture: str, settings: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(BadContract) as refused:
        job(architecture, **settings)
    for word in words:
        assert word in refused.value.message
