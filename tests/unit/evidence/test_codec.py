"""What is stored comes back with the same bits, and nothing else is taken for a state."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary.evidence.codec import decode, encode
from fiduciary.evidence.packed import EMPTY, Packed, packed, unpacked, with_one
from fiduciary.evidence.refusal import Refusal, Why


@dataclass(frozen=True)
class Inner:
    x: float


@dataclass(frozen=True)
class Outer:
    n: int
    values: tuple[float, ...]
    inner: Inner
    parts: tuple[Inner, ...]
    late: float | None
    many: Packed = EMPTY


def bits(x: float) -> bytes:
    return struct.pack("<d", x)


NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


@given(NUMBERS, st.lists(NUMBERS), st.none() | NUMBERS)
def test_round_trip_bit_for_bit(x: float, values: list[float], late: float | None) -> None:
    state = Outer(3, tuple(values), Inner(x), (Inner(x), Inner(-0.0)), late, packed(values))
    back = decode(Outer, json.loads(json.dumps(encode(state), allow_nan=False)))
    assert isinstance(back, Outer)
    assert back == state
    assert bits(back.inner.x) == bits(x)
    assert bits(back.parts[1].x) == bits(-0.0)
    assert list(map(bits, unpacked(back.many))) == list(map(bits, values))


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        {},
        {"x": 1.0},
        {"x": "one"},
        {"x": "nan"},
        {"x": "inf"},
        {"x": "1"},
        {"x": None},
        {"x": "1.0", "y": "2.0"},
    ],
)
def test_anything_else_is_refused(data: object) -> None:
    refused = decode(Inner, data)
    assert isinstance(refused, Refusal)
    assert refused.why is Why.MALFORMED


@dataclass(frozen=True)
class Lists:
    values: tuple[float, ...]
    names: tuple[str, ...]
    bins: tuple[int, ...]


NO_FLOATS: tuple[object, ...] = ("1", "nan", "inf", "x", 1.0, 1, True, None, {}, 10**400)
NO_INTEGERS: tuple[object, ...] = (True, 1.0, "1", None)
WRONG: list[tuple[str, dict[str, object]]] = [
    *(("values[1]", {"values": ["1.0", bad]}) for bad in NO_FLOATS),
    ("names[0]", {"names": [1, "a"]}),
    *(("bins[1]", {"bins": [1, bad]}) for bad in NO_INTEGERS),
    ("values", {"values": "1.0"}),
]


@pytest.mark.parametrize(("where", "change"), WRONG)
def test_what_is_wrong_in_a_list_is_named_by_its_place(where: str, change: dict[str, object]) -> None:
    right: dict[str, object] = {"values": ["1.0", "-0.0"], "names": ["a"], "bins": [1, 2]}
    assert decode(Lists, right) == Lists((1.0, -0.0), ("a",), (1, 2))
    refused = decode(Lists, {**right, **change})
    assert isinstance(refused, Refusal)
    assert refused.message.startswith(f"Lists.{where} is ")


def test_an_integer_in_a_float_field_is_written_as_the_float_that_it_means() -> None:
    assert encode(Inner(2)) == {"x": "2.0"}


@dataclass(frozen=True)
class Many:
    numbers: Packed


@pytest.mark.parametrize(
    "text",
    [
        None,
        [],
        ["1.0"],
        "1.0",
        "AAAAAAAA8D8",  # no padding
        "AAAAAAAA8D8=\n",
        "AAAAAAAA8A==",  # seven bytes
        "AAAAAAAA8H8=",  # infinity
        "AAAAAAAA+H8=",  # no number
        "é",
    ],
)
def test_what_are_no_packed_numbers_is_refused(text: object) -> None:
    assert decode(Many, {"numbers": "AAAAAAAA8D8="}) == Many(packed([1.0]))
    refused = decode(Many, {"numbers": text})
    assert isinstance(refused, Refusal)
    assert refused.why is Why.MALFORMED
    assert "Many.numbers" in refused.message


@given(st.lists(NUMBERS, min_size=1), NUMBERS, st.data())
def test_one_more_number_goes_where_it_is_put(values: list[float], one: float, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(values)))
    found = with_one(packed(values), place, one)
    assert found == packed([*values[:place], one, *values[place:]])
