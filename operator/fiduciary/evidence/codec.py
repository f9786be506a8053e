"""States to JSON and back, bit for bit.

Floats travel as their shortest decimal string: a JSON number may be rewritten on its way through the API server (1.0
becomes 1, -0.0 becomes 0) and formats differ between languages, a string is left alone and hashes the same everywhere.
Those of which a state holds thousands are :data:`fiduciary.evidence.packed.Packed`, and travel as base64.
"""

from __future__ import annotations

import binascii
import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any, TypeVar, cast

from fiduciary.evidence.packed import Packed, whole
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
        return cast("State", _decoder(kind)(data, kind.__name__))
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
    if kind is Packed:
        return _text
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


def _text(numbers: Any) -> str:
    return binascii.b2a_base64(numbers, newline=False).decode()


Decoder = Callable[[object, str], object]


@functools.cache
def _decoder(hint: Any) -> Decoder:
    """How a value of this type is read, made once; ``where`` is told only of what is wrong."""
    kind, item, state = _shape(hint)
    if item is not None:
        read = _tuple_decoder(item)
    elif state:
        read = _state_decoder(kind)
    elif kind is float:
        read = _read_float
    elif kind is Packed:
        read = _read_packed
    else:
        read = _exactly(kind)
    if kind is hint:
        return read
    return lambda data, where: None if data is None else read(data, where)


def _tuple_decoder(item: Any) -> Decoder:
    read, plain = _decoder(item), item in (int, str, bool)

    def decoded(data: object, where: str) -> object:
        if type(data) is not list:
            raise _MalformedError(f"{where} is {data!r:.60}; expected a list")
        values = cast("list[Any]", data)
        if item is float and (floats := _all_floats(values)) is not None:
            return floats
        if plain and set(map(type, values)) <= {item}:
            return tuple(values)
        return tuple([read(one, f"{where}[{i}]") for i, one in enumerate(values)])

    return decoded


def _state_decoder(kind: type[Any]) -> Decoder:
    fields = {name: (_decoder(hint), f".{name}") for name, hint in _fields(kind).items()}

    def decoded(data: object, where: str) -> object:
        if type(data) is not dict or cast("dict[str, object]", data).keys() != fields.keys():
            raise _MalformedError(f"{where} is {data!r:.60}; expected an object with exactly {', '.join(fields)}")
        values = cast("dict[str, object]", data)
        return kind(*[read(values[name], where + place) for name, (read, place) in fields.items()])

    return decoded


def _exactly(kind: type[Any]) -> Decoder:
    def decoded(data: object, where: str) -> object:
        if type(data) is not kind:
            raise _MalformedError(f"{where} is {data!r:.60}; expected {kind.__name__}")
        return data

    return decoded


def _all_floats(data: list[Any]) -> tuple[float, ...] | None:
    """Of a list in which nothing is wrong, as of thousands of scores; None: one of them has to be named."""
    try:
        values = tuple(map(float, data))
    except (TypeError, ValueError, OverflowError):
        return None
    return values if list(map(repr, values)) == data and all(map(math.isfinite, values)) else None


def _read_float(data: object, where: str) -> object:
    try:
        value = float(data) if isinstance(data, str) else math.nan
    except ValueError:
        value = math.nan
    # only what encode writes: other spellings would hash differently, and no state holds an infinity
    if math.isfinite(value) and repr(value) == data:
        return value
    raise _MalformedError(f"{where} is {data!r:.60}; expected the shortest decimal string of a finite number")


def _read_packed(data: object, where: str) -> object:
    try:
        content = binascii.a2b_base64(data) if isinstance(data, str) else None
    except ValueError:
        content = None
    # only what encode writes, as above
    if content is not None and _text(content) == data and whole(content):
        return Packed(content)
    raise _MalformedError(f"{where} is {data!r:.60}; expected finite numbers as base64")
