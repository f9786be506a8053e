"""A version in memory: its features, transform, reference and ONNX session; raw features in, predictions out."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray

from fiduciary_features import FeatureSpec, Transform
from fiduciary_server.ending import Ended
from fiduciary_server.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Floats = NDArray[np.float64]

PREDICTION, QUANTILES = "prediction", "quantiles"
"""Outputs of a model."""


class BrokenModel(RuntimeError):
    """The model failed on inputs that passed every check, or gave no finite number: an error of the server."""


@dataclass(frozen=True)
class Form:
    """What a request with bars brings.

    Every version of a model asks for what the feature set of its spec reads, though it may read less itself (as
    reference models do): what the first champion takes, its successors take too, and clients change nothing.

    Attributes:
        columns: names.
        rows: of each series at least.
    """

    columns: tuple[str, ...]
    rows: int


@dataclass(frozen=True)
class Version:
    """A loaded version.

    Attributes:
        features: what the model reads, in order.
        transform: from raw features to the model's input.
        window: rows of an input; None for a model that reads one row.
        rows: of raw bars that one prediction needs.
        form: of a request with bars.
        output: of ``signature.json``: label, unit, meaning.
        quantiles: likewise of the second output, with levels; None: there is none.
        reference: of the features and predictions in training.
        session: ONNX Runtime.
    """

    features: FeatureSpec
    transform: Transform
    window: int | None
    rows: int
    form: Form
    output: dict[str, Any]
    quantiles: dict[str, Any] | None
    reference: Reference
    session: onnxruntime.InferenceSession

    @classmethod
    def load(cls, folder: Path, threads: int) -> Version:
        """Read a verified folder.

        Raises:
            Ended: BadVersion, where a file says something that this server cannot serve.
        """
        try:
            features_document = orjson.loads((folder / "features.json").read_bytes())
            features = FeatureSpec.from_json(features_document)
            transform = Transform.from_json(features_document["transform"])
            signature = orjson.loads((folder / "signature.json").read_bytes())
            shape = signature["inputs"][0]["shape"]
            window = int(shape[1]) if len(shape) == 3 else None
            rows = int(signature["raw"]["rows"])
            form = _form(features, rows, orjson.loads((folder / "procedure.json").read_bytes()))
            reference = Reference.read((folder / "drift_reference.json").read_bytes(), features.names)
            output, quantiles = dict(signature["output"]), signature.get("quantiles")
            levels = [] if quantiles is None else [float(level) for level in quantiles["levels"]]
        except (ValueError, KeyError, TypeError, IndexError, OSError) as error:
            raise Ended("BadVersion", f"the version cannot be read: {type(error).__name__}: {error}") from None
        try:
            session = _session(folder / "model.onnx", threads)
        except Exception as error:  # onnxruntime's errors have no common base
            raise Ended("BadVersion", f"ONNX Runtime cannot load model.onnx: {_brief(error)}") from None
        _compare(session, [len(features.names)] if window is None else [window, len(features.names)], len(levels))
        return cls(features, transform, window, rows, form, output, quantiles, reference, session)

    @cached_property
    def row_shape(self) -> tuple[int, ...]:
        """Shape of one input without the batch."""
        width = len(self.features.names)
        return (width,) if self.window is None else (self.window, width)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names, the point forecast first."""
        return (PREDICTION,) if self.quantiles is None else (PREDICTION, QUANTILES)

    @cached_property
    def levels(self) -> str | None:
        """Of the quantiles, joined by commas: what the protocol's parameters can hold."""
        return None if self.quantiles is None else ",".join(f"{level:g}" for level in self.quantiles["levels"])

    def predict(self, raw: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Predictions of complete rows.

        Args:
            raw: features before the transform, ``(n, *row_shape)``, finite.

        Returns:
            ``(n,)``, and the quantiles of each, ``(n, K)``; None: the version has none.

        Raises:
            BrokenModel: the session failed, a number is not finite, or quantiles do not ascend.
        """
        inputs = np.ascontiguousarray(self.transform.apply(raw), dtype=np.float32)
        try:
            found = self.session.run(self.outputs, {"features": inputs})
        except Exception as error:
            raise BrokenModel(f"the model failed on inputs that passed every check: {_brief(error)}") from error
        result = found[0].reshape(-1)
        if len(result) != len(raw) or not np.isfinite(result).all():
            raise BrokenModel("the model's output is not one finite number for each input")
        if self.quantiles is None:
            return result, None
        shape = (len(raw), len(self.quantiles["levels"]))
        if found[1].shape != shape or not np.isfinite(found[1]).all() or (np.diff(found[1], axis=1) < 0.0).any():
            raise BrokenModel("the model's quantiles are not ascending finite numbers for each input")
        return result, found[1]


def _form(own: FeatureSpec, rows: int, procedure: Mapping[str, Any]) -> Form:
    named = procedure["data"]["features"]
    asked = FeatureSpec.of_set(named["set"]) if "set" in named else FeatureSpec.of_columns(named["columns"])
    return Form(tuple(dict.fromkeys((*asked.columns, *own.columns))), max(rows, asked.lookback))


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # An arena keeps the memory of the largest batch for ever, and spinning threads burn the CPU that a pod is given.
    options.enable_cpu_mem_arena = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])


def _compare(session: onnxruntime.InferenceSession, row_shape: list[int], levels: int) -> None:
    inputs = {given.name: given.shape[1:] for given in session.get_inputs()}
    outputs = [given.name for given in session.get_outputs()]
    expected = [PREDICTION, QUANTILES] if levels else [PREDICTION]
    if inputs != {"features": row_shape} or outputs != expected:
        raise Ended(
            "BadVersion",
            f"model.onnx maps {inputs} to {outputs}; signature.json says features [batch, {row_shape}] to "
            + " and ".join(expected),
        )
    shape = session.get_outputs()[-1].shape
    if levels and shape[1:] != [levels]:
        raise Ended("BadVersion", f"model.onnx gives quantiles of shape {shape}; signature.json has {levels} levels")


def _brief(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
