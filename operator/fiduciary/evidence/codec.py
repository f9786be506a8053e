"""States to JSON and back, bit for bit.

Floats travel as their shortest decimal string: a JSON number may be rewritten on its way through the API server (1.0
becomes 1, -0.0 becomes 0) and formats differ between languages, a string is left alone and hashes the same everywhere.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar, cast

from fiduciary.evidence.refusal import Refusal, Why

if typing.TYPE_CHECKING:
    from _typeshed import DataclassInstance

State = TypeVar("State")


class _MalformedError(Exception):
    pass


def encode(state: DataclassInstance) -> dict[str, Any]:
    """A state of this package as JSON values: objects, lists, strings, integers, null."""
    return _encoder(type(state))(state)


def decode(kind: type[State], data: object) -> State | Refusal:
    """The state that :func:`encode` wrote; a refusal that names the field where ``data`` is something else.

    Unknown fields are refused too: they would be lost with the next write.
    """
    try:
        return cast("State", _read(kind, data, kind.__name__))
    except _MalformedError as error:
        return Refusal(Why.MALFORMED, str(error))


@functools.cache
def _fields(kind: type[Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _required(kind: Any) -> Any:
    """``X`` of ``X | None``, else the type itself."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next(choice for choice in typing.get_args(kind) if choice is not type(None))
    return kind


@functools.cache
def _shape(kind: Any) -> tuple[Any, Any, bool]:
    """(the type without ``None``, the type of its items or None, whether it is a state): asked for thousands of times
    a state."""
    kind = _required(kind)
    item = typing.get_args(kind)[0] if typing.get_origin(kind) is tuple else None
    return kind, item, dataclasses.is_dataclass(kind)


Encoder = Callable[[Any], Any]


@functools.cache
def _encoder(kind: type[Any]) -> Encoder:
    """Of a state, made once: a state of hundreds of detectors is written again with each window."""
    fields = tuple((name, _plain(hint)) for name, hint in _fields(kind).items())

    def encoded(state: Any) -> dict[str, Any]:
        return {
            name: value if plain is None or value is None else plain(value)
            for name, plain in fields
            for value in (getattr(state, name),)
        }

    return encoded


def _plain(kind: Any) -> Encoder | None:
    """How a value of this type is written, which is not None; None: as it is."""
    kind, item, state = _shape(kind)
    if kind is float:  # by the declared type: a caller may have passed 2 for 2.0
        return _float
    if item is None:
        return encode if state else None
    if item is float:
        return _floats
    one = _plain(item)
    return list if one is None else lambda values: [None if value is None else one(value) for value in values]


def _float(value: Any) -> str:
    return repr(float(value))


def _floats(values: Any) -> list[str]:
    return list(map(repr, map(float, values)))


def _read(kind: Any, data: object, where: str) -> object:
    optional = kind
    kind, item, state = _shape(kind)
    if data is None and kind is not optional:
        return None
    if item is not None:
        if not isinstance(data, list):
            raise _MalformedError(f"{where} is {data!r:.60}; expected a list")
        if item is float and (values := _all_floats(cast("list[Any]", data))) is not None:
            return values
        if item in (int, str, bool) and set(map(type, cast("list[object]", data))) <= {item}:
            return tuple(cast("list[object]", data))
        return tuple(_read(item, one, f"{where}[{i}]") for i, one in enumerate(cast("list[object]", data)))
    if state:
        return _read_state(cast("type[Any]", kind), data, where)
    if kind is float:
        return _read_float(data, where)
    if type(data) is not kind:
        raise _MalformedError(f"{where} is {data!r:.60}; expected {kind.__name__}")
    return data


def _all_floats(data: list[Any]) -> tuple[float, ...] | None:
    """Of a list in which nothing is wrong, as of thousands of scores; None: one of them has to be named."""
    try:
        values = tuple(map(float, data))
    except (TypeError, ValueError, OverflowError):
        return None
    return values if list(map(repr, values)) == data and all(map(math.isfinite, values)) else None


def _read_float(data: object, where: str) -> float:
    try:
        value = float(data) if isinstance(data, str) else math.nan
    except ValueError:
        value = math.nan
    # only what encode writes: other spellings would hash differently, and no state holds an infinity
    if math.isfinite(value) and repr(value) == data:
        return value
    raise _MalformedError(f"{where} is {data!r:.60}; expected the shortest decimal string of a finite number")


def _read_state(kind: type[Any], data: object, where: str) -> object:
    fields = _fields(kind)
    if not isinstance(data, dict) or set(cast("dict[str, object]", data)) != set(fields):
        raise _MalformedError(f"{where} is {data!r:.60}; expected an object with exactly {', '.join(fields)}")
    values = cast("dict[str, object]", data)
    return kind(**{name: _read(hint, values[name], f"{where}.{name}") for name, hint in fields.items()})
