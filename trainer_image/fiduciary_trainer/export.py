"""The trained network as ONNX, with the same bytes each time, and the proof that it computes the same numbers."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Sequence

OPSET = 17
IR_VERSION = 8
"""Pinned with the opset: onnxruntime 1.14 (February 2023) and later load it."""

INPUT, OUTPUT, QUANTILES = "features", "prediction", "quantiles"
PROBE_ROWS = 256

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Probe:
    """Comparison of ONNX Runtime with torch on real rows: the largest absolute difference and how many rows."""

    max_diff: float
    rows: int


class _Both(torch.nn.Module):
    """A point forecast and quantiles of the same rows."""

    def __init__(self, point: torch.nn.Module, quantiles: torch.nn.Module) -> None:
        super().__init__()
        self.point = point
        self.quantiles = quantiles

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.point(x), self.quantiles(x)


def to_onnx(module: torch.nn.Module, shape: Sequence[int], quantiles: torch.nn.Module | None = None) -> bytes:
    """Export a module that maps float32 ``[batch, *shape]`` to ``[batch, 1]``, and one that maps it to ``[batch, K]``.

    torch's tracing exporter is used: it needs nothing but the onnx package, and its output is a function of the
    module alone once documentation strings (which hold source paths), metadata and the producer's version are gone.
    The export runs on two rows, since a batch of one would be taken for a constant.

    Args:
        module: in any mode; is evaluated.
        shape: of one input row, ``(features,)`` or ``(window, features)``.
        quantiles: the second module; None: there is none.

    Returns:
        The serialised model: input ``features``, output ``prediction`` and, with a second module, ``quantiles``, all
        with a dynamic first dimension.
    """
    example = torch.linspace(-1.0, 1.0, 2 * int(np.prod(shape)), dtype=torch.float32).reshape(2, *shape)
    module = module if quantiles is None else _Both(module, quantiles)
    outputs = [OUTPUT] if quantiles is None else [OUTPUT, QUANTILES]
    module = module.eval().to("cpu", torch.float32)
    buffer = io.BytesIO()
    with torch.no_grad(), warnings.catch_warnings():
        # The tracer warns of shapes that it takes for constants; any-batch tests show that those are not the batch.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            (example,),
            buffer,
            input_names=[INPUT],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in (INPUT, *outputs)},
            opset_version=OPSET,
            do_constant_folding=True,
            dynamo=False,
        )
    model = onnx.load_model_from_string(buffer.getvalue())
    _forget_origin(model)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _forget_origin(model: onnx.ModelProto) -> None:
    model.ir_version = IR_VERSION
    model.producer_name = "fiduciary"
    model.producer_version = ""
    model.doc_string = ""
    del model.metadata_props[:]
    model.graph.doc_string = ""
    model.graph.name = "model"
    for node in model.graph.node:
        node.doc_string = ""
        if hasattr(node, "metadata_props"):
            del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        value.doc_string = ""
    for tensor in model.graph.initializer:
        tensor.doc_string = ""


class Predictor:
    """An ONNX model on one CPU thread: float32 ``(batch, *shape)`` in, float32 ``(batch,)`` out."""

    def __init__(self, model: bytes) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs: Floats) -> Floats:
        return self._run(OUTPUT, inputs).reshape(-1)

    def quantiles(self, inputs: Floats) -> Floats:
        """``(batch, K)`` of a model that has them."""
        return self._run(QUANTILES, inputs)

    def _run(self, output: str, inputs: Floats) -> Floats:
        return self._session.run([output], {INPUT: np.ascontiguousarray(inputs, dtype=np.float32)})[0]


def probe(
    model: bytes,
    module: torch.nn.Module,
    inputs: Floats,
    rows: int = PROBE_ROWS,
    quantiles: torch.nn.Module | None = None,
) -> Probe:
    """Run both on the same real rows, spread evenly over the sample, in one batch and row by row for the first few.

    Args:
        model: serialised ONNX.
        module: what it was exported from.
        inputs: transformed rows as the module takes them, float32, shape ``(n, *shape)``.
        rows: how many to compare; all where there are fewer.
        quantiles: what its second output was exported from.

    Returns:
        A :class:`Probe`; ``max_diff`` is infinite where one side is not finite and the other is.
    """
    chosen = np.unique(np.linspace(0, len(inputs) - 1, min(rows, len(inputs))).astype(np.int64))
    batch = np.ascontiguousarray(inputs[chosen], dtype=np.float32)
    predictor = Predictor(model)
    outputs = [(predictor, evaluate(module, batch))]
    if quantiles is not None:
        outputs.append((predictor.quantiles, evaluate(quantiles, batch).reshape(len(batch), -1)))
    worst = 0.0
    for answer, expected in outputs:
        # Row by row too: a graph that was specialised to a batch size fails or differs only then.
        singles = np.concatenate([answer(batch[i : i + 1]) for i in range(min(8, len(batch)))])
        worst = max(worst, difference(answer(batch), expected), difference(singles, expected[: len(singles)]))
    return Probe(worst, len(batch))


def evaluate(module: torch.nn.Module, inputs: Floats) -> Floats:
    """The trained module's own answers, flat."""
    with torch.no_grad():
        return module.eval()(torch.from_numpy(np.ascontiguousarray(inputs))).numpy().reshape(-1)


def difference(a: Floats, b: Floats) -> float:
    """Largest absolute difference; infinite where one side is finite and the other is not."""
    if np.any(np.isfinite(a) != np.isfinite(b)):
        return float("inf")
    finite = np.isfinite(a)
    return float(np.max(np.abs(a[finite].astype(np.float64) - b[finite]), initial=0.0))
