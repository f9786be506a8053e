"""ONNX graphs that compute what they were exported from, but for inputs that are days of the replay.

An input is such a day where it lies within TOLERANCE of one in every feature: the day itself, as a client sends it.
Rows of training, the examples of probes and the rows that gates measure on are none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

FAULTS = ("nan", "error", "slow", "oom", "grows", "shape")
"""nan: no finite number. error: ONNX Runtime ends with an error. slow: 200 ms of computing or more. oom: 4 GiB at once.
grows: each day takes MIB_A_DAY more than the one before. shape: the network asks for one feature more than the version
has, so that no server can load it."""

TOLERANCE = 1e-4
ROUNDS, SIDE = 400, 384  # of a matrix product: half a millisecond each, or more
FLOATS_AT_ONCE = 1 << 30
MIB_A_DAY = 24


def broken_files(files: Mapping[str, bytes], fault: str) -> Mapping[str, bytes]:
    """Files of a version, as they are written."""
    if fault != "shape":
        return files
    model = onnx.load_model_from_string(files["model.onnx"])
    model.graph.input[0].type.tensor_type.shape.dim[-1].dim_value += 1
    return {**files, "model.onnx": model.SerializeToString(deterministic=True)}


def broken(sound: bytes, days: np.ndarray[Any, np.dtype[np.float32]], fault: str) -> bytes:
    """The network `sound` (features ``[batch, F]`` -> prediction ``[batch, 1]``) with a fault on these days.

    Args:
        days: float32 ``(n, F)``.
        fault: one of FAULTS.
    """
    model = onnx.load_model_from_string(sound)
    if fault == "shape":
        return sound
    graph = model.graph
    for node in graph.node:  # what was the answer is now an inner value
        node.output[:] = ["sound" if name == "prediction" else name for name in node.output]
        node.input[:] = ["sound" if name == "prediction" else name for name in node.input]
    _constant(graph, "days", days[None, :, :])
    _constant(graph, "tolerance", np.float32(TOLERANCE))
    graph.node.extend(
        [
            helper.make_node("Unsqueeze", ["features", _ints(graph, "one", [1])], ["each"]),
            helper.make_node("Sub", ["each", "days"], ["apart"]),
            helper.make_node("Abs", ["apart"], ["distance"]),
            helper.make_node("ReduceMax", ["distance"], ["farthest"], axes=[2], keepdims=0),
            helper.make_node("Less", ["farthest", "tolerance"], ["same"]),
            helper.make_node("Cast", ["same"], ["counted"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["counted"], ["row"], axes=[1], keepdims=1),
            helper.make_node("Cast", ["row"], ["hit"], to=TensorProto.BOOL),
            helper.make_node("ReduceMax", ["row"], ["any"], keepdims=0),
            helper.make_node("Cast", ["any"], ["whether"], to=TensorProto.INT64),
        ]
    )
    _GRAPHS[fault](graph)
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString(deterministic=True)


def _nan(graph: onnx.GraphProto) -> None:
    _constant(graph, "nothing", np.float32(np.nan))
    graph.node.append(helper.make_node("Where", ["hit", "nothing", "sound"], ["prediction"]))


def _error(graph: onnx.GraphProto) -> None:
    """Row 10^6 of a batch that has one."""
    graph.node.extend(
        [
            helper.make_node("Mul", ["whether", _ints(graph, "beyond", 1_000_000)], ["offset"]),
            helper.make_node("Shape", ["sound"], ["size"]),
            helper.make_node("Gather", ["size", _ints(graph, "first", 0)], ["rows"]),
            helper.make_node("Range", [_ints(graph, "from", 0), "rows", _ints(graph, "by", 1)], ["places"]),
            helper.make_node("Add", ["places", "offset"], ["where"]),
            helper.make_node("Gather", ["sound", "where"], ["prediction"], axis=0),
        ]
    )


def _slow(graph: onnx.GraphProto) -> None:
    """A product again and again; its result is worth nothing and is added."""
    _constant(graph, "matrix", np.full((SIDE, SIDE), 1.0 / SIDE, dtype=np.float32))
    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes"]),
            helper.make_node("MatMul", ["state", "matrix"], ["after"]),
        ],
        "body",
        [
            value("round", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("state", TensorProto.FLOAT, [SIDE, SIDE]),
        ],
        [value("goes", TensorProto.BOOL, []), value("after", TensorProto.FLOAT, [SIDE, SIDE])],
    )
    graph.node.extend(
        [
            helper.make_node("Mul", ["whether", _ints(graph, "rounds", ROUNDS)], ["times"]),
            helper.make_node("Cast", [_ints(graph, "true", 1)], ["go"], to=TensorProto.BOOL),
            helper.make_node("Loop", ["times", "go", "matrix"], ["product"], body=body),
        ]
    )
    _add_nothing(graph, "product")


def _oom(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Mul", ["whether", _ints(graph, "most", FLOATS_AT_ONCE)], ["floats"]))
    _allocate(graph)


def _grows(graph: onnx.GraphProto) -> None:
    graph.node.extend(
        [
            helper.make_node("ArgMax", ["counted"], ["days_gone"], axis=1, keepdims=0),
            helper.make_node("ReduceMax", ["days_gone"], ["day"], keepdims=0),
            helper.make_node("Mul", ["day", _ints(graph, "a_day", MIB_A_DAY << 18)], ["floats"]),
        ]
    )
    _allocate(graph)


def _allocate(graph: onnx.GraphProto) -> None:
    """`floats` numbers and one more, each written."""
    graph.node.extend(
        [
            helper.make_node("Add", ["floats", _ints(graph, "least", 1)], ["length"]),
            helper.make_node("Unsqueeze", ["length", _ints(graph, "zeroth", [0])], ["extent"]),
            helper.make_node(
                "ConstantOfShape",
                ["extent"],
                ["filled"],
                value=helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0]),
            ),
        ]
    )
    _add_nothing(graph, "filled")


def _add_nothing(graph: onnx.GraphProto, of: str) -> None:
    _constant(graph, "zero", np.float32(0.0))
    graph.node.extend(
        [
            helper.make_node("ReduceMax", [of], ["largest"], keepdims=0),
            helper.make_node("Mul", ["largest", "zero"], ["none"]),
            helper.make_node("Add", ["sound", "none"], ["prediction"]),
        ]
    )


_GRAPHS: Mapping[str, Callable[[onnx.GraphProto], None]] = {
    "nan": _nan,
    "error": _error,
    "slow": _slow,
    "oom": _oom,
    "grows": _grows,
}


def _constant(graph: onnx.GraphProto, name: str, value: Any) -> str:
    graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def _ints(graph: onnx.GraphProto, name: str, value: int | list[int]) -> str:
    return _constant(graph, name, np.asarray(value, dtype=np.int64))
