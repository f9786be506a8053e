"""Tensors of the Open Inference Protocol as arrays, with everything about them checked."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fiduciary_server.errors import BadRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

Floats = NDArray[np.float64]


class Tensor(NamedTuple):
    """One tensor of a request, unchecked.

    ``data`` is a list (flat or nested, from JSON) or an array (from gRPC). MLServer's own class would cost a request
    more than the model does.
    """

    name: str
    datatype: Any
    shape: Sequence[Any]
    data: Any


NUMBERS = {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64, "INT32": np.int32}
_SHOWN = 80


def floats(tensor: Tensor, shape: Sequence[int]) -> Floats:
    """Numbers of a tensor, ``float64`` of the given shape; NaN for a null.

    Args:
        tensor: of numbers.
        shape: the tensor's own, already found acceptable.

    Raises:
        BadRequest: another datatype, values that are no numbers, as many as the shape does not say, or infinite ones.
    """
    kind = NUMBERS.get(str(tensor.datatype))
    if kind is None:
        raise BadRequest(
            f"tensor {quoted(tensor.name)} has datatype {quoted(tensor.datatype)}; expected FP64 (or FP32)"
        )
    data = tensor.data
    if isinstance(data, np.ndarray):
        _count(tensor.name, data.size, shape)
        values = data.astype(np.float64, copy=False).reshape(shape)
    else:
        flat = _flat(tensor.name, data, shape)
        kinds = set(map(type, flat))
        if not kinds <= ({int, type(None)} if kind in (np.int64, np.int32) else {float, int, type(None)}):
            wrong = sorted(_JSON_NAMES.get(each, each.__name__) for each in kinds - {float, int, type(None)})
            what = ", ".join(wrong) if wrong else "fractions"
            raise BadRequest(f"tensor {quoted(tensor.name)} ({tensor.datatype}) holds {what}; expected numbers")
        try:
            values = np.array(flat, dtype=np.float64).reshape(shape)
        except OverflowError:
            raise BadRequest(f"tensor {quoted(tensor.name)} holds a number that is too large for FP64") from None
        if kind is np.float32:
            with np.errstate(over="ignore"):
                values = values.astype(np.float32).astype(np.float64)
    if np.isinf(values).any():
        raise BadRequest(f"tensor {quoted(tensor.name)} holds an infinite number; expected finite ones")
    return values


def texts(tensor: Tensor, shape: Sequence[int]) -> list[str]:
    """Strings of a BYTES tensor, flat.

    Raises:
        BadRequest: another datatype, something else than strings, or as many as the shape does not say.
    """
    if str(tensor.datatype) != "BYTES":
        raise BadRequest(
            f"tensor {quoted(tensor.name)} has datatype {quoted(tensor.datatype)}; expected BYTES (strings)"
        )
    result: list[str] = []
    for value in _flat(tensor.name, tensor.data, shape):
        text = value
        if isinstance(value, bytes):
            try:
                text = value.decode()
            except UnicodeDecodeError:
                raise BadRequest(f"tensor {quoted(tensor.name)} holds bytes that are no UTF-8 text") from None
        if not isinstance(text, str) or len(text) > 253:
            raise BadRequest(
                f"tensor {quoted(tensor.name)} holds something else than strings of at most 253 characters"
            )
        result.append(text)
    return result


def shape_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape that a tensor states.

    Raises:
        BadRequest: it is no list of positive integers.
    """
    shape = tensor.shape
    if not shape or not all(type(size) is int and size > 0 for size in shape):
        raise BadRequest(f"tensor {quoted(tensor.name)} has shape {quoted(shape)}; expected positive integers")
    return tuple(shape)


def quoted(value: object) -> str:
    """What a client sent, cut to a length that fits a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


_JSON_NAMES: dict[type, str] = {str: "strings", bool: "booleans", dict: "objects", list: "arrays"}


def _flat(name: str, data: Any, shape: Sequence[int]) -> list[Any]:
    """Values in row-major order; lists may be nested as the shape says."""
    if not isinstance(data, list):
        raise BadRequest(f"tensor {quoted(name)} has data {quoted(data)}; expected an array")
    flat = data
    for depth, size in enumerate(shape[1:], start=1):
        if not flat or type(flat[0]) is not list:
            break
        if not all(type(part) is list and len(part) == size for part in flat):
            raise BadRequest(
                f"tensor {quoted(name)} has shape {list(shape)}, but not every array at depth {depth} of its data has "
                f"{size} values"
            )
        flat = list(chain.from_iterable(flat))
    _count(name, len(flat), shape)
    return flat


def _count(name: str, seen: int, shape: Sequence[int]) -> None:
    expected = 1
    for size in shape:
        expected *= size
    if seen != expected:
        raise BadRequest(f"tensor {quoted(name)} has {seen} values; its shape {list(shape)} says {expected}")
