"""The Open Inference Protocol's gRPC messages, as far as a probe needs them: ModelInferRequest and ModelInferResponse.

Field numbers: Open Inference Protocol (KServe v2), ``GRPCInferenceService``. A request is given as REST takes it, since
that is what a model's metadata shows as its example.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

MODEL_INFER = "/inference.GRPCInferenceService/ModelInfer"


class MessageError(ValueError):
    """A message cannot be made, or is not the one that was expected; says what is wrong."""


# -- Protocol Buffers: wire type 0 is a varint, 2 something with a length, 1 and 5 have 8 and 4 bytes.


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # a negative number is written as its two's complement
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _text(number: int, value: str) -> bytes:
    return _field(number, value.encode()) if value else b""


def _parameter(value: object) -> bytes:
    """InferParameter: one of bool (1), int64 (2), string (3), double (4)."""
    match value:
        case bool():
            return b"\x08" + _varint(int(value))
        case int():
            return b"\x10" + _varint(value)
        case float():
            return b"\x21" + struct.pack("<d", value)
        case _:
            return _field(3, str(value).encode())


def _parameters(number: int, parameters: Mapping[str, object]) -> bytes:
    return b"".join(
        _field(number, _text(1, name) + _field(2, _parameter(value)))
        for name, value in parameters.items()
        if not isinstance(value, dict | list)  # gRPC's parameters are scalars
    )


def _contents(datatype: str, data: Sequence[Any]) -> bytes:
    """InferTensorContents of a flat list, by the datatype of the tensor."""
    if datatype == "BYTES":
        return b"".join(_field(8, item if isinstance(item, bytes) else str(item).encode()) for item in data)
    if datatype == "BOOL":
        return _field(1, b"".join(_varint(int(bool(item))) for item in data))
    if datatype in ("FP32", "FP64"):
        number, code = (6, "f") if datatype == "FP32" else (7, "d")
        return _field(number, struct.pack(f"<{len(data)}{code}", *data))
    numbers = {"INT8": 2, "INT16": 2, "INT32": 2, "INT64": 3, "UINT8": 4, "UINT16": 4, "UINT32": 4, "UINT64": 5}
    if datatype not in numbers:
        raise MessageError(f"a tensor of datatype {datatype} cannot be sent")
    return _field(numbers[datatype], b"".join(_varint(int(item)) for item in data))


def infer_request(model: str, request: Mapping[str, Any]) -> bytes:
    """ModelInferRequest of a request as REST takes it: ``{inputs: [{name, datatype, shape, data, parameters}]}``."""
    tensors: list[bytes] = []
    for tensor in cast("Sequence[Mapping[str, Any]]", request["inputs"]):
        shape = b"".join(_varint(int(size)) for size in tensor["shape"])
        tensors.append(
            _text(1, tensor["name"])
            + _text(2, tensor["datatype"])
            + _field(3, shape)
            + _parameters(4, tensor.get("parameters") or {})
            + _field(5, _contents(tensor["datatype"], _flat(tensor["data"])))
        )
    return (
        _text(1, model)
        + _text(3, str(request.get("id", "")))
        + _parameters(4, request.get("parameters") or {})
        + b"".join(_field(5, tensor) for tensor in tensors)
    )


def _flat(data: Sequence[Any]) -> list[Any]:
    flat: list[Any] = []
    for item in data:
        if isinstance(item, list):
            flat += _flat(cast("list[Any]", item))
        else:
            flat.append(item)
    return flat


def infer_response(body: bytes) -> tuple[str, dict[str, str]]:
    """``model_version`` and the text parameters of a ModelInferResponse.

    Raises :class:`MessageError` for bytes that are no such message.
    """
    version, parameters = "", dict[str, str]()
    try:
        for number, value in _fields(body):
            if number == 2 and isinstance(value, bytes):
                version = value.decode()
            elif number == 4 and isinstance(value, bytes):
                entry = dict(_fields(value))
                content = dict(_fields(cast("bytes", entry.get(2, b"")))).get(3)
                if isinstance(content, bytes):
                    parameters[cast("bytes", entry[1]).decode()] = content.decode()
    except (IndexError, KeyError, UnicodeDecodeError, struct.error, TypeError) as error:
        raise MessageError("the answer is no ModelInferResponse") from error
    return version, parameters


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    place = 0
    while place < len(message):
        tag, place = _read_varint(message, place)
        match tag & 7:
            case 0:
                value, place = _read_varint(message, place)
                yield tag >> 3, value
            case 2:
                length, place = _read_varint(message, place)
                if place + length > len(message):
                    raise IndexError("a field is longer than its message")
                yield tag >> 3, message[place : place + length]
                place += length
            case 1:
                place += 8
            case 5:
                place += 4
            case _:
                raise IndexError("unknown wire type")


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
