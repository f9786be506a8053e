"""The protocol over gRPC, by a real client."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import numpy as np
import pytest
from mlserver.grpc import dataplane_pb2 as pb
from mlserver.grpc import model_repository_pb2 as repository_pb
from mlserver.grpc.model_repository_pb2_grpc import ModelRepositoryServiceStub

from tests.server.served import NAME, Served, changes, message, serving, tensor, window

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Bars = Mapping[str, np.ndarray]


def test_an_answer_says_who_answered(linear: Served, bars: Bars) -> None:
    answer = linear.call(message(window(bars, 4000), id="mine"))
    assert (answer.model_name, answer.model_version, answer.id) == (NAME, "7", "mine")
    parameters = {name: value.string_param for name, value in answer.parameters.items()}
    assert parameters.pop("predictionId")
    assert parameters == {"version": "7", "digest": linear.digest}
    [output] = answer.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("prediction", "FP32", [1, 1])
    over_rest = linear.infer(window(bars, 4000)).json()["outputs"][0]["data"]
    assert list(output.contents.fp32_contents) == over_rest


def test_raw_contents_are_answered_with_raw_contents(linear: Served, bars: Bars) -> None:
    body = window(bars, 4000)
    body["inputs"].append({"name": "entity", "datatype": "BYTES", "shape": [1], "data": ["SPX"]})
    plain, raw = linear.call(message(body)), linear.call(message(body, raw=True))
    assert not raw.outputs[0].contents.fp32_contents
    assert list(np.frombuffer(raw.raw_output_contents[0], "<f4")) == list(plain.outputs[0].contents.fp32_contents)


def test_metadata_carries_the_example(linear: Served) -> None:
    metadata = linear.stub.ModelMetadata(pb.ModelMetadataRequest(name=NAME))
    assert metadata.parameters["digest"].string_param == linear.digest
    example = json.loads(metadata.parameters["exampleRequest"].string_param)
    assert linear.call(message(example)).outputs[0].name == metadata.outputs[0].name
    assert [given.name for given in metadata.inputs][:5] == ["open", "high", "low", "close", "volume"]


def test_health(linear: Served) -> None:
    assert linear.stub.ServerLive(pb.ServerLiveRequest()).live
    assert linear.stub.ServerReady(pb.ServerReadyRequest()).ready
    assert linear.stub.ModelReady(pb.ModelReadyRequest(name=NAME)).ready
    assert linear.stub.ServerMetadata(pb.ServerMetadataRequest()).name == "fiduciary"


Change = "Callable[[pb.ModelInferRequest], Any]"
BAD: dict[str, tuple[Any, grpc.StatusCode, str]] = {
    "unknown version": (
        lambda r: setattr(r, "model_version", "8"),
        grpc.StatusCode.NOT_FOUND,
        "version '8' of quant.spx-volatility is not served here",
    ),
    "tensor missing": (
        lambda r: r.inputs.pop(),
        grpc.StatusCode.INVALID_ARGUMENT,
        "no tensor 'volume'",
    ),
    "wrong type": (
        lambda r: setattr(r.inputs[0], "datatype", "BOOL"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "datatype 'BOOL'; expected FP64",
    ),
    "wrong contents": (
        lambda r: r.inputs[0].contents.Clear(),
        grpc.StatusCode.INVALID_ARGUMENT,
        "has 0 values; its shape [66] says 66",
    ),
    "another type's contents": (
        lambda r: setattr(r.inputs[0], "datatype", "FP32"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "has 0 values",
    ),
    "wrong shape": (
        lambda r: r.inputs[0].shape.append(2),
        grpc.StatusCode.INVALID_ARGUMENT,
        "expected the same for each",
    ),
    "negative shape": (
        lambda r: r.inputs[0].shape.__setitem__(0, -66),
        grpc.StatusCode.INVALID_ARGUMENT,
        "expected positive integers",
    ),
    "NaN in the last row": (
        lambda r: r.inputs[3].contents.fp64_contents.__setitem__(65, float("nan")),
        grpc.StatusCode.INVALID_ARGUMENT,
        "cannot be computed",
    ),
    "infinite": (
        lambda r: r.inputs[3].contents.fp64_contents.__setitem__(10, float("inf")),
        grpc.StatusCode.INVALID_ARGUMENT,
        "infinite number",
    ),
    "out of range": (
        lambda r: [
            r.inputs[place].contents.fp64_contents.__setitem__(65, price)
            for place, price in enumerate((1e9, 3e9, 5e8, 2e9))
        ],
        grpc.StatusCode.INVALID_ARGUMENT,
        "ten times the range of training",
    ),
    "raw contents of another number": (
        lambda r: r.raw_input_contents.append(b"12345678"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "raw_input_contents has 1 entries for 5 inputs",
    ),
    "raw contents that break off": (
        lambda r: r.raw_input_contents.extend([b"1234567"] * 5),
        grpc.StatusCode.INVALID_ARGUMENT,
        "have 7 bytes; expected 8 for each FP64",
    ),
    "another output": (
        lambda r: r.outputs.add(name="variance"),
        grpc.StatusCode.INVALID_ARGUMENT,
        "this model gives 'prediction'",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_request_is_told_what_is_wrong(linear: Served, bars: Bars, what: str) -> None:
    change, code, expected = BAD[what]
    request = message(window(bars, 4000))
    change(request)
    before = linear.counters()
    with pytest.raises(grpc.RpcError) as caught:
        linear.call(request)
    assert caught.value.code() == code, caught.value.details()
    assert expected in caught.value.details()
    assert "Traceback" not in caught.value.details()
    assert dict(caught.value.trailing_metadata())["fiduciary-version"] == "7"
    assert changes(before, linear.counters()) == {
        "fiduciary_requests_started_total{protocol=grpc}": 1,
        "fiduciary_requests_total{outcome=client_error,protocol=grpc}": 1,
        "fiduciary_request_seconds_count{protocol=grpc}": 1,
    }


@pytest.mark.parametrize(
    ("metadata", "seen"), [((), "is missing"), ((("fiduciary-model", "quant.other"),), "is 'quant.other'")]
)
def test_metadata_that_the_route_would_not_match(
    linear: Served, bars: Bars, metadata: tuple[tuple[str, str], ...], seen: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        linear.call(message(window(bars, 4000)), metadata)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert f"metadata fiduciary-model {seen}; expected {NAME}" in caught.value.details()


def test_another_model_is_not_found_and_makes_no_series(linear: Served, bars: Bars) -> None:
    request = message(window(bars, 4000))
    request.model_name = "quant.other"
    before = linear.counters()
    with pytest.raises(grpc.RpcError) as caught:
        linear.call(request)
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    for call in (
        lambda: linear.stub.ModelReady(pb.ModelReadyRequest(name="quant.other")),
        lambda: linear.stub.ModelMetadata(pb.ModelMetadataRequest(name="quant.other")),
        lambda: linear.stub.ModelMetadata(pb.ModelMetadataRequest(name=NAME, version="8")),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert changes(before, linear.counters()) == {}


def test_ten_megabytes(linear: Served) -> None:
    body = {"inputs": [tensor("features", np.zeros((90_000, 14)))]}
    with pytest.raises(grpc.RpcError) as caught:
        linear.call(message(body, raw=True))
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "at most 4194304" in caught.value.details()
    with pytest.raises(grpc.RpcError) as caught:
        linear.call(message({"inputs": [tensor("features", np.zeros((200_000, 14)))]}, raw=True))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED, "above 16 MiB gRPC itself refuses"


def test_streams_and_the_repository_are_not_served(linear: Served) -> None:
    """MLServer would let anybody unload the model."""
    calls: list[Callable[[], Any]] = [
        lambda: list(linear.stub.ModelStreamInfer(iter([pb.ModelInferRequest(model_name=NAME)]))),
        lambda: linear.stub.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name=NAME)),
        lambda: linear.stub.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name=NAME)),
        lambda: linear.stub.RepositoryIndex(pb.RepositoryIndexRequest()),
        lambda: ModelRepositoryServiceStub(linear.channel).RepositoryModelUnload(
            repository_pb.RepositoryModelUnloadRequest(model_name=NAME)
        ),
    ]
    for call in calls:
        with pytest.raises(grpc.RpcError) as caught:
            call()
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
    assert linear.http.get("/v2/health/ready").status_code == 200


@pytest.mark.parametrize("name", ["crashing", "nan"])
def test_a_model_that_fails_on_some_inputs(versions: Path, bars: Bars, name: str) -> None:
    with serving(versions / name) as served:
        turmoil = int(np.argmax(bars["time"] == "2008-10-10"))
        before = served.counters()
        with pytest.raises(grpc.RpcError) as caught:
            served.call(message(window(bars, turmoil)))
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert "the model" in caught.value.details()
        assert "Traceback" not in caught.value.details()
        moved = changes(before, served.counters())
        assert moved["fiduciary_requests_total{outcome=server_error,protocol=grpc}"] == 1


def test_no_metrics_but_ours(linear: Served) -> None:
    text = httpx.get(f"http://127.0.0.1:{linear.metrics_port}/metrics", trust_env=False).text
    names = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {name for name in names if not name.startswith("process_")} == {
        "fiduciary_requests_started_total", "fiduciary_requests_total", "fiduciary_request_seconds",
        "fiduciary_probes_started_total", "fiduciary_probes_total",
        "fiduciary_records_total", "fiduciary_records_dropped_total", "fiduciary_reference_info",
    }  # fmt: skip
    assert httpx.get(f"http://127.0.0.1:{linear.metrics_port}/other", trust_env=False).status_code == 404
