"""Whatever a client sends, the answer is a prediction or a sentence: never an error of ours."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlserver import ModelSettings
from mlserver.errors import MLServerError
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.settings import ModelParameters

from fiduciary_server.life import Life
from fiduciary_server.rest import Rest
from fiduciary_server.rpc import Rpc
from fiduciary_server.runtime import FiduciaryRuntime
from tests.server.served import COLUMNS, NAME, digest_of, document, message, window

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Bars = Mapping[str, np.ndarray]


@pytest.fixture(scope="module")
def runtime(versions: Path) -> FiduciaryRuntime:
    folder = versions / "linear"
    parameters = ModelParameters(
        uri=str(folder), version="7", extra={"serving": json.dumps(document(digest_of(folder)))}
    )
    model = FiduciaryRuntime(ModelSettings(name=NAME, implementation=FiduciaryRuntime, parameters=parameters))
    model.ready = asyncio.run(model.load())
    return model


numbers = st.one_of(st.integers(), st.floats(), st.integers(-(2**70), 2**70))
anything: Any = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
names = st.one_of(st.sampled_from([*COLUMNS, "features", "time", "entity"]), anything)
kinds = st.one_of(st.sampled_from(["FP64", "FP32", "INT64", "INT32", "BYTES", "BOOL"]), anything)
shapes = st.one_of(st.lists(st.integers(-2, 80), max_size=3), st.just([66]), st.just([1, 14]), anything)
data = st.one_of(st.lists(numbers, max_size=80), st.just([100.0] * 66), st.just([-5.0] * 14), anything)
tensors = st.fixed_dictionaries({"name": names, "datatype": kinds, "shape": shapes, "data": data})
requests = st.fixed_dictionaries(
    {"inputs": st.one_of(st.lists(st.one_of(tensors, anything), max_size=7), anything)},
    optional={"id": anything, "outputs": anything, "parameters": anything},
)


def refusal(refused: MLServerError) -> str:
    """The sentence of a refusal, which is the client's fault."""
    assert 400 <= refused.status_code < 500
    assert str(refused)
    return str(refused)


def answer(runtime: FiduciaryRuntime, body: bytes) -> str:
    try:
        content, _ = Rest(runtime, Life(runtime))._predict(body, False, None)
    except MLServerError as refused:
        return refusal(refused)
    assert np.isfinite(json.loads(content)["outputs"][0]["data"]).all()
    return ""


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests)
def test_any_document(runtime: FiduciaryRuntime, body: dict[str, Any]) -> None:
    # json writes NaN and Infinity, which are no JSON: those are refused as a whole.
    answer(runtime, json.dumps(body).encode())


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes(runtime: FiduciaryRuntime, body: bytes) -> None:
    assert answer(runtime, body)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_good_request_with_one_thing_replaced(runtime: FiduciaryRuntime, bars: Bars, draw: st.DataObject) -> None:
    body = window(bars, 4000)
    given_tensor = body["inputs"][draw.draw(st.integers(0, 4))]
    field = draw.draw(st.sampled_from(["name", "datatype", "shape", "data", "value"]))
    if field == "value":
        given_tensor["data"][draw.draw(st.integers(0, 65))] = draw.draw(st.one_of(numbers, anything))
    else:
        given_tensor[field] = draw.draw({"name": names, "datatype": kinds, "shape": shapes, "data": data}[field])
    answer(runtime, json.dumps(body).encode())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_message(runtime: FiduciaryRuntime, bars: Bars, draw: st.DataObject) -> None:
    """Over gRPC: typed contents, raw ones, both, of any length."""
    request = message(window(bars, 4000), raw=draw.draw(st.booleans()))
    tensor = request.inputs[draw.draw(st.integers(0, 4))]
    what = draw.draw(st.sampled_from(["datatype", "shape", "raw", "contents", "bytes", "name"]))
    if what == "datatype":
        tensor.datatype = draw.draw(st.sampled_from(["FP64", "FP32", "INT64", "INT32", "BYTES", "BOOL", "", "x"]))
    elif what == "shape":
        del tensor.shape[:]
        tensor.shape.extend(draw.draw(st.lists(st.integers(-(2**62), 2**62), max_size=3)))
    elif what == "raw":
        request.raw_input_contents.extend(draw.draw(st.lists(st.binary(max_size=64), max_size=6)))
    elif what == "contents":
        tensor.contents.fp64_contents.extend(draw.draw(st.lists(st.floats(), max_size=4)))
    elif what == "bytes":
        added = request.inputs.add(name="entity", datatype="BYTES", shape=[1])
        added.contents.bytes_contents.append(draw.draw(st.binary(max_size=300)))
        if request.raw_input_contents:
            request.raw_input_contents.append(draw.draw(st.binary(max_size=16)))
    else:
        tensor.name = draw.draw(st.text(max_size=8))
    try:
        done = Rpc(runtime, Life(runtime))._predict(request, {"fiduciary-model": NAME}, request.ByteSize(), False)
    except MLServerError as refused:
        refusal(refused)
    else:
        assert isinstance(done, pb.ModelInferResponse)
