"""States to JSON and back, bit for bit.

Floats travel as their shortest decimal string: a JSON number may be rewritten on its way through the API server (1.0
becomes 1, -0.0 becomes 0) and formats differ between languages, a string is left alone and hashes the same everywhere.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any, TypeVar, cast

from fiduciary.evidence.refusal import Refusal, Why

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

State = TypeVar("State")


class _MalformedError(Exception):
    pass


def encode(state: DataclassInstance) -> dict[str, Any]:
    """A state of this package as JSON values: objects, lists, strings, integers, booleans, null."""
    return {field.name: _plain(getattr(state, field.name)) for field in dataclasses.fields(state)}


def decode(kind: type[State], data: object) -> State | Refusal:
    """The state that :func:`encode` wrote; a refusal that names the field where ``data`` is something else.

    Unknown fields are refused too: they would be lost with the next write.
    """
    try:
        return cast("State", _read(kind, data, kind.__name__))
    except _MalformedError as error:
        return Refusal(Why.MALFORMED, str(error))


def _plain(value: object) -> Any:
    if isinstance(value, float):
        return repr(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return encode(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in cast("tuple[object, ...]", value)]
    return value


def _read(kind: Any, data: object, where: str) -> object:
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        inner = [choice for choice in typing.get_args(kind) if choice is not type(None)]
        return None if data is None else _read(inner[0], data, where)
    if origin is tuple:
        if not isinstance(data, list):
            raise _MalformedError(f"{where} is {data!r:.60}; expected a list")
        items = cast("list[object]", data)
        return tuple(_read(typing.get_args(kind)[0], item, f"{where}[{i}]") for i, item in enumerate(items))
    if dataclasses.is_dataclass(kind):
        return _read_state(cast("type[Any]", kind), data, where)
    if kind is float:
        return _read_float(data, where)
    if type(data) is not kind:
        raise _MalformedError(f"{where} is {data!r:.60}; expected {kind.__name__}")
    return data


def _read_float(data: object, where: str) -> float:
    try:
        if isinstance(data, str):
            return float(data)
    except ValueError:
        pass
    raise _MalformedError(f"{where} is {data!r:.60}; expected a decimal string")


def _read_state(kind: type[Any], data: object, where: str) -> object:
    hints = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    if not isinstance(data, dict) or set(cast("dict[str, object]", data)) != set(names):
        raise _MalformedError(f"{where} is {data!r:.60}; expected an object with exactly {', '.join(names)}")
    fields = cast("dict[str, object]", data)
    return kind(**{name: _read(hints[name], fields[name], f"{where}.{name}") for name in names})
