"""Messages of the Open Inference Protocol, byte by byte, and any bytes that a server could send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fiduciary.clients import oip


def test_a_request_in_bytes() -> None:
    request = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1.0, 2.0]}]}
    tensor = b"\x0a\x01x" + b"\x12\x04FP32" + b"\x1a\x01\x02" + b"\x2a\x0a" + b"\x32\x08\x00\x00\x80?\x00\x00\x00@"
    assert oip.infer_request("m", request) == b"\x0a\x01m" + b"\x2a" + bytes([len(tensor)]) + tensor


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, b"\x08\x01"),
        (300, b"\x10\xac\x02"),
        (-1, b"\x10" + b"\xff" * 9 + b"\x01"),
        (0.5, b"\x21" + b"\x00" * 6 + b"\xe0?"),
        ("day", b"\x1a\x03day"),
    ],
)
def test_a_parameter_has_the_type_of_its_value(value: object, message: bytes) -> None:
    request = oip.infer_request("", {"parameters": {"p": value}, "inputs": []})
    assert request.endswith(b"\x12" + bytes([len(message)]) + message)


def test_an_unknown_datatype_is_refused_by_name() -> None:
    with pytest.raises(oip.MessageError, match="datatype BF16 cannot be sent"):
        oip.infer_request("m", {"inputs": [{"name": "x", "datatype": "BF16", "shape": [1], "data": [1]}]})


def test_fields_of_other_types_are_passed_over() -> None:
    number = b"\x0a\x01a\x12\x02\x10\x05"  # a parameter that is no text
    message = (
        b"\x12\x017" + b"\x22" + bytes([len(number)]) + number + b"\x38\x05" + b"\x41" + b"\0" * 8 + b"\x4d\0\0\0\0"
    )
    assert oip.infer_response(message) == ("7", {})


@given(st.binary(max_size=64))
def test_any_bytes_are_a_response_or_refused(body: bytes) -> None:
    try:
        version, parameters = oip.infer_response(body)
    except oip.MessageError:
        return
    assert isinstance(version, str)
    assert all(isinstance(value, str) for value in parameters.values())
