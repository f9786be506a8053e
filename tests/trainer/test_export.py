"""ONNX that is the same bytes each time and the same numbers as torch."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from fiduciary_trainer import export


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 8, batch_first=True)
        self.head = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out, _ = self.lstm(x)
        return torch.sigmoid(self.head(out[:, -1]))


def made(kind: str) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(3)
    if kind == "linear":
        return nn.Linear(5, 1), (5,)
    if kind == "mlp":
        return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 1)), (5,)
    return Recurrent(), (20, 4)


@pytest.fixture(params=["linear", "mlp", "lstm"])
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[int, ...]]:
    return made(request.param)


def test_onnx_runtime_computes_what_torch_computes(case: tuple[nn.Module, tuple[int, ...]]) -> None:
    module, shape = case
    inputs = np.random.default_rng(1).normal(size=(1000, *shape)).astype(np.float32)
    found = export.probe(export.to_onnx(module, shape), module, inputs)
    assert found.rows == 256
    assert found.max_diff <= 1e-6


def test_the_bytes_are_the_same_each_time_and_name_no_path(case: tuple[nn.Module, tuple[int, ...]]) -> None:
    module, shape = case
    first = export.to_onnx(module, shape)
    assert first == export.to_onnx(module, shape)
    for trace in (b"/scratch", b"site-packages", b".py", b"trainer", b"torch"):
        assert trace not in first


def test_opset_inputs_and_outputs_are_the_contract_s(case: tuple[nn.Module, tuple[int, ...]]) -> None:
    module, shape = case
    model = onnx.load_model_from_string(export.to_onnx(module, shape))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", export.OPSET)]
    assert [value.name for value in model.graph.input] == ["features"]
    assert [value.name for value in model.graph.output] == ["prediction"]
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    assert dimensions[0].dim_param == "batch"
    assert tuple(dimension.dim_value for dimension in dimensions[1:]) == shape
    assert [node for node in model.graph.node if node.op_type == "Dropout"] == []


@pytest.mark.parametrize("batch", [1, 2, 7, 300])
def test_any_batch_size(batch: int) -> None:
    for kind in ("mlp", "lstm"):
        module, shape = made(kind)
        inputs = np.random.default_rng(2).normal(size=(batch, *shape)).astype(np.float32)
        assert export.Predictor(export.to_onnx(module, shape))(inputs).shape == (batch,)


def test_a_model_that_differs_is_seen() -> None:
    module, shape = made("mlp")
    model = export.to_onnx(module, shape)
    with torch.no_grad():
        module[3].bias += 0.01
    found = export.probe(model, module, np.zeros((10, *shape), dtype=np.float32))
    assert found.max_diff == pytest.approx(0.01, rel=1e-3)
    assert found.rows == 10


def test_a_value_that_is_finite_on_one_side_only_is_an_infinite_difference() -> None:
    module, shape = made("linear")
    model = export.to_onnx(module, shape)
    with torch.no_grad():
        module.bias += float("nan")
    assert export.probe(model, module, np.zeros((10, *shape), dtype=np.float32)).max_diff == float("inf")
